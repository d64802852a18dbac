"""Directories of results -> tables and figures. Reads files only, never computes a model."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from mcu_jax.report._connect_barriers import barriers_figure
from mcu_jax.report._connect_figure import curves_figure
from mcu_jax.report._connect_matrix import matrix_figure
from mcu_jax.report._connect_sizes import sizes_figure
from mcu_jax.report._connect_table import connect_table
from mcu_jax.report._figure import path_figure
from mcu_jax.report._table import unlearn_table

__all__ = [
    "barriers_figure",
    "connect_table",
    "curves_figure",
    "matrix_figure",
    "path_figure",
    "sizes_figure",
    "unlearn_table",
    "write",
]


def write(directory: str | os.PathLike[str]) -> str:
    """Draw the figures of `directory/results.json` beside it and return the table.

    Of a run of unlearning path.png; of connections curves.png and, by what there is, matrix.png, sizes.png or
    barriers.png. Raises FileNotFoundError without that file, ValueError where it is of another schema or kind.
    """
    directory = pathlib.Path(directory)
    file = directory / "results.json"
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
        schema, kind = results["schema"], results.get("kind", "unlearn")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not the results of a run; run it again") from error
    if schema != 1:
        raise ValueError(f"{file}: expected schema 1, found {schema}")
    if kind == "connect":
        return _write_connect(results, directory)
    if kind != "unlearn":
        raise ValueError(f"{file}: expected results of kind unlearn or connect, found {kind!r}")
    path_figure(results, directory / "path.png")
    return unlearn_table(results)


def _write_connect(results: dict[str, Any], directory: pathlib.Path) -> str:
    grid = results["config"]["grid"]
    curves_figure(results, directory / "curves.png")
    if results["clusters"]:
        matrix_figure(results, directory / "matrix.png")
    if grid == "sizes":
        sizes_figure(results, directory / "sizes.png")
    elif grid != "methods":
        barriers_figure(results, directory / "barriers.png")
    return connect_table(results)
