"""mcu-jax figure: one chart of a run's page as a file for a paper, and its data."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Annotated

from mcu_jax import report, text
from mcu_jax.cli import _flags, _messages


@dataclasses.dataclass(frozen=True)
class Figure:
    """Write one figure of a run for a paper, and its data beside it as CSV. Without a name: which figures it has."""

    name: Annotated[str | None, "Which; it may stand right after `figure`, before the run."] = None
    runs: Annotated[tuple[str, ...], "Run directory, or several for pareto; they may stand after the name."] = ()
    to: Annotated[str | None, "Where to write it: FILE.pdf, .svg or .png (default: NAME.pdf here)."] = None
    width: Annotated[str, "column, 3.25 inches, or page, 6.75."] = "column"
    seed: Annotated[int | None, "One replicate in place of all, or of the first."] = None
    pair: Annotated[str | None, "Of curves: one, as the table calls it (default: all)."] = None
    overwrite: Annotated[bool, "Replace files that are there."] = False


FLAGS = {"figure": (Figure,)}


def figure(arguments: list[str]) -> int:
    leading = next((i for i, each in enumerate(arguments) if each.startswith("-")), len(arguments))
    if leading == 1:
        arguments = ["--runs", *arguments]
    elif leading:
        arguments = ["--name", arguments[0], "--runs", *arguments[1:]]
    given = _flags.parse(arguments, "figure", Figure)
    if isinstance(given, int):
        return given
    directories = given.pop("runs", ())
    if not directories:
        return _messages.fail("figure of which run? As in `mcu-jax figure path RUN`, or `mcu-jax figure RUN`", 2)
    if "name" not in given:
        return _listed(directories[0])
    place = report.figure(given.pop("name"), directories, given.pop("to", None), **given)
    print(f"Written to {place}, its data to {place.with_suffix('.csv')}.")
    return 0


def _listed(run: str) -> int:
    if run in report.FIGURES and not pathlib.Path(run).exists():
        return _messages.fail(f"figure {run} of which run? As in `mcu-jax figure {run} RUN`", 2)
    known = report.figures(run)
    if not known:
        return _messages.fail(f"{text.plain(run)} has no data for any figure: `mcu-jax report` says what it lacks", 2)
    width = max(map(len, known))
    print("\n".join(f"{name:<{width}}  {says}" for name, says in known.items()))
    return 0
