from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from mcu_jax import base, sources, text


class Data(NamedTuple):
    """A data set in its canonical order: training examples, then test examples, held once.

    examples: a Batch with labels y int32 [n], of images x uint8 [n, h, w, c]; the first `train_size` are for training.
    hash: sha256 of them in this order; indices into the set mean nothing without it. One's own: `arrays`. class_list:
    sha256 of the file that chose and ordered its classes, where there is one.
    """

    name: str
    examples: base.Batch
    train_size: int
    class_names: tuple[str, ...]
    hash: str
    augment: base.Augment | None
    class_list: str | None = None

    @property
    def train(self) -> base.Batch:
        """A view."""
        return jax.tree.map(lambda leaf: leaf[: self.train_size], dict(self.examples))

    @property
    def test(self) -> base.Batch:
        """A view; its example i is example `train_size` + i of the set."""
        return jax.tree.map(lambda leaf: leaf[self.train_size :], dict(self.examples))


def place(given: str | os.PathLike[str], what: str) -> pathlib.Path:
    """As a path, `~` and `~user` as their homes. Raises UserError for one that no file system has."""
    try:
        found = pathlib.Path(given).expanduser()
        found.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in it; no such user
        why = getattr(error, "strerror", None) or error
        raise base.UserError(f"{what} cannot be {text.plain(given)}: {text.plain(why)}; choose another") from error
    return found


def join(
    name: str,
    train: base.Batch,
    test: base.Batch,
    class_names: tuple[str, ...],
    hash: str,
    augment: base.Augment | None,
) -> Data:
    """A data set from its two parts."""
    examples = jax.tree.map(lambda *parts: np.concatenate(parts), dict(train), dict(test))
    return Data(name, examples, len(train["y"]), class_names, hash, augment)


def digest(train: base.Batch, test: base.Batch) -> str:
    """sha256, in hex, over dtypes, shapes and bytes of train x, train y, test x, test y; of other inputs, names too."""
    total = hashlib.sha256()
    for part in (train, test):
        for name, array in sorted(part.items()):
            total.update(f"{'' if name in ('x', 'y') else name}{array.dtype.str}{array.shape}".encode())
            total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


MOST_CLASSES = 100_000


def arrays(
    train: base.Batch,
    test: base.Batch,
    *,
    name: str = "own",
    class_names: Sequence[str] | None = None,
    augment: base.Augment | None = None,
) -> Data:
    """One's own arrays as a data set, in their order: dicts of arrays [n, …], labels [n] under "y".

    Labels are kept as int32, floats as float32. class_names: by default as many numbers as the largest label asks for.
    augment: training augmentation. Raises UserError for arrays that differ in length, or between the two parts in
    names, shapes or dtypes, for labels that are not whole numbers from 0 on, below 100,000, and for fewer names.
    """
    parts = [{key: _kept(np.asarray(value)) for key, value in part.items()} for part in (train, test)]
    for part in parts:
        labels = part.get("y", np.zeros(0))
        if not sources.length(part) or labels.ndim != 1 or labels.dtype != np.int32 or not _in_range(labels):
            given = ", ".join(f"{key} {value.dtype}{list(value.shape)}" for key, value in part.items())
            raise base.UserError(
                f"a data set has labels 'y' [n], whole numbers from 0 to {MOST_CLASSES - 1}, one an example; "
                f"given {given}"
            )
    kinds = [{key: (value.dtype, value.shape[1:]) for key, value in part.items()} for part in parts]
    if kinds[0] != kinds[1]:
        given = " and ".join(
            ", ".join(f"{key} {dtype}{list(shape)}" for key, (dtype, shape) in kind.items()) for kind in kinds
        )
        raise base.UserError(f"training and test examples are of the same arrays, shapes and dtypes; given {given}")
    most = int(max(part["y"].max() for part in parts))
    classes = tuple(map(text.printable, class_names or map(str, range(most + 1))))
    if most >= len(classes):
        raise base.UserError(
            f"class_names has {text.plural(len(classes), 'name')}, expected one for every label; they go up to {most}"
        )
    return join(name, parts[0], parts[1], classes, digest(*parts), augment)


def _kept(array: np.ndarray) -> np.ndarray:
    """Whole numbers that are none in int32 stay what they are."""
    if array.dtype.kind == "i" and not np.array_equal(array, array.astype(np.int32)):
        return array
    with np.errstate(over="ignore"):
        return array.astype({"f": np.float32, "i": np.int32}.get(array.dtype.kind, array.dtype))


def _in_range(labels: np.ndarray) -> bool:
    return bool(labels.min() >= 0 and labels.max() < MOST_CLASSES)


def check(data: Data) -> Data:
    """The same. Raises UserError unless its hash is that of its examples: results are known by it."""
    n = sources.length(data.examples)
    if not 0 < data.train_size < n:
        raise base.UserError(f"a data set has training and test examples; of {n}, {data.train_size} are for training")
    if "y" not in data.examples or digest(data.train, data.test) != data.hash:
        raise base.UserError(
            "the hash of this data set is not that of its examples; make one by datasets.arrays(train, test), with "
            "labels 'y' [n]"
        )
    return data
