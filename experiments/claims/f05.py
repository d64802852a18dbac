"""F5: one path of low loss does not mean that all metrics are even along it."""

from typing import Any

import numpy as np
import verdicts
from lines import lines
from reading import Claim, Reading
from settings import Runs

OTHERS = ("test_accuracy", "validation_accuracy", "forget_MIA", "forget_zrf", "forget_js", "forget_unseen_distance")
CLAIM = Claim(
    name="F5",
    source="Cheng & Amiri 2025, arXiv 2504.06407",
    hypothesis="straight lines between two methods without an accuracy barrier on D_r and D_f above 2 points have a "
    "barrier in some other metric, beyond what that metric has on such lines between two runs of one method",
    statistic="share of these lines with a barrier above the 1 − 0.05/6 quantile of the metric's own on such lines "
    "between two runs, of all other seeds; less the same share of the lines between two runs; per cent, mean over the "
    "seeds that have both kinds of lines. And by metric, for the record, its mean barrier in units of that between "
    "two runs, jackknifed; simultaneous intervals",
    rule="holds: of the difference the interval above 0; fails: below the smallest effect; else undecided",
    smallest=10.0,
)


def read(runs: Runs) -> list[Reading]:
    pairs, floors = (_connected(lines(runs["lines"], role)) for role in ("pair", "floor"))
    excess = verdicts.over_seeds(100 * np.array(beyond(pairs, floors)))
    made = [Reading("lines with another barrier, per cent", excess, verdicts.larger(excess, CLAIM.smallest))]
    seeds = sorted(set(pairs.index.get_level_values("replicate")) & set(floors.index.get_level_values("replicate")))
    means = [own.groupby("replicate").mean().loc[seeds] for own in (pairs, floors)]
    told = [name for name in pairs if (means[1][name] > 0).sum() > 1]
    for name in told:
        own = verdicts.jackknife(lambda a, b: a.mean() / b.mean(), means[0][name], means[1][name])
        made.append(Reading(f"{name}, in units of two runs", verdicts.over_seeds(own, of=len(told)), ""))
    return made


def _connected(own: Any) -> Any:
    """Barriers of the other metrics on lines without one of accuracy."""
    return own.loc[own.connected == 1, [f"{name}_barrier" for name in OTHERS]]


def beyond(pairs: Any, floors: Any) -> list[float]:
    """Of every seed the share of the pairs above the floors' quantile, of all other seeds, less that of the floors."""
    seeds = [own.index.get_level_values("replicate") for own in (pairs, floors)]
    shares = []
    for seed in sorted(set(seeds[0]) & set(seeds[1])):
        limits = floors[seeds[1] != seed].quantile(1 - 0.05 / floors.shape[1])
        above = [
            (own[where == seed] > limits).any(axis=1).mean() for own, where in zip((pairs, floors), seeds, strict=True)
        ]
        shares.append(above[0] - above[1])
    return shares


def verdict(readings: list[Reading]) -> str:
    return readings[0].verdict
