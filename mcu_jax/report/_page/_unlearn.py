"""The page's sections of a run of `mcu-jax unlearn`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcu_jax.report import _table, _text
from mcu_jax.report._page import _along, _grids, _read
from mcu_jax.report._results import Results


def sections(run: _read.Run) -> dict[str, Any]:
    """By name; None where the run has no data for one."""
    results = run.results
    assert results is not None
    labels = {method: _table.label(results, method) for method in _table.methods_of(results)}
    return {
        "answer": answer(run),
        "explorer": _along.along(results),
        "seconds": seconds(results, "model", labels),
        **run.details,
    }


def answer(run: _read.Run) -> dict[str, Any]:
    assert run.results is not None
    # Of a long table all that it reads is few rows, but often.
    results = run.results._replace(table=run.results.table[run.results.table.role == "model"])
    return {
        "sentences": [_what(results, run), _how_close(results)],
        "careful": _table.careful(results),
        "main": _grids.blocks(_table.main_table(results)),
        "further": [_grids.blocks(part(results)) for part in (_table.comparison, _table.advice, _table.path_and_mask)],
    }


def _what(results: Results, run: _read.Run) -> str:
    config, seeds, short = results.summary["config"], _table.seeds_of(results), _grids.short
    sizes = [(split["forget"], split["train"]) for split in run.splits if split["data_hash"] is not None]
    counted = f"{sizes[0][0]} of {sizes[0][1]} training examples" if len(set(sizes)) == 1 else "Training examples"
    replicates = f", in each of {len(seeds)} seeds" if len(seeds) > 1 else ""
    return (
        f"{counted} of {short(config['dataset'])} ({short(_text.described_request(config))}) were unlearned from "
        f"{short(_text.described_model(config))}{replicates}."
    )


def _how_close(results: Results) -> str:
    """The distance of the best point from the retrained model, and that of what it has to be better than."""
    if not len(_table.values(results, "mcu", "avg_gap")):
        return "No path has a point to compare: its training gave no finite numbers."
    ts = _table.values(results, "mcu", "t")
    at = f", t* = {_text.mean(ts, 2)}" if len(ts) else ""
    parts = [
        f"The best point of the path{at}, is {_gap(results, 'mcu')} points from the retrained model (the mean over "
        "UA, RA, TA and MIA)"
    ]
    pre, short = results.summary["config"]["pre"], _grids.short
    known = {m: _gap(results, m) for m in (pre, "linear") if len(_table.values(results, m, "avg_gap"))}
    parts += [f"its start, {short(pre)}, is {known[pre]} away"] if pre in known else []
    parts += [f"the best point of the straight line {known['linear']}"] if "linear" in known else []
    competitors = [m for m in _table.methods_of(results) if _is_competitor(m, pre)]
    gaps = {m: _table.values(results, m, "avg_gap").mean() for m in competitors}
    gaps = {m: gap for m, gap in gaps.items() if gap == gap}
    if gaps:
        nearest = min(gaps, key=lambda m: gaps[m])
        which = f"the nearest of {len(gaps)} other methods" if len(gaps) > 1 else "the other method"
        parts.append(f"{which}, {short(nearest)}, {_gap(results, nearest)}")
    return f"{parts[0]}; {', '.join(parts[1:])}." if parts[1:] else f"{parts[0]}."


def _is_competitor(method: str, pre: str) -> bool:
    return method not in ("original", "retrain", pre) and method.partition(":")[0] not in ("linear", "mcu")


def _gap(results: Results, method: str) -> str:
    mean, beside = _text.spread(100.0 * _table.values(results, method, "avg_gap"), 2)
    return f"{mean} {beside}".strip()


def seconds(results: Results, role: str, labels: dict[str, str]) -> dict[str, Any] | None:
    """Where they went, by method and part, means over seeds; compilation by itself. labels: of the methods."""
    rows = results.table[(results.table.role == role) & results.table.metric.str.startswith("seconds_")]
    if not len(rows):
        return None
    spent = rows.assign(part=rows.metric.str.removeprefix("seconds_").str.replace("_", " "))
    means = spent.groupby(["subject", "part"], sort=False).value.mean()
    parts = [part for part in dict.fromkeys(spent.part) if part != "compile"] + ["compile"]
    bars = [
        {"method": _grids.short(label), "part": part, "seconds": _along.number(means.get((method, part), 0.0))}
        for method, label in labels.items()
        for part in parts
    ]
    return bars_of_seconds([_grids.short(label) for label in labels.values()], parts, bars)


def bars_of_seconds(methods: Sequence[str], parts: Sequence[str], bars: list[dict[str, Any]]) -> dict[str, Any]:
    by_place = {(bar["method"], bar["part"]): bar["seconds"] or 0.0 for bar in bars}
    rows = [[method, *(f"{by_place.get((method, part), 0.0):.2f}" for part in parts)] for method in methods]
    table = _grids.numbers("of", [(part, "low") for part in parts], rows)
    return {"methods": list(methods), "parts": list(parts), "bars": bars, "table": table}
