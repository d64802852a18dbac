"""The numbers of a run as one long table, `results.csv`, and the summary beside it, `results.json`.

One row of the table is one number. What is missing or does not apply is an empty field. The columns:

replicate  the seed: it draws its own forget set, original and retrained model
role       what was measured. Of `unlearn`: model (a method's model) or path (a point of a path). Of `connect`: pair
           (a path between two of the models asked for), floor (between two runs of one method), retrained (a model),
           or a control's line: perturbation, original, retrain, unaligned, stopping. Of `tune`: try (a method's model
           by the hyper-parameters that `results.json` tells)
subject    the method as the run names it, "linear" and "mcu" for the straight line and the trained path of `unlearn`,
           :rule=RULE where t was not chosen by the run's own rule; of a path of `connect` "A – B"; of `tune` as
           "npo try 3"
a, b       its ends, where it has two
run        0, 1, …: of models that differ in the seed of training alone
forget     the request, as `random:0.2`
curve      of a path, or of the path that a model was chosen on
t          from 0 to 1; empty for a number that is of a model or of a whole path
split      the examples: retain, forget, validation, test, or forget_test (test examples of a forgotten class)
metric     UA, RA, TA, VA (accuracy on D_v), MIA, unseen_distance, avg_gap, score_RULE (without a retrained model, by a
           rule of `mcu_jax.rules`), seconds_PART, loss, accuracy, js, zrf; for a whole path these with _barrier,
           _total_variation or _max_second_difference, and distance_a (of an end from the original), distance_ab,
           arc_length, disagreement, cka, task_cosine, connected; interior_share, interior_t and interior_score: how
           many points between the ends are better than both, the best of them, and its score, _a and _b the ends';
           diverged_step, the step at which a method's parameters were no longer finite
value      a number, which may be inf; empty where none came out
unit       fraction, nats, points (of per cent), s, steps, or empty

A row of `unlearn`'s role model has the t that was chosen.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import pathlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from mcu_jax import base, disk, rules, text
from mcu_jax.runs import _files

SUMMARY, TABLE = "results.json", "results.csv"
SCHEMAS = {"unlearn": 3, "connect": 2, "tune": 1}
"""Of each kind of results."""


class Row(NamedTuple):
    """One number. The columns as the module's text tells them."""

    replicate: int
    role: str
    subject: str
    a: str | None = None
    b: str | None = None
    run: int | None = None
    forget: str | None = None
    curve: str | None = None
    t: float | None = None
    split: str | None = None
    metric: str = ""
    value: float | None = None
    unit: str | None = None


_SPLITS = {"UA": "forget", "UA_test": "forget_test", "RA": "retain", "TA": "test", "MIA": "forget", "js": "forget"}
_SPLITS |= {"zrf": "forget", "VA": "validation", "unseen_distance": "forget"}
_LOSSES = ("retain_loss", "forget_loss", "test_loss")
_SCORES = tuple(f"score_{rule}" for rule in rules.NAMES)
_ALONG = ("t", "metrics")
"""Of a pair's entry: what is in the table alone."""


def table(results: Mapping[str, Any]) -> list[Row]:
    """Every number of the results that a job gives."""
    return list({"unlearn": _unlearned, "connect": _connected, "tune": _tuned}[results["kind"]](results))


def summary(results: Mapping[str, Any]) -> dict[str, Any]:
    """The results without the values along paths; what is not finite is None, as JSON knows no such number."""
    short = {"schema": SCHEMAS[results["kind"]], **results}
    if "pairs" in results:
        short["pairs"] = [{k: v for k, v in pair.items() if k not in _ALONG} for pair in results["pairs"]]
    if "paths" in results:
        short["paths"] = [{k: v for k, v in path.items() if k not in _along(path)} for path in results["paths"]]
    return finite(short)


