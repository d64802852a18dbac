"""F3: paths without a barrier often exist."""

from typing import Any

import numpy as np
import verdicts
from lines import by_pair, by_seed, lines
from reading import Claim, Reading
from settings import Runs

WORST = ("accuracy_barrier", "test_accuracy_barrier", "forget_unseen_distance_barrier")
"""In points: of retain and forget accuracy, each on its worse side; of test accuracy; and of how far the scores of D_f
are from those of unseen examples, which also sees what was forgotten too much."""
CLAIM = Claim(
    name="F3",
    source="Cheng & Amiri 2025, arXiv 2504.06407",
    hypothesis="for most pairs of methods the straight line or a trained Bézier curve has no barrier above 2 points, "
    "of accuracy on D_r, D_f and test images and of the distance of D_f from unseen examples",
    statistic="share of the pairs, in per cent, mean over seeds: of line, curve, and either; what a curve takes from "
    "the largest barrier of its line, pair by pair, simultaneous intervals",
    rule="holds: for either the interval above 50; fails: below; else undecided",
    smallest=50.0,
)


def read(runs: Runs) -> list[Reading]:
    worst = {curve: _worst(lines(runs["lines"], "pair", curve)) for curve in ("linear", "bezier")}
    worst["either"] = np.minimum(worst["linear"], worst["bezier"])
    made = []
    for curve, values in worst.items():
        share = verdicts.over_seeds(100.0 * by_seed(values <= 2))
        verdict = verdicts.most(share._replace(low=share.low / 100, high=share.high / 100))
        made.append(Reading(f"{curve}, per cent", share, verdict if curve == "either" else ""))
    gains = by_pair(worst["linear"] - worst["bezier"])
    made += [
        Reading(f"{pair}, line − curve", verdicts.over_seeds(gain, of=len(gains)), "") for pair, gain in gains.items()
    ]
    return made


def _worst(own: Any) -> Any:
    return own[list(WORST)].max(axis=1)
