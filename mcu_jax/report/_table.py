"""The table of one unlearning run, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mcu_jax import metrics
from mcu_jax.report import _text

COMPILE = "compile"
"""The part of a row's seconds that is not counted in its total."""


class _Column(NamedTuple):
    name: str
    header: str
    best: str
    scale: float
    decimals: int
    interval: bool


_COLUMNS = (
    _Column("UA", "UA", "= retrain", 100.0, 1, True),
    _Column("UA_test", "UA test", "= retrain", 100.0, 1, True),
    _Column("RA", "RA", "= retrain", 100.0, 1, True),
    _Column("TA", "TA", "= retrain", 100.0, 1, True),
    _Column("MIA", "MIA", "= retrain", 100.0, 1, True),
    _Column("avg_gap", "avg_gap", "0", 100.0, 2, True),
    _Column("seconds", "seconds", "low", 1.0, 1, False),
    _Column("t", "t", "", 1.0, 2, False),
)

_LEGEND = {
    "UA": "UA: share of the forget set misclassified",
    "UA_test": "UA test: the same on the forgotten class's test examples",
    "RA": "RA, TA: accuracy on the retain and test sets",
    "MIA": "MIA: share of the forget set that a membership attack takes for never seen",
    "avg_gap": "avg_gap: mean distance of UA, RA, TA and MIA from the retrained model's, in points",
    "seconds": "seconds: all parts but compilation",
    "t": "t: where on the path",
}


def unlearn_table(results: dict[str, Any]) -> str:
    """What the results of an unlearning run say: the table, MCU paired with its rivals, the path."""
    parts = [
        f"Unlearning on {describe(results)}",
        "",
        *_main_table(results),
        "",
        *_comparison(results),
        "",
        *_path_lines(results),
    ]
    return "\n".join(line.rstrip() for line in parts)


def seeds_of(results: dict[str, Any]) -> list[int]:
    """The seeds that have any row, in order."""
    return sorted({row["seed"] for row in results["rows"]})


def describe(results: dict[str, Any]) -> str:
    """`digits, mlp, forget random:0.2, 5 seeds`."""
    return _text.describe(results["config"], len(seeds_of(results)))


