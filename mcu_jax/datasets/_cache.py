"""Decoded images on disk: one npz a set, trusted only if it still has the hash it was written with."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator

import numpy as np

from mcu_jax import base, text
from mcu_jax.datasets import _data

_AT_ONCE = 1000
"""Images whose digest is made at once."""
_ARRAYS = ("train_x", "train_y", "test_x", "test_y")


def cache_directory() -> pathlib.Path:
    """$MCU_JAX_CACHE, else mcu_jax in the user's cache directory."""
    import platformdirs

    return pathlib.Path(os.environ.get("MCU_JAX_CACHE") or platformdirs.user_cache_dir("mcu_jax"))


def path(key: str) -> pathlib.Path:
    """The file of a set."""
    return cache_directory() / f"{key}.npz"


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


def mapped(key: str, decode: Callable[[], Iterator[np.ndarray]], count: int) -> np.ndarray:
    """So many images [n, h, w, c] uint8, memory-mapped from a file of this key, or decoded into one; where the cache
    directory cannot be written, in memory. A file that does not have the digest it was written with is made again.
    """
    file = cache_directory() / f"{key}.npy"
    if (stored := _mapped(file)) is not None:
        return stored
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=file.parent, suffix=".part")
    except OSError:
        return np.stack(list(decode()))
    os.close(handle)
    try:
        images, opened, digest = decode(), None, hashlib.sha256()
        for i, image in enumerate(images):
            if opened is None:
                shape = (count, *image.shape)
                _check_room(part, math.prod(shape))
                opened = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
            opened[i] = image
            digest.update(np.ascontiguousarray(image).data)
        assert opened is not None
        opened.flush()
        del opened
        os.replace(part, file)
        _digest_file(file).write_text(digest.hexdigest())
    except BaseException:
        pathlib.Path(part).unlink(missing_ok=True)
        raise
    return np.load(file, mmap_mode="r")


def _check_room(file: str, size: int) -> None:
    """Raises UserError where the disk has no room: a mapped file that outgrows it ends the process."""
    free = shutil.disk_usage(os.path.dirname(file)).free
    if size > free:
        raise base.UserError(
            f"the decoded pictures take {size / 1e9:.1f} GB, {text.plain(os.path.dirname(file))} has room for "
            f"{free / 1e9:.1f} GB: ask for smaller ones, or name a roomier place by MCU_JAX_CACHE"
        )


def _digest_file(file: pathlib.Path) -> pathlib.Path:
    return file.with_suffix(".sha256")


def _mapped(file: pathlib.Path) -> np.ndarray | None:
    """None where the file is missing or damaged."""
    try:
        expected, stored = _digest_file(file).read_text(), np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    digest = hashlib.sha256()
    for start in range(0, len(stored), _AT_ONCE):
        digest.update(np.ascontiguousarray(stored[start : start + _AT_ONCE]).data)
    return stored if digest.hexdigest() == expected else None
