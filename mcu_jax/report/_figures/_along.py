"""Figures of metrics along the path of a run of unlearning, from the page's explorer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mcu_jax.report import _style
from mcu_jax.report._figures import _chart
from mcu_jax.report._figures._chart import Chart

PATH = ("RA", "UA", "TA", "MIA")
LOSSES = ("retain_loss", "forget_loss", "test_loss")
GAP = ("score_accuracy", "score_distribution", "unseen_distance")


def metrics_of(along: Mapping[str, Any] | None, names: Sequence[str]) -> list[dict[str, Any]]:
    """Those that the run has, in the given order."""
    if along is None:
        return []
    by_name = {metric["name"]: metric for metric in along["metrics"]}
    return [by_name[name] for name in names if name in by_name]


def chart(along: Mapping[str, Any], names: Sequence[str], width: str, seed: int | None) -> Chart:
    """A panel a metric; they share one unit. seed: by its place in the explorer, None for all of them."""
    metrics = metrics_of(along, names)
    columns = len(metrics) if width == "page" else 2
    rows = -(-len(metrics) // columns)

    def draw(figure: Any) -> None:
        axes, free = _chart.panels(figure, len(metrics), columns, sharex=True)
        handles: dict[str, Any] = {}
        for i, (axis, metric) in enumerate(zip(axes, metrics, strict=True)):
            handles |= _panel(axis, along, metric, seed, narrow=bool(free))
            axis.set_title(_chart.wrapped(metric["title"], 21 if width == "column" else 40))
            _chart.from_t(axis, named=i + columns >= len(metrics))
            if i % columns == 0:
                axis.set_ylabel(metric["unit"])
        _chart.legend(figure, handles, free, columns=3 if width == "page" else 2)

    below = 0.5 if width == "page" else 0.62
    height = (1.4 if width == "column" else 1.3) * rows + (0.3 if len(metrics) % columns else below)
    return Chart(height, draw, *_data(along, metrics, seed), _note(along, seed))


def _note(along: Mapping[str, Any], seed: int | None) -> str:
    several = seed is None and len(along["seeds"]) > 1
    region = "effective region: lower score than at t = 1" + ", in at least half of the seeds" * several
    return f"t = 0: the original; t = 1: {along['pre']}; {region}"


def _series(metric: Mapping[str, Any], name: str, seed: int | None) -> list[list[float | None]] | None:
    """Middle and edges of the band, or one seed's values alone."""
    of = metric[name]
    if of is None:
        return None
    return [of["seeds"][seed]] if seed is not None else [of["middle"], of["low"], of["high"]]


def _rule(along: Mapping[str, Any], seed: int | None) -> tuple[list[float], list[Any]]:
    """(t* of every seed shown, the effective region)."""
    rule = along["rules"][along["rule"]]
    return (rule["best"], rule["common"]) if seed is None else ([rule["best"][seed]], rule["regions"][seed])


def _panel(
    axis: Any, along: Mapping[str, Any], metric: Mapping[str, Any], seed: int | None, *, narrow: bool
) -> dict[str, Any]:
    """Everything in one panel; legend entries by their text. narrow: whether they have short lines."""
    t, several = _chart.floats(along["t"]), seed is None and len(along["seeds"]) > 1
    middle, *edges = map(_chart.floats, _series(metric, "path", seed) or [])
    told = f"path ({along['curve']})"
    if several:
        axis.fill_between(t, *edges, color=_style.BLUE, alpha=0.2, linewidth=0, zorder=3)
        band = f"{along['band'].rpartition('their ')[2]} of seeds"
        told += f":\nmedian, band:\n{band}" if narrow else f": median,\nband: {band}"
    handles = {told: axis.plot(t, middle, color=_style.BLUE, linewidth=1.4, zorder=4)[0]}
    yardstick, marks = _chart.retrained(axis, metric["retrained"], seed)
    handles |= yardstick
    seen = [middle, *edges, marks]
    line = _series(metric, "line", seed)
    if line is not None:
        seen.append(_chart.floats(line[0]))
        handles["straight line"] = axis.plot(t, seen[-1], color=_style.GREY, linewidth=0.9, zorder=2)[0]
    best, regions = _rule(along, seed)
    handles["t*" + ", a tick a seed" * several] = axis.axvline(
        float(np.median(best)), color=_style.BLACK, linewidth=0.8, linestyle=(0, (1, 1.5)), zorder=5
    )
    if several:
        # Just above the lower edge, whatever the range of the metric.
        axis.plot(best, [0.035] * len(best), "|", color=_style.BLACK, markersize=5, markeredgewidth=0.7,
                  transform=axis.get_xaxis_transform(), zorder=6)  # fmt: skip
    for low, high in regions:
        span = axis.axvspan(low, high, color=_style.GREEN, alpha=0.13, linewidth=0, zorder=0)
        handles["effective region"] = span
    _chart.fit_y(axis, _chart.finite(*seen), metric["most"])
    _chart.dress(axis)
    return handles


def _data(along: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]], seed: int | None) -> tuple[list[str], Any]:
    """A row a metric, series and t; t* and the effective region, which are no metric's, have t alone."""
    unit = metrics[0]["unit"]
    names = ["value"] if seed is not None else ["median", "band from", "band to"]
    rows: list[list[Any]] = []
    for metric in metrics:
        for told, name in (("path", "path"), ("straight line", "line")):
            series = _series(metric, name, seed)
            if series is not None:
                rows += [[metric["name"], told, t, *at] for t, *at in zip(along["t"], *series, strict=True)]
        if (of := metric["retrained"]) is not None:
            values = [of["seeds"][seed]] if seed is not None else [of[n] for n in ("middle", "low", "high")]
            rows.append([metric["name"], "retrained model", None, *values])
    best, regions = _rule(along, seed)
    seeds = along["seeds"] if seed is None else [along["seeds"][seed]]
    nothing = [None] * len(names)
    rows += [[None, f"t*, seed {s}", t, *nothing] for s, t in zip(seeds, best, strict=True)]
    for edges in regions:
        rows += [[None, f"effective region, {end}", t, *nothing] for end, t in zip(("from", "to"), edges, strict=True)]
    return ["metric", "series", "t", *(f"{name} ({unit})" for name in names)], rows
