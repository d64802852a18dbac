"""F7: some points between two unlearned models are better than both."""

import verdicts
from lines import by_pair, by_seed, lines
from reading import Claim, Reading
from settings import STARTS, Runs, points

CLAIM = Claim(
    name="F7",
    source="Cheng & Amiri 2025, arXiv 2504.06407",
    hypothesis="on the straight lines of some pairs of methods a point between the ends is better than both, where "
    "the ends' accuracies on D_f lie on both sides of what it should be, so that the line must cross it, and also "
    "where they do not",
    statistic="½(|Acc − Acc(θ_o)| + |Acc_f − Cal_f|) of the better end minus that of the best point between them, in "
    "points, chosen with Acc on D_v and reported on D_t; pair by pair over the seeds of the kind, at least half of "
    "all; simultaneous intervals within the kind. And the mean over all lines of the kind",
    rule="holds: of either kind a pair with an interval above 0; fails: of one kind all below the smallest effect; "
    "else undecided",
    smallest=0.25,
)
KINDS = ("both sides", "one side")


def read(runs: Runs) -> list[Reading]:
    own = lines(runs["lines"], "pair")
    gain = 100 * (own[["test_interior_score_a", "test_interior_score_b"]].min(axis=1) - own.test_interior_score)
    # Cal_f is what θ_o has on D_v.
    goal = points(runs[STARTS[0]], "original", "VA").loc[own.index.get_level_values("replicate")].to_numpy() / 100
    crosses = (own["forget_accuracy at 0"] - goal) * (own["forget_accuracy at 1"] - goal) < 0
    seeds, made = own.index.get_level_values("replicate").nunique(), []
    for kind, gains in zip(KINDS, (gain[crosses], gain[~crosses]), strict=True):
        pairs = {pair: values for pair, values in by_pair(gains).items() if len(values) >= max(2, seeds / 2)}
        for pair, values in pairs.items():
            effect = verdicts.over_seeds(values, of=len(pairs))
            made.append(Reading(f"{kind}: {pair}", effect, verdicts.larger(effect, CLAIM.smallest)))
        if len(gains):
            made.append(Reading(f"{kind}, all lines", verdicts.over_seeds(by_seed(gains)), ""))
    return made


def verdict(readings: list[Reading]) -> str:
    kinds = [[one.verdict for one in readings if one.item.startswith(f"{kind}: ")] for kind in KINDS]
    return verdicts.every([verdicts.some(parts) for parts in kinds])
