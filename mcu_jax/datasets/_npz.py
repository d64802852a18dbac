from __future__ import annotations

import os
import pathlib

import numpy as np

from mcu_jax import _archives, base, text
from mcu_jax.datasets import _data

_NAMES = ("train_x", "train_y", "test_x", "test_y")


def npz(file: str | os.PathLike[str]) -> _data.Data:
    """One's own arrays from a file of `numpy.savez(file, train_x=…, train_y=…, test_x=…, test_y=…)`, in their order.

    x: [n, ...] uint8 (images) or floats, kept as float32. y: [n] whole numbers from 0 on; there are as many classes as
    the largest says. Raises UserError, naming the array, for what cannot be used.
    """
    arrays = _archives.read(file, "the data file", _NAMES)
    try:
        train, test = (_split(arrays, part) for part in ("train", "test"))
        if train["x"].shape[1:] != test["x"].shape[1:] or train["x"].dtype != test["x"].dtype:
            shapes = [f"{list(x.shape[1:])}, {x.dtype}" for x in (train["x"], test["x"])]
            raise base.UserError(f"an example of train_x is {shapes[0]}, one of test_x is {shapes[1]}")
    except base.UserError as error:
        raise base.UserError(f"the data file {text.plain(file)} cannot be used: {error}") from error
    return _data.arrays(train, test, name=pathlib.Path(file).stem)


def _split(arrays: dict[str, np.ndarray], part: str) -> base.Batch:
    x, y = arrays[f"{part}_x"], arrays[f"{part}_y"]
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise base.UserError(f"{part}_x must be uint8 or floats, it is {x.dtype}")
    if x.ndim < 2 or y.shape != x.shape[:1] or not len(y):
        raise base.UserError(
            f"{part}_x [n, ...] and {part}_y [n] must be as long as each other, and not empty; "
            f"they are {list(x.shape)} and {list(y.shape)}"
        )
    if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= 100_000:
        found = f"{y.dtype} from {y.min()} to {y.max()}" if y.dtype.kind in "iuf" else f"{y.dtype}"
        raise base.UserError(f"{part}_y must be whole numbers from 0 on, below 100000; it is {found}")
    if x.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what is too large is not finite
            x = x.astype(np.float32)
        bad = ~np.isfinite(x).reshape(len(x), -1).all(axis=1)
        if bad.any():
            count = text.plural(int(bad.sum()), "example")
            raise base.UserError(f"{part}_x is not finite as float32 in {count}, the first {int(bad.argmax())}")
    return {"x": x, "y": y.astype(np.int32)}
