"""Figures of every kind of run: where the seconds went; and of several runs: the Pareto plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mcu_jax.report import _style
from mcu_jax.report._figures import _chart
from mcu_jax.report._figures._chart import Chart


def seconds(of: Mapping[str, Any], width: str) -> Chart:
    """Of every method its parts, one after the other; compilation, which is shared, is light."""
    methods, parts = of["methods"], of["parts"]
    spent = {(bar["method"], bar["part"]): bar["seconds"] or 0.0 for bar in of["bars"]}
    used = [part for part in parts if any(spent.get((method, part)) for method in methods)]
    most = 22 if width == "column" else 44

    def draw(figure: Any) -> None:
        axis, left = figure.subplots(), [0.0] * len(methods)
        coloured = [part for part in used if part != "compile"]
        handles: dict[str, Any] = {}
        for part in used:
            values = [spent.get((method, part), 0.0) for method in methods]
            place = coloured.index(part) if part in coloured else None
            colour = "0.82" if place is None else _style.SERIES[place % len(_style.SERIES)]
            again = place is not None and place >= len(_style.SERIES)
            told = "compilation" if part == "compile" else _chart.short(part, 24)
            handles[told] = axis.barh(range(len(methods)), values, 0.72, left, color=colour, linewidth=0,
                                      hatch="////" if again else None, edgecolor="white")  # fmt: skip
            left = [a + b for a, b in zip(left, values, strict=True)]
        axis.set_yticks(range(len(methods)), [_chart.short(method, most) for method in methods])
        axis.tick_params(axis="y", length=0)
        axis.set_ylim(len(methods) - 0.5, -0.5)
        axis.set_xlim(left=0.0)
        axis.set_xlabel("seconds")
        axis.locator_params(axis="x", nbins=5)
        _chart.dress(axis, along="x")
        axis.spines["left"].set_visible(False)
        if len(used) > 1:
            _chart.legend(figure, handles, [], columns=5 if width == "page" else 3)

    below = 0.13 * -(-len(used) // (5 if width == "page" else 3)) if len(used) > 1 else 0.0
    rows = [[method, part, spent.get((method, part), 0.0)] for method in methods for part in parts]
    return Chart(0.5 + 0.155 * len(methods) + below, draw, ["of", "part", "time (s)"], rows)


def pareto(of: Mapping[str, Any], width: str) -> Chart:
    """Unlearning against retain accuracy: every point of every path, t*, the retrained models, the Pareto front."""
    runs = of["runs"]
    points = [
        (i, t, ua, ra)
        for i, run in enumerate(runs)
        for t, ua, ra in zip(run["t"], run["UA"], run["RA"], strict=True)
        if ua is not None and ra is not None
    ]
    edge = front([(ua, ra) for *_, ua, ra in points])

    def draw(figure: Any) -> None:
        from matplotlib.lines import Line2D

        axis = figure.subplots()
        handles: dict[str, Any] = {}
        for i, run in enumerate(runs):
            colour, marker = (each[i % len(each)] for each in (_style.SERIES, _style.MARKERS))
            whole = [(ua, ra) for place, _, ua, ra in points if place == i]
            if whole:
                axis.plot(*zip(*whole, strict=True), color=colour, linewidth=0.7, alpha=0.5, marker=".", markersize=2.5,
                          zorder=2)  # fmt: skip
            line: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 5, "markeredgecolor": "white",
                    "markeredgewidth": 0.6, "linestyle": "none"}  # fmt: skip
            handles[_chart.wrapped(run["name"], 24 if width == "column" else 44)] = Line2D([], [], **line)
            if None not in run["mcu"].values():
                axis.plot(run["mcu"]["UA"], run["mcu"]["RA"], **line, zorder=4)
            if None not in run["retrain"].values():
                axis.plot(run["retrain"]["UA"], run["retrain"]["RA"], "x", color=_style.RETRAIN, markersize=5,
                          markeredgewidth=1.4, zorder=3)  # fmt: skip
        handles["retrained model"] = Line2D([], [], color=_style.RETRAIN, marker="x", markersize=5,
                                            markeredgewidth=1.4, linestyle="none")  # fmt: skip
        if edge:
            steps = axis.step(*zip(*edge, strict=True), where="pre", color=_style.BLACK, linewidth=0.8, zorder=3)
            handles["Pareto front"] = steps[0]
        axis.set_xlabel("unlearning accuracy, UA (%)")
        axis.set_ylabel("retain accuracy, RA (%)")
        axis.grid(axis="both", color="0.9", linewidth=0.5)
        _chart.dress(axis, along="both")
        _chart.legend(figure, handles, [], columns=2)

    rows: list[list[Any]] = [[runs[i]["name"], "path", *at] for i, *at in points]
    for told, name in (("t*", "mcu"), ("retrained model", "retrain")):
        rows += [[run["name"], told, None, run[name]["UA"], run[name]["RA"]] for run in runs]
    rows += [[None, "Pareto front", None, *at] for at in edge]
    below = 0.14 * (-(-(len(runs) + 2) // 2))
    return Chart((2.2 if width == "column" else 3.0) + below, draw, ["run", "series", "t", "UA (%)", "RA (%)"], rows)


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """From the point that forgets most on, those which retain more than all before."""
    most, kept = float("-inf"), []
    for ua, ra in sorted(points, reverse=True):
        if ra > most:
            most = ra
            kept.append((ua, ra))
    return kept[::-1]
