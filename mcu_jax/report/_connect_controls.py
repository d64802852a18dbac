"""The controls of `mcu-jax connect`, as text: what else a small barrier could come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mcu_jax.report import _connect, _text

Entry = Mapping[str, Any]

_KINDS = ("perturbation", "original", "retrain")

_LEGEND = (
    "‖θ−θ_o‖: distance from the original model; it has no best value. Two runs: the method's seed floor; random: "
    "between two random perturbations of θ_o, leaf by leaf as far from it as the method's model; original: to θ_o; "
    "retrained: to the model retrained from scratch, its units permuted to match, or as they are.",
)


def blocks(results: dict[str, Any]) -> list[list[str]]:
    """Per method, then gradient ascent by its stopping time: those that were measured."""
    controls = results["controls"]
    found = [_methods(results)] if any(controls[kind] for kind in _KINDS) else []
    return found + [_stopping(controls["stopping"], rival) for rival in _by(controls["stopping"], "method")]


def _by(entries: Sequence[Entry], name: str) -> dict[Any, list[Entry]]:
    found: dict[Any, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry[name], []).append(entry)
    return found


def _methods(results: dict[str, Any]) -> list[str]:
    found = {kind: _by(results["controls"][kind], "method") for kind in _KINDS}
    # Controls are straight lines: a trained curve's floor says nothing beside them.
    curve = "linear" if "linear" in _connect.curves_of(results) else _connect.curves_of(results)[0]
    floors = {g.entries[0]["a"]["label"]: g.entries for g in _connect.groups(results, "floor") if g.curve == curve}
    sources: list[tuple[tuple[str, str], Mapping[str, Sequence[Entry]], str]] = [
        (("two runs", curve), floors, "barriers"),
        (("random", "as far"), found["perturbation"], "barriers"),
        (("original", ""), found["original"], "barriers"),
        (("retrained", "aligned"), found["retrain"], "barriers"),
        (("retrained", "as it is"), found["retrain"], "unaligned"),
    ]
    sources = [source for source in sources if source[1]]
    labels = list(dict.fromkeys(label for each in found.values() for label in each))

    def distances(label: str) -> list[float]:
        own = next(each[label] for each in found.values() if label in each)
        return [float(entry["distance"]["a"]) for entry in own]

    def row(label: str) -> tuple[str, ...]:
        barriers = (_both(each.get(label, ()), where) for _, each, where in sources)
        return label, _text.mean(distances(label)), *barriers

    first, left, last = _connect.cut(labels, lambda label: _connect.mean(distances(label)))
    between = [f"… {len(left)} more, by ‖θ−θ_o‖ between these: results.json holds all …"] if left else []
    table = [
        ("", "‖θ−θ_o‖", *(headers[0] for headers, *_ in sources)),
        ("", "", *(headers[1] for headers, *_ in sources)),
        ("best value", "none", *["0 / 0"] * len(sources)),
        _text.RULE,
        *map(row, first),
        *between,
        *map(row, last),
        _text.RULE,
    ]
    title = "Controls: mean accuracy barrier (points) / mean barrier on D_r (nats) of a line from every method's model"
    return [title, *_text.lay_out(table), *_text.wrap(_LEGEND)]


def _both(entries: Sequence[Entry], where: str) -> str:
    if not entries:
        return "–"
    return " / ".join(
        _text.mean([entry[where][name] for entry in entries], decimals)
        for name, decimals in (("accuracy", 1), ("retain_nats", None))
    )


def _stopping(entries: Sequence[Entry], rival: str) -> list[str]:
    by_epochs = _by([entry for entry in entries if entry["method"] == rival], "epochs")
    columns: list[tuple[str, str, str, Callable[[Entry], float], int | None]] = [
        ("UA", "%", "= retrain", lambda e: 100.0 * e["UA"], 1),
        ("RA", "%", "= retrain", lambda e: 100.0 * e["RA"], 1),
        ("‖θ−θ_o‖", "", "none", lambda e: e["distance"]["a"], None),
        ("acc.", "points", "0", lambda e: e["barriers"]["accuracy"], 1),
        ("D_r", "nats", "0", lambda e: e["barriers"]["retain_nats"], None),
        ("D_f", "nats", "0", lambda e: e["barriers"]["forget_nats"], None),
    ]
    order = sorted(by_epochs)
    cells = [
        [*head, *_text.aligned(_text.spread([read(e) for e in by_epochs[n]], decimals) for n in order)]
        for *head, read, decimals in columns
    ]
    labels = ["", "", "best value", *(f"{n} epoch{'s' if n != 1 else ''}" for n in order)]
    rows = list(zip(labels, *cells, strict=True))
    table = _text.lay_out([*rows[:3], _text.RULE, *rows[3:], _text.RULE])
    return [f"Stopping time of gradient ascent, which has no minimum: barriers of the line to {rival}", *table]
