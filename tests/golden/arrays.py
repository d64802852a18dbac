"""Weights and images that PyTorch and we are given alike: drawn by name, so that only logits need to be kept."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np


def weight(name: str, shape: Sequence[int]) -> np.ndarray:
    """Of a tensor of a state dict: such that logits are neither 0 nor huge, variances positive, and integers 0."""
    if name.endswith(("num_batches_tracked", "relative_position_index")):
        return np.zeros(shape, np.int64)
    random = np.random.default_rng(zlib.crc32(name.encode()))
    drawn = random.standard_normal(shape, dtype=np.float32)
    if name.endswith("running_var"):
        return 0.5 + drawn**2
    if len(shape) < 2:
        return 0.1 * drawn + float(name.endswith("weight"))
    return drawn * np.float32(0.8 / np.sqrt(np.prod(shape[1:])))


def images(shape: Sequence[int]) -> np.ndarray:
    """[n, h, w, c]."""
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
