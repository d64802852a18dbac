"""The terminal's tables and paragraphs for the templates: the same cells, so that the numbers never differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mcu_jax.report import _text

LONGEST_NAME = 300
"""Characters of a name in a table."""


def blocks(parts: Iterable[str | _text.Grid]) -> list[dict[str, Any]]:
    """Paragraphs as {"text"}, tables as {"columns", "rows"}; empty lines are layout and left out."""
    return [grid(part) if isinstance(part, _text.Grid) else {"text": part} for part in parts if part]


def grid(part: _text.Grid) -> dict[str, Any]:
    """columns: {"head", "best", "left"}, the first of them the names'. rows: {"name", "cells", "last"}.

    last: whether a line is drawn below. A row without a cell stands for those left out.
    """
    columns = [{"head": " ".join(c.header.split()), "best": c.best, "left": c.left} for c in part.columns]
    rows: list[dict[str, Any]] = [
        {
            "name": short(label),
            "cells": [" ".join(column.cells[i].split()) for column in part.columns],
            "last": i in part.sections,
        }
        for i, label in enumerate(part.labels)
    ]
    return {"columns": columns, "rows": [row for row in rows if any(row["cells"]) or row["name"].startswith("…")]}


def numbers(first: str, heads: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]]) -> dict[str, Any]:
    """A table of a chart's own numbers. first: the head of the names. heads: (head, best value)."""
    columns = [{"head": head, "best": best, "left": False} for head, best in heads]
    return {
        "first": first,
        "columns": columns,
        "rows": [{"name": short(name), "cells": list(cells), "last": False} for name, *cells in rows],
    }


def short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
