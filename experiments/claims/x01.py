"""X1: a barrier says something about membership attacks.

Distances are rounded since the first run on digits, in which errors of rounding broke some ties; no verdict changed.
"""

import itertools

import verdicts
from lines import lines
from reading import Claim, Reading
from scipy import stats
from settings import Runs

BARRIERS = ("retain_loss_barrier", "forget_loss_barrier", "accuracy_barrier")
CLAIM = Claim(
    name="X1",
    source="Cheng & Amiri 2025, arXiv 2504.06407, as a question of theirs",
    hypothesis="over pairs of methods, the larger the barrier on the straight line, the further a membership attack "
    "is from what it is on the retrained model",
    statistic="Spearman's ρ within each seed between a barrier, of retain loss, forget loss or accuracy, and the "
    "distance of MIA from the retrained model's, at the ends or at the mean of the points between them; mean over "
    "seeds, all six with simultaneous intervals. Seeds in which one side is the same for all pairs have no ρ",
    rule="holds: an interval above 0; fails: all below the smallest effect; else undecided",
    smallest=0.1,
)


def read(runs: Runs) -> list[Reading]:
    own, table = lines(runs["lines"], "pair"), runs["lines"].table
    retrained = table[(table.role == "retrained") & (table.metric == "MIA")].set_index("replicate").value
    along = own.filter(regex=r"^forget_MIA at ")
    gaps = along.sub(retrained.loc[own.index.get_level_values("replicate")].to_numpy(), axis=0).abs()
    ends = ["forget_MIA at 0", "forget_MIA at 1"]
    attacked = {"at the ends": gaps[ends], "between them": gaps.drop(columns=ends)}
    both, made = list(itertools.product(BARRIERS, attacked)), []
    for barrier, where in both:
        joined = own.assign(gap=attacked[where].mean(axis=1).round(9)).groupby("replicate")
        values = [
            (seed[barrier], seed.gap) for _, seed in joined if min(seed[barrier].nunique(), seed.gap.nunique()) > 1
        ]
        rho = verdicts.over_seeds([stats.spearmanr(*columns).statistic for columns in values], of=len(both))
        made.append(Reading(f"{barrier}, {where}", rho, verdicts.larger(rho, CLAIM.smallest)))
    return made


def verdict(readings: list[Reading]) -> str:
    return verdicts.some([one.verdict for one in readings])
