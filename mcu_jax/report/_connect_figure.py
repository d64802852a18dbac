"""The metrics along every path of `mcu-jax connect`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mcu_jax.report import _connect, _results, _style, _text
from mcu_jax.report._connect import Group
from mcu_jax.report._results import Results

COLOURED = len(_style.SERIES)
"""Up to so many paths have a colour each."""


class _Panel(NamedTuple):
    """name: of the long table, `split_metric`. most: what the metric cannot pass."""

    name: str
    title: str
    scale: float
    most: float


_PANELS = (
    _Panel("retain_loss", "retain loss (nats)", 1.0, np.inf),
    _Panel("forget_loss", "forget loss (nats)", 1.0, np.inf),
    _Panel("forget_js", "JS to retrained, on D_f (nats)", 1.0, np.log(2.0)),
    _Panel("retain_accuracy", "retain accuracy (%)", 100.0, 100.0),
    _Panel("forget_accuracy", "forget accuracy (%)", 100.0, 100.0),
    _Panel("test_accuracy", "test accuracy (%)", 100.0, 100.0),
    _Panel("forget_zrf", "zero-retrain forgetting, ZRF (%)", 100.0, 100.0),
    _Panel("forget_MIA", "membership attack, MIA (%)", 100.0, 100.0),
)


class _Series(NamedTuple):
    """colour: None for a thin line among many, without a band."""

    label: str
    colour: str | None
    group: Group


def curves_figure(results: Results, file: str | os.PathLike[str]) -> None:
    """Draw every metric along t into `file` (the ending says the format), 200 dots per inch.

    Of more than 6 paths all are thin and grey but those of smallest and of largest median accuracy barrier.
    """
    groups = [group for group in _connect.main_groups(results) if len(group.along)]
    series = _series(groups)
    panels = [p for p in _PANELS if groups and all(p.name in group.along for group in groups)]
    with _style.paper(file, 9.2, 8.2) as figure:
        axes = figure.subplots(3, 3)
        handles: dict[str, Any] = {}
        for axis, panel in zip(axes.flat, panels, strict=False):
            handles |= _draw_panel(axis, results, series, panel)
            axis.set_title(panel.title, fontsize=10, loc="left")
        _label_ends(axes.flat[: len(panels)], groups)
        request = results.summary["config"]["grid"] != "sizes"
        figure.suptitle(f"Along the paths: {_connect.describe(results, request=request)}", fontsize=11)
        free = axes.flat[len(panels) :]
        for axis in free:
            axis.axis("off")
        texts = ["\n".join(_text.wrap_name(text, 36)) for text in handles]
        title = "A – B: from A at t = 0 to B at t = 1\n" if any(group.role == "pair" for group in groups) else ""
        title += _style.banded(len(_connect.seeds_of(results))).replace(", ", ",\n")
        legend = free[0].legend(handles.values(), texts, title=title, loc="upper left", fontsize=9, frameon=False)
        legend.get_title().set_fontsize(9)
        legend.set_alignment("left")
        # It stands in cells of its own, and shall not push the panels together.
        legend.set_in_layout(False)


def _series(groups: Sequence[Group]) -> list[_Series]:
    if len(groups) <= COLOURED:
        return [_Series(g.label, colour, g) for g, colour in zip(groups, _style.SERIES, strict=False)]
    least, *others, most = sorted(groups, key=lambda group: float(group.whole["accuracy_barrier"].median()))
    named = [
        _Series(f"{size} median accuracy barrier: {group.label}", colour, group)
        for size, group, colour in (("smallest", least, _style.BLUE), ("largest", most, _style.ORANGE))
    ]
    return [_Series(f"the other {len(others)}, median alone", None, group) for group in others] + named


def _draw_panel(axis: Any, results: Results, series: Sequence[_Series], panel: _Panel) -> dict[str, Any]:
    """Everything in one panel; legend entries by their text."""
    handles: dict[str, Any] = {}
    drawn = []
    for i, path in enumerate(series):
        values = panel.scale * path.group.along[panel.name]
        middle, low, high = _style.over_seeds(values)
        drawn.append(middle)
        if path.colour is None:
            handles[path.label] = axis.plot(middle.index, middle, color="0.72", linewidth=0.6, zorder=2)[0]
        else:
            drawn += [low, high]
            below = len(series) - 1 - i if len(series) <= COLOURED else 0
            handles[path.label] = _style.draw_seeds(axis, values, path.colour, below)
    handles |= _style.draw_retrained(axis, panel.scale * _retrained(results, series, panel.name))
    _style.dress(axis)
    axis.set_xlim(0.0, 1.0)
    if np.isinf(panel.most):
        _style.stretch(axis.yaxis, np.concatenate(drawn))
    else:
        _style.limit(axis, panel.most)
    return handles


def _retrained(results: Results, series: Sequence[_Series], name: str) -> Any:
    """By seed, the mean over runs; none where the paths that stand out have several requests."""
    coloured = [entry for path in series if path.colour for entry in path.group.entries]
    requests = {entry[end]["forget"] for entry in coloured for end in "ab"}
    rows = _results.named(results.table[(results.table.role == "retrained") & results.table.forget.isin(requests)])
    rows = rows[rows.name == name]
    return (rows if len(requests) == 1 else rows[:0]).groupby("replicate").value.mean()


def _label_ends(axes: Any, groups: Sequence[Group]) -> None:
    """Below the lowest panels by name where all paths share an end and there is room, else as the legend names them."""
    letters = ["first run", "second run"] if all(group.role == "floor" for group in groups) else ["A", "B"]
    ends = {group.a for group in groups}, {group.b for group in groups}
    names = [labels.pop() if len(labels) == 1 else letter for labels, letter in zip(ends, letters, strict=True)]
    if sum(map(len, names)) > 28:
        names = letters
    lowest = [axis for i, axis in enumerate(axes) if i // 3 == (len(axes) - 1) // 3]
    for axis in axes[: -len(lowest)]:
        axis.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0], ["0", "0.25", "0.5", "0.75", "1"])
    _style.label_ends(lowest, *names)
