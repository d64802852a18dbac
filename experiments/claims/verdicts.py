"""Intervals over seeds, the replicates, and the rules that turn them into verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"


class Interval(NamedTuple):
    """Mean, and the ends of an interval of 95 %, alone or together with others."""

    mean: float
    low: float
    high: float
    seeds: int


def over_seeds(values: Any, of: int = 1) -> Interval:
    """Of a mean, by Student's t; infinite for fewer than two seeds. of: so many hold together (Bonferroni)."""
    values = np.asarray(values, float)
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Interval(mean, -np.inf, np.inf, n)
    half = stats.t.ppf(1 - 0.025 / of, n - 1) * values.std(ddof=1) / np.sqrt(n)
    return Interval(mean, mean - float(half), mean + float(half), n)


def share(successes: Iterable[bool], of: int = 1) -> Interval:
    """Of a share, by Clopper and Pearson: never too narrow."""
    hits = [bool(hit) for hit in successes]
    n, k, tail = len(hits), sum(hits), 0.025 / of
    low = 0.0 if k == 0 else float(stats.beta.ppf(tail, k, n - k + 1))
    high = 1.0 if k == n else float(stats.beta.ppf(1 - tail, k + 1, n - k))
    return Interval(k / n, low, high, n)


def jackknife(statistic: Callable[..., float], *columns: Any) -> np.ndarray:
    """Pseudo-values, one a seed, of a statistic of whole columns [seeds, …] such as a ratio of means: their mean is it
    without its bias of order 1/n, and their interval its own (Tukey 1958). Each column has a row a seed.
    """
    arrays = [np.asarray(column, float) for column in columns]
    n, whole = len(arrays[0]), statistic(*arrays)
    without = [statistic(*(np.delete(array, seed, axis=0) for array in arrays)) for seed in range(n)]
    return n * whole - (n - 1) * np.array(without)


def larger(effect: Interval, smallest: float) -> str:
    """Whether there is an effect above 0: it holds where the interval is above 0, and fails where it is all below the
    smallest effect that matters.
    """
    if effect.high < smallest:
        return FAILS
    return HOLDS if effect.low > 0 else UNDECIDED


def no_worse(harm: Interval, margin: float) -> str:
    """It holds where the interval is below the margin, and fails where it is above 0 otherwise."""
    if harm.high < margin:
        return HOLDS
    return FAILS if harm.low > 0 else UNDECIDED


def alike(difference: Interval, margin: float) -> str:
    """It holds where the interval is within the margin on both sides, and fails where it is outside."""
    if -margin < difference.low and difference.high < margin:
        return HOLDS
    return FAILS if difference.low > margin or difference.high < -margin else UNDECIDED


def differs(difference: Interval, margin: float) -> str:
    """Whether two differ: it holds where the interval is without 0, and fails where it is within the margin."""
    if -margin < difference.low and difference.high < margin:
        return FAILS
    return HOLDS if difference.low > 0 or difference.high < 0 else UNDECIDED


def most(share: Interval) -> str:
    """Whether more than a half."""
    return HOLDS if share.low > 0.5 else FAILS if share.high < 0.5 else UNDECIDED


def every(verdicts: Sequence[str]) -> str:
    """Of a claim about all: it holds where every part does, and fails where one does."""
    if FAILS in verdicts:
        return FAILS
    return HOLDS if set(verdicts) == {HOLDS} else UNDECIDED


def some(verdicts: Sequence[str]) -> str:
    """Of a claim that there is one: it holds where a part does, and fails where every part does."""
    if HOLDS in verdicts:
        return HOLDS
    return FAILS if set(verdicts) == {FAILS} else UNDECIDED
