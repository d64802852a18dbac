"""C10: t chosen by distributions is closer to the retrained model than t chosen by accuracies."""

import numpy as np
import verdicts
from reading import Claim, Reading
from settings import STARTS, Runs, points

CLAIM = Claim(
    name="C10",
    source="this project",
    hypothesis="on one and the same path, the point chosen by the rule of distributions has a lower avg_gap than that "
    "chosen by the rule of accuracies",
    statistic="avg_gap by accuracies minus that by distributions, paired by seed: the mean over the starts, and each "
    "start and the class by itself, as simultaneous intervals; the same for the path that tunes itself",
    rule="of the mean over the starts: holds: the interval above 0; fails: below the smallest effect; else undecided. "
    "The default rule is that of distributions where this holds on more data sets than it fails",
    smallest=0.1,
)


def read(runs: Runs) -> list[Reading]:
    gains = {
        start: points(runs[start], "mcu") - points(runs[start], "mcu:rule=distribution") for start in (*STARTS, "class")
    }
    whole = verdicts.over_seeds(np.mean([gains[start] for start in STARTS], axis=0))
    made = [Reading("mean over the starts", whole, verdicts.larger(whole, CLAIM.smallest))]
    for start, gain in gains.items():
        effect = verdicts.over_seeds(gain, of=len(gains))
        made.append(Reading(start, effect, ""))
    return made
