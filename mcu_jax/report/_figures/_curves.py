"""Figures of metrics along the paths of a run of `mcu-jax connect`, from the sections of its page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mcu_jax.report import _connect, _style
from mcu_jax.report._figures import _chart
from mcu_jax.report._figures._chart import Chart

COLOURED = len(_style.SERIES)
"""Up to so many paths share the panels, with a colour each."""
COLUMNS = {"column": 3, "page": 5}
"""Of panels where there are more paths."""
ACCURACIES = ("retain_accuracy", "forget_accuracy", "test_accuracy")


def curves(of: Mapping[str, Any], paths: Sequence[Mapping[str, Any]], width: str) -> Chart:
    """Of up to six paths every metric, in a panel each; of more the accuracies, in a panel a path.

    Of more than a table shows whole those of smallest and of largest accuracy barrier.
    """
    first, left, last = _connect.cut(paths, lambda path: math.inf if path["barrier"] is None else path["barrier"])
    shown = [*first, *last]
    known = [panel for panel in of["panels"] if any(panel["name"] in path["metrics"] for path in shown)]
    if len(shown) > COLOURED:
        known = [panel for panel in known if panel["name"] in ACCURACIES]
        note = f"; the {len(first)} smallest and the {len(last)} largest accuracy barriers" if left else ""
        chart = _of_paths(of, known, shown, width)
    else:
        note, chart = "", _of_metrics(of, known, shown, width)
    runs = all(path["role"] == "floor" for path in shown)
    ends = "from the first run at t = 0 to the second at t = 1" if runs else "A – B: from A at t = 0 to B at t = 1"
    return chart._replace(note=f"{ends}; {of['band']}{note}")


def _of_metrics(
    of: Mapping[str, Any], known: Sequence[Mapping[str, Any]], paths: Sequence[Mapping[str, Any]], width: str
) -> Chart:
    columns = 3 if width == "page" else 2

    def draw(figure: Any) -> None:
        axes, free = _chart.panels(figure, len(known), columns, sharex=True)
        handles: dict[str, Any] = {}
        for i, (axis, panel) in enumerate(zip(axes, known, strict=True)):
            seen = []
            for place, path in enumerate(paths):
                if panel["name"] in path["metrics"]:
                    told = _chart.wrapped(path["label"], 20 if free else 56 if width == "column" else 48)
                    if len(paths) == 1 and of["band"] != "one seed":
                        of_seeds = f"{of['band'].rpartition('their ')[2]} of seeds"
                        told += ":\nmedian, band:" + (" ", "\n")[bool(free)] + of_seeds
                    handles[told], values = _draw(axis, path, panel["name"], place, len(paths))
                    seen += values
            yardsticks = {path["metrics"].get(panel["name"], {}).get("retrained") for path in paths} - {None}
            if len(yardsticks) == 1:  # of several requests to forget there are several retrained models
                (value,) = yardsticks
                line = axis.axhline(value, color=_style.RETRAIN, linewidth=1.1, linestyle=_style.DASHED, zorder=2.5)
                handles["retrained model"] = line
                seen.append(np.asarray([value]))
            axis.set_title(_chart.wrapped(panel["title"], 22 if width == "column" else 40))
            _chart.fit_y(axis, _chart.finite(*seen), panel["most"])
            _chart.dress(axis)
            _chart.from_t(axis, named=i + columns >= len(known))
        _chart.legend(figure, handles, free, columns=1 if width == "column" else 2)

    rows = -(-len(known) // columns)
    below = 0.25 if len(known) % columns else 0.4 + 0.15 * -(-(len(paths) + 1) // (1 if width == "column" else 2))
    return Chart((1.2 if width == "column" else 1.25) * rows + below, draw, *_data(known, paths))


def _of_paths(
    of: Mapping[str, Any], known: Sequence[Mapping[str, Any]], paths: Sequence[Mapping[str, Any]], width: str
) -> Chart:
    columns = COLUMNS[width]

    def draw(figure: Any) -> None:
        from matplotlib.lines import Line2D

        dashed: dict[str, Any] = {"linewidth": 0.8, "linestyle": _style.DASHED}
        axes, _ = _chart.panels(figure, len(paths), columns, sharex=True, sharey=True)
        handles: dict[str, Any] = {}
        seen: list[Any] = []
        for i, (axis, path) in enumerate(zip(axes, paths, strict=True)):
            for place, panel in enumerate(known):
                if panel["name"] not in path["metrics"]:
                    continue
                handles[panel["title"]], values = _draw(axis, path, panel["name"], place, len(known))
                seen += values
                yardstick = path["metrics"][panel["name"]]["retrained"]
                if yardstick is not None:
                    axis.axhline(yardstick, color=_style.SERIES[place], zorder=2, **dashed)
                    seen.append(np.asarray([yardstick]))
            axis.set_title(
                _chart.wrapped(path["label"], *((17, 3) if width == "column" else (20, 2))), fontsize=_chart.SMALL
            )
            _chart.dress(axis)
            _chart.from_t(axis, named=i + columns >= len(paths))
        handles["retrained model, by colour"] = Line2D([], [], color=_style.GREY, **dashed)
        _chart.fit_y(axes[0], _chart.finite(*seen), 100.0)
        _chart.legend(figure, handles, [], columns=4 if width == "page" else 2)

    rows = -(-len(paths) // columns)
    return Chart(1.1 * rows + (0.4 if width == "page" else 0.55), draw, *_data(known, paths))


def _draw(axis: Any, path: Mapping[str, Any], name: str, place: int, places: int) -> tuple[Any, list[Any]]:
    """Median and band of a metric: (the legend's handle, what the axis must show).

    place: of so many lines in the panel, which have their markers at different t; one alone has none.
    """
    t, colour = _chart.floats(path["t"]), _style.SERIES[place]
    middle, low, high = (_chart.floats(path["metrics"][name][each]) for each in ("middle", "low", "high"))
    axis.fill_between(t, low, high, color=colour, alpha=0.2, linewidth=0, zorder=3)
    (line,) = axis.plot(t, middle, color=colour, linewidth=1.4 if places == 1 else 1.1, zorder=4)
    if places == 1:
        return line, [middle, low, high]
    marked = np.unique(np.round((np.arange(4) + (place + 0.5) / places) * (len(t) - 1) / 4).astype(int))
    (points,) = axis.plot(t[marked], middle[marked], _style.MARKERS[place], color=colour, markersize=3.4,
                          markeredgecolor="white", markeredgewidth=0.4, zorder=5)  # fmt: skip
    return (line, points), [middle, low, high]


def _data(known: Sequence[Mapping[str, Any]], paths: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """A row a path and t; a metric that a path lacks is empty."""
    told = {"median": "middle", "band from": "low", "band to": "high"}
    rows = []
    for path in paths:
        of = [path["metrics"].get(panel["name"]) for panel in known]
        for i, t in enumerate(path["t"]):
            row = [path["label"], t]
            for each in of:
                row += [None] * 4 if each is None else [*(each[name][i] for name in told.values()), each["retrained"]]
            rows.append(row)
    heads = [f"{panel['title']}, {name}" for panel in known for name in (*told, "retrained")]
    return ["path", "t", *heads], rows
