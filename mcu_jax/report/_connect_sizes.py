"""Barriers of `mcu-jax connect` against the size of the forget set."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from mcu_jax.report import _connect, _style
from mcu_jax.report._connect import Group
from mcu_jax.report._connect_barriers import NOTE, PANELS, bound, shown
from mcu_jax.report._results import Results


def sizes_figure(results: Results, file: str | os.PathLike[str]) -> None:
    """Draw the barriers against the size of the forget set into `file`, a line a method and a dot a seed.

    The upper row is between two runs of one size, the lower one between every size and the largest, where they exist.
    A barrier which is 0 everywhere has no column; the title says so.
    """
    rows = {
        title: _connect.groups(results, role)
        for role, title in (("floor", "two runs of one size"), ("pair", "this size and the largest"))
    }
    rows = {title: groups for title, groups in rows.items() if groups}
    lines = {title: lines_of(groups, len(_connect.curves_of(results)) > 1) for title, groups in rows.items()}
    names = list(dict.fromkeys(name for by_name in lines.values() for name in by_name))
    values = {
        (title, barrier): shown([value for group in groups for value in group.values(barrier)], barrier)
        for title, groups in rows.items()
        for barrier, _ in PANELS
    }
    panels = [panel for panel in PANELS if any(any(values[title, panel[0]]) for title in rows)] or PANELS
    with _style.paper(file, 9.2, 1.5 + 2.6 * len(rows)) as figure:
        axes = figure.subplots(len(rows), len(panels), sharex=True, squeeze=False)
        handles: dict[str, Any] = {}
        for row, title in zip(axes, rows, strict=True):
            for axis, (barrier, unit) in zip(row, panels, strict=True):
                for name, at in lines[title].items():
                    handles |= _draw_line(axis, name, at, barrier, names)
                axis.set_title(f"{unit}\n{title}", fontsize=9.5, loc="left")
                _style.dress(axis)
                axis.set_ylim(bottom=0.0)
                bound(axis.yaxis, barrier, values[title, barrier])
                if not any(values[title, barrier]):
                    _style.write_none(axis)
        for axis in axes[-1]:
            axis.set_xticks(sorted({size for by_name in lines.values() for at in by_name.values() for size in at}))
            axis.set_xlabel("forget set (% of the training set)", fontsize=9)
        seeds = ["means; dots: seeds" if _few(names) else "means"] * (len(_connect.seeds_of(results)) > 1)
        nothing = [f"no {unit.partition(' (')[0]}" for barrier, unit in PANELS if (barrier, unit) not in panels]
        figure.suptitle(
            f"Barriers by size of a random forget set: {_connect.describe(results, request=False)}\n"
            f"{'; '.join([*seeds, NOTE, *nothing])}",
            fontsize=11,
        )
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=8.5, frameon=False
        )


def _few(names: Sequence[str]) -> bool:
    """Whether every line has a colour of its own, and there is room for its seeds."""
    return len(names) <= len(_style.SERIES)


def lines_of(groups: Sequence[Group], several: bool) -> dict[str, dict[float, Group]]:
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
    sizes = [size for size in sorted(at) if shown(at[size].values(barrier), barrier)]
    means = [shown(_style.interval(at[size].values(barrier)), barrier)[0] for size in sizes]
    place = names.index(name)
    colour = _style.SERIES[place % len(_style.SERIES)]
    marker = _style.MARKERS[place % len(_style.MARKERS)]
    style: dict[str, Any] = {"color": colour, "marker": marker, "linewidth": 1.5, "markersize": 5.5}
    if place >= len(_style.SERIES):
        style |= {"linestyle": _style.DASHED, "markerfacecolor": "white"}
    (line,) = axis.plot(sizes, means, **style, clip_on=False, zorder=4)
    if _few(names):
        seeds = [(size, value) for size in sizes for value in shown(at[size].values(barrier), barrier)]
        axis.plot(*zip(*seeds, strict=True), marker, color=colour, markersize=3.5, markeredgewidth=0, alpha=0.5,
                  clip_on=False, zorder=3)  # fmt: skip
    return {name: line}
