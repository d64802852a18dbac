"""F6: a curriculum or another optimiser can help a method, and can hinder it."""

import verdicts
from reading import Claim, Reading
from settings import DATASETS, Runs, asked_of, points

CLAIM = Claim(
    name="F6",
    source="Cheng & Amiri 2025, arXiv 2504.06407",
    hypothesis="of methods that unlearn, a curriculum (SuperLoss) or another optimiser (Adam, Sophia) brings some "
    "nearer to the retrained model and takes some further from it. The other optimiser's learning rate is a share of "
    "the tuned one, at which the model moves about as far: it is not tuned",
    statistic="avg_gap with it minus that without, paired by seed; simultaneous intervals. A method unlearns where "
    "its avg_gap is below the original's, an interval that is shown; others are not asked",
    rule="holds: an interval below 0 and one above it; fails: no interval below 0, or none above, and the rest within "
    "the smallest effect; else undecided",
    smallest=0.25,
)


def read(runs: Runs) -> list[Reading]:
    methods, ways = DATASETS[asked_of(runs)].varied
    own, made = runs["varied"], []
    asked = []
    for method in methods:
        nearer = verdicts.over_seeds(points(own, "original") - points(own, method), of=len(methods))
        made.append(Reading(f"original − {method}", nearer, ""))
        asked += [method] * (nearer.low > 0)
    for method in asked:
        for way in ways:
            change = points(own, f"{method}:{way}") - points(own, method)
            effect = verdicts.over_seeds(change, of=len(asked) * len(ways))
            made.append(Reading(f"{method}, {way}", effect, _which(effect)))
    return made


def _which(effect: verdicts.Interval) -> str:
    if effect.high < 0 or effect.low > 0:
        return "helps" if effect.high < 0 else "hinders"
    return "neither" if verdicts.alike(effect, CLAIM.smallest) == verdicts.HOLDS else verdicts.UNDECIDED


def verdict(readings: list[Reading]) -> str:
    found = {one.verdict for one in readings if one.verdict}
    if {"helps", "hinders"} <= found:
        return verdicts.HOLDS
    return verdicts.UNDECIDED if verdicts.UNDECIDED in found or not found else verdicts.FAILS
