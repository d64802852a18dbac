"""What claims read of the lines and curves of `mcu-jax connect`."""

from __future__ import annotations

from typing import Any

from mcu_jax import report

METRICS = (
    "retain_accuracy",
    "forget_accuracy",
    "test_accuracy",
    "forget_MIA",
    "forget_zrf",
    "forget_js",
    "forget_unseen_distance",
)


def lines(results: report.Results, role: str, curve: str = "linear") -> Any:
    """A pandas frame, a row a line: by its ends `a` and `b`, and by `replicate`, the seed.

    role: "pair", or "floor", two runs of one method. Columns are numbers of the whole line, as `test_accuracy_barrier`,
    and values at a t, as `test_accuracy at 0.5`.
    """
    table = results.table[(results.table.role == role) & (results.table.curve == curve)]
    names = table.metric.where(table.split.isna(), table.split + "_" + table.metric)
    names = names.where(table.t.isna(), names + " at " + table.t.map("{:g}".format))
    keys = ["a", "b", "replicate"]
    wide = table.assign(name=names).pivot(index=keys, columns="name", values="value")
    return wide.reindex(table.set_index(keys).index.unique())


def by_seed(values: Any) -> Any:
    """Of a `Series` over lines the mean of every seed."""
    return values.groupby("replicate").mean()


def by_pair(values: Any) -> dict[str, Any]:
    """Of a `Series` over lines the values of every pair, by seed; `a – b` is its name."""
    return {f"{a} – {b}": own.droplevel(["a", "b"]) for (a, b), own in values.groupby(["a", "b"], sort=False)}


def floor(floors: Any, pairs: Any) -> Any:
    """Of every line between two methods the mean of what lines between two runs of either are, in its seed.

    floors, pairs: a `Series` each. Between methods that are no different a line exceeds it by nothing in the mean.
    """
    own = floors.droplevel("b")
    values = [(own[a, seed] + own[b, seed]) / 2 for a, b, seed in pairs.index]
    return pairs * 0.0 + values
