"""The figure of one unlearning run: the four metrics along the path."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from mcu_jax.report import _style, _table
from mcu_jax.report._results import Results

_PATH, _LINE, _REGION, _BEST = _style.BLUE, _style.GREY, _style.GREEN, _style.BLACK

_PANELS = (
    ("RA", "retain accuracy, RA (%)"),
    ("UA", "unlearning accuracy, UA (%)"),
    ("TA", "test accuracy, TA (%)"),
    ("MIA", "membership attack, MIA (%)"),
)


def path_figure(results: Results, file: str | os.PathLike[str]) -> None:
    """Draw RA, UA, TA and MIA along t into `file` (the ending says the format), 200 dots per inch."""
    trained = _table.trained_paths(results)
    if not trained:
        raise ValueError("expected a trained path in the results, found straight lines only")
    with _style.paper(file, 7.6, 6.4) as figure:
        handles: dict[str, Any] = {}
        for axis, (name, title) in zip(figure.subplots(2, 2, sharex=True).flat, _PANELS, strict=True):
            handles |= _draw_panel(axis, results, trained, name)
            axis.set_title(title, fontsize=10, loc="left")
        _style.label_ends(figure.axes[2:], "original", "pre-unlearned")
        figure.suptitle(
            f"Along the path: {_table.describe(results)}\npre-unlearned by {results.summary['config']['pre']}; "
            f"{_style.banded(len(trained))}",
            fontsize=11,
        )
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=2, fontsize=8.5, frameon=False
        )


def _draw_panel(axis: Any, results: Results, trained: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Everything in one panel; legend entries by their text."""
    rows = results.table[(results.table.role == "path") & (results.table.metric == name)]
    path, line = (
        100.0 * rows[rows.subject == subject].pivot(index="t", columns="replicate", values="value")
        for subject in ("mcu", "linear")
    )
    handles = {f"MCU path ({trained[0]['curve']})": _style.draw_band(axis, path, _PATH)}
    handles |= _style.draw_retrained(axis, 100.0 * _table.values(results, "retrain", name))
    if len(line):
        middle = _style.over_seeds(line)[0]
        handles["straight line"] = axis.plot(middle.index, middle, color=_LINE, linewidth=1.1, zorder=2)[0]
    rule = results.summary["config"]["rule"]
    best = [p["chosen"][rule]["t"] for p in trained]
    handles["chosen t*" + (": median, and a tick per seed" if len(best) > 1 else "")] = axis.axvline(
        float(np.median(best)), color=_BEST, linewidth=0.9, linestyle=(0, (1, 1.5)), zorder=5
    )
    if len(best) > 1:
        # Just above the lower edge, whatever the range of the metric.
        axis.plot(best, [0.025] * len(best), "|", color=_BEST, markersize=9, markeredgewidth=1.1,
                  transform=axis.get_xaxis_transform(), zorder=6)  # fmt: skip
    whose = " in at least half of the seeds" if len(trained) > 1 else ""
    for low, high in common_regions([p["effective_region"][rule] for p in trained]):
        span = axis.axvspan(low, high, color=_REGION, alpha=0.13, linewidth=0, zorder=0)
        handles[f"effective region{whose}: score below that at t = 1"] = span
    axis.set_xlim(0.0, 1.0)
    _style.limit(axis, 100.0)
    _style.dress(axis)
    return handles


def common_regions(regions: Sequence[Sequence[Sequence[float]]]) -> list[tuple[float, float]]:
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
