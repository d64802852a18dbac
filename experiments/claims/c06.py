"""C6: half of the retain set suffices to train a path."""

import verdicts
from reading import Claim, Reading
from settings import PLAIN, STARTS, Runs, points

CLAIM = Claim(
    name="C6",
    source="Shi & Wang 2025, arXiv 2505.10859",
    hypothesis="a path trained with half of D_r is no worse than one trained, for as many steps, with all of it",
    statistic="avg_gap with half minus that with all, paired by seed",
    rule="holds: the interval below the smallest difference; fails: above 0 otherwise; else undecided",
    smallest=0.25,
)


def read(runs: Runs) -> list[Reading]:
    own = runs[STARTS[0]]
    harm = verdicts.over_seeds(points(own, PLAIN) - points(own, "mcu:retain_fraction=1"))
    return [Reading("half − all", harm, verdicts.no_worse(harm, CLAIM.smallest))]
