"""Directories of results -> tables and figures. Reads files only, never computes a model."""

from __future__ import annotations

import json
import os
import pathlib

from mcu_jax.report._figure import path_figure
from mcu_jax.report._table import unlearn_table

__all__ = ["path_figure", "unlearn_table", "write"]


def write(directory: str | os.PathLike[str]) -> str:
    """Draw `directory/path.png` from `directory/results.json` and return the table.

    Raises FileNotFoundError without that file, ValueError where it is not of schema 1.
    """
    directory = pathlib.Path(directory)
    try:
        results = json.loads((directory / "results.json").read_text(encoding="utf-8"))
        schema = results["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{directory / 'results.json'} is not the results of a run; run it again") from error
    if schema != 1:
        raise ValueError(f"{directory / 'results.json'}: expected schema 1, found {schema}")
    path_figure(results, directory / "path.png")
    return unlearn_table(results)
