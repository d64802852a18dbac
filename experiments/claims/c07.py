"""C7: a Bézier curve is as good as a polygonal chain, and both are better than the straight line."""

import verdicts
from reading import Claim, Reading
from settings import PLAIN, STARTS, Runs, points

CLAIM = Claim(
    name="C7",
    source="Shi & Wang 2025, arXiv 2505.10859; the straight line is the control",
    hypothesis="Bézier curve and chain differ by less than the smallest difference, and the best point of either is "
    "closer to the retrained model than the straight line's, from every start",
    statistic="differences of avg_gap, paired by seed; simultaneous intervals",
    rule="holds: curve − chain within the smallest difference, every line − curve above 0; fails: one outside, or "
    "below the smallest difference; else undecided",
    smallest=0.25,
)


def read(runs: Runs) -> list[Reading]:
    own, of = runs[STARTS[0]], len(STARTS) + 3
    chain = points(own, "mcu:curve=polychain")
    both = verdicts.over_seeds(points(own, PLAIN) - chain, of)
    better = verdicts.over_seeds(points(own, "linear") - chain, of)
    made = [
        Reading("curve − chain", both, verdicts.alike(both, CLAIM.smallest)),
        Reading("line − chain", better, verdicts.larger(better, CLAIM.smallest)),
    ]
    for start in (*STARTS, "class"):
        better = verdicts.over_seeds(points(runs[start], "linear") - points(runs[start], "mcu"), of)
        made.append(Reading(f"line − curve, {start}", better, verdicts.larger(better, CLAIM.smallest)))
    return made
