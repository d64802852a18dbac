"""Statistics over seeds, the replicates: for connectivity_claims.py."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from mcu_jax import metrics

Interval = tuple[float, float, float]


def interval(values: Sequence[float] | np.ndarray, of: int = 1) -> Interval:
    """Mean and 95 % interval, infinite for one value. of: so many intervals together (Bonferroni)."""
    mean, half = metrics.mean_interval(list(values))
    if half is None:
        return mean, -np.inf, np.inf
    wider, plain = (stats.t.ppf(1 - 0.025 / many, len(values) - 1) for many in (of, 1))
    return mean, mean - half * wider / plain, mean + half * wider / plain


def by_seed(values: Any) -> list[float]:
    """Of a pandas `Series` by pair and `replicate` the mean over pairs, of every seed."""
    return list(values.groupby("replicate").mean())


def over_seeds(values: Any, of: int = 1) -> Interval:
    return interval(by_seed(values), of)


def every_pair(values: Any) -> dict[tuple[str, str], Interval]:
    """Of every pair of a `Series` by `a`, `b` and `replicate`: intervals that hold together."""
    groups = list(values.groupby(["a", "b"], sort=False))
    return {pair: over_seeds(own, of=len(groups)) for pair, own in groups}


def apart(values: dict[str, list[float]]) -> Interval:
    """Largest − smallest: which they are is chosen by the other seeds, so that chance does not choose them."""
    table = np.array(list(values.values()))
    differences = []
    for seed in range(table.shape[1]):
        others = np.delete(table, seed, axis=1).mean(axis=1) if table.shape[1] > 1 else table[:, 0]
        differences.append(table[np.argmax(others), seed] - table[np.argmin(others), seed])
    return interval(differences)


def differences(values: dict[str, list[float]]) -> list[Interval]:
    """Of every two, paired by seed: intervals that hold together."""
    both = list(itertools.combinations(values, 2))
    return [interval(np.subtract(values[a], values[b]), of=len(both)) for a, b in both]


def text(interval: Interval, unit: str = "", decimals: int = 2) -> str:
    mean, low, high = (f"{number:.{decimals}f}" for number in interval)
    return f"{mean}{unit} [{low}, {high}]"
