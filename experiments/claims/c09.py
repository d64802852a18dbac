"""C9: a small retain filter helps retain accuracy."""

import verdicts
from reading import Claim, Reading
from settings import STARTS, Runs, points

CLAIM = Claim(
    name="C9",
    source="Shi & Wang 2025, arXiv 2505.10859",
    hypothesis="setting aside the leaves that matter most for D_r (the recipe's retain filter) raises RA at t*",
    statistic="RA with the filter minus RA without, paired by seed",
    rule="holds: the interval above 0; fails: below the smallest effect; else undecided",
    smallest=0.1,
)


def read(runs: Runs) -> list[Reading]:
    own = runs[STARTS[0]]
    accuracies = [points(own, name, "RA") for name in ("mcu:mask=mcu", "mcu:mask=mcu,retain_filter=0")]
    effect = verdicts.over_seeds(accuracies[0] - accuracies[1])
    return [Reading("with − without", effect, verdicts.larger(effect, CLAIM.smallest))]
