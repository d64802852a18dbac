"""Run directories -> one HTML file that needs nothing else."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from mcu_jax import disk, runs, text
from mcu_jax.report import _connect_table, _results, _table, _text, _tune_table
from mcu_jax.report._page import _connect, _grids, _html, _read, _reproduce, _several, _unlearn
from mcu_jax.report._page._along import along
from mcu_jax.report._page._connect import charts
from mcu_jax.runs import _directory, _files

__all__ = ["along", "charts", "model", "page"]

WHOLE = 4
"""Of so many runs a page shows everything; of more what they come to, side by side."""
NAME = "report.html"


def page(
    directories: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], file: str | os.PathLike[str] | None = None
) -> pathlib.Path:
    """Writes one HTML file of one run directory or several, and gives its place.

    It needs no network and no other file. file: default `report.html` in the directory of a single run. What a run
    lacks the page says. Raises ConfigError for a directory without a run, for several runs without a file, and for a
    file that is there and no page of ours.
    """
    given = [directories] if isinstance(directories, str | os.PathLike) else list(directories)
    if not given:
        raise runs.ConfigError("a report of which run? Give at least one run directory")
    read = [_read.read_run(directory) for directory in given]
    if file is None and len(given) > 1:
        raise runs.ConfigError(f"a page of {len(given)} runs needs a place: give --to FILE.html")
    place = read[0].directory / NAME if file is None else _files.place(file, "to")
    _check_place(place)
    disk.write(place, _html.html(model(read)))
    return place


def _check_place(place: pathlib.Path) -> None:
    _directory.check_writable(place.parent, "--to")
    if not place.parent.is_dir():
        raise runs.ConfigError(f"there is no folder {text.plain(place.parent)}; make it, or choose another with --to")
    if not place.exists():
        return
    ours = False
    if place.is_file():
        with place.open("rb") as opened:
            ours = _html.GENERATOR.encode() in opened.read(1000)
    if not ours:
        raise runs.ConfigError(
            f"{text.plain(place)} is there already, and is no page of `mcu-jax report`; choose another with --to"
        )


def model(read: Sequence[_read.Run]) -> dict[str, Any]:
    """What the templates show, and under `data` what the scripts draw."""
    whole = len(read) <= WHOLE
    shown = [_run(i, run, whole) for i, run in enumerate(read)]
    several = _several.several(read) if len(read) > 1 else None
    title = shown[0]["title"] if len(shown) == 1 else f"{len(shown)} runs side by side"
    sections = [_drawn({name: part for name, part in run["sections"].items() if name != "answer"}) for run in shown]
    data = {"runs": sections, "several": several and several["runs"]}
    return {"title": title, "runs": shown, "several": several, "whole": whole, "most": WHOLE, "data": data}


def _drawn(part: Any) -> Any:
    """Without the tables, which the templates show and no script needs."""
    if isinstance(part, dict):
        return {name: _drawn(item) for name, item in part.items() if name not in ("table", "pictures")}
    return [_drawn(item) for item in part] if isinstance(part, list) else part


def _run(number: int, run: _read.Run, whole: bool) -> dict[str, Any]:
    sections: dict[str, Any] = {}
    missing, title = list(run.missing), f"{run.kind} run {run.name}"
    if run.results is not None:
        try:
            title = _TITLES[run.kind](run.results)
            sections = _SECTIONS[run.kind](run) if whole else {"answer": _ANSWERS[run.kind](run)}
        # Of results whose digest is right: what no run has written, and no page can show.
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            missing.append(
                f"The results are not as a run writes them ({type(error).__name__}: {error}): `{run.command}` makes "
                "them again."
            )
    return {
        "number": number,
        "id": f"run-{number}",
        "name": _grids.short(run.name),
        "kind": run.kind,
        "title": _grids.short(title),
        "missing": missing,
        "again": run.command,
        "sections": sections,
        "reproduce": _reproduce.reproduce(run),
    }


def _tuned(run: _read.Run) -> dict[str, Any]:
    assert run.results is not None
    labels = dict.fromkeys(row["method"] for row in run.results.summary["rows"])
    spent = {
        name: sum(_seconds(row) for row in run.results.summary["rows"] if row["method"] == name) for name in labels
    }
    bars = [{"method": name, "part": "all tries", "seconds": round(value, 3)} for name, value in spent.items()]
    return {
        "answer": _tuned_answer(run),
        "seconds": _unlearn.bars_of_seconds(list(labels), ["all tries"], bars),
    }


def _tuned_answer(run: _read.Run) -> dict[str, Any]:
    assert run.results is not None
    return {"blocks": _grids.blocks(_tune_table.lines(run.results.summary))}


def _seconds(row: dict[str, Any]) -> float:
    return sum(spent for part, spent in (row.get("seconds") or {}).items() if part != "compile")


_SECTIONS = {"unlearn": _unlearn.sections, "connect": _connect.sections, "tune": _tuned}
_ANSWERS = {"unlearn": _unlearn.answer, "connect": _connect.answer, "tune": _tuned_answer}


def _tune_title(results: _results.Results) -> str:
    return f"Tuning on {_text.describe(results.summary['config'], len(results.summary['config']['seeds']))}"


_TITLES = {
    "unlearn": lambda results: f"Unlearning on {_table.describe(results)}",
    "connect": _connect_table.title,
    "tune": _tune_title,
}
