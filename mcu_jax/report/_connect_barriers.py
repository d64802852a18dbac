"""Barriers of every path of `mcu-jax connect`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from mcu_jax.report import _connect, _style, _text
from mcu_jax.report._connect import Group
from mcu_jax.report._results import Results

PANELS = (
    ("accuracy_barrier", "accuracy barrier (points)"),
    ("retain_loss_barrier", "barrier on D_r (nats)"),
    ("forget_loss_barrier", "barrier on D_f (nats)"),
)
NOTE = f"0 is best; what is below {_style.RESOLUTION:g} nats is drawn as 0"


def barriers_figure(results: Results, file: str | os.PathLike[str]) -> None:
    """Draw the three barriers of every pair and curve into `file`: a dot a seed, mean and interval; the seed floor."""
    groups, seeds = _connect.main_groups(results), len(_connect.seeds_of(results))
    curves = _connect.curves_of(results)
    labels = [_text.wrap_name(group.label, 32) for group in groups]
    with _style.paper(file, 9.2, 1.9 + sum(0.21 + 0.15 * len(lines) for lines in labels)) as figure:
        axes = figure.subplots(1, 3, sharey=True)
        handles: dict[str, Any] = {}
        for axis, (name, title) in zip(axes, PANELS, strict=True):
            handles |= _draw_rows(axis, groups, curves, name, _style.intervals(seeds))
            handles |= _draw_floor(axis, results, name, _style.intervals(seeds))
            axis.set_title(title, fontsize=10, loc="left")
            axis.set_xlim(left=0.0)
            _style.dress(axis, along="x")
            axis.locator_params(axis="x", nbins=4)
            axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            values = [value for group in groups for value in group.values(name)] + _connect.floor(results, name)
            bound(axis.xaxis, name, values)
            if not any(shown(values, name)):
                _style.write_none(axis)
        # Between the last number of a panel and the first of the next.
        figure.get_layout_engine().set(wspace=0.06)
        axes[0].set_yticks(range(len(groups)), ["\n".join(lines) for lines in labels])
        axes[0].set_ylim(len(groups) - 0.5, -0.5)
        figure.suptitle(f"Barriers: {_connect.describe(results)}\n{NOTE}", fontsize=11)
        columns = 2 if len(handles) == 4 else 3
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=columns, fontsize=8.5, frameon=False
        )


def shown(values: Sequence[float], name: str) -> list[float]:
    """Those which are finite; nats below the resolution are 0."""
    small = 0.0 if name == "accuracy_barrier" else _style.RESOLUTION
    return [0.0 if value < small else value for value in values if np.isfinite(value)]


def bound(axis: Any, name: str, values: Sequence[float]) -> None:
    """A scale on which what is next to nothing looks so: at least a point, or ten times the resolution."""
    if name == "accuracy_barrier":
        low, high = axis.get_view_interval()
        getattr(axis.axes, f"set_{axis.axis_name}lim")(low, max(high, 1.0))
    else:
        _style.stretch(axis, shown(values, name))


def _draw_rows(axis: Any, groups: Sequence[Group], curves: Sequence[str], name: str, beside: str) -> dict[str, Any]:
    handles: dict[str, Any] = {}
    for row, group in enumerate(groups):
        values = shown(group.values(name), name)
        if not values:
            continue
        colour = _style.SERIES[curves.index(group.curve) % len(_style.SERIES)]
        mean, low, high = shown(_style.interval(group.values(name)), name)
        if len(values) > 1:
            axis.plot([low, high], [row, row], color=colour, linewidth=2.2, zorder=3)
            handles["a seed"] = axis.plot(values, [row + 0.25] * len(values), "o", color=_style.GREY, markersize=3.6,
                                          markeredgewidth=0, alpha=0.65, zorder=2, clip_on=False)[0]  # fmt: skip
        label = ", ".join(filter(None, [group.curve, beside]))
        handles[label] = axis.plot([mean], [row], "D", color=colour, markersize=5.5, zorder=4, clip_on=False)[0]
    return handles


def _draw_floor(axis: Any, results: Results, name: str, beside: str) -> dict[str, Any]:
    """A vertical band: of the first curve."""
    interval = shown(_style.interval(_connect.floor(results, name)), name)
    if not interval:
        return {}
    curves = _connect.curves_of(results)
    mean, low, high = interval
    axis.axvspan(low, high, color=_style.GREEN, alpha=0.2, linewidth=0, zorder=0)
    line = axis.axvline(mean, color=_style.GREEN, linewidth=1.3, linestyle=_style.DASHED, zorder=1)
    label = "seed floor" + (f" ({curves[0]})" if len(curves) > 1 else "")
    return {", ".join(filter(None, [label, beside])): line}
