"""F2: some pairs of methods are similar, others are not."""

from typing import Any

import verdicts
from lines import by_pair, floor, lines
from reading import Claim, Reading
from settings import Runs

MEASURES = {"barrier": 1.0, "disagreement": 1.0, "angle": 10.0}
"""In points; angle: 100 times the cosine of the two task vectors below that of two runs."""
CLAIM = Claim(
    name="F2",
    source="Cheng & Amiri 2025, arXiv 2504.06407",
    hypothesis="some pairs of methods are as similar as two runs of one method, and others are not: similar is no "
    "larger accuracy barrier on the straight line, no larger disagreement on test images, and no smaller cosine of "
    "task vectors",
    statistic="each of the three beyond the mean of that between two runs of either method, in units of 1 point, 1 "
    "point and 0.1; simultaneous intervals over pairs and measures",
    rule="holds: a pair with all three intervals below 1 and a pair with one above it; fails: all pairs are the one, "
    "or all the other; else undecided",
    smallest=1.0,
)


def read(runs: Runs) -> list[Reading]:
    beyond = {}
    for measure, unit in MEASURES.items():
        own, floors = (_measure(lines(runs["lines"], role), measure) for role in ("pair", "floor"))
        beyond[measure] = by_pair((own - floor(floors, own)) / unit)
    of, made = sum(map(len, beyond.values())), []
    for pair in beyond["barrier"]:
        for measure, pairs in beyond.items():
            effect = verdicts.over_seeds(pairs[pair], of)
            made.append(
                Reading(f"{pair}, {measure}", effect, verdicts.no_worse(effect._replace(low=effect.low - 1), 1))
            )
    return made


def _measure(own: Any, measure: str) -> Any:
    if measure == "barrier":
        return own.accuracy_barrier
    return 100 * own.disagreement if measure == "disagreement" else -100 * own.task_cosine


def verdict(readings: list[Reading]) -> str:
    """Of each pair three, in turn."""
    parts = [one.verdict for one in readings]
    pairs = [verdicts.every(parts[i : i + len(MEASURES)]) for i in range(0, len(parts), len(MEASURES))]
    alike, apart = verdicts.HOLDS in pairs, verdicts.FAILS in pairs
    if alike and apart:
        return verdicts.HOLDS
    return verdicts.FAILS if len(set(pairs)) == 1 and (alike or apart) else verdicts.UNDECIDED
