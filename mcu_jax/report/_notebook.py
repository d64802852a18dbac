"""What a notebook shows of a run: the table of the page, without its explanations."""

from __future__ import annotations

import html
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mcu_jax import text
from mcu_jax.report import _connect_table, _results, _table, _text, _tune_table
from mcu_jax.report._page import _grids
from mcu_jax.report._results import Results

_TABLES = {
    "unlearn": lambda results: [f"Unlearning on {_table.describe(results)}", *_table.main_table(results)],
    "connect": lambda results: [_connect_table.title(results), *_connect_table.main_table(results)],
    "tune": lambda results: list(_tune_table.lines(results.summary)),
}


def of_run(directory: pathlib.Path, results: Mapping[str, Any]) -> str:
    """Of a run, or of the part of it that was asked for."""
    table = shown(lambda: _found(directory, results), "No results can be read of this run.")
    return f"{table}<p>{html.escape(text.plain(directory))}</p>"


def _found(directory: pathlib.Path, results: Mapping[str, Any]) -> Results:
    try:
        return _results.part(_results.read(directory), results)
    except (
        OSError,
        ValueError,
    ):  # the directory went away: the values along paths, which no table needs, are there only
        return _results.collect({**results, "paths": []} if "paths" in results else results)


def shown(get: Callable[[], Results], instead: str) -> str:
    """The main table of results. A display never fails: what cannot be shown is told by a line in its place."""
    try:
        return _as_html(get())
    except Exception:  # of a directory that went away, of results that no run has written
        return f"<p>{html.escape(instead)}</p>"


def _as_html(results: Results) -> str:
    title, *rest = _grids.blocks(_TABLES[results.summary["kind"]](results))
    tables = [i for i, block in enumerate(rest) if "text" not in block]
    # What its numbers are is the first that is said after a table.
    kept = rest[: tables[0] + 2] if tables else rest[:1]
    return "".join(
        f"<p>{_escaped(block['text'])}</p>" if "text" in block else _table_of(block) for block in [title, *kept]
    )


def _table_of(part: dict[str, Any]) -> str:
    told = any(column["best"] for column in part["columns"])
    heads = ["", *(column["head"] for column in part["columns"])]
    best = [_text.BEST, *(column["best"] for column in part["columns"])]
    head = _row("th", heads) + (_row("th", best) if told else "")
    body = "".join(_row("td", [row["name"], *row["cells"]]) for row in part["rows"])
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"


def _row(tag: str, cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{_escaped(cell)}</{tag}>' for cell in cells)}</tr>"


def _escaped(words: str) -> str:
    return html.escape(" ".join(map(text.printable, words.split("\n"))))
