"""The results of a run, as tables and figures read them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from mcu_jax import runs
from mcu_jax.runs import _tidy


class Results(NamedTuple):
    """summary: what `results.json` holds. table: the long table, a pandas `DataFrame` (see `runs.read_table`)."""

    summary: dict[str, Any]
    table: Any


def read(directory: str | os.PathLike[str]) -> Results:
    """Raises FileNotFoundError without `results.json`, ValueError where it is of another schema or kind."""
    return Results(runs.read_results(directory), runs.read_table(directory))


def collect(results: Mapping[str, Any]) -> Results:
    """The same of what a job gives in memory."""
    return Results(_tidy.summary(results), _tidy.frame(_tidy.to_csv(_tidy.table(results))))


def named(rows: Any) -> Any:
    """Rows of the table with a further column, `name`: the split and the metric as `retain_loss`."""
    return rows.assign(name=rows.metric.where(rows.split.isna(), rows.split + "_" + rows.metric))
