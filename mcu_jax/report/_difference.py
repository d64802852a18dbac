"""Two runs side by side, as text: what they were asked, what with, and what came out."""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mcu_jax import base, metrics, rules, runs, text
from mcu_jax.report import _text

METRICS = ("avg_gap", "UA", "UA_test", "RA", "TA", "MIA", *(f"score_{rule}" for rule in rules.NAMES))
BARRIERS = {"retain_nats": "on D_r, nats", "forget_nats": "on D_f, nats", "accuracy": "of accuracy, points"}

DATA = "hash of the data"

Values = Mapping[str, Mapping[int, float]]
"""Of every method, or pair of methods: by seed."""


class _Side(NamedTuple):
    """One of the two. results: None of a run that is not finished."""

    directory: pathlib.Path
    config: Mapping[str, Any]
    results: Mapping[str, Any] | None
    environment: Mapping[str, Any]
    splits: Mapping[str, Mapping[str, Any]]
    """By the name of their file: what it holds."""


def difference(a: str | os.PathLike[str], b: str | os.PathLike[str], width: int = _text.WIDTH) -> str:
    """What differs between the run in directory `a` and that in `b`, for pages of so many columns.

    Settings, defaults included; versions and machine; data and forget sets; and of every method, or pair of methods,
    that both have, what came out, with the difference over the seeds that both have. Raises UserError for a directory
    without a run, one whose files cannot be read, and two runs of different kinds.
    """
    sides = _side(a), _side(b)
    kinds = [side.config["kind"] for side in sides]
    if kinds[0] != kinds[1]:
        of = ", ".join(
            f"{text.plain(side.directory)} is of `mcu-jax {text.plain(side.config['kind'])}`" for side in sides
        )
        raise base.UserError(f"runs of one kind can be compared: {of}")
    parts = (_settings, _made_with, _data, _outcome)
    head = [f"A: {text.printable(str(sides[0].directory))}", f"B: {text.printable(str(sides[1].directory))}"]
    return _text.render([*head, *(line for part in parts for line in ("", *part(*sides, width)))], width)


def _side(directory: str | os.PathLike[str]) -> _Side:
    place = pathlib.Path(directory)
    try:
        results = runs.read_results(place) if (place / "results.json").exists() else None
        config = results["config"] if results else runs.read_yaml(place / "config.yaml")
        environment = _read(place / "environment.json")
        indices = {file.stem: _read(file) for file in sorted((place / "splits").glob("*.json"))}
    except (ValueError, OSError) as error:
        raise base.UserError(f"{text.plain(place)} is not a run that can be read: {error}") from error
    if not isinstance(config.get("kind"), str):
        raise base.UserError(f"{text.plain(place)} is not a run: its configuration does not say of which command")
    return _Side(place, config, results, environment, indices)


def _read(file: pathlib.Path) -> dict[str, Any]:
    values = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if not isinstance(values, dict):
        raise ValueError(f"{file.name} holds something else")
    return values


# What they were asked, and made with


def _settings(a: _Side, b: _Side, width: int) -> Iterator[str | _text.Grid]:
    yield from _differing("Settings", _asked(a, b), _asked(b, a), width)


def _asked(side: _Side, other: _Side) -> dict[str, Any]:
    """The configuration, and what the hyper-parameters of methods come to that both have."""
    left_out = ("kind", "digests", "resolved", "out", "stages", "to")
    asked = {name: value for name, value in side.config.items() if name not in left_out}
    resolved, theirs = side.config.get("resolved", {}), other.config.get("resolved", {})
    return asked | {spec: options for spec, options in resolved.items() if spec in theirs}


def _made_with(a: _Side, b: _Side, width: int) -> Iterator[str | _text.Grid]:
    yield from _differing("Versions and machine", a.environment, b.environment, width)


def _data(a: _Side, b: _Side, width: int) -> Iterator[str | _text.Grid]:
    digests = {"A": _digests(a), "B": _digests(b)}
    if without := [name for name, known in digests.items() if DATA not in known]:
        yield f"Data: without a hash in {' and '.join(without)}, so that it is not known whether they are the same."
    else:
        yield from _differing("Data", digests["A"], digests["B"], width)
    shared = [name for name in a.splits if name in b.splits]
    same = sum(a.splits[name] == b.splits[name] for name in shared)
    if shared:
        yield f"Forget sets and samples: the same in {same} of {len(shared)} files of indices that both have."


def _digests(side: _Side) -> dict[str, str]:
    """Of the data and of what the user brought."""
    found = {f"digest of {name}": str(each)[:16] for name, each in side.config.get("digests", {}).items()}
    hashes = [str(each["data_hash"])[:16] for each in side.splits.values() if "data_hash" in each]
    return {**found, DATA: hashes[0]} if hashes else found


