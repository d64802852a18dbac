"""Means over seeds and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mean_interval(values: Sequence[float], of: int = 1) -> tuple[float, float | None]:
    """Mean and half-width of its 95 % confidence interval (Student t), None for a single value.

    of: so many intervals hold together (Bonferroni).
    """
    mean, half = curve_interval(np.asarray(values, float)[:, None], of)
    return float(mean[0]), None if half is None else float(half[0])


def curve_interval(values: np.ndarray, of: int = 1) -> tuple[np.ndarray, np.ndarray | None]:
    """The same for every column of values [seeds, n]: two [n]."""
    from scipy import stats

    n = len(values)
    mean = values.mean(axis=0)
    if n < 2:
        return mean, None
    return mean, stats.t.ppf(1 - 0.025 / of, n - 1) * values.std(axis=0, ddof=1) / np.sqrt(n)
