"""C5: there is a region of the path where it is better than the model it leads to."""

import verdicts
from reading import Claim, Reading
from settings import STARTS, Runs

CLAIM = Claim(
    name="C5",
    source="Shi & Wang 2025, arXiv 2505.10859",
    hypothesis="the effective region is not empty, by either rule, for most seeds of every start",
    statistic="share of the seeds; Clopper–Pearson, simultaneous over starts and rules",
    rule="holds: every interval above a half; fails: one below; else undecided",
    smallest=0.5,
)


def read(runs: Runs) -> list[Reading]:
    made = []
    for start in (*STARTS, "class"):
        paths = [path for path in runs[start].summary["paths"] if path["curve"] != "linear"]
        for rule in ("accuracy", "distribution"):
            there = verdicts.share((bool(path["effective_region"][rule]) for path in paths), of=2 * (len(STARTS) + 1))
            made.append(Reading(f"{start}, {rule}", there, verdicts.most(there)))
    return made
