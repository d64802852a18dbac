"""The results of a run, as tables and figures read them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from mcu_jax import runs, text
from mcu_jax.runs import _tidy


class Results(NamedTuple):
    """summary: what `results.json` holds. table: the long table, a pandas `DataFrame` (see `runs.read_table`)."""

    summary: dict[str, Any]
    table: Any

    def __repr__(self) -> str:
        return f"Results({text.show(self.summary.get('kind'))}, a table of {text.plural(len(self.table), 'row')})"

    def _repr_html_(self) -> str:
        """For notebooks: the run's main table, where the results are as a run writes them."""
        from mcu_jax.report import _notebook

        return _notebook.shown(lambda: self, repr(self))


def read(directory: str | os.PathLike[str]) -> Results:
    """Raises FileNotFoundError without `results.json`, ValueError where it is of another schema or kind."""
    return Results(runs.read_results(directory), runs.read_table(directory))


def collect(results: Mapping[str, Any]) -> Results:
    """The same of what a job gives in memory."""
    return Results(_tidy.summary(results), _tidy.frame(_tidy.to_csv(_tidy.table(results))))


def part(results: Results, shown: Mapping[str, Any] | None) -> Results:
    """What was asked for of a larger run: its summary is `shown`, None for all of it."""
    if shown is None:
        return results
    return Results(dict(shown), results.table[results.table.replicate.isin(shown["config"]["seeds"])])


def named(rows: Any) -> Any:
    """Rows of the table with a further column, `name`: the split and the metric as `retain_loss`."""
    return rows.assign(name=rows.metric.where(rows.split.isna(), rows.split + "_" + rows.metric))
