"""The metrics along every path of `mcu-jax connect`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mcu_jax import metrics
from mcu_jax.report import _connect, _style, _text
from mcu_jax.report._connect import Group

COLOURED = len(_style.SERIES)
"""Up to so many paths have a colour each."""


class _Panel(NamedTuple):
    """low, high: what the metric cannot pass."""

    name: str
    title: str
    scale: float
    low: float
    high: float


_PANELS = (
    _Panel("retain_loss", "retain loss (nats)", 1.0, 0.0, np.inf),
    _Panel("forget_loss", "forget loss (nats)", 1.0, 0.0, np.inf),
    _Panel("js", "JS to retrained, on D_f (nats)", 1.0, 0.0, np.log(2.0)),
    _Panel("retain_accuracy", "retain accuracy (%)", 100.0, 0.0, 100.0),
    _Panel("forget_accuracy", "forget accuracy (%)", 100.0, 0.0, 100.0),
    _Panel("test_accuracy", "test accuracy (%)", 100.0, 0.0, 100.0),
    _Panel("zrf", "zero-retrain forgetting, ZRF (%)", 100.0, 0.0, 100.0),
    _Panel("MIA", "membership attack, MIA (%)", 100.0, 0.0, 100.0),
)


class _Series(NamedTuple):
    """colour: None for a thin line among many, without a band."""

    label: str
    colour: str | None
    entries: list[dict[str, Any]]


def curves_figure(results: dict[str, Any], file: str | os.PathLike[str]) -> None:
    """Draw every metric along t into `file` (the ending says the format), 200 dots per inch.

    Of more than 6 paths all are thin and grey but those of smallest and of largest accuracy barrier.
    """
    groups = _connect.main_groups(results)
    series = _series(groups)
    panels = [p for p in _PANELS if all(p.name in entry["metrics"] for g in groups for entry in g.entries)]
    figure = _style.paper(9.2, 8.2)
    axes = figure.subplots(3, 3)
    handles: dict[str, Any] = {}
    for axis, panel in zip(axes.flat, panels, strict=False):
        handles |= _draw_panel(axis, results, series, panel)
        axis.set_title(panel.title, fontsize=10, loc="left")
    used, free = axes.flat[: len(panels)], axes.flat[len(panels) :]
    _label_ends(used, groups)
    figure.suptitle(f"Along the paths: {_connect.describe(results)}", fontsize=11)
    for axis in free:
        axis.axis("off")
    texts = ["\n".join(_text.wrap_name(text, 36)) for text in handles]
    title = "mean, and band of its 95 % interval" if len(_connect.seeds_of(results)) > 1 else "one seed"
    legend = free[0].legend(handles.values(), texts, title=title, loc="upper left", fontsize=9, frameon=False)
    legend.get_title().set_fontsize(9)
    legend.set_alignment("left")
    # It stands in cells of its own, and shall not push the panels together.
    legend.set_in_layout(False)
    figure.savefig(file)


def _series(groups: Sequence[Group]) -> list[_Series]:
    if len(groups) <= COLOURED:
        return [_Series(g.label, colour, g.entries) for g, colour in zip(groups, _style.SERIES, strict=False)]
    by_barrier = sorted(groups, key=lambda g: _connect.mean(g.barriers("accuracy")))
    least, *others, most = by_barrier
    named = [
        _Series(f"{size} accuracy barrier: {g.label}", colour, g.entries)
        for size, g, colour in (("smallest", least, _style.BLUE), ("largest", most, _style.ORANGE))
    ]
    return [_Series(f"the other {len(others)}, mean alone", None, g.entries) for g in others] + named


def _draw_panel(axis: Any, results: dict[str, Any], series: Sequence[_Series], panel: _Panel) -> dict[str, Any]:
    """Everything in one panel; legend entries by their text."""
    handles: dict[str, Any] = {}
    means = []
    for one in series:
        t, mean, half = _over_seeds(one.entries, panel)
        means.append(mean)
        if one.colour is None:
            handles[one.label] = axis.plot(t, mean, color="0.72", linewidth=0.6, zorder=2)[0]
            continue
        if half is not None:
            band = np.maximum(mean - half, panel.low), np.minimum(mean + half, panel.high)
            axis.fill_between(t, *band, color=one.colour, alpha=0.2, linewidth=0, zorder=3)
        handles[one.label] = axis.plot(t, mean, color=one.colour, linewidth=1.7, zorder=4)[0]
    for line in _style.draw_retrained(axis, _retrained(results, series, panel), most=panel.high).values():
        handles["retrained model"] = line
    _style.dress(axis)
    axis.set_xlim(0.0, 1.0)
    if np.isinf(panel.high):
        _style.stretch(axis.yaxis, np.concatenate(means))
    else:
        low, high = axis.get_ylim()
        # A flat curve shall look flat, not magnified to noise; no tick beyond what is possible.
        pad = max(0.0, 0.04 * panel.high - (high - low)) / 2
        low, high = max(low - pad, -0.03 * panel.high), high + pad
        axis.set_ylim(low, min(high, panel.high + 0.03 * (panel.high - low)))
    return handles


def _over_seeds(entries: Sequence[dict[str, Any]], panel: _Panel) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """t [n], mean [n] and half-width of the interval [n] or None; nan where a seed's value is not finite."""
    t = np.unique(np.concatenate([entry["t"] for entry in entries]))
    raw = [np.asarray(entry["metrics"][panel.name], float) for entry in entries]
    finite = [np.where(np.isfinite(values), values, np.nan) for values in raw]
    values = np.stack([np.interp(t, entry["t"], own) for entry, own in zip(entries, finite, strict=True)])
    return t, *metrics.curve_interval(panel.scale * values)


def _retrained(results: dict[str, Any], series: Sequence[_Series], panel: _Panel) -> list[float]:
    """One value a seed, the mean over its runs; none where the paths that stand out have several requests."""
    asked = {entry[end]["forget"] for one in series if one.colour for entry in one.entries for end in "ab"}
    found: dict[int, list[float]] = {}
    for row in results["retrained"]:
        if len(asked) == 1 and row["forget"] in asked and panel.name in row:
            found.setdefault(row["seed"], []).append(panel.scale * row[panel.name])
    return [float(np.mean(values)) for values in found.values()]


def _label_ends(axes: Any, groups: Sequence[Group]) -> None:
    """The ends below the lowest panels, by name where all paths share them and there is room."""
    ends = list(dict.fromkeys((e["a"]["label"], e["b"]["label"]) for g in groups for e in g.entries))
    a, b = ends[0] if len(ends) == 1 and sum(map(len, ends[0])) <= 28 else ("a", "b")
    for i, axis in enumerate(axes):
        lowest = i // 3 == (len(axes) - 1) // 3
        first, last = (f"0\n= {a}", f"1\n= {b}") if lowest else ("0", "1")
        axis.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0], [first, "0.25", "0.5", "0.75", last])
        if lowest:
            axis.get_xticklabels()[0].set_horizontalalignment("left")
            axis.get_xticklabels()[-1].set_horizontalalignment("right")
            axis.set_xlabel("t", fontsize=10, labelpad=-9)
