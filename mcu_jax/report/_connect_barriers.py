"""Barriers of every path of `mcu-jax connect`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from mcu_jax import metrics
from mcu_jax.report import _connect, _style, _text
from mcu_jax.report._connect import Group

PANELS = (
    ("accuracy", "accuracy barrier (points)"),
    ("retain_nats", "barrier on D_r (nats)"),
    ("forget_nats", "barrier on D_f (nats)"),
)


def barriers_figure(results: dict[str, Any], file: str | os.PathLike[str]) -> None:
    """Draw the three barriers of every pair and curve into `file`: a dot a seed, mean and interval; the seed floor."""
    groups = _connect.main_groups(results)
    curves = _connect.curves_of(results)
    labels = [_text.wrap_name(group.label, 40) for group in groups]
    figure = _style.paper(9.2, 1.5 + sum(0.21 + 0.15 * len(lines) for lines in labels))
    axes = figure.subplots(1, 3, sharey=True)
    handles: dict[str, Any] = {}
    for axis, (name, title) in zip(axes, PANELS, strict=True):
        handles |= _draw_rows(axis, groups, curves, name)
        handles |= _draw_floor(axis, results, name)
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlim(left=0.0)
        _style.dress(axis, along="x")
        axis.locator_params(axis="x", nbins=4)
        if name != "accuracy":
            drawn = [value for group in groups for value in group.barriers(name)]
            _style.stretch(axis.xaxis, drawn + ([results["floor"][name]["mean"]] if results["floor"] else []))
    axes[0].set_yticks(range(len(groups)), ["\n".join(lines) for lines in labels])
    axes[0].set_ylim(len(groups) - 0.5, -0.5)
    figure.suptitle(f"Barriers (0 is best): {_connect.describe(results)}", fontsize=11)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=8.5, frameon=False)
    figure.savefig(file)


def _draw_rows(axis: Any, groups: Sequence[Group], curves: Sequence[str], name: str) -> dict[str, Any]:
    handles: dict[str, Any] = {}
    for row, group in enumerate(groups):
        values = [value for value in group.barriers(name) if np.isfinite(value)]
        if not values:
            continue
        colour = _style.SERIES[curves.index(group.curve) % len(_style.SERIES)]
        mean, half = metrics.mean_interval(values)
        label = group.curve
        if half is not None:
            axis.plot([max(mean - half, 0.0), mean + half], [row, row], color=colour, linewidth=2.2, zorder=3)
            handles["a seed"] = axis.plot(values, [row + 0.25] * len(values), "o", color=_style.GREY, markersize=3.6,
                                          markeredgewidth=0, alpha=0.65, zorder=2)[0]  # fmt: skip
            label += ", mean and 95 % interval"
        handles[label] = axis.plot([mean], [row], "D", color=colour, markersize=5.5, zorder=4)[0]
    return handles


def _draw_floor(axis: Any, results: dict[str, Any], name: str) -> dict[str, Any]:
    """A vertical band: of the first curve."""
    if name not in results["floor"]:
        return {}
    floor, several = results["floor"][name], len(_connect.curves_of(results)) > 1
    label = "seed floor" + (f" ({_connect.curves_of(results)[0]})" if several else "")
    if floor["interval"]:
        low, high = floor["interval"]
        axis.axvspan(max(low, 0.0), high, color=_style.GREEN, alpha=0.2, linewidth=0, zorder=0)
        label += ", mean and 95 % interval"
    line = axis.axvline(floor["mean"], color=_style.GREEN, linewidth=1.3, linestyle=(0, (5, 2)), zorder=1)
    return {label: line}
