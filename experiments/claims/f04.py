"""F4: how smooth a path is depends on the method, on the size of the forget set, and on the task.

Since the first run on digits a method whose distances meet in no seed is told too; no number or verdict changed.
"""

import itertools
from typing import Any

import numpy as np
import verdicts
from lines import by_pair, by_seed, lines
from reading import Claim, Reading
from scipy import stats
from settings import CONNECTED, DATASETS, REFERENCE, SIZED, Runs, asked_of, kept, sized

from mcu_jax import report

CLAIM = Claim(
    name="F4",
    source="Cheng & Amiri 2025, arXiv 2504.06407",
    hypothesis="test accuracy moves more smoothly along a straight line between two runs of one method than of "
    "another; after forgetting fewer examples than more, by as many steps, and as far from the original; and on one "
    "data set than on another with the same model and sizes",
    statistic="largest second difference of test accuracy, in points. Methods: differences of every two. Size: the "
    "larger minus the smaller set, at as many steps, all but the longest; and where the smaller set's models, at a "
    "length between the shortest and the longest, are as far from the original, by interpolation between the lengths "
    "within each seed; a seed whose distances do not meet says nothing. Task: lines between methods, Welch. "
    "Simultaneous intervals within each of the three",
    rule="holds: for methods, for size by steps and by distance, and for task, each, an interval without 0; fails: "
    "for one of them all within the smallest difference; else undecided. Task is asked of the second image set alone",
    smallest=0.25,
)


def read(runs: Runs) -> list[Reading]:
    made = [*_methods(runs), *_sizes(runs)]
    if asked_of(runs) in REFERENCE:
        made.append(_task(runs))
    return made


def _rough(results: report.Results, role: str) -> Any:
    return 100 * lines(results, role).test_accuracy_max_second_difference


def _differ(item: str, difference: verdicts.Interval) -> Reading:
    return Reading(item, difference, verdicts.differs(difference, CLAIM.smallest))


def _methods(runs: Runs) -> list[Reading]:
    own = dict(zip(CONNECTED, by_pair(_rough(runs["lines"], "floor")).values(), strict=True))
    both = list(itertools.combinations(own, 2))
    return [_differ(f"method: {a} − {b}", verdicts.over_seeds(own[a] - own[b], of=len(both))) for a, b in both]


def _sizes(runs: Runs) -> list[Reading]:
    """Equal steps at every length but the longest, which is there to reach as far."""
    dataset, table = DATASETS[asked_of(runs)], lines(runs["sizes"], "floor")
    rough = by_pair(100 * table.test_accuracy_max_second_difference)
    far = by_pair((table.distance_a + table.distance_b) / 2)
    name = {label.partition(" – ")[0]: label for label in rough}
    (few, many), lengths = dataset.sizes, dataset.lengths
    made, steps, equal = [], lengths[:-1], len(SIZED) * len(lengths[:-1])
    for method, length in itertools.product(SIZED, steps):
        larger, smaller = (rough[name[sized(method, size, length)]] for size in (many, few))
        made.append(_differ(f"size, {length} steps: {method}", verdicts.over_seeds(larger - smaller, of=equal)))
    middle = lengths[len(lengths) // 2]
    for method in SIZED:
        larger = name[sized(method, many, middle)]
        grids = [[values[name[sized(method, few, length)]] for length in lengths] for values in (far, rough)]
        distances, heights = (np.stack(grid, axis=1) for grid in grids)
        differences = []
        for seed, goal in enumerate(far[larger]):
            order = np.argsort(distances[seed])
            along = distances[seed][order]
            if along[0] <= goal <= along[-1]:
                height = np.interp(goal, along, heights[seed][order])
                differences.append(rough[larger].iloc[seed] - height)
        item = f"size, as far: {method}, {len(differences)} seeds"
        if differences:
            made.append(_differ(item, verdicts.over_seeds(differences, of=len(SIZED))))
        else:
            made.append(Reading(item, verdicts.Interval(np.nan, -np.inf, np.inf, 0), verdicts.UNDECIDED))
    return made


def _task(runs: Runs) -> Reading:
    other = REFERENCE[asked_of(runs)]
    here, there = (by_seed(_rough(own, "pair")) for own in (runs["lines"], report.read(kept(other) / "lines")))
    span = stats.ttest_ind(here, there, equal_var=False).confidence_interval()
    mean = float(here.mean() - there.mean())
    return _differ(f"task: minus {other}", verdicts.Interval(mean, float(span.low), float(span.high), len(here)))


def verdict(readings: list[Reading]) -> str:
    """Every kind of reading has one that holds, or all fail."""
    kinds: dict[str, list[str]] = {}
    for one in readings:
        kind = "size, steps" if "steps:" in one.item else one.item.partition(":")[0]
        kinds.setdefault(kind, []).append(one.verdict)
    return verdicts.every([verdicts.some(parts) for parts in kinds.values()])
