"""C8: task arithmetic is clearly worse than a path."""

import verdicts
from reading import Claim, Reading
from settings import STARTS, Runs, points

CLAIM = Claim(
    name="C8",
    source="Shi & Wang 2025, arXiv 2505.10859",
    hypothesis="NegTV (task arithmetic) is further from the retrained model than MCU",
    statistic="avg_gap of neg_tv minus that of MCU, paired by seed",
    rule="holds: the interval above 0; fails: below the smallest effect; else undecided",
    smallest=1.0,
)


def read(runs: Runs) -> list[Reading]:
    own = runs[STARTS[0]]
    effect = verdicts.over_seeds(points(own, "neg_tv") - points(own, "mcu"))
    return [Reading("neg_tv − MCU", effect, verdicts.larger(effect, CLAIM.smallest))]
