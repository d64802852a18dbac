"""C9: a small retain filter helps retain accuracy."""

import verdicts
from reading import Claim, Reading
from settings import PLAIN, STARTS, Runs, points

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
    effect = verdicts.over_seeds(points(own, PLAIN, "RA") - points(own, "mcu:retain_filter=0", "RA"))
    return [Reading("with − without", effect, verdicts.larger(effect, CLAIM.smallest))]
