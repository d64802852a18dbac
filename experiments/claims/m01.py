"""M1: no competitor that was tuned by the same budget is closer to the retrained model than MCU."""

import verdicts
from reading import Claim, Reading
from settings import DEFAULTS, STARTS, Runs, points

CLAIM = Claim(
    name="M1",
    source="this project",
    hypothesis="MCU from random labels has a lower avg_gap than each method that `mcu-jax unlearn` compares with",
    statistic="avg_gap of the method minus that of MCU, paired by seed; simultaneous intervals",
    rule="holds: every interval above 0; fails: one below the smallest effect; else undecided",
    smallest=0.25,
)


def read(runs: Runs) -> list[Reading]:
    own, made = runs[STARTS[0]], []
    for method in DEFAULTS:
        effect = verdicts.over_seeds(points(own, method) - points(own, "mcu"), of=len(DEFAULTS))
        made.append(Reading(f"{method} − MCU", effect, verdicts.larger(effect, CLAIM.smallest)))
    return made