def _differing(title: str, a: Mapping[str, Any], b: Mapping[str, Any], width: int) -> Iterator[str | _text.Grid]:
    one, other = _flat(a), _flat(b)
    names = [name for name in dict.fromkeys((*one, *other)) if one.get(name) != other.get(name)]
    if not names:
        yield f"{title}: the same."
        return
    lists = any(isinstance(side.get(name), list) for side in (one, other) for name in names)
    yield f"{title} that differ{', of lists what the other lacks' * lists}"
    room = max((width - _text.LABEL - 4) // 2, 16)
    cells = [[_shown(mine, theirs, name, room) for name in names] for mine, theirs in ((one, other), (other, one))]
    labels = [text.plain(name) for name in names]
    yield _text.Grid(labels, [_text.Column(side, "", cell, left=True) for side, cell in zip("AB", cells, strict=True)])


def _shown(mine: Mapping[str, Any], theirs: Mapping[str, Any], name: str, room: int) -> str:
    """The value of a setting; of a list what the other one lacks."""
    if name not in mine:
        return "–"
    value, other = mine[name], theirs.get(name)
    if isinstance(value, list):
        lacking = [item for item in value if item not in other] if isinstance(other, list) else value
        value = " ".join(map(str, lacking)) or "none more"
    words = text.printable("none" if value is None else str(value))
    return "\n".join(textwrap.wrap(words, room, max_lines=4, placeholder=" …")) or "–"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


# What came out


def _outcome(a: _Side, b: _Side, width: int) -> Iterator[str | _text.Grid]:
    unfinished = [name for name, side in (("A", a), ("B", b)) if side.results is None]
    if unfinished or a.results is None or b.results is None:
        yield f"Outcome: {' and '.join(unfinished)} not finished; the same command goes on with it."
        return
    names: tuple[dict[str, None], dict[str, None]] = ({}, {})
    for title, best, scale, one, other in _TABLES[str(a.config["kind"])](a.results, b.results):
        names[0].update(dict.fromkeys(one))
        names[1].update(dict.fromkeys(other))
        if common := [name for name in one if name in other]:
            yield from _compared(title, best, *({n: _scaled(side[n], scale) for n in common} for side in (one, other)))
            yield ""
    for side, mine, theirs in (("A", *names), ("B", *reversed(names))):
        if alone := [text.plain(name) for name in mine if name not in theirs]:
            yield f"In {side} alone: {', '.join(alone)}."
    yield (
        "A, B: means over the seeds of each. B − A: over the seeds that both have, [95 % interval of it (Student t)]; "
        f"of fewer than {_text.FEW} the range."
    )


def _scaled(values: Mapping[int, float], scale: float) -> dict[int, float]:
    return {seed: scale * value for seed, value in values.items()}


def _compared(title: str, best: str, a: Values, b: Values) -> Iterator[str | _text.Grid]:
    shared = {name: sorted(a[name].keys() & b[name].keys()) for name in a}
    differences = [_differences([b[name][seed] - a[name][seed] for seed in shared[name]]) for name in a]
    better = "below 0" if best == "0" else "above 0" if best == "all" else ""
    yield title
    yield _text.Grid(
        [text.plain(name) for name in a],
        [
            _text.Column("A", best, [_mean(a[name]) for name in a]),
            _text.Column("B", best, [_mean(b[name]) for name in a]),
            _text.Column("B − A", better, _text.aligned(differences)),
            _text.Column("seeds", "", [str(len(seeds)) for seeds in shared.values()]),
        ],
    )


def _mean(values: Mapping[int, float]) -> str:
    return _text.plain(statistics.fmean(values.values()), 2)


def _differences(values: Sequence[float]) -> tuple[str, str]:
    """(mean, interval or range)."""
    if not values:
        return "–", ""
    mean, half = metrics.mean_interval(values)
    if half is None:
        return _signed(mean), ""
    low, high = (min(values), max(values)) if len(values) < _text.FEW else (mean - half, mean + half)
    return _signed(mean), f"[{_signed(low)}, {_signed(high)}]"


def _signed(value: float) -> str:
    """Never -0.00."""
    return f"{round(value, 2) + 0.0:+.2f}"


Table = tuple[str, str, float, Values, Values]
"""(title, best value, what its numbers are multiplied by, those of A, those of B)."""


def _unlearned(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Table]:
    for metric in METRICS:
        is_gap = metric.startswith(("avg_gap", "score"))
        title, best = (f"{metric}, points", "0") if is_gap else (f"{metric}, per cent", "= retrain")
        yield title, best, 100.0, _of_rows(a["rows"], metric), _of_rows(b["rows"], metric)


def _of_rows(rows: Sequence[Mapping[str, Any]], metric: str) -> Values:
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        if row.get(metric) is not None:
            found.setdefault(row["method"], {})[row["seed"]] = row[metric]
    return found


def _connected(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Table]:
    for barrier, words in BARRIERS.items():
        yield f"Barrier {words}", "0", 1.0, _of_pairs(a["pairs"], barrier), _of_pairs(b["pairs"], barrier)
    yield "Connected, share of the seeds", "all", 1.0, _of_pairs(a["pairs"], None), _of_pairs(b["pairs"], None)


def _of_pairs(pairs: Sequence[Mapping[str, Any]], barrier: str | None) -> Values:
    """barrier: None for whether they are connected."""
    found: dict[str, dict[int, float]] = {}
    for pair in pairs:
        value = float(pair["connected"]) if barrier is None else pair["barriers"].get(barrier)
        if value is not None:
            name = f"{pair['a']['label']} – {pair['b']['label']}, {pair['curve']}"
            found.setdefault(name, {})[pair["seed"]] = value
    return found


def _tuned(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Table]:
    yield "Criterion of the best try, points", "0", 100.0, _of_tries(a), _of_tries(b)


def _of_tries(results: Mapping[str, Any]) -> Values:
    best = {name: found["try"] for name, found in results["recipe"]["methods"].items()}
    tried = [row for row in results["rows"] if best.get(row["method"]) == row["try"]]
    return _of_rows(tried, "criterion")


_TABLES = {"unlearn": _unlearned, "connect": _connected, "tune": _tuned}
