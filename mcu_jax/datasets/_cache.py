"""Decoded images on disk: a memory-mapped file a set, trusted only where the examples have the hash that was kept."""

from __future__ import annotations

import math
import os
import pathlib
import shutil
import zipfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from mcu_jax import base, disk, memory, text
from mcu_jax.datasets import _data


def cache_directory() -> pathlib.Path:
    """$MCU_JAX_CACHE, else mcu_jax in the user's cache directory."""
    import platformdirs

    return pathlib.Path(os.environ.get("MCU_JAX_CACHE") or platformdirs.user_cache_dir("mcu_jax"))


class Sizes(NamedTuple):
    """Of a data set: how many examples are for training, and for testing."""

    train: int
    test: int


Decoded = Iterator[tuple[np.ndarray, int]]
"""Images [h, w, c] uint8 of one shape, and their labels: for training, then for testing."""


def examples(key: str, sizes: Sizes, decode: Callable[[], Decoded]) -> tuple[base.Batch, str]:
    """(the examples, their hash): images x memory-mapped from a file of this key, and labels y.

    Decoded into that file where it is missing or not what was written; where the cache directory cannot be written,
    into memory. Their hash is what tells, so that they are looked through once. Raises UserError for more than fits the
    disk, or the memory.
    """
    images, labels = (cache_directory() / f"{key}{ending}" for ending in (".npy", ".npz"))
    if (stored := _read(images, labels, sizes)) is not None:
        return stored
    if not _can_write(images.parent):
        return _hashed(_in_memory(sizes, decode()), sizes)
    with disk.placing(images) as out:
        y = _write(out, images.parent, sizes, decode())
    made, digest = _hashed({"x": np.load(images, mmap_mode="r"), "y": y}, sizes)
    with disk.placing(labels) as out:
        np.savez(out, allow_pickle=False, y=y, hash=np.array(digest))
    return made, digest


def _hashed(made: base.Batch, sizes: Sizes) -> tuple[base.Batch, str]:
    parts = (slice(sizes.train), slice(sizes.train, None))
    return made, _data.digest(*({name: array[part] for name, array in made.items()} for part in parts))


def _read(images: pathlib.Path, labels: pathlib.Path, sizes: Sizes) -> tuple[base.Batch, str] | None:
    """None where a file is missing or damaged."""
    try:
        # Opened here: np.load leaves a file open that it cannot read.
        with labels.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
            y, expected = stored["y"], str(stored["hash"])
        x = np.load(images, mmap_mode="r", allow_pickle=False)
        whole = len(x) == len(y) == sum(sizes)
    except (OSError, ValueError, TypeError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile):
        return None
    if not whole:
        return None
    made, digest = _hashed({"x": x, "y": y}, sizes)
    return (made, digest) if digest == expected else None


def _can_write(directory: pathlib.Path) -> bool:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(directory, os.W_OK | os.X_OK)


def _write(out: BinaryIO, directory: pathlib.Path, sizes: Sizes, decoded: Decoded) -> np.ndarray:
    """The labels, when all images are written as NumPy's file of them."""
    y: list[int] = []
    for image, label in decoded:
        if not y:
            shape = (sum(sizes), *image.shape)
            _check_room(directory, math.prod(shape))
            header = {"descr": np.dtype(np.uint8).str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(out, header)
        out.write(np.ascontiguousarray(image).data)
        y.append(label)
    return np.array(y, np.int32)


def _in_memory(sizes: Sizes, decoded: Decoded) -> base.Batch:
    x: np.ndarray | None = None
    y: list[int] = []
    for image, label in decoded:
        if x is None:
            _check_memory(sum(sizes), image.shape)
            x = np.empty((sum(sizes), *image.shape), np.uint8)
        x[len(y)] = image
        y.append(label)
    return {"x": x, "y": np.array(y, np.int32)}


def _check_room(directory: pathlib.Path, size: int) -> None:
    """Raises UserError where the disk has no room."""
    free = shutil.disk_usage(directory).free
    if size > free:
        raise base.UserError(
            f"the decoded pictures take {size / 1e9:.1f} GB, {text.plain(directory)} has room for "
            f"{free / 1e9:.1f} GB: ask for smaller ones, or name a roomier place by MCU_JAX_CACHE"
        )


def _check_memory(count: int, shape: tuple[int, ...]) -> None:
    """Raises UserError where the machine's memory has no room."""
    height, width, channels = shape
    size, most = count * height * width * channels, memory.host()
    if size > most:
        raise base.UserError(
            f"{text.plural(count, 'picture')} of {width} × {height} take {size / 1e9:.1f} GB once decoded; this "
            f"machine has {most / 1e9:.1f} GB, and {text.plain(cache_directory())} cannot be written to: name another "
            "place by MCU_JAX_CACHE"
        )
