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
"""Up to so many paths share the panels, with a colour each."""
COLUMNS = 5
"""Of panels where there are more paths."""
_SEEDS = "medians; thin lines: seeds (far ones leave the panel)"


class _Panel(NamedTuple):
    """name: of the long table, `split_metric`. most: what the metric cannot pass."""

    name: str
    title: str
    scale: float
    most: float


PANELS = (
    _Panel("retain_loss", "retain loss (nats)", 1.0, np.inf),
    _Panel("forget_loss", "forget loss (nats)", 1.0, np.inf),
    _Panel("forget_js", "JS to retrained, on D_f (nats)", 1.0, np.log(2.0)),
    _Panel("retain_accuracy", "retain accuracy (%)", 100.0, 100.0),
    _Panel("forget_accuracy", "forget accuracy (%)", 100.0, 100.0),
    _Panel("test_accuracy", "test accuracy (%)", 100.0, 100.0),
    _Panel("forget_unseen_distance", "D_f from unseen examples (points)", 100.0, 100.0),
    _Panel("forget_zrf", "zero-retrain forgetting, ZRF (%)", 100.0, 100.0),
    _Panel("forget_MIA", "membership attack, MIA (%)", 100.0, 100.0),
)


def curves_figure(results: Results, file: str | os.PathLike[str]) -> None:
    """Draw the metrics along t into `file` (the ending says the format), 200 dots per inch.

    Of up to 6 paths every metric, in a panel each; of more the accuracies, with a panel for each path, and of more
    than a table shows whole those of smallest and of largest mean accuracy barrier.
    """
    groups = [group for group in _connect.main_groups(results) if len(group.along)]
    (_draw_metrics if len(groups) <= COLOURED else _draw_paths)(results, groups, file)


