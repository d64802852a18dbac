"""Decoded images on disk: one npz a set, trusted only if it still has the hash it was written with."""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
import zipfile

import numpy as np

from mcu_jax import base
from mcu_jax.datasets import _data

_ARRAYS = ("train_x", "train_y", "test_x", "test_y")


def path(key: str) -> pathlib.Path:
    """The file of a set, in $MCU_JAX_CACHE, else mcu_jax in the user's cache directory."""
    folder = os.environ.get("MCU_JAX_CACHE")
    if not folder:
        user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folder = os.path.join(user, "mcu_jax")
    return pathlib.Path(folder) / f"{key}.npz"


def read(file: pathlib.Path) -> tuple[base.Batch, base.Batch, str] | None:
    """(train, test, hash), or None where the file is missing or damaged."""
    try:
        # Opened here: np.load leaves a file open that it cannot read.
        with file.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
            train_x, train_y, test_x, test_y = (stored[name] for name in _ARRAYS)
            expected = str(stored["hash"])
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile):
        return None
    train, test = {"x": train_x, "y": train_y}, {"x": test_x, "y": test_y}
    return (train, test, expected) if _data.digest(train, test) == expected else None


def write(file: pathlib.Path, train: base.Batch, test: base.Batch, digest: str) -> None:
    """Atomic. Does nothing where the directory cannot be written: the cache only saves time."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as out:
                arrays = dict(zip(_ARRAYS, (train["x"], train["y"], test["x"], test["y"]), strict=True))
                np.savez(out, allow_pickle=False, hash=np.array(digest), **arrays)
            os.replace(name, file)
        except BaseException:
            os.unlink(name)
            raise
