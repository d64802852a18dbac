"""The table of `mcu-jax connect`, as text: every pair, the seed floor, and what else was measured."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mcu_jax.report import _connect, _connect_beyond, _connect_controls, _text
from mcu_jax.report._connect import Group

Row = Sequence[str] | str | None


class _Column(NamedTuple):
    """read: of an entry, in the column's unit. decimals: None for three significant digits."""

    headers: tuple[str, str]
    best: str
    read: Callable[[dict[str, Any]], float]
    decimals: int | None
    interval: bool = False


def _barrier(name: str) -> Callable[[dict[str, Any]], float]:
    return lambda entry: entry["barriers"][name]


_COLUMNS = (
    _Column(("D_r", "nats"), "0", _barrier("retain_nats"), None, True),
    _Column(("D_f", "nats"), "0", _barrier("forget_nats"), None, True),
    _Column(("acc.", "points"), "0", _barrier("accuracy"), 1, True),
    _Column(("conn.", "seeds"), "all", lambda entry: float(entry["connected"]), None),
    _Column(("dist.", ""), "none", lambda entry: entry["distance"]["ab"], None),
    _Column(("diff.", "%"), "0", lambda entry: 100.0 * entry["disagreement"], 1),
    _Column(("CKA", "0–1"), "1", lambda entry: entry["cka"], 2),
    _Column(("cos", "±1"), "1", lambda entry: entry["task_cosine"], 2),
    _Column(("inside", "%"), "high", lambda entry: 100.0 * entry["interior"]["share"], 0),
)

_LEGEND = (
    "D_r, D_f: barriers of the mean losses, how far that on the retain set rises above the straight line between its "
    "ends, and that on the forget set falls below it.",
    "acc.: the larger of the accuracy barriers on D_r (it may not fall) and D_f (it may not rise); conn.: seeds in "
    "which it is at most 2 points, a reading aid and no finding.",
    "dist.: ‖θ_a − θ_b‖; it has no best value. diff.: test images the ends classify differently; CKA: likeness of "
    "the ends' features on them; cos: cosine of the task vectors θ_a − θ_o, θ_b − θ_o.",
    "inside: share of the points between the ends that are better than both, by accuracy on D_v and D_f.",
)


def connect_table(results: dict[str, Any]) -> str:
    """What the results of `mcu-jax connect` say: barriers of every pair, the seed floor, controls, and what is beyond.

    Of more than 20 rows the 5 of smallest and the 5 of largest accuracy barrier.
    """
    parts = [
        _text.wrap([_title(results)]),
        _main_table(results),
        *_connect_controls.blocks(results),
        *_connect_beyond.blocks(results),
    ]
    return "\n".join(line.rstrip() for i, part in enumerate(parts) for line in [""] * (i > 0) + part)


def _title(results: dict[str, Any]) -> str:
    grid, curves = results["config"]["grid"], ", ".join(_connect.curves_of(results))
    what = f"grid {grid}" if grid else "one pair"
    trained = [entry["objective"] for entry in results["pairs"] if entry["objective"]]
    objective = f", objective {trained[0]}" if trained else ""
    return f"Connectivity on {_connect.describe(results)}; {what}, {curves}{objective}"


def _main_table(results: dict[str, Any]) -> list[str]:
    found = [_connect.groups(results, role) for role in ("pair", "floor")]
    parts = [
        _connect.cut(groups, lambda group: _connect.mean(group.barriers("accuracy"))) for groups in found if groups
    ]
    shown = [group for first, _, last in parts for group in (*first, *last)]
    floor = _floor_cells(results)
    columns = [_cells(column, shown) + floor[i : i + 1] for i, column in enumerate(_COLUMNS)]
    labels = [group.label for group in shown] + ["all methods, two runs"] * bool(floor)
    rows = iter(list(zip(labels, *map(_text.aligned, columns), strict=True)))
    out: list[Row] = [("", *(c.headers[i] for c in _COLUMNS)) for i in (0, 1)]
    out += [("best value", *(c.best for c in _COLUMNS)), _text.RULE]
    for first, left, last in parts:
        out += itertools.islice(rows, len(first))
        out += [_left_out(left)] if left else []
        out += [*itertools.islice(rows, len(last)), _text.RULE]
    out += [*rows, _text.RULE] if floor else []
    return [*_text.lay_out(out), *_text.wrap(_notes(results, shown))]


def _left_out(groups: Sequence[Group]) -> str:
    low, high = (_text.mean(groups[i].barriers("accuracy"), 1) for i in (0, -1))
    return f"… {len(groups)} more, of accuracy barriers from {low} to {high} points: results.json holds all …"


def _cells(column: _Column, groups: Sequence[Group]) -> list[tuple[str, str]]:
    cells = []
    for group in groups:
        values = [column.read(entry) for entry in group.entries]
        if column.best == "all":
            cells.append((f"{sum(values):.0f}/{len(values)}", ""))
        else:
            mean, spread = _text.spread(values, column.decimals)
            cells.append((mean, spread if column.interval else ""))
    return cells


def _floor_cells(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Of the floor over methods, which has barriers alone; nothing where no method has one."""
    if not results["floor"]:
        return []
    cells = []
    for name, column in zip(("retain_nats", "forget_nats", "accuracy"), _COLUMNS, strict=False):
        mean, interval = results["floor"][name]["mean"], results["floor"][name]["interval"]
        cells.append(_text.of_interval(mean, interval and (interval[1] - interval[0]) / 2, column.decimals))
    return cells + [("", "")] * (len(_COLUMNS) - len(cells))


def _notes(results: dict[str, Any], shown: Sequence[Group]) -> list[str]:
    seeds = _connect.seeds_of(results)
    if len(seeds) < 2:
        notes = [f"One seed. {_text.NO_INTERVAL}: {2 - len(seeds)} is missing."]
    else:
        notes = [f"Mean over {len(seeds)} seeds; {_text.SPREAD}."]
    notes += _LEGEND
    if any(group.role == "floor" for group in shown):
        curves = _connect.curves_of(results)
        whose = f" ({curves[0]})" if len(curves) > 1 else ""
        notes.append(
            "Two runs: of one method, which differ in the seed of unlearning alone: the seed floor, beside which a "
            f"barrier is read; all methods{whose}: interval over seeds of the mean over methods."
        )
    for group in shown:
        missing = sorted(set(seeds) - {entry["seed"] for entry in group.entries})
        if missing:
            notes.append(f"{group.label}: without seed {', '.join(map(str, missing))}.")
    return notes