def _draw_metrics(results: Results, groups: Sequence[Group], file: str | os.PathLike[str]) -> None:
    panels = [p for p in PANELS if groups and all(p.name in group.along for group in groups)]
    rows = -(-(len(panels) + 1) // 3)
    with _style.paper(file, 9.2, 2.7 * rows + 0.1) as figure:
        axes = figure.subplots(rows, 3)
        handles: dict[str, Any] = {}
        for axis, panel in zip(axes.flat, panels, strict=False):
            handles |= _draw_panel(axis, results, groups, panel)
            axis.set_title(panel.title, fontsize=10, loc="left")
        letters = _label_ends(axes.flat[: len(panels)], groups)
        figure.suptitle(_title(results), fontsize=11)
        free = axes.flat[len(panels) :]
        for axis in free:
            axis.axis("off")
        texts = ["\n".join(_text.wrap_name(text, 30 if len(free) == 1 else 60)) for text in handles]
        title = "A – B: from A at t = 0 to B at t = 1\n" if letters else ""
        seeds = len(_connect.seeds_of(results))
        title += "one seed" if seeds < 2 else _SEEDS.replace(" (", "\n(")
        if seeds > 1 and "retrained model" in handles:
            title += f"\nband: {_style.spread(seeds)} of retrained models"
        # As large as its cell allows.
        size = 9 * min(1.0, 13 / "\n".join([title, *texts]).count("\n"))
        legend = free[0].legend(handles.values(), texts, title=title, loc="upper left", fontsize=size, frameon=False)
        legend.get_title().set_fontsize(size)
        legend.set_alignment("left")
        # It stands in cells of its own, and shall not push the panels together.
        legend.set_in_layout(False)


def _draw_panel(axis: Any, results: Results, groups: Sequence[Group], panel: _Panel) -> dict[str, Any]:
    """Everything in one panel; legend entries by their text."""
    handles: dict[str, Any] = {}
    edges = []
    for i, group in enumerate(groups):
        values = panel.scale * group.along[panel.name]
        handles[group.label], seen = _style.draw_seeds(axis, values, i, len(groups))
        edges.append(seen)
    handles |= _style.draw_retrained(axis, panel.scale * retrained_of(results, groups, panel.name))
    _style.dress(axis)
    axis.set_xlim(0.0, 1.0)
    if np.isinf(panel.most):
        _style.stretch(axis.yaxis, np.concatenate(edges))
    else:
        _style.limit(axis, panel.most)
    return handles


def _draw_paths(results: Results, groups: Sequence[Group], file: str | os.PathLike[str]) -> None:
    first, left, last = _connect.cut(groups, lambda group: group.accuracy_barrier)
    shown = first + last
    with _style.paper(file, 9.2, 1.3 + 1.6 * np.ceil(len(shown) / COLUMNS)) as figure:
        axes = figure.subplots(-(-len(shown) // COLUMNS), COLUMNS, sharey=True).flat
        handles: dict[str, Any] = {}
        for i, (axis, group) in enumerate(zip(axes, shown, strict=False)):
            handles |= _draw_accuracies(axis, results, group)
            lowest = i + COLUMNS >= len(shown)
            axis.set_xticks([0.0, 0.5, 1.0], ["0", "t", "1"] if lowest else [""] * 3)
        _style.limit(axes[0], 100.0)
        for axis in axes[len(shown) :]:
            axis.axis("off")
        ends = "from the first run" if groups[0].role == "floor" else "A – B: from A"
        ends += " at t = 0 to " + ("the second" if groups[0].role == "floor" else "B") + " at t = 1"
        seeds = "" if len(_connect.seeds_of(results)) < 2 else f"; {_SEEDS}"
        some = f"\nthe {len(first)} smallest and the {len(last)} largest accuracy barriers" if left else ""
        figure.suptitle(f"{_title(results)}\n{ends}{seeds}{some}", fontsize=11)
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=8.5, frameon=False
        )


def _draw_accuracies(axis: Any, results: Results, group: Group) -> dict[str, Any]:
    """Those of one path; legend entries by their text."""
    from matplotlib import lines

    panels = [p for p in PANELS if p.name.endswith("accuracy") and p.name in group.along]
    dashed: dict[str, Any] = {"linewidth": 1.0, "linestyle": _style.DASHED}
    handles: dict[str, Any] = {}
    for i, panel in enumerate(panels):
        handles[panel.title], _ = _style.draw_seeds(axis, panel.scale * group.along[panel.name], i, len(panels))
        retrained = panel.scale * retrained_of(results, [group], panel.name)
        if len(retrained):
            axis.axhline(retrained.median(), color=_style.SERIES[i], zorder=2, **dashed)
    if len(retrained):
        handles["of the retrained model, by colour"] = lines.Line2D([], [], color=_style.GREY, **dashed)
    axis.set_title("\n".join(_text.wrap_name(group.label, 28)), fontsize=8, loc="left")
    _style.dress(axis)
    axis.set_xlim(0.0, 1.0)
    return handles


def _title(results: Results) -> str:
    request = results.summary["config"]["grid"] != "sizes"
    return f"Along the paths: {_connect.describe(results, request=request)}"


def retrained_of(results: Results, groups: Sequence[Group], name: str) -> Any:
    """By seed, the mean over runs; none where the paths have several requests."""
    requests = {entry[end]["forget"] for group in groups for entry in group.entries for end in "ab"}
    rows = _results.named(results.table[(results.table.role == "retrained") & results.table.forget.isin(requests)])
    rows = rows[rows.name == name]
    return (rows if len(requests) == 1 else rows[:0]).groupby("replicate").value.mean()


def _label_ends(axes: Any, groups: Sequence[Group]) -> bool:
    """Below the lowest panels by name where the paths share an end and there is room; whether letters stand there."""
    two_runs = all(group.role == "floor" for group in groups)
    ends = {group.a for group in groups}, {group.b for group in groups}
    names = ["first run", "second run"] if two_runs else [labels.pop() if len(labels) == 1 else "" for labels in ends]
    letters = not any(names) or max(map(len, names)) > 13
    names = ["A", "B"] if letters else [name or "the other" for name in names]
    lowest = [axis for i, axis in enumerate(axes) if i // 3 == (len(axes) - 1) // 3]
    for axis in axes[: -len(lowest)]:
        axis.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0], ["0", "0.25", "0.5", "0.75", "1"])
    _style.label_ends(lowest, *names)
    return letters
