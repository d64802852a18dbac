"""Figures of a run of `mcu-jax connect`, from the sections of its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mcu_jax.report import _connect_barriers, _connect_matrix, _style
from mcu_jax.report._figures import _chart
from mcu_jax.report._figures._chart import Chart


def matrix(of: Mapping[str, Any], width: str) -> Chart:
    """Accuracy barriers between every two methods in clustered order, and the tree that orders them."""
    n, most = len(of["labels"]), 16 if width == "column" else 30
    labels = [_chart.short(label, most) for label in of["labels"]]
    values = np.stack([_chart.floats(row) for row in of["values"]])
    longest = max(map(len, labels))
    cell = (_chart.WIDTHS[width] - 0.062 * longest - 0.6) / n
    cell = min(cell, 0.42)

    def draw(figure: Any) -> None:
        tree, axis = figure.subplots(2, 1, height_ratios=[0.5, cell * n], sharex=True)
        image = _connect_matrix.draw_cells(axis, values, 6.0 if cell > 0.2 else None)
        axis.set_xticks(range(n), labels, rotation=45, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(n), labels)
        _connect_matrix.draw_tree(tree, [(line["x"], line["y"]) for line in of["tree"]])
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
    return Chart(height, draw, ["a", "b", f"accuracy barrier, {of['curve']}, mean (points)"], rows)


def curves(of: Mapping[str, Any], path: Mapping[str, Any], width: str) -> Chart:
    """Every metric along one path, in a panel each."""
    shown = [panel for panel in of["panels"] if panel["name"] in path["metrics"]]
    columns = 3 if width == "page" else 2
    t = _chart.floats(path["t"])

    def draw(figure: Any) -> None:
        axes, free = _chart.panels(figure, len(shown), columns, sharex=True)
        handles: dict[str, Any] = {}
        for i, (axis, panel) in enumerate(zip(axes, shown, strict=True)):
            each = path["metrics"][panel["name"]]
            middle, low, high = (_chart.floats(each[name]) for name in ("middle", "low", "high"))
            told = _chart.wrapped(path["label"], 20 if free else 56)
            if of["band"] != "one seed":
                axis.fill_between(t, low, high, color=_style.BLUE, alpha=0.2, linewidth=0, zorder=3)
                told += ":\nmedian, band:" + (" ", "\n")[bool(free)] + f"{of['band'].rpartition('their ')[2]} of seeds"
            handles[told] = axis.plot(t, middle, color=_style.BLUE, linewidth=1.4, zorder=4)[0]
            seen = [middle, low, high]
            if each["retrained"] is not None:
                line = axis.axhline(each["retrained"], color=_style.RETRAIN, linewidth=1.1, linestyle=_style.DASHED)
                handles["retrained model"] = line
                seen.append(np.asarray([each["retrained"]]))
            axis.set_title(_chart.wrapped(panel["title"], 22 if width == "column" else 40))
            _chart.fit_y(axis, _chart.finite(*seen), panel["most"])
            _chart.dress(axis)
            _chart.from_t(axis, named=i + columns >= len(shown))
        _chart.legend(figure, handles, free, columns=1 if width == "column" else 2)

    rows = -(-len(shown) // columns)
    heads = ["t"]
    data: list[list[Any]] = [[at] for at in path["t"]]
    for panel in shown:
        each = path["metrics"][panel["name"]]
        for told, name in (("median", "middle"), ("band from", "low"), ("band to", "high")):
            heads.append(f"{panel['title']}, {told}")
            data = [[*row, value] for row, value in zip(data, each[name], strict=True)]
        if each["retrained"] is not None:
            heads.append(f"{panel['title']}, retrained")
            data = [[*row, each["retrained"]] for row in data]
    below = 0.25 if len(shown) % columns else 0.55
    return Chart(
        (1.2 if width == "column" else 1.15) * rows + below,
        draw,
        ["path", *heads],
        [[path["label"], *row] for row in data],
    )


def barriers(of: Mapping[str, Any], width: str) -> Chart:
    """The three barriers of every path: means with their intervals, a dot a seed, and the seed floor."""
    labels = list(dict.fromkeys(of["labels"]))
    narrow = width == "column"
    texts = [_chart.wrapped(label, 20 if narrow else 30) for label in labels]
    row = 0.25 if any("\n" in each for each in texts) else 0.17

    def draw(figure: Any) -> None:
        axes, _ = _chart.panels(figure, len(of["panels"]), len(of["panels"]), sharey=True)
        handles: dict[str, Any] = {}
        for axis, panel in zip(axes, of["panels"], strict=True):
            dots = [dot for dot in of["dots"] if dot["panel"] == panel["name"]]
            handles |= _draw_dots(axis, dots, labels, of["curves"])
            handles |= _draw_floor(axis, panel)
            axis.set_title(_chart.wrapped(panel["title"], 13, 3) if narrow else panel["title"])
            axis.set_xlim(left=0.0)
            axis.locator_params(axis="x", nbins=2 if narrow else 4)
            _chart.dress(axis, along="x")
            seen = [dot[name] for dot in dots for name in ("mean", "low", "high")] + panel["floor"]
            values = [value for value in seen if value is not None]
            _connect_barriers.bound(axis.xaxis, panel["name"], values)
            axis.xaxis.label.set_size(_chart.SMALL)
            if narrow:
                axis.set_xticks(axis.get_xticks()[:: max(1, (len(axis.get_xticks()) - 1) // 2)])
                axis.set_xlabel("log scale" if axis.get_xlabel() else "")
            axis.tick_params(axis="y", length=0, pad=5)  # marks at 0 are whole
            if not any(_connect_barriers.shown(values, panel["name"])):
                _style.write_none(axis)
        # Between the last number of a panel and the first of the next.
        figure.get_layout_engine().set(wspace=0.06, hspace=0.04)
        axes[0].set_yticks(range(len(labels)), texts)
        axes[0].set_ylim(len(labels) - 0.5, -0.5)
        _chart.legend(figure, handles, [], columns=4 if width == "page" else 2)

    rows: list[list[Any]] = []
    titles = {panel["name"]: panel["title"] for panel in of["panels"]}
    for dot in of["dots"]:
        told = [dot["label"], dot["curve"], titles[dot["panel"]]]
        rows += [[*told, name, dot[name]] for name in ("mean", "low", "high")]
        rows += [[*told, "a seed", value] for value in dot["seeds"]]
    for panel in of["panels"]:
        names = ("mean", "low", "high")
        rows += [["seed floor", None, panel["title"], n, v] for n, v in zip(names, panel["floor"], strict=True)]
    return Chart(
        (1.0 if narrow else 0.75) + row * len(labels), draw, ["path", "curve", "barrier (unit)", "of", "value"], rows
    )


def _draw_dots(
    axis: Any, dots: Sequence[Mapping[str, Any]], labels: Sequence[str], curves: Sequence[str]
) -> dict[str, Any]:
    handles: dict[str, Any] = {}
    for dot in dots:
        mean, low, high = (_small(dot[name], dot["panel"]) for name in ("mean", "low", "high"))
        row = labels.index(dot["label"])
        if mean is None:
            continue
        colour = _style.SERIES[curves.index(dot["curve"]) % len(_style.SERIES)]
        seeds = [value for value in (_small(each, dot["panel"]) for each in dot["seeds"]) if value is not None]
        if len(seeds) > 1:
            axis.plot([low, high], [row, row], color=colour, linewidth=1.4, zorder=3, clip_on=False)
            handles["a seed"] = axis.plot(seeds, [row + 0.27] * len(seeds), "o", color=_style.GREY, markersize=2,
                                          markeredgewidth=0, alpha=0.65, zorder=2, clip_on=False)[0]  # fmt: skip
        handles[dot["curve"]] = axis.plot(mean, row, "D", color=colour, markersize=3.4, zorder=4, clip_on=False)[0]
    return handles


def _small(value: float | None, panel: str) -> float | None:
    """What is next to nothing as nothing, as its note says."""
    return None if value is None else next(iter(_connect_barriers.shown([value], panel)), None)


def _draw_floor(axis: Any, panel: Mapping[str, Any]) -> dict[str, Any]:
    mean, low, high = (_small(value, panel["name"]) for value in panel["floor"])
    if mean is None:
        return {}
    axis.axvspan(low, high, color=_style.GREEN, alpha=0.2, linewidth=0, zorder=0)
    line = axis.axvline(mean, color=_style.GREEN, linewidth=0.9, linestyle=_style.DASHED, zorder=1)
    return {"seed floor": line}


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
            below = _chart.wrapped(role, 20) if width == "column" else role
            axis.set_title(f"{panel['title']},\n{below}")
            axis.set_ylim(bottom=0.0)
            axis.locator_params(axis="y", nbins=4)
            values = [p[n] for p in points for n in ("mean", "low", "high") if p[n] is not None]
            _connect_barriers.bound(axis.yaxis, panel["name"], values)
            axis.yaxis.label.set_size(_chart.SMALL)
            _chart.dress(axis)
            if not any(_connect_barriers.shown(values, panel["name"])):
                _style.write_none(axis)
            if i + columns >= len(places):
                axis.set_xticks(sorted({point["size"] for point in of["points"]}))
                axis.set_xlabel("forget set (%)")
        _chart.legend(figure, handles, [], columns=3 if width == "page" else 2)

    rows = -(-len(places) // columns)
    below = 0.14 * -(-len(lines) // (3 if width == "page" else 2))
    titles = {panel["name"]: panel["title"] for panel in of["panels"]}
    data = [[p["line"], p["role"], p["size"], titles[p["panel"]], p["mean"], p["low"], p["high"]] for p in of["points"]]
    heads = ["line", "between", "forget set (%)", "barrier (unit)", "mean", "low", "high"]
    return Chart((1.5 if width == "column" else 1.4) * rows + 0.3 + below, draw, heads, data)


def _draw_line(axis: Any, place: int, line: str, points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    points = [point for point in points if point["mean"] is not None]
    if not points:
        return {}
    colour, marker = (each[place % len(each)] for each in (_style.SERIES, _style.MARKERS))
    style: dict[str, Any] = {"color": colour, "marker": marker, "linewidth": 1.0, "markersize": 3.5}
    if place >= len(_style.SERIES):
        style |= {"linestyle": _style.DASHED, "markerfacecolor": "white"}
    x, mean = ([point[name] for point in points] for name in ("size", "mean"))
    values = [_small(each, points[0]["panel"]) for each in mean]
    (drawn,) = axis.plot(x, values, **style, clip_on=False, zorder=4)
    ends = (_chart.floats([_small(point[name], point["panel"]) for point in points]) for name in ("low", "high"))
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
