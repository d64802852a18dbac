"""F1: along one path metrics fluctuate differently."""

import itertools
from typing import Any

import verdicts
from lines import METRICS, lines
from reading import Claim, Reading
from settings import Runs

CLAIM = Claim(
    name="F1",
    source="Cheng & Amiri 2025, arXiv 2504.06407",
    hypothesis="on straight lines between two methods some metric fluctuates more than another, for what it does "
    "between two runs of one method",
    statistic="excess variation of a metric, its total variation less the difference of the ends, mean over all lines "
    "between methods, in units of its mean over lines between two runs of one; differences of every two metrics, "
    "jackknifed over seeds; simultaneous intervals. A metric that never fluctuates between two runs has no unit and "
    "is left out",
    rule="holds: an interval without 0; fails: all within the smallest difference; else undecided",
    smallest=0.5,
)


def read(runs: Runs) -> list[Reading]:
    pairs, floors = (_excess(lines(runs["lines"], role)) for role in ("pair", "floor"))
    told = [name for name in METRICS if (floors[name] > 0).sum() > 1]
    both = list(itertools.combinations(told, 2))
    made = []
    for a, b in both:
        columns = (table[name] for name in (a, b) for table in (pairs, floors))
        difference = verdicts.over_seeds(verdicts.jackknife(_difference, *columns), of=len(both))
        made.append(Reading(f"{a} − {b}", difference, verdicts.differs(difference, CLAIM.smallest)))
    for name in told:
        own = verdicts.jackknife(_ratio, pairs[name], floors[name])
        made.append(Reading(name, verdicts.over_seeds(own, of=len(told)), ""))
    return made


def _excess(own: Any) -> Any:
    """By seed and metric."""
    made = {name: own[f"{name}_total_variation"] - abs(own[f"{name} at 1"] - own[f"{name} at 0"]) for name in METRICS}
    return own.assign(**made)[list(made)].groupby("replicate").mean()


def _ratio(pairs: Any, floors: Any) -> float:
    return float(pairs.mean() / floors.mean())


def _difference(pairs_a: Any, floors_a: Any, pairs_b: Any, floors_b: Any) -> float:
    return _ratio(pairs_a, floors_a) - _ratio(pairs_b, floors_b)


def verdict(readings: list[Reading]) -> str:
    return verdicts.some([one.verdict for one in readings if one.verdict])
