"""C2: the adaptive forgetting penalty is no worse than the best fixed one."""

import verdicts
from reading import Claim, Reading
from settings import BETAS, PLAIN, STARTS, Runs, points

CLAIM = Claim(
    name="C2",
    source="Shi & Wang 2025, arXiv 2505.10859",
    hypothesis="the path of the adaptive penalty is no worse than that of any fixed one, from random labels",
    statistic="avg_gap of adaptive − that of each fixed β, paired by seed; simultaneous intervals over the βs",
    rule="holds: every interval below the smallest difference; fails: one above 0 otherwise; else undecided",
    smallest=0.25,
)


def read(runs: Runs) -> list[Reading]:
    own, made = runs[STARTS[0]], []
    for beta in BETAS:
        harm = verdicts.over_seeds(points(own, PLAIN) - points(own, f"mcu:beta={beta}"), of=len(BETAS))
        made.append(Reading(f"adaptive against {beta}", harm, verdicts.no_worse(harm, CLAIM.smallest)))
    return made
