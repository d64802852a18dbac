"""Several runs of unlearning side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mcu_jax.report import _results, _table, _text
from mcu_jax.report._page import _along, _details, _grids, _read

_SETTINGS = ("dataset", "model", "forget", "pre", "curve", "beta", "mask", "rule")
_COLUMNS = (
    ("avg_gap", "0", 100.0, 2),
    ("UA", "= retrain", 100.0, 1),
    ("RA", "= retrain", 100.0, 1),
    ("TA", "= retrain", 100.0, 1),
    ("MIA", "= retrain", 100.0, 1),
    ("t", "none", 1.0, 2),
)


def several(read: Sequence[_read.Run]) -> dict[str, Any] | None:
    """What their paths come to at t*, and every point of them; None where fewer than two are of unlearning."""
    shown = [(i, run) for i, run in enumerate(read) if run.kind == "unlearn" and run.results is not None]
    if len(shown) < 2:
        return None
    differ = [name for name in _SETTINGS if len({_setting(run.config, name) for _, run in shown}) > 1]
    heads = [(name, "") for name in differ] + [("seeds", "high")]
    heads += [(_HEADS.get(name, name), best) for name, best, *_ in _COLUMNS]
    rows, runs = [], []
    for i, run in shown:
        assert run.results is not None
        seeds = len(_table.seeds_of(run.results))
        cells = [_grids.short(_setting(run.config, name)) for name in differ]
        models = run.results._replace(table=run.results.table[run.results.table.role == "model"])
        cells += [str(seeds), *(_cell(models, *column) for column in _COLUMNS)]
        rows.append([_name(i, run), *cells])
        runs.append({"name": _name(i, run), "run": i, **_points(run.results)})
    table = _grids.numbers("run", heads, rows)
    for column in table["columns"][: len(differ)]:
        column["left"] = True
    for row, (i, _) in zip(table["rows"], shown, strict=True):
        row["href"] = f"#run-{i}"
    return {"table": table, "runs": runs, "points": _table_of(runs)}


def _table_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = []
    for run in runs:
        picked = range(0, len(run["t"]), max(1, (len(run["t"]) - 1) // (_details.TABLE_ROWS - 1)))
        rows += [[run["name"], *(_shown(run[name][i]) for name in ("t", "UA", "RA"))] for i in picked]
    return _grids.numbers("run", [("t", "none"), ("UA", "= retrain"), ("RA", "= retrain")], rows)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


_HEADS = {"t": "t*"}


def _name(i: int, run: _read.Run) -> str:
    return f"{i + 1} {_grids.short(run.name)}"


def _setting(config: Mapping[str, Any], name: str) -> str:
    value = config.get(name)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={item}" for key, item in value.items() if item is not None)
    return "–" if value is None else str(value)


def _cell(results: _results.Results, name: str, best: str, scale: float, decimals: int) -> str:
    del best
    return " ".join(_text.spread(scale * _table.values(results, "mcu", name), decimals)).strip()


def _points(results: _results.Results) -> dict[str, Any]:
    """Means over seeds, in per cent, of the path at every t, at t*, and of the retrained model, as in the table."""
    rows = results.table[(results.table.role == "path") & (results.table.subject == "mcu")]
    along = {}
    for name in ("UA", "RA"):
        of_metric = rows[rows.metric == name].pivot(index="t", columns="replicate", values="value")
        along[name] = 100.0 * of_metric.mean(axis=1)
    at = {
        subject: {name: _along.number(100.0 * _table.values(results, subject, name).mean()) for name in ("UA", "RA")}
        for subject in ("mcu", "retrain")
    }
    return {"t": _along.numbers(rows[rows.metric == "UA"].t.drop_duplicates().sort_values()),
            **{name: _along.numbers(values) for name, values in along.items()}, **at}  # fmt: skip
