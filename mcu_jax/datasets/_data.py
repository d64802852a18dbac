from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

from mcu_jax import base


class Data(NamedTuple):
    """A data set in its canonical order: x uint8 [n, h, w, c], y int32 [n].

    hash: sha256 of the images and labels in this order; indices into the set mean nothing without it.
    """

    name: str
    train: base.Split
    test: base.Split
    class_names: tuple[str, ...]
    hash: str
    augment: base.Augment | None


def digest(train: base.Split, test: base.Split) -> str:
    """sha256, in hex, over dtypes, shapes and bytes of train x, train y, test x, test y."""
    total = hashlib.sha256()
    for array in (*train, *test):
        total.update(f"{array.dtype.str}{array.shape}".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()