def trained_paths(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The paths that MCU trained, by seed: every one but the straight lines."""
    return sorted((p for p in results["paths"] if p["curve"] != "linear"), key=lambda p: p["seed"])


def _methods(results: dict[str, Any]) -> list[str]:
    first = ["original", "retrain", results["config"]["pre"], "linear", "mcu"]
    present = list(dict.fromkeys(row["method"] for row in results["rows"]))
    return [m for m in first if m in present] + [m for m in present if m not in first]


def _label(method: str, pre: str) -> str:
    if method == pre:
        return f"{method} (pre-unlearned)"
    return {"linear": "straight line", "mcu": "MCU"}.get(method, method)


def _value(row: dict[str, Any], column: str) -> float | None:
    if column == "seconds":
        return sum(seconds for part, seconds in row["seconds"].items() if part != COMPILE)
    return row[column]


def _values(results: dict[str, Any], method: str, column: str) -> dict[int, float]:
    found = {r["seed"]: _value(r, column) for r in results["rows"] if r["method"] == method}
    return {seed: value for seed, value in found.items() if value is not None}


def _main_table(results: dict[str, Any]) -> list[str]:
    pre, methods = results["config"]["pre"], _methods(results)
    columns = [c for c in _COLUMNS if any(_values(results, m, c.name) for m in methods)]
    cells = [[c.header, c.best, *_column_cells(results, methods, c)] for c in columns]
    rows = list(zip(["", "best value", *(_label(m, pre) for m in methods)], *cells, strict=True))
    return [*_text.lay_out([*rows[:2], _text.RULE, *rows[2:], _text.RULE]), *_notes(results, methods, columns)]


def _column_cells(results: dict[str, Any], methods: Sequence[str], column: _Column) -> list[str]:
    parts = []
    for method in methods:
        values = list(_values(results, method, column.name).values())
        if not values:
            parts.append(("–", ""))
            continue
        mean, half = metrics.mean_interval([column.scale * v for v in values])
        spread = "" if half is None or not column.interval else f"±{half:.{column.decimals}f}"
        parts.append((f"{mean:.{column.decimals}f}", spread))
    return _text.aligned(parts)


def _notes(results: dict[str, Any], methods: Sequence[str], columns: Sequence[_Column]) -> list[str]:
    seeds = seeds_of(results)
    if len(seeds) < 2:
        notes = [f"Per cent, one seed. {_text.NO_INTERVAL}."]
    else:
        notes = [f"Per cent, mean over {len(seeds)} seeds; {_text.SPREAD}."]
    notes.append("; ".join(_LEGEND[c.name] for c in columns if c.name in _LEGEND) + ".")
    for method in methods:
        missing = sorted(set(seeds) - {r["seed"] for r in results["rows"] if r["method"] == method})
        if missing:
            label = _label(method, results["config"]["pre"])
            notes.append(f"{label}: without seed {', '.join(map(str, missing))}.")
    return _text.wrap(notes)


def _comparison(results: dict[str, Any]) -> list[str]:
    pre = results["config"]["pre"]
    rivals = [m for m in ("original", pre, "linear") if _values(results, m, "avg_gap")]
    mcu = _values(results, "mcu", "avg_gap")
    lines = []
    for rival in rivals:
        other = _values(results, rival, "avg_gap")
        shared = sorted(mcu.keys() & other.keys())
        if not shared:
            continue
        mean, half = metrics.mean_interval([100.0 * (mcu[s] - other[s]) for s in shared])
        pairs = f"{len(shared)} pair{'s' if len(shared) != 1 else ''}"
        spread = "" if half is None else f"[{mean - half:+.2f}, {mean + half:+.2f}]"
        lines.append((_label(rival, pre), f"{mean:+.2f}", spread, pairs, _verdict(mean, half)))
    if not lines:
        return ["MCU compared: no seed has both MCU and another model."]
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    out = ["MCU against …: difference of avg_gap in points, paired by seed [95 % interval]; below 0: MCU nearer"]
    for line in lines:
        cells = [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:4], widths[1:], strict=True))]
        out.append("  " + "  ".join([*filter(None, cells), line[4]]))
    return out


def _verdict(mean: float, half: float | None) -> str:
    if half is None:
        return "no verdict from one seed"
    if mean + half < 0:
        return "MCU better"
    if mean - half > 0:
        return "MCU worse"
    return "no difference shown"


def _path_lines(results: dict[str, Any]) -> list[str]:
    paths = trained_paths(results)
    if not paths:
        return ["Path: none."]
    best = [p["best_t"] for p in paths]
    span = f"mean {sum(best) / len(best):.2f}, {min(best):.2f}–{max(best):.2f}" if len(best) > 1 else f"{best[0]:.2f}"
    rows = [("seed", "t*", "gap(t*)", "effective region", "effective region against retrain")]
    rows += [
        (
            str(p["seed"]),
            f"{p['best_t']:.3f}",
            f"{100.0 * p['best_gap']:.2f}",
            _regions(p["effective_region"]),
            _regions(p["effective_region_retrain"]),
        )
        for p in paths
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    table = [
        "  "
        + "  ".join(
            [c.rjust(w) for c, w in zip(row[:3], widths, strict=False)]
            + [c.ljust(w) for c, w in zip(row[3:], widths[3:], strict=True)]
        )
        for row in rows
    ]
    legend = (
        "gap(t): mean distance of retain and forget accuracy from their targets, in points; the "
        "targets need no retrained model. Effective region: the t where gap(t) is below the "
        "pre-unlearned model's, gap(1)."
    )
    return [f"Path ({paths[0]['curve']}), t* chosen without the retrained model: {span}", *table,
            *_text.wrap([legend]), *_mask_lines(paths)]  # fmt: skip


def _regions(regions: Sequence[Sequence[float]]) -> str:
    return ", ".join(f"{a:.2f}–{b:.2f}" for a, b in regions) or "none"


def _mask_lines(paths: Sequence[dict[str, Any]]) -> list[str]:
    masks = [p["mask"] for p in paths]
    if all(mask["keep"] == 1 for mask in masks):
        return ["Mask: none, every parameter of the path is trained."]

    def share(name: str) -> str:
        values = [100.0 * m[name] for m in masks]
        low, high = f"{min(values):.1f}", f"{max(values):.1f}"
        return f"{low} %" if low == high else f"{sum(values) / len(values):.1f} % ({low}–{high})"

    return [
        f"Mask, as realised: {share('keep')} of the parameters trained, {share('retain_filter')} set aside "
        "for the retain set."
    ]
