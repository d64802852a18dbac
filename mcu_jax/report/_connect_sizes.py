"""Barriers of `mcu-jax connect` against the size of the forget set."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from mcu_jax import metrics
from mcu_jax.report import _connect, _style
from mcu_jax.report._connect import Group
from mcu_jax.report._connect_barriers import PANELS

_MARKERS = "osD^vP"


def sizes_figure(results: dict[str, Any], file: str | os.PathLike[str]) -> None:
    """Draw the three barriers against the size of the forget set into `file`, a line a method.

    Above between two runs of one size, below between every size and the largest: what there is of both.
    """
    kinds = [
        (_connect.groups(results, role), title)
        for role, title in (("floor", "two runs of one size"), ("pair", "this size and the largest"))
    ]
    kinds = [(groups, title) for groups, title in kinds if groups]
    lines = [_lines(groups, len(_connect.curves_of(results)) > 1) for groups, _ in kinds]
    names = list(dict.fromkeys(name for each in lines for name in each))
    figure = _style.paper(9.2, 1.3 + 2.6 * len(kinds))
    axes = figure.subplots(len(kinds), 3, sharex=True, squeeze=False)
    handles: dict[str, Any] = {}
    for row, own, (groups, title) in zip(axes, lines, kinds, strict=True):
        for axis, (barrier, unit) in zip(row, PANELS, strict=True):
            for name, at in own.items():
                handles |= _draw_line(axis, name, at, barrier, names)
            axis.set_title(f"{unit}\n{title}", fontsize=9.5, loc="left")
            _style.dress(axis)
            axis.set_ylim(bottom=0.0)
            if barrier != "accuracy":
                _style.stretch(axis.yaxis, [value for group in groups for value in group.barriers(barrier)])
    for axis in axes[-1]:
        axis.set_xticks(sorted({size for own in lines for at in own.values() for size in at}))
        axis.set_xlabel("forget set (% of the training set)", fontsize=9)
    banded = len(names) <= len(_style.SERIES) and len(_connect.seeds_of(results)) > 1
    told = "means with 95 % intervals" if banded else "means"
    figure.suptitle(
        f"Barriers (0 is best) by size of the forget set, {told}\n{_connect.describe(results)}", fontsize=11
    )
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=8.5, frameon=False)
    figure.savefig(file)


def _lines(groups: Sequence[Group], several: bool) -> dict[str, dict[float, Group]]:
    """By what all sizes of one method share of their names: the smaller size of both ends, in per cent."""
    found: dict[str, dict[float, Group]] = {}
    for group in groups:
        ends = [group.entries[0][end] for end in "ab"]
        size = min(round(100.0 * float(end["forget"].partition(":")[2]), 6) for end in ends)
        name = re.sub("[:,] ?(forget=|random:)[^,]*", "", ends[0]["label"])
        found.setdefault(f"{name}, {group.curve}" if several else name, {})[size] = group
    return found


def _draw_line(axis: Any, name: str, at: dict[float, Group], barrier: str, names: Sequence[str]) -> dict[str, Any]:
    sizes = sorted(at)
    each = [[value for value in at[size].barriers(barrier) if np.isfinite(value)] for size in sizes]
    means, halves = zip(*(metrics.mean_interval(v) if v else (np.nan, None) for v in each), strict=True)
    place, few = names.index(name), len(names) <= len(_style.SERIES)
    colour = _style.SERIES[place % len(_style.SERIES)]
    style = {"color": colour, "marker": _MARKERS[place % len(_MARKERS)], "linewidth": 1.5, "markersize": 4.5}
    if place >= len(_style.SERIES):
        style |= {"linestyle": (0, (4, 2)), "markerfacecolor": "white"}
    if few and None not in halves:
        low, high = np.maximum(np.subtract(means, halves), 0.0), np.add(means, halves)
        axis.fill_between(sizes, low, high, color=colour, alpha=0.16, linewidth=0)
    return {name: axis.plot(sizes, means, **style)[0]}
