"""C1: the best point of the path is closer to the retrained model than the model that the path leads to."""

import verdicts
from reading import Claim, Reading
from settings import STARTS, Runs, points

CLAIM = Claim(
    name="C1",
    source="Shi & Wang 2025, arXiv 2505.10859",
    hypothesis="φ(t*) has a lower avg_gap than its own pre-unlearned model, from starts that forget too much and too "
    "little, for random examples and for a class",
    statistic="avg_gap of the pre-unlearned model − that of MCU, paired by seed; simultaneous intervals over starts",
    rule="holds: every interval above 0; fails: one below the smallest effect; else undecided",
    smallest=0.25,
)


def read(runs: Runs) -> list[Reading]:
    made = []
    for item, start in [(start, start) for start in STARTS] + [("class", STARTS[0])]:
        effect = verdicts.over_seeds(points(runs[item], start) - points(runs[item], "mcu"), of=len(STARTS) + 1)
        made.append(Reading(item, effect, verdicts.larger(effect, CLAIM.smallest)))
    return made
