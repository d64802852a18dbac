"""The page's sections of a run of `mcu-jax connect`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from mcu_jax.report import (
    _connect,
    _connect_beyond,
    _connect_controls,
    _connect_table,
    _style,
    _text,
)
from mcu_jax.report._connect import Group
from mcu_jax.report._page import _along, _details, _grids, _read, _unlearn
from mcu_jax.report._results import Results

NOTE = f"0 is best; what is below {_style.RESOLUTION:g} nats is drawn as 0"
MOST_CURVES = 120
"""Paths whose metrics the page draws; of more those that a table shows."""
_CONTROLS = {
    "pair": "the run's pairs",
    "floor": "seed floor: two runs of one method",
    "perturbation": "two random perturbations as far away",
    "original": "to the original",
    "retrain": "to the retrained model, aligned",
    "unaligned": "to the retrained model, as it is",
}


def sections(run: _read.Run) -> dict[str, Any]:
    """By name; None where the run has no data for one."""
    results = run.results
    assert results is not None
    spent = {name: value for name, value in (results.summary.get("seconds") or {}).items() if value is not None}
    bars = [{"method": name, "part": "all seeds", "seconds": _along.number(value)} for name, value in spent.items()]
    return {
        "answer": answer(run),
        **charts(results),
        "seconds": _unlearn.bars_of_seconds(list(spent), ["all seeds"], bars) if spent else None,
    }


def answer(run: _read.Run) -> dict[str, Any]:
    results = run.results
    assert results is not None
    return {
        "sentences": _sentences(results, _whole(_connect.main_groups(results))),
        "main": _grids.blocks(_connect_table.main_table(results)),
        "further": [
            _grids.blocks(block) for block in (*_connect_controls.blocks(results), *_connect_beyond.blocks(results))
        ],
    }


CHARTS = ("matrix", "curves", "barriers", "sizes", "controls")


def charts(results: Results, names: Collection[str] = CHARTS) -> dict[str, Any]:
    """What the page and the figures draw, by name; None where the run has no data for one."""
    pairs, floors = (_connect.groups(results, role) for role in ("pair", "floor"))
    made = {
        "matrix": lambda: _matrix(results),
        "curves": lambda: _curves(results, [*pairs, *floors]),
        "barriers": lambda: _barriers(results, _whole(pairs or floors)),
        "sizes": lambda: _sizes(results, floors, pairs),
        "controls": lambda: _controls(results),
    }
    return {name: made[name]() for name in names}


def _whole(groups: Sequence[Group]) -> list[Group]:
    """Those with a number."""
    return [group for group in groups if len(group.whole)]


def _sentences(results: Results, whole: Sequence[Group]) -> list[str]:
    floor = _connect.floor(results, "accuracy_barrier")
    if not whole:
        return ["No pair of models gave finite numbers."]
    seeds = sum(len(group.whole) for group in whole)
    connected = sum(float(sum(group.values("connected"))) for group in whole)
    least, most = (f(whole, key=lambda group: group.accuracy_barrier) for f in (min, max))
    what = (
        f"{_text.plural(len(whole), 'path')} between models unlearned from one original "
        f"({_connect.describe(results)}): their accuracy barrier is at most 2 points in {connected:.0f} of {seeds} "
        "cases, over paths and seeds."
    )
    spread = lambda group: " ".join(filter(None, _text.spread(group.values("accuracy_barrier"), 1)))  # noqa: E731
    low = f"The lowest mean barrier, {spread(least)} points, is that of {least.label}"
    high = f", the highest, {spread(most)}, that of {most.label}" if most is not least else ""
    beside = f"; between two runs of one method it is {' '.join(filter(None, _text.spread(floor, 1)))}" if floor else ""
    return [what, f"{low}{high}{beside}."]


def _matrix(results: Results) -> dict[str, Any] | None:
    """Mean accuracy barriers of all pairs of methods in clustered order, and the tree above them."""
    if not results.summary.get("clusters"):
        return None
    order, matrix, tree = _clustered(results)
    shown = [[_along.number(value) for value in row] for row in matrix]
    rows = [
        [label, *("–" if value is None else f"{value:.1f}" for value in row)]
        for label, row in zip(order, shown, strict=True)
    ]
    return {
        "labels": [_grids.short(label) for label in order],
        "values": shown,
        "tree": [{"x": _along.numbers(x), "y": _along.numbers(y)} for x, y in tree],
        "curve": _connect.curves_of(results)[0],
        "table": _grids.numbers("method", [(_grids.short(label), "0") for label in order], rows),
    }


def _clustered(results: Results) -> tuple[list[str], np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """(labels, mean accuracy barriers in their order, the lines (x, y) of the tree above).

    The tree's leaves, from left to right, are the columns 0, 1, … of the matrix.
    """
    from scipy.cluster import hierarchy

    order, clusters = results.summary["order"], results.summary["clusters"]
    places = [clusters["labels"].index(label) for label in order]
    matrix = np.asarray(clusters["matrix"], float)[np.ix_(places, places)]
    tree = hierarchy.dendrogram(np.asarray(clusters["linkage"], float), no_plot=True)
    # scipy places leaf i at 5 + 10 i.
    lines = [((np.asarray(x) - 5) / 10, np.asarray(y)) for x, y in zip(tree["icoord"], tree["dcoord"], strict=True)]
    return order, matrix, lines


def _curves(results: Results, groups: Sequence[Group]) -> dict[str, Any] | None:
    """Every metric along every path, median and band over seeds."""
    groups = _few([group for group in groups if len(group.along)])
    if not groups:
        return None
    yardsticks = _connect.retrained(results)
    paths = [_path(yardsticks, group) for group in groups]
    return {
        "band": _style.banded(len(_connect.seeds_of(results))),
        "paths": paths,
        "panels": [
            {"name": p.name, "title": p.title, "most": _along.number(p.most)}
            for p in _connect.METRICS
            if any(p.name in path["metrics"] for path in paths)
        ],
    }


def _few(groups: Sequence[Group]) -> list[Group]:
    """All, or those of smallest and of largest barrier."""
    if len(groups) <= MOST_CURVES:
        return list(groups)
    first, _, last = _connect.cut(groups, lambda group: group.accuracy_barrier)
    return first + last


def _path(yardsticks: Mapping[tuple[str, str], float], group: Group) -> dict[str, Any]:
    """yardsticks: metrics of the retrained models, of which a path between two requests to forget has none."""
    metrics: dict[str, Any] = {}
    request, *others = {entry[end]["forget"] for entry in group.entries for end in "ab"} or {""}
    for panel in _connect.METRICS:
        if panel.name not in group.along:
            continue
        middle, low, high = _style.over_seeds(panel.scale * group.along[panel.name])
        yardstick = None if others else yardsticks.get((request, panel.name))
        metrics[panel.name] = {
            "middle": _along.numbers(middle),
            "low": _along.numbers(low),
            "high": _along.numbers(high),
            "retrained": None if yardstick is None else _along.number(panel.scale * yardstick),
        }
    t = _along.numbers(group.along.index)
    picked = range(0, len(t), max(1, (len(t) - 1) // (_details.TABLE_ROWS - 1)))
    shown = [p for p in _connect.METRICS if p.name in metrics]
    rows = [[f"{t[i]:.3g}", *(_cell(metrics[p.name]["middle"][i]) for p in shown)] for i in picked]
    return {
        "label": _grids.short(group.label),
        "a": _grids.short(group.a),
        "b": _grids.short(group.b),
        "curve": group.curve,
        "role": group.role,
        "barrier": _along.number(group.accuracy_barrier),
        "t": t,
        "metrics": metrics,
        "table": _grids.numbers("t", [(p.title, "") for p in shown], rows),
    }


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _barriers(results: Results, groups: Sequence[Group]) -> dict[str, Any] | None:
    """Of every path: a dot a seed, mean and interval, and the seed floor."""
    groups = _few(groups)
    if not groups:
        return None
    panels, dots = [], []
    for name, title in _connect.BARRIERS:
        floor = _style.interval(_connect.floor(results, name))
        panels.append({"name": name, "title": title, "floor": _along.numbers(floor)})
        for group in groups:
            mean, low, high = _along.numbers(_style.interval(group.values(name)))
            dots.append(
                {
                    "panel": name,
                    "label": _grids.short(group.label),
                    "curve": group.curve,
                    "mean": mean,
                    "low": low,
                    "high": high,
                    "seeds": _along.numbers(group.values(name)),
                }
            )
    rows = [
        [group.label, *(" ".join(_text.spread(group.values(name))).strip() for name, _ in _connect.BARRIERS)]
        for group in groups
    ]
    heads = [(title, "0") for _, title in _connect.BARRIERS]
    return {
        "labels": [_grids.short(group.label) for group in groups],
        "curves": _connect.curves_of(results),
        "note": NOTE,
        "beside": _style.intervals(len(_connect.seeds_of(results))),
        "panels": panels,
        "dots": dots,
        "table": _grids.numbers("path", heads, rows),
    }


def _sizes(results: Results, floors: Sequence[Group], pairs: Sequence[Group]) -> dict[str, Any] | None:
    """Barriers by the size of the forget set."""
    if results.summary["config"].get("grid") != "sizes":
        return None
    points: list[dict[str, Any]] = []
    several = len(_connect.curves_of(results)) > 1
    for groups, title in ((floors, "two runs of one size"), (pairs, "this size and the largest")):
        for line, at in _lines_of(groups, several).items():
            for size, group in sorted(at.items()):
                for name, _ in _connect.BARRIERS:
                    mean, low, high = _along.numbers(_style.interval(group.values(name)))
                    points.append({"role": title, "line": _grids.short(line), "size": size, "panel": name,
                                   "mean": mean, "low": low, "high": high})  # fmt: skip
    panels = [{"name": name, "title": title} for name, title in _connect.BARRIERS]
    by_place = {(p["role"], p["line"], p["size"], p["panel"]): p["mean"] for p in points}
    places = dict.fromkeys((p["role"], p["line"], p["size"]) for p in points)
    rows = [
        [f"{line}, {size:g} %, {role}", *(_cell(by_place[role, line, size, panel["name"]]) for panel in panels)]
        for role, line, size in places
    ]
    table = _grids.numbers("forget set", [(panel["title"], "0") for panel in panels], rows)
    return {"note": NOTE, "panels": panels, "points": points, "table": table} if points else None


def _lines_of(groups: Sequence[Group], several: bool) -> dict[str, dict[float, Group]]:
    """By the name without the size, then by the smaller size of both ends in per cent."""
    lines: dict[str, dict[float, Group]] = {}
    for group in groups:
        if group.entries:
            ends = [group.entries[0][end] for end in "ab"]
            size = min(round(100.0 * float(end["forget"].partition(":")[2]), 6) for end in ends)
            name = re.sub("[:,] ?(forget=|random:)[^,]*", "", group.a)
            lines.setdefault(f"{name}, {group.curve}" if several else name, {})[size] = group
    return lines


def _controls(results: Results) -> dict[str, Any] | None:
    """Accuracy barriers of all lines of the run, by what they connect."""
    rows = results.table[(results.table.metric == "accuracy_barrier") & results.table.role.isin(_CONTROLS)]
    rows = rows[rows.curve == "linear"]
    if rows.role.nunique() < 2:
        return None
    kinds = [role for role in _CONTROLS if (rows.role == role).any()]
    values = {_CONTROLS[role]: list(rows.value[rows.role == role].dropna()) for role in kinds}
    dots = [{"kind": kind, "value": _along.number(value)} for kind, seeds in values.items() for value in seeds]
    table = _grids.numbers(
        "line",
        [("accuracy barrier, mean", "0"), ("lowest", ""), ("highest", ""), ("lines", "")],
        [[kind, *_span(seeds)] for kind, seeds in values.items() if seeds],
    )
    return {"kinds": list(values), "dots": dots, "table": table}


def _span(values: Sequence[float]) -> list[str]:
    return [*(f"{f(values):.1f}" for f in (np.mean, min, max)), str(len(values))]
