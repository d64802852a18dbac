"""Figures of a run of `mcu-jax connect`, from the sections of its page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mcu_jax.report import _style
from mcu_jax.report._figures import _barrier, _chart
from mcu_jax.report._figures._chart import Chart


def matrix(of: Mapping[str, Any], width: str) -> Chart:
    """Accuracy barriers between every two methods in clustered order, and the tree that orders them."""
    n, most = len(of["labels"]), 16 if width == "column" else 30
    labels = [_chart.short(label, most) for label in of["labels"]]
    values = np.stack([_chart.floats(row) for row in of["values"]])
    longest = max(map(len, labels))
    cell = (_chart.WIDTHS[width] - 0.062 * longest - 0.6) / n
    cell = min(cell, 0.42)

    # Few cells are not as wide as the page.
    part = min(1.0, (0.8 * n + 0.062 * longest + 0.9) / _chart.WIDTHS[width])

    def draw(figure: Any) -> None:
        figure.get_layout_engine().set(rect=((1.0 - part) / 2, 0.0, part, 1.0))
        tree, axis = figure.subplots(2, 1, height_ratios=[0.5, cell * n], sharex=True)
        image = _draw_cells(axis, values, 6.0 if cell > 0.2 else None)
        axis.set_xticks(range(n), labels, rotation=45, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(n), labels)
        _draw_tree(tree, [(line["x"], line["y"]) for line in of["tree"]])
        tree.locator_params(axis="y", nbins=2)
        tree.set_ylabel("joined at")
        bar = figure.colorbar(image, ax=axis, shrink=0.8, pad=0.02, aspect=18)
        bar.set_label("accuracy barrier (points)")
        bar.outline.set_visible(False)

    rows = [
        [a, b, values[i, j] if np.isfinite(values[i, j]) else None]
        for i, a in enumerate(of["labels"])
        for j, b in enumerate(of["labels"])
    ]
    height = 0.7 + cell * n + 0.047 * longest
    note = f"{of['curve']}, mean over seeds; framed: the seed floor, two runs of one method"
    return Chart(height, draw, ["a", "b", f"accuracy barrier, {of['curve']}, mean (points)"], rows, note)


def _draw_cells(axis: Any, matrix: np.ndarray, size: float | None) -> Any:
    """The heat map, of which the diagonal is framed: what a colour bar needs. size: of its numbers in points, None for
    none.
    """
    from matplotlib import colors
    from matplotlib.patches import Rectangle

    n = len(matrix)
    top = np.max(matrix[np.isfinite(matrix)], initial=1.0)
    # Cells are centred on whole numbers, without a forced aspect, so that the tree above shares their columns.
    # By square roots: one method far from all others would leave the rest without contrast.
    norm = colors.PowerNorm(0.5, 0.0, top)
    image = axis.imshow(np.ma.masked_invalid(matrix), cmap="YlGnBu", norm=norm, aspect="auto")
    for i, j in np.ndindex(n, n):
        value = matrix[i, j]
        text = f"{value:.1f}" if np.isfinite(value) else "–"
        colour = "white" if np.isfinite(value) and norm(value) > 0.55 else "black"
        if size is not None:
            axis.text(j, i, text, ha="center", va="center", fontsize=size, color=colour)
    for i in range(n):
        axis.add_patch(Rectangle((i - 0.46, i - 0.46), 0.92, 0.92, fill=False, edgecolor=_style.BLACK, linewidth=1.1))
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return image


def _draw_tree(axis: Any, lines: Iterable[tuple[Any, Any]]) -> None:
    for x, y in lines:
        axis.plot(x, y, color=_style.GREY, linewidth=1.1)
    axis.set_yscale("function", functions=(lambda y: np.sqrt(np.maximum(y, 0)), np.square))
    axis.set_ylim(bottom=0.0)
    axis.tick_params(bottom=False, labelbottom=False)
    axis.spines[["top", "right", "bottom"]].set_visible(False)


def barriers(of: Mapping[str, Any], width: str) -> Chart:
    """The three barriers of every path: means with their intervals, a dot a seed, and the seed floor."""
    labels = list(dict.fromkeys(of["labels"]))
    narrow = width == "column"
    texts = [_chart.wrapped(label, 20 if narrow else 30, 3) for label in labels]
    row = 0.17 + 0.09 * max(each.count("\n") for each in texts)

    def draw(figure: Any) -> None:
        axes, _ = _chart.panels(figure, len(of["panels"]), len(of["panels"]), sharey=True)
        handles: dict[str, Any] = {}
        for axis, panel in zip(axes, of["panels"], strict=True):
            dots = [dot for dot in of["dots"] if dot["panel"] == panel["name"]]
            beside = f", {of['beside']}" if of["beside"] and not narrow else ""
            handles |= _draw_dots(axis, dots, labels, of["curves"], beside)
            handles |= _draw_floor(axis, panel, beside)
            axis.set_title(_chart.wrapped(panel["title"], 13, 3) if narrow else panel["title"])
            axis.set_xlim(left=0.0)
            axis.locator_params(axis="x", nbins=2 if narrow else 4)
            axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            _chart.dress(axis, along="x")
            seen = [dot[name] for dot in dots for name in ("mean", "low", "high")] + panel["floor"]
            _barrier.bound(axis.xaxis, panel["name"], seen)
            axis.xaxis.label.set_size(_chart.SMALL)
            if narrow:
                axis.set_xticks(axis.get_xticks()[:: max(1, (len(axis.get_xticks()) - 1) // 2)])
                axis.set_xlabel("log scale" if axis.get_xlabel() else "")
            axis.tick_params(axis="y", length=0, pad=5)  # marks at 0 are whole
        # Between the last number of a panel and the first of the next.
        figure.get_layout_engine().set(wspace=0.06, hspace=0.04)
        axes[0].set_yticks(range(len(labels)), texts)
        axes[0].set_ylim(len(labels) - 0.5, -0.5)
        _chart.legend(figure, handles, [], columns=3 if width == "page" else 2)

    rows: list[list[Any]] = []
    titles = {panel["name"]: panel["title"] for panel in of["panels"]}
    for dot in of["dots"]:
        told = [dot["label"], dot["curve"], titles[dot["panel"]]]
        rows += [[*told, name, dot[name]] for name in ("mean", "low", "high")]
        rows += [[*told, "a seed", value] for value in dot["seeds"]]
    for panel in of["panels"]:
        names = ("mean", "low", "high")
        rows += [["seed floor", None, panel["title"], n, v] for n, v in zip(names, panel["floor"], strict=True)]
    heads = ["path", "curve", "barrier (unit)", "of", "value"]
    return Chart((1.0 if narrow else 0.75) + row * len(labels), draw, heads, rows, of["note"])


def _draw_dots(
    axis: Any, dots: Sequence[Mapping[str, Any]], labels: Sequence[str], curves: Sequence[str], beside: str
) -> dict[str, Any]:
    handles: dict[str, Any] = {}
    for dot in dots:
        mean, low, high = (_barrier.small(dot[name], dot["panel"]) for name in ("mean", "low", "high"))
        row = labels.index(dot["label"])
        if mean is None:
            continue
        colour = _style.SERIES[curves.index(dot["curve"]) % len(_style.SERIES)]
        seeds = [value for value in (_barrier.small(each, dot["panel"]) for each in dot["seeds"]) if value is not None]
        if len(seeds) > 1:
            axis.plot([low, high], [row, row], color=colour, linewidth=1.4, zorder=3, clip_on=False)
            handles["a seed"] = axis.plot(seeds, [row + 0.27] * len(seeds), "o", color=_style.GREY, markersize=2,
                                          markeredgewidth=0, alpha=0.65, zorder=2, clip_on=False)[0]  # fmt: skip
        (mark,) = axis.plot(mean, row, "D", color=colour, markersize=3.4, zorder=4, clip_on=False)
        handles[f"{dot['curve']}{beside}"] = mark
    return handles


def _draw_floor(axis: Any, panel: Mapping[str, Any], beside: str) -> dict[str, Any]:
    mean, low, high = (_barrier.small(value, panel["name"]) for value in panel["floor"])
    if mean is None:
        return {}
    axis.axvspan(low, high, color=_style.GREEN, alpha=0.2, linewidth=0, zorder=0)
    line = axis.axvline(mean, color=_style.GREEN, linewidth=0.9, linestyle=_style.DASHED, zorder=1)
    return {f"seed floor{beside}": line}


def sizes(of: Mapping[str, Any], width: str) -> Chart:
    """Barriers against the size of the forget set, a line a method."""
    roles = list(dict.fromkeys(point["role"] for point in of["points"]))
    lines = list(dict.fromkeys(point["line"] for point in of["points"]))
    places = [(role, panel) for role in roles for panel in of["panels"]]
    columns = len(of["panels"]) if width == "page" else len(roles)
    if width == "column":
        places = [(role, panel) for panel in of["panels"] for role in roles]

    def draw(figure: Any) -> None:
        axes, _ = _chart.panels(figure, len(places), columns, sharex=True)
        handles: dict[str, Any] = {}
        for i, (axis, (role, panel)) in enumerate(zip(axes, places, strict=True)):
            points = [p for p in of["points"] if p["role"] == role and p["panel"] == panel["name"]]
            for place, line in enumerate(lines):
                handles |= _draw_line(axis, place, line, [p for p in points if p["line"] == line])
            told = f"{panel['title']}, {role}"
            axis.set_title(_chart.wrapped(told, 20, 3) if width == "column" else told.replace(", ", ",\n", 1))
            axis.set_ylim(bottom=0.0)
            axis.locator_params(axis="y", nbins=4)
            _barrier.bound(axis.yaxis, panel["name"], [p[n] for p in points for n in ("mean", "low", "high")])
            axis.yaxis.label.set_size(_chart.SMALL)
            if width == "column" and axis.get_ylabel():
                axis.set_ylabel("log scale")
            _chart.dress(axis)
            if i + columns >= len(places):
                axis.set_xticks(sorted({point["size"] for point in of["points"]}))
                axis.set_xlabel("forget set (%)")
        _chart.legend(figure, handles, [], columns=3 if width == "page" else 2)

    rows = -(-len(places) // columns)
    below = 0.14 * -(-len(lines) // (3 if width == "page" else 2))
    titles = {panel["name"]: panel["title"] for panel in of["panels"]}
    data = [[p["line"], p["role"], p["size"], titles[p["panel"]], p["mean"], p["low"], p["high"]] for p in of["points"]]
    heads = ["line", "between", "forget set (%)", "barrier (unit)", "mean", "low", "high"]
    height = (1.5 if width == "column" else 1.4) * rows + 0.3 + below
    return Chart(height, draw, heads, data, of["note"])


def _draw_line(axis: Any, place: int, line: str, points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    points = [point for point in points if point["mean"] is not None]
    if not points:
        return {}
    colour, marker = (each[place % len(each)] for each in (_style.SERIES, _style.MARKERS))
    style: dict[str, Any] = {"color": colour, "marker": marker, "linewidth": 1.0, "markersize": 3.5}
    if place >= len(_style.SERIES):
        style |= {"linestyle": _style.DASHED, "markerfacecolor": "white"}
    x, mean = ([point[name] for point in points] for name in ("size", "mean"))
    values = [_barrier.small(each, points[0]["panel"]) for each in mean]
    (drawn,) = axis.plot(x, values, **style, clip_on=False, zorder=4)
    ends = (
        _chart.floats([_barrier.small(point[name], point["panel"]) for point in points]) for name in ("low", "high")
    )
    axis.vlines(x, *ends, color=colour, linewidth=0.8,
                alpha=0.6, zorder=3)  # fmt: skip
    return {_chart.short(line, 30): drawn}


def controls(of: Mapping[str, Any], width: str) -> Chart:
    """Accuracy barriers of straight lines by what they connect: a tick a line and seed, the thick one their mean."""
    kinds = of["kinds"]

    def draw(figure: Any) -> None:
        from matplotlib.lines import Line2D

        axis = figure.subplots()
        highest = 1.0
        for row, kind in enumerate(kinds):
            values = [dot["value"] for dot in of["dots"] if dot["kind"] == kind and dot["value"] is not None]
            axis.vlines(values, row - 0.28, row + 0.28, color=_style.BLUE, linewidth=0.6, alpha=0.4)
            if values:
                axis.vlines(np.mean(values), row - 0.38, row + 0.38, color=_style.BLACK, linewidth=1.8, zorder=3)
                highest = max(highest, *values)
        axis.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0.0)), np.square))
        ticks = [tick for tick in (0, 1, 5, 10, 20, 40, 60, 80, 100) if tick <= highest]
        axis.set_xticks(ticks, map(str, ticks))
        axis.set_xlim(0.0, highest * 1.02)
        axis.set_xlabel("accuracy barrier (points), √ scale")
        texts = [_chart.wrapped(kind, 24) if width == "column" else _chart.short(kind, 50) for kind in kinds]
        axis.set_yticks(range(len(kinds)), texts)
        axis.tick_params(axis="y", length=0)
        axis.set_ylim(len(kinds) - 0.5, -0.5)
        _chart.dress(axis, along="x")
        handles = {"a line and seed": Line2D([], [], color=_style.BLUE, linewidth=0.8),
                   "their mean": Line2D([], [], color=_style.BLACK, linewidth=1.8)}  # fmt: skip
        _chart.legend(figure, handles, [], columns=2)

    row = 0.3 if width == "column" else 0.24
    data = [[dot["kind"], dot["value"]] for dot in of["dots"]]
    return Chart(0.6 + row * len(kinds), draw, ["line", "accuracy barrier (points)"], data)
