"""What the table and the figures of `mcu-jax connect` read: entries of one pair and curve together, over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from mcu_jax.report import _text

MOST = 20
"""Rows that a table shows whole."""
SHOWN = 5
"""Rows from each end of a longer one."""

T = TypeVar("T")


class Group(NamedTuple):
    """One pair and curve. entries: one a seed."""

    label: str
    curve: str
    role: str
    entries: list[dict[str, Any]]

    def barriers(self, name: str) -> list[float]:
        return [float(entry["barriers"][name]) for entry in self.entries]


def describe(results: dict[str, Any]) -> str:
    """`digits, mlp, forget random:0.2, 5 seeds`."""
    return _text.describe(results["config"], len(seeds_of(results)))


def seeds_of(results: dict[str, Any]) -> list[int]:
    return sorted({entry["seed"] for entry in results["pairs"]})


def curves_of(results: dict[str, Any]) -> list[str]:
    """As asked for: floors, clusters and controls over methods are of the first."""
    return list(dict.fromkeys(entry["curve"] for entry in results["pairs"]))


def groups(results: dict[str, Any], role: str) -> list[Group]:
    """Of "pair" or "floor", in the order of the results; the curve is part of the label where there are several."""
    several = len(curves_of(results)) > 1
    found: dict[tuple[str, str, str], Group] = {}
    for entry in results["pairs"]:
        if entry["role"] != role:
            continue
        a, b = (entry[end]["label"] for end in "ab")
        # Of two models of one method the second is told by what it has of its own.
        label = f"{a}, two runs" if role == "floor" else f"{a} – {b.removeprefix(entry['a']['method'] + ':')}"
        told = f"{label}, {entry['curve']}" if several else label
        found.setdefault((a, b, entry["curve"]), Group(told, entry["curve"], role, [])).entries.append(entry)
    return list(found.values())


def main_groups(results: dict[str, Any]) -> list[Group]:
    """What the run is about: its pairs, or where it has none, as in grid seeds, the two runs of every method."""
    return groups(results, "pair") or groups(results, "floor")


def mean(values: Sequence[float | int]) -> float:
    """Infinite where a value is not finite, so that a diverged seed counts as the largest barrier."""
    return sum(values) / len(values) if values and all(map(math.isfinite, values)) else math.inf


def cut(items: Sequence[T], value: Callable[[T], float]) -> tuple[list[T], list[T], list[T]]:
    """(first, left out, last): all in first where they are few, else those of smallest and of largest value."""
    if len(items) <= MOST:
        return list(items), [], []
    ordered = sorted(items, key=value)
    return ordered[:SHOWN], ordered[SHOWN:-SHOWN], ordered[-SHOWN:]
