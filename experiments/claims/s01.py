"""S1: a path that tunes itself is no worse than staying, taking the start, the straight line, and the plain path."""

import verdicts
from reading import Claim, Reading
from settings import STARTS, TUNED, Runs, points

CLAIM = Claim(
    name="S1",
    source="this project",
    hypothesis="a path that tunes itself without a retrained model, within four times the plain path's cost, has an "
    "avg_gap no worse than the original's, the start's, the straight line's and the plain path's, all by the rule of "
    "distributions",
    statistic="avg_gap of the path minus that of each, paired by seed; simultaneous intervals",
    rule="holds: every interval below the smallest difference; fails: one above 0 otherwise; else undecided",
    smallest=0.25,
)


def read(runs: Runs) -> list[Reading]:
    own, made = runs[STARTS[0]], []
    others = ("original", STARTS[0], "linear:rule=distribution", "mcu:rule=distribution")
    for other in others:
        harm = verdicts.over_seeds(points(own, TUNED) - points(own, other), of=len(others))
        made.append(Reading(f"tuned − {other}", harm, verdicts.no_worse(harm, CLAIM.smallest)))
    return made
