"""Which examples are trained on, validated on, forgotten: seeded, saved with the hash of the data's canonical order."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mcu_jax import disk, text
from mcu_jax.base import UserError

_SHOWN = 20
"""Of the classes, in a message."""


class SplitError(UserError):
    """A split that cannot be made, or does not belong to the data."""


class DamagedIndicesError(SplitError):
    """An index file that is not what was saved."""


@dataclasses.dataclass(frozen=True)
class Indices:
    """Indices into a data set's canonical training and test order, each sorted.

    train and validation: fixed by the split seed. forget and retain partition train; forgotten_class: the class of a
    class-wise request, else None. data_hash: of the canonical order they index.
    """

    data_hash: str
    train: np.ndarray
    validation: np.ndarray
    forget: np.ndarray
    retain: np.ndarray
    forgotten_class: int | None = None


def carve(n: int, train_size: int | None, validation_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(train, validation) indices out of n training examples; `train_size=None`: all that validation leaves.

    Nested: for one seed a smaller training set lies within a larger one. Raises SplitError when there are too few.
    """
    if train_size is None:
        train_size = n - validation_size
    if train_size < 1:
        raise SplitError(
            f"the training set is empty: of {n} training examples a validation size of {validation_size} leaves none; "
            "give a smaller one (--validation-size)"
        )
    if validation_size < 1:
        raise SplitError(f"the validation set is empty: give a validation size of at least 1, given {validation_size}")
    if train_size + validation_size > n:
        raise SplitError(
            f"train size {train_size} + validation size {validation_size} is more than the {n} training examples given"
        )
    order = np.random.default_rng([seed, 0]).permutation(n)
    return np.sort(order[validation_size : validation_size + train_size]), np.sort(order[:validation_size])


def random_forget(train: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(forget, retain): a random `round(fraction · n)` of the training indices. Nested in the fraction for one seed.

    Raises SplitError for a fraction outside (0, 1) and for an empty forget or retain set.
    """
    if not 0 < fraction < 1:
        raise SplitError(f"a forget fraction lies inside (0, 1), given {fraction}")
    count = round(fraction * len(train))
    if count == 0 or count == len(train):
        empty = "forget" if count == 0 else "retain"
        raise SplitError(f"the {empty} set is empty: fraction {fraction} of {len(train)} training examples is {count}")
    order = np.random.default_rng([seed, 1]).permutation(len(train))
    return np.sort(train[order[:count]]), np.sort(train[order[count:]])


def class_forget(train: np.ndarray, labels: np.ndarray, forgotten: int) -> tuple[np.ndarray, np.ndarray]:
    """(forget, retain): every training example of one class. labels: of the whole canonical training order.

    Raises SplitError when the class, or everything but the class, is missing from the training set.
    """
    hit = labels[train] == forgotten
    if not hit.any():
        raise SplitError(f"the forget set is empty: no training example of class {forgotten} among {len(train)}")
    if hit.all():
        raise SplitError(f"the retain set is empty: all {len(train)} training examples are of class {forgotten}")
    return train[hit], train[~hit]


def class_index(name: str, class_names: Sequence[str]) -> int:
    """A class by name or by number. Raises SplitError, listing the classes, where there is none."""
    if name in class_names:
        return list(class_names).index(name)
    if name.isdecimal() and len(name) < 10 and int(name) < len(class_names):
        return int(name)
    shown = [f"{i} ({text.plain(c)})" if str(i) != c else c for i, c in enumerate(class_names[:_SHOWN])]
    more = f", … {len(class_names)} in all" if len(class_names) > _SHOWN else ""
    raise SplitError(f"there is no class {text.show(name)}; the classes are: {', '.join(shown)}{more}")


def save(indices: Indices, file: str | pathlib.Path) -> None:
    """Writes an index file (JSON), all or nothing, with a digest of what it says."""
    fields = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in dataclasses.asdict(indices).items()}
    disk.write(pathlib.Path(file), json.dumps({**fields, "sha256": _digest(fields)}) + "\n")


def load(file: str | pathlib.Path, data_hash: str) -> Indices:
    """Reads an index file. Raises DamagedIndicesError, or SplitError where it was made for data of another hash."""
    try:
        fields: dict[str, Any] = json.loads(pathlib.Path(file).read_text())
        intact = fields.pop("sha256") == _digest(fields)
        arrays = {k: np.array(fields[k], dtype=np.int64) for k in ("train", "validation", "forget", "retain")}
        indices = Indices(data_hash=fields["data_hash"], forgotten_class=fields["forgotten_class"], **arrays)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DamagedIndicesError(f"index file {file} is not readable ({type(error).__name__})") from error
    if not intact:
        raise DamagedIndicesError(f"index file {file} is damaged: it is not as it was saved")
    if indices.data_hash != data_hash:
        raise SplitError(
            f"index file {file} was made for data of hash {indices.data_hash[:12]}…, this data has {data_hash[:12]}…: "
            "its indices would mean other examples. Use the data it was made for, or another directory"
        )
    return indices


def _digest(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
