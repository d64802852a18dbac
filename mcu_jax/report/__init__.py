"""Directories of results -> tables, figures, a page. Reads files only, never computes a model."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from mcu_jax.report import _figures, _results, _text
from mcu_jax.report._connect_table import connect_table
from mcu_jax.report._difference import difference
from mcu_jax.report._figures import NAMES as FIGURES
from mcu_jax.report._figures import figure, figures
from mcu_jax.report._page import page
from mcu_jax.report._results import Results, collect, read
from mcu_jax.report._table import unlearn_table
from mcu_jax.report._tune_table import tune_table

__all__ = [
    "FIGURES",
    "Results",
    "collect",
    "connect_table",
    "difference",
    "figure",
    "figures",
    "page",
    "read",
    "tune_table",
    "unlearn_table",
    "write",
]


def write(
    directory: str | os.PathLike[str], width: int = _text.WIDTH, *, shown: Mapping[str, Any] | None = None
) -> str:
    """Draw the figures of the run in `directory` there and return its table, for pages of so many columns.

    shown: `Run.results` of a request for a part of the run, which the table is then of; the figures are of all. Of a
    run of unlearning path.png; of connections curves.png and, by what there is, matrix.png, sizes.png or
    barriers.png; of tuning none. Raises FileNotFoundError without results.json, ValueError where it is of another
    schema or kind.
    """
    results = read(directory)
    _figures.write(pathlib.Path(directory), results)
    tables = {"unlearn": unlearn_table, "connect": connect_table, "tune": tune_table}
    return tables[results.summary["kind"]](_results.part(results, shown), width)
