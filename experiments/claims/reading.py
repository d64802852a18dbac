"""What a claim's file says, and what comes of it."""

from __future__ import annotations

from typing import NamedTuple

from verdicts import Interval


class Claim(NamedTuple):
    """Written, and committed, before the runs that it is read from.

    statistic: in points of per cent unless it says otherwise, over seeds. rule: how the interval becomes holds, fails
    or undecided. smallest: the smallest effect that matters.
    """

    name: str
    source: str
    hypothesis: str
    statistic: str
    rule: str
    smallest: float


class Reading(NamedTuple):
    """One number of a claim."""

    item: str
    effect: Interval
    verdict: str
