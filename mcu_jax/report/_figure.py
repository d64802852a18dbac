"""The figure of one unlearning run: the four metrics along the path."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from mcu_jax import metrics
from mcu_jax.report import _style, _table

_PATH, _LINE, _REGION, _BEST = _style.BLUE, _style.GREY, _style.GREEN, _style.BLACK

_PANELS = (
    ("RA", "retain accuracy, RA (%)"),
    ("UA", "unlearning accuracy, UA (%)"),
    ("TA", "test accuracy, TA (%)"),
    ("MIA", "membership attack, MIA (%)"),
)


def path_figure(results: dict[str, Any], file: str | os.PathLike[str]) -> None:
    """Draw RA, UA, TA and MIA along t into `file` (the ending says the format), 200 dots per inch."""
    trained = _table.trained_paths(results)
    lines = [p for p in results["paths"] if p["curve"] == "linear"]
    if not trained:
        raise ValueError("expected a trained path in results['paths'], found straight lines only")
    figure = _style.paper(7.6, 6.4)
    handles: dict[str, Any] = {}
    for axis, (name, title) in zip(figure.subplots(2, 2, sharex=True).flat, _PANELS, strict=True):
        handles |= _draw_panel(axis, results, trained, lines, name)
        axis.set_title(title, fontsize=10, loc="left")
    _label_ends(figure.axes[2:])
    title = f"Along the path: {_table.describe(results)}\npre-unlearned by {results['config']['pre']}"
    figure.suptitle(title, fontsize=11)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, fontsize=8.5, frameon=False)
    figure.savefig(file)


def _draw_panel(
    axis: Any, results: dict[str, Any], trained: list[dict[str, Any]], lines: list[dict[str, Any]], name: str
) -> dict[str, Any]:
    """Everything in one panel; legend entries by their text."""
    handles: dict[str, Any] = {}
    t, mean, spread = _over_seeds(trained, name)
    label = f"MCU path ({trained[0]['curve']})"
    if spread is not None:
        label += ", mean and 95 % interval"
        axis.fill_between(*_band(t, mean, spread), color=_PATH, alpha=0.22, linewidth=0, zorder=3)
    handles[label] = axis.plot(t, mean, color=_PATH, linewidth=1.8, zorder=4)[0]
    retrained = [100.0 * r[name] for r in results["rows"] if r["method"] == "retrain"]
    handles |= _style.draw_retrained(axis, retrained, most=100.0)
    if lines:
        t, mean, _ = _over_seeds(lines, name)
        handles["straight line" + (", mean" if len(lines) > 1 else "")] = axis.plot(
            t, mean, color=_LINE, linewidth=1.1, zorder=2
        )[0]
    best = [p["best_t"] for p in trained]
    handles["chosen t*" + (": mean, and a tick per seed" if len(best) > 1 else "")] = axis.axvline(
        float(np.mean(best)), color=_BEST, linewidth=0.9, linestyle=(0, (1, 1.5)), zorder=5
    )
    if len(best) > 1:
        # Just above the lower edge, whatever the range of the metric.
        axis.plot(best, [0.025] * len(best), "|", color=_BEST, markersize=9, markeredgewidth=1.1,
                  transform=axis.get_xaxis_transform(), zorder=6)  # fmt: skip
    whose = " in at least half of the seeds" if len(trained) > 1 else ""
    for low, high in _common_regions([p["effective_region"] for p in trained]):
        span = axis.axvspan(low, high, color=_REGION, alpha=0.13, linewidth=0, zorder=0)
        handles[f"effective region{whose}: gap(t) < gap(1)"] = span
    _dress(axis)
    return handles


def _over_seeds(paths: Sequence[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """t [n], mean [n] and half-width of the interval [n] or None, in per cent."""
    t = np.unique(np.concatenate([p["t"] for p in paths]))
    values = np.stack([np.interp(t, p["t"], p[name]) for p in paths])
    return t, *metrics.curve_interval(100.0 * values)


def _band(t: np.ndarray, mean: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return t, np.maximum(mean - half, 0.0), np.minimum(mean + half, 100.0)


def _common_regions(regions: Sequence[Sequence[Sequence[float]]]) -> list[tuple[float, float]]:
    """Maximal intervals of t that lie in the regions of at least half the seeds."""
    edges = sorted({edge for seed in regions for interval in seed for edge in interval})
    common: list[tuple[float, float]] = []
    for low, high in itertools.pairwise(edges):
        middle = 0.5 * (low + high)
        inside = sum(any(a <= middle <= b for a, b in seed) for seed in regions)
        if 2 * inside < len(regions):
            continue
        if common and common[-1][1] == low:
            common[-1] = common[-1][0], high
        else:
            common.append((low, high))
    return common


def _dress(axis: Any) -> None:
    axis.set_xlim(0.0, 1.0)
    low, high = axis.get_ylim()
    # A flat curve at 100 % shall look flat, not magnified to noise.
    pad = max(0.0, 4.0 - (high - low)) / 2
    low, high = max(low - pad, -3.0), high + pad
    # No tick above 100 %, and the line at 100 % stays whole.
    axis.set_ylim(low, min(high, 100.0 + 0.03 * (100.0 - low)))
    _style.dress(axis)


def _label_ends(axes: Sequence[Any]) -> None:
    for axis in axes:
        axis.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0], ["0\n= original", "0.25", "0.5", "0.75", "1\n= pre-unlearned"])
        axis.get_xticklabels()[0].set_horizontalalignment("left")
        axis.get_xticklabels()[-1].set_horizontalalignment("right")
        # Between the second lines of the two outer labels.
        axis.set_xlabel("t", fontsize=10, labelpad=-9)
