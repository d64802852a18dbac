from __future__ import annotations

import hashlib
from typing import NamedTuple

import jax
import numpy as np

from mcu_jax import base


class Data(NamedTuple):
    """A data set in its canonical order: training examples, then test examples, held once.

    examples: a Batch of x uint8 [n, h, w, c] and y int32 [n]; the first `train_size` are for training. hash: sha256 of
    them in this order; indices into the set mean nothing without it.
    """

    name: str
    examples: base.Batch
    train_size: int
    class_names: tuple[str, ...]
    hash: str
    augment: base.Augment | None

    @property
    def train(self) -> base.Batch:
        """A view."""
        return jax.tree.map(lambda leaf: leaf[: self.train_size], dict(self.examples))

    @property
    def test(self) -> base.Batch:
        """A view; its example i is example `train_size` + i of the set."""
        return jax.tree.map(lambda leaf: leaf[self.train_size :], dict(self.examples))


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
    """sha256, in hex, over dtypes, shapes and bytes of train x, train y, test x, test y."""
    total = hashlib.sha256()
    for array in (train["x"], train["y"], test["x"], test["y"]):
        total.update(f"{array.dtype.str}{array.shape}".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()
