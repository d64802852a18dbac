"""C3: MCU's mask is no worse than none, none no worse than a random one, and the mask makes training faster.

The last sentence of the statistic was added after the first run on digits, which took twenty shares of one time for
twenty times; no other number or verdict of that run depends on it.
"""

import numpy as np
import verdicts
from reading import Claim, Reading
from settings import STARTS, Runs, points

CLAIM = Claim(
    name="C3",
    source="Shi & Wang 2025, arXiv 2505.10859",
    hypothesis="in avg_gap the mask is no worse than no mask, no mask no worse than a random mask of equal size, and a "
    "path with the mask takes less time than one without",
    statistic="differences of avg_gap, paired by seed; and the logarithm of the time of a path without the mask over "
    "that of one with it, start and sweep included; simultaneous intervals. Seeds that are made side by side have one "
    "time between them, and so no interval",
    rule="holds: both differences below the smallest, and the logarithm above 0; fails: one difference above 0 "
    "otherwise, or the logarithm below that of 1.05; else undecided",
    smallest=0.25,
)


def read(runs: Runs) -> list[Reading]:
    own = runs[STARTS[0]]
    worse = {
        "mask − none": points(own, "mcu:mask=mcu") - points(own, "mcu:mask=none"),
        "none − random": points(own, "mcu:mask=none") - points(own, "mcu:mask=random"),
    }
    made = []
    for item, harm in worse.items():
        effect = verdicts.over_seeds(harm, of=3)
        made.append(Reading(item, effect, verdicts.no_worse(effect, CLAIM.smallest)))
    seconds = [points(own, name, "seconds_unlearning") for name in ("mcu:mask=none", "mcu:mask=mcu")]
    apart = seconds[0].nunique() > 1  # seeds side by side share the clock: they are one replicate
    faster = verdicts.over_seeds(np.log(seconds[0] / seconds[1])[: None if apart else 1], of=3)
    made.append(Reading("log of time, none / mask", faster, verdicts.larger(faster, float(np.log(1.05)))))
    return made
