"""C4: the best point of a path lies in its last quarter."""

import verdicts
from reading import Claim, Reading
from settings import STARTS, Runs

CLAIM = Claim(
    name="C4",
    source="Shi & Wang 2025, arXiv 2505.10859",
    hypothesis="t* lies in [0.75, 1], by the paper's rule, from most seeds of every start",
    statistic="share of the seeds; Clopper–Pearson, simultaneous over starts",
    rule="holds: every interval above a half; fails: one below; else undecided",
    smallest=0.5,
)


def read(runs: Runs) -> list[Reading]:
    made = []
    for start in (*STARTS, "class"):
        paths = [path for path in runs[start].summary["paths"] if path["curve"] != "linear"]
        late = verdicts.share((path["chosen"]["accuracy"]["t"] >= 0.75 for path in paths), of=len(STARTS) + 1)
        made.append(Reading(start, late, verdicts.most(late)))
    return made