def to_csv(rows: Iterable[Row]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows(row._replace(value=None) if row.value != row.value else row for row in rows)
    return out.getvalue()


def write(directory: str | os.PathLike[str], results: Mapping[str, Any]) -> dict[str, Any]:
    """The results that a job gives, as the two files; the summary is given as it will be read."""
    content = to_csv(table(results))
    short = {**summary(results), "table_sha256": _files.sha256(content)}
    disk.write(pathlib.Path(directory) / TABLE, content)
    _files.write_json(pathlib.Path(directory) / SUMMARY, short)
    return short


def read_results(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The summary in `directory/results.json`.

    Raises FileNotFoundError without that file, UserError where it is something else, or not as it was written.
    """
    file = pathlib.Path(directory) / SUMMARY
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
        schema, kind = results["schema"], results["kind"]
    except (ValueError, KeyError, TypeError) as error:
        raise base.UserError(f"{file} is not the results of a run; run it again") from error
    if kind not in SCHEMAS:
        raise base.UserError(f"{file}: expected results of kind {', '.join(SCHEMAS)}, found {text.show(kind)}")
    if schema != SCHEMAS[kind]:
        raise base.UserError(f"{file}: expected schema {SCHEMAS[kind]}, found {text.show(schema)}; run it again")
    return _files.read_json(file)


def read_table(directory: str | os.PathLike[str]) -> Any:
    """The long table of a run as a pandas `DataFrame`: one number a row, the columns of `mcu_jax.runs._tidy`.

    `results.csv` may be packed by gzip. Raises as `read_results`.
    """
    results = read_results(directory)
    file = pathlib.Path(directory) / TABLE
    packed = file.with_name(f"{TABLE}.gz")
    try:
        content = (file.read_bytes() if file.exists() else gzip.decompress(packed.read_bytes())).decode()
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _files.DamagedFileError(f"{file} cannot be read ({type(error).__name__})") from error
    if _files.sha256(content) != results["table_sha256"]:
        raise _files.DamagedFileError(f"{file} is not as it was written")
    return frame(content)


def frame(content: str) -> Any:
    """The `DataFrame` of the text of a table, every number as it was written. Raises ValueError where it is none."""
    import pandas

    header, *rows = csv.reader(io.StringIO(content))
    if tuple(header) != Row._fields:
        raise ValueError(f"expected the columns {', '.join(Row._fields)}, found {', '.join(header)}")
    columns = dict(zip(header, zip(*rows, strict=True) if rows else [()] * len(header), strict=True))
    read = {
        "replicate": lambda fields: pandas.array([int(field) for field in fields], dtype="int64"),
        "run": lambda fields: pandas.array([int(field) if field else None for field in fields], dtype="Int64"),
        "t": lambda fields: [float(field) if field else math.nan for field in fields],
        "value": lambda fields: [float(field) if field else math.nan for field in fields],
    }
    text_of = lambda fields: [field or None for field in fields]  # noqa: E731
    return pandas.DataFrame({name: read.get(name, text_of)(fields) for name, fields in columns.items()})


def _along(path: Mapping[str, Any]) -> list[str]:
    """What a path of `unlearn` has a value of at every t, and t."""
    n = len(path["t"])
    return [k for k, v in path.items() if isinstance(v, list) and len(v) == n and not isinstance(v[0], list)]


def finite(value: Any) -> Any:
    """JSON values with None for numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _unlearned(results: Mapping[str, Any]) -> Iterator[Row]:
    config = results["config"]
    curve = next((path["curve"] for path in results["paths"] if path["curve"] != "linear"), "linear")
    for row in results["rows"]:
        where = {"mcu": curve, "linear": "linear"}.get(row["method"].removesuffix(f":rule={row['rule']}"))
        one = Row(row["seed"], "model", row["method"], forget=config["forget"], curve=where, t=row.get("t"))
        yield from _of_model(one, row)
    for path in results["paths"]:
        subject = "linear" if path["curve"] == "linear" else "mcu"
        one = Row(path["seed"], "path", subject, forget=config["forget"], curve=path["curve"])
        for name in _along(path):
            if name != "t":
                for t, value in zip(path["t"], path[name], strict=True):
                    yield one._replace(t=t, **_metric(name), value=value)


def _tuned(results: Mapping[str, Any]) -> Iterator[Row]:
    for row in results["rows"]:
        subject = f"{row['method']} try {row['try']}"
        yield from _of_model(Row(row["seed"], "try", subject, forget=results["config"]["forget"]), row)


def _of_model(one: Row, row: Mapping[str, Any]) -> Iterator[Row]:
    diverged = row.get("diverged")
    for name in (*_SPLITS, *_LOSSES, "avg_gap", *_SCORES):
        # A number that does not apply has no row; one that a diverged method lacks has one, without a value.
        if row.get(name) is not None or (diverged is not None and name in row):
            yield one._replace(**_metric(name), value=row[name])
    for part, spent in (row.get("seconds") or {}).items():
        yield one._replace(metric=f"seconds_{part}", value=spent, unit="s")
    if diverged is not None:
        yield one._replace(metric="diverged_step", value=diverged, unit="steps")


def _metric(name: str) -> dict[str, Any]:
    """Split, metric and unit by the name that `results.json` has for a value at one t."""
    split, _, rest = name.partition("_")
    if rest in ("loss", "accuracy") and name not in _SCORES:
        return {"split": split, "metric": rest, "unit": "nats" if rest == "loss" else "fraction"}
    return {"split": _SPLITS.get(name), "metric": name, "unit": "nats" if name == "js" else "fraction"}


def _barrier(name: str) -> dict[str, Any]:
    """The same of a barrier: `retain_nats` is of the loss, `accuracy` the larger of two."""
    if name == "accuracy":
        return {"metric": "accuracy_barrier", "unit": "points"}
    nats = name.endswith("_nats")
    stem = name.removesuffix("_nats")
    known = _metric(stem if not nats or stem == "js" else f"{stem}_loss")
    return {**known, "metric": f"{known['metric']}_barrier", "unit": "nats" if nats else "points"}


def _connected(results: Mapping[str, Any]) -> Iterator[Row]:
    for pair in results["pairs"]:
        a, b = pair["a"]["label"], pair["b"]["label"]
        one = Row(pair["seed"], pair["role"], f"{a} – {b}", a, b, forget=pair["forget"], curve=pair["curve"])
        if pair.get("diverged") is not None:
            yield one._replace(metric="diverged_step", value=pair["diverged"], unit="steps")
            continue
        for name, values in pair["metrics"].items():
            for t, value in zip(pair["t"], values, strict=True):
                yield one._replace(t=t, **_metric(name), value=value)
        yield from _of_line(one, pair)
        for kind in ("total_variation", "max_second_difference"):
            for name, value in pair[kind].items():
                known = _metric(name)
                yield one._replace(**{**known, "metric": f"{known['metric']}_{kind}"}, value=value)
        for name in ("arc_length", "disagreement", "cka", "task_cosine", "connected"):
            unit = "fraction" if name in ("disagreement", "connected") else None
            yield one._replace(metric=name, value=float(pair[name]), unit=unit)
        inside = pair["interior"]
        yield one._replace(metric="interior_share", value=inside["share"], unit="fraction")
        yield one._replace(metric="interior_t", value=inside["t"])
        for name, value in zip(("", "_a", "_b"), (inside["score"], *inside["ends"]), strict=True):
            yield one._replace(split="test", metric=f"interior_score{name}", value=value, unit="fraction")
    for entry in results["retrained"]:
        one = Row(entry["seed"], "retrained", "retrain", run=entry["run"], forget=entry["forget"])
        for name, value in entry.items():
            if name == "relearning_steps":
                yield one._replace(metric=name, value=value, unit="steps")
            elif name not in ("seed", "run", "forget"):
                yield one._replace(**_metric(name), value=value)
    for role, entries in results["controls"].items():
        for entry in entries:
            stopped = f"gradient_ascent:epochs={entry['epochs']} – {entry['method']}" if "epochs" in entry else None
            one = Row(entry["seed"], role, stopped or entry["method"], curve="linear")
            yield from _of_line(one, entry)
            for name in ("UA", "RA"):
                if name in entry:
                    yield one._replace(**_metric(name), value=entry[name])
            if "unaligned" in entry:
                yield from _of_line(one._replace(role="unaligned"), {"barriers": entry["unaligned"]})


def _of_line(one: Row, entry: Mapping[str, Any]) -> Iterator[Row]:
    for name, value in entry["barriers"].items():
        yield one._replace(**_barrier(name), value=value)
    for name, value in entry.get("distance", {}).items():
        yield one._replace(metric=f"distance_{name}", value=value)
