"""What the table and the figures of `mcu-jax connect` read: the seeds of one pair and curve together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from mcu_jax.report import _results, _text
from mcu_jax.report._results import Results

MOST = 20
"""Rows that a table shows whole."""
SHOWN = 5
"""Rows from each end of a longer one."""

T = TypeVar("T")


class Metric(NamedTuple):
    """name: of the long table, `split_metric`. most: what the metric cannot pass."""

    name: str
    title: str
    scale: float
    most: float


METRICS = (
    Metric("retain_loss", "retain loss (nats)", 1.0, np.inf),
    Metric("forget_loss", "forget loss (nats)", 1.0, np.inf),
    Metric("forget_js", "JS to retrained, on D_f (nats)", 1.0, np.log(2.0)),
    Metric("retain_accuracy", "retain accuracy (%)", 100.0, 100.0),
    Metric("forget_accuracy", "forget accuracy (%)", 100.0, 100.0),
    Metric("test_accuracy", "test accuracy (%)", 100.0, 100.0),
    Metric("forget_unseen_distance", "D_f from unseen examples (points)", 100.0, 100.0),
    Metric("forget_zrf", "zero-retrain forgetting, ZRF (%)", 100.0, 100.0),
    Metric("forget_MIA", "membership attack, MIA (%)", 100.0, 100.0),
)
"""Along a path."""
BARRIERS = (
    ("accuracy_barrier", "accuracy barrier (points)"),
    ("retain_loss_barrier", "barrier on D_r (nats)"),
    ("forget_loss_barrier", "barrier on D_f (nats)"),
)
"""Of a path: (name, title)."""


class Group(NamedTuple):
    """One pair and curve.

    whole: the numbers of whole paths, a pandas `DataFrame` with a row a seed and a column a `split_metric`. along:
    those along t, with a row a t and columns (`split_metric`, seed). entries: of the summary, one a seed. diverged:
    the step, by seed, at which an end was no longer finite; such a seed is nowhere else.
    """

    label: str
    curve: str
    role: str
    a: str
    b: str
    whole: Any
    along: Any
    entries: list[dict[str, Any]]
    diverged: dict[int, int]

    def values(self, name: str) -> list[float]:
        """Of every seed that has one."""
        return [] if name not in self.whole else list(self.whole[name])

    @property
    def accuracy_barrier(self) -> float:
        """Mean over seeds, by which pairs are ordered."""
        return mean(self.values("accuracy_barrier"))


def describe(results: Results, *, request: bool = True) -> str:
    """`digits, mlp, forget random:0.2, 5 seeds`."""
    return _text.describe(results.summary["config"], len(seeds_of(results)), request=request)


def seeds_of(results: Results) -> list[int]:
    return sorted({entry["seed"] for entry in results.summary["pairs"]})


def curves_of(results: Results) -> list[str]:
    """As asked for: floors, clusters and controls over methods are of the first."""
    return list(dict.fromkeys(entry["curve"] for entry in results.summary["pairs"]))


def groups(results: Results, role: str) -> list[Group]:
    """Of "pair" or "floor", in the order of the results; the curve is part of the label where there are several."""
    several = len(curves_of(results)) > 1
    table = results.table[results.table.role == role]
    rows = _results.named(table[table.value.notna() | (table.metric != "cka")])  # a model need not give its features
    entries: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for entry in results.summary["pairs"]:
        if entry["role"] == role and entry.get("diverged") is None:
            entries.setdefault((entry["a"]["label"], entry["b"]["label"], entry["curve"]), []).append(entry)
    made = []
    for (a, b, curve), group in rows.groupby(["a", "b", "curve"], sort=False):
        # Of two models of one method the second is called by what it differs in.
        label = f"{a}, two runs" if role == "floor" else f"{a} – {b.removeprefix(a.partition(':')[0] + ':')}"
        label = f"{label}, {curve}" if several else label
        stopped = group[group.metric == "diverged_step"].set_index("replicate").value
        group = group[~group.replicate.isin(stopped.index)]
        whole = group[group.t.isna()].pivot(index="replicate", columns="name", values="value")
        along = group[group.t.notna()].pivot(index="t", columns=["name", "replicate"], values="value")
        diverged = {int(seed): int(step) for seed, step in stopped.items()}
        made.append(Group(label, curve, role, a, b, whole, along, entries.get((a, b, curve), []), diverged))
    return made


def main_groups(results: Results) -> list[Group]:
    """The run's pairs, or where it has none, as in grid seeds, the two runs of every method."""
    return groups(results, "pair") or groups(results, "floor")


def floor(results: Results, name: str) -> list[float]:
    """Barriers of two runs of one method along the first curve: of every seed the mean over methods."""
    first = (results.table.role == "floor") & (results.table.curve == curves_of(results)[0])
    rows = _results.named(results.table[first & results.table.t.isna()])
    return list(rows[rows.name == name].groupby("replicate").value.agg(lambda values: values.mean(skipna=False)))


def retrained(results: Results) -> dict[tuple[str, str], float]:
    """Metrics of the retrained models, by request to forget and `split_metric`: the median over seeds of their means
    over runs.
    """
    rows = _results.named(results.table[results.table.role == "retrained"])
    means = rows.groupby(["forget", "name", "replicate"]).value.mean()
    return means.groupby(level=["forget", "name"]).median().to_dict()


def mean(values: Iterable[float]) -> float:
    """Infinite where a value is not finite, so that a diverged seed counts as the largest barrier."""
    values = list(values)
    return sum(values) / len(values) if values and all(map(math.isfinite, values)) else math.inf


def cut(items: Sequence[T], value: Callable[[T], float]) -> tuple[list[T], list[T], list[T]]:
    """(first, left out, last): all in first where they are few, else those of smallest and of largest value."""
    if len(items) <= MOST:
        return list(items), [], []
    ordered = sorted(items, key=value)
    return ordered[:SHOWN], ordered[SHOWN:-SHOWN], ordered[-SHOWN:]


def left_out(count: int) -> list[str]:
    """The label of the row that stands for so many."""
    return [f"… {count} more …"] if count else []
