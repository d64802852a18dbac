"""Barriers of `mcu-jax connect` against the size of the forget set."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from mcu_jax.report import _connect, _style
from mcu_jax.report._connect import Group
from mcu_jax.report._connect_barriers import NOTE, PANELS, bound, shown
from mcu_jax.report._results import Results

_MARKERS = "osD^vP"


def sizes_figure(results: Results, file: str | os.PathLike[str]) -> None:
    """Draw the three barriers against the size of the forget set into `file`, a line a method.

    The upper row is between two runs of one size, the lower one between every size and the largest, where they exist.
    """
    rows = {
        title: _connect.groups(results, role)
        for role, title in (("floor", "two runs of one size"), ("pair", "this size and the largest"))
    }
    rows = {title: groups for title, groups in rows.items() if groups}
    lines = {title: _lines(groups, len(_connect.curves_of(results)) > 1) for title, groups in rows.items()}
    names = list(dict.fromkeys(name for by_name in lines.values() for name in by_name))
    with _style.paper(file, 9.2, 1.5 + 2.6 * len(rows)) as figure:
        axes = figure.subplots(len(rows), 3, sharex=True, squeeze=False)
        handles: dict[str, Any] = {}
        for row, (title, groups) in zip(axes, rows.items(), strict=True):
            for axis, (barrier, unit) in zip(row, PANELS, strict=True):
                for name, at in lines[title].items():
                    handles |= _draw_line(axis, name, at, barrier, names)
                axis.set_title(f"{unit}\n{title}", fontsize=9.5, loc="left")
                _style.dress(axis)
                axis.set_ylim(bottom=0.0)
                values = [value for group in groups for value in group.values(barrier)]
                bound(axis.yaxis, barrier, values)
                if not any(shown(values, barrier)):
                    axis.text(0.5, 0.55, "none", transform=axis.transAxes, ha="center", color=_style.GREY, fontsize=9)
        for axis in axes[-1]:
            axis.set_xticks(sorted({size for by_name in lines.values() for at in by_name.values() for size in at}))
            axis.set_xlabel("forget set (% of the training set)", fontsize=9)
        beside = _style.intervals(len(_connect.seeds_of(results))) if len(names) <= len(_style.SERIES) else "means"
        figure.suptitle(
            f"Barriers (0 is best; {NOTE}) by size of a random forget set\n"
            f"{_connect.describe(results, request=False)}{', ' * bool(beside)}{beside}",
            fontsize=11,
        )
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=8.5, frameon=False
        )


def _lines(groups: Sequence[Group], several: bool) -> dict[str, dict[float, Group]]:
    """By the name without the size, then by the smaller size of both ends in per cent."""
    lines: dict[str, dict[float, Group]] = {}
    for group in groups:
        if group.entries:
            ends = [group.entries[0][end] for end in "ab"]
            size = min(round(100.0 * float(end["forget"].partition(":")[2]), 6) for end in ends)
            name = re.sub("[:,] ?(forget=|random:)[^,]*", "", group.a)
            lines.setdefault(f"{name}, {group.curve}" if several else name, {})[size] = group
    return lines


def _draw_line(axis: Any, name: str, at: dict[float, Group], barrier: str, names: Sequence[str]) -> dict[str, Any]:
    sizes = sorted(at)
    means, low, high = zip(*(_style.interval(shown(at[size].values(barrier), barrier)) for size in sizes), strict=True)
    place, few = names.index(name), len(names) <= len(_style.SERIES)
    colour = _style.SERIES[place % len(_style.SERIES)]
    style = {"color": colour, "marker": _MARKERS[place % len(_MARKERS)], "linewidth": 1.5, "markersize": 4.5}
    if place >= len(_style.SERIES):
        style |= {"linestyle": (0, (4, 2)), "markerfacecolor": "white"}
    if few and not np.array_equal(low, high):
        axis.fill_between(sizes, low, high, color=colour, alpha=0.16, linewidth=0)
    return {name: axis.plot(sizes, means, **style, clip_on=False)[0]}
