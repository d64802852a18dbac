"""The additions of `mcu-jax connect`, as text: ensembles, further training, relearning, correlation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mcu_jax.report import _connect, _text
from mcu_jax.report._connect import Group
from mcu_jax.report._results import Results

Entry = dict[str, Any]


def blocks(results: Results) -> Iterator[list[str | _text.Grid]]:
    """Those that were measured."""
    for name, columns, (title, legend) in (
        ("ensemble", _ensembles, _ENSEMBLES),
        ("continued", _continued, _CONTINUED),
        ("relearning", _relearning, _RELEARNING),
    ):
        groups = [g for g in _connect.main_groups(results) if any(name in e for e in g.entries)]
        if name == "continued":
            # The line between ends trained further has a straight line before it, whatever else connects them.
            groups = [g for g in groups if g.curve == "linear"]
        if groups:
            first, left, last = _connect.cut(groups, lambda group: group.accuracy_barrier)
            labels = [*(g.label for g in first), *_connect.left_out(len(left)), *(g.label for g in last)]
            grid = [_column(*c, first, bool(left), last) for c in columns(groups)]
            needed = _relearned(results, groups) if name == "relearning" else []
            yield [title, _text.Grid(labels, grid), "", *needed, legend]
    if results.summary["correlation"]:
        yield _correlation(results.summary["correlation"])


_Cell = Callable[[Group], tuple[str, str]]


def _column(
    header: str, best: str, cell: _Cell, first: Sequence[Group], left: bool, last: Sequence[Group]
) -> _text.Column:
    return _text.Column(header, best, _text.aligned([*map(cell, first), *[("", "")] * left, *map(cell, last)]))


def _over(read: Callable[[Entry], float], decimals: int | None) -> _Cell:
    def value(entry: Entry) -> float:
        try:
            return read(entry)
        except TypeError:  # None stands for what is not finite
            return float("nan")

    return lambda group: _text.spread(map(value, group.entries), decimals)


_ENSEMBLES = (
    "Ensembles: predictions averaged along the whole path, or over its two ends, against the ends by themselves",
    "Test accuracy, and Jensen–Shannon divergence to the retrained model on D_f; each end: mean of both.",
)


def _ensembles(groups: Sequence[Group]) -> Iterator[tuple[str, str, _Cell]]:
    del groups
    for metric, column, title, best, scale, decimals in (
        ("test_accuracy", "test_accuracy", "test acc., %", "= retrain", 100.0, 1),
        ("js", "forget_js", "JS, nats", "0", 1.0, None),
    ):
        for header, which in (("path", "all"), ("both ends", "ends")):
            yield (f"{title}\n{header}", best,
                   _over(lambda e, w=which, m=metric, s=scale: s * e["ensemble"][w][m], decimals))  # type: ignore[misc]  # fmt: skip

        def ends(group: Group, column: str = column, scale: float = scale, decimals: int | None = decimals) -> Any:
            return _text.spread(scale * group.along[column].iloc[[0, -1]].mean(skipna=False), decimals)

        yield f"{title}\neach end", best, ends


_CONTINUED = (
    "Stability: barriers of the line between the ends, before and after both were trained further on D_r",
    "Both at 11 t, both ends on the same batches; change: after − before, paired by seed.",
)


def _continued(groups: Sequence[Group]) -> Iterator[tuple[str, str, _Cell]]:
    del groups
    for name, title, decimals in (("accuracy", "acc., points", 1), ("retain_nats", "D_r, nats", None)):
        yield f"{title}\nbefore", "0", _over(lambda e, n=name: e["continued"]["before"][n], decimals)  # type: ignore[misc]
        yield f"{title}\nafter", "0", _over(lambda e, n=name: e["continued"]["barriers"][n], decimals)  # type: ignore[misc]
        yield (f"{title}\nchange", "0",
               _over(lambda e, n=name: e["continued"]["barriers"][n] - e["continued"]["before"][n], decimals))  # type: ignore[misc]  # fmt: skip


_RELEARNING = (
    "Relearning: steps on D_f until its loss is back at the original model's, from points of the path",
    "Best value: as many as the retrained model needs. ≥: in a seed the attack gave up first.",
)


def _relearning(groups: Sequence[Group]) -> Iterator[tuple[str, str, _Cell]]:
    for i, t in enumerate(groups[0].entries[0]["relearning"]["t"]):

        def cell(group: Group, i: int = i) -> tuple[str, str]:
            attacks = [entry["relearning"] for entry in group.entries]
            return _steps([attack["steps"][i] for attack in attacks], attacks[0]["limit"])

        yield f"t = {t:g}\nsteps", "= retrain", cell


def _steps(steps: Sequence[float | int], limit: int, longest: float = 0.0) -> tuple[str, str]:
    mean, beside = _text.spread(steps, 1)
    # A mean over attacks that were cut short is a lower bound, and has no interval.
    return (f"≥{mean}", "") if max(longest, *steps) >= limit else (mean, beside)


def _relearned(results: Results, groups: Sequence[Group]) -> Iterator[str]:
    """The best values, by request: the steps of the retrained models, mean over runs and then over seeds."""
    requests = dict.fromkeys(entry["forget"] for group in groups for entry in group.entries)
    rows = results.table[(results.table.role == "retrained") & (results.table.metric == "relearning_steps")]
    for request in requests:
        steps = rows[rows.forget == request].groupby("replicate").value
        limit = groups[0].entries[0]["relearning"]["limit"]
        asked = f" of {request}" if len(requests) > 1 else ""
        needed = " ".join(filter(None, _steps(list(steps.mean()), limit, float(steps.max().max()))))
        yield f"The retrained models{asked} need {needed} steps."


def _correlation(entries: Sequence[Entry]) -> list[str | _text.Grid]:
    def cell(entry: Entry) -> tuple[str, str]:
        interval = entry["interval"]
        return f"{entry['mean']:+.2f}", f"[{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else ""

    return [
        "Membership attacks: Spearman's ρ over pairs of a barrier and MIA's distance to the retrained model's",
        _text.Grid(
            [f"{_BARRIERS[entry['barrier']]}, MIA {entry['attack']}" for entry in entries],
            [
                _text.Column("ρ", "none", _text.aligned(map(cell, entries))),
                _text.Column("seeds", "all", [str(entry["seeds"]) for entry in entries]),
            ],
        ),
        "",
        "ρ within every seed, its mean over seeds and 95 % intervals that hold together. 0: no relation.",
    ]


_BARRIERS = {"retain_nats": "barrier on D_r", "forget_nats": "barrier on D_f", "accuracy": "accuracy barrier"}
