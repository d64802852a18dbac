"""Means over seeds and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mean_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and half-width of its 95 % confidence interval (Student t), None for a single value."""
    mean, half = curve_interval(np.asarray(values, float)[:, None])
    return float(mean[0]), None if half is None else float(half[0])


def curve_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The same for every column of values [seeds, n]: two [n]."""
    from scipy import stats

    n = len(values)
    mean = values.mean(axis=0)
    if n < 2:
        return mean, None
    return mean, stats.t.ppf(0.975, n - 1) * values.std(axis=0, ddof=1) / np.sqrt(n)
