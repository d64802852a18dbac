"""mcu-jax export: one model of a run as a checkpoint."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from mcu_jax import runs
from mcu_jax.cli import _flags, _messages


@dataclasses.dataclass(frozen=True)
class Export:
    """Write one model of a run, with its BatchNorm statistics, as a checkpoint, of which plain orbax reads `arrays`, or
    for PyTorch.
    """

    run: Annotated[str | None, "Run directory."] = None
    to: Annotated[
        str | None,
        "Where to write it: a new or empty folder or a checkpoint to replace, or FILE.safetensors, by PyTorch's names.",
    ] = None
    seed: Annotated[int | None, "Replicate (default: the run's first)."] = None
    t: Annotated[
        str | None, "Point of the path: best, as the run chose it, or a number from 0 to 1 (default: best)."
    ] = None
    model: Annotated[
        str | None,
        "FILE.py:NAME again, of a run with a model from a file: to run what a run directory names, asks for it.",
    ] = None
    method: Annotated[
        str | None, "A model in place of the path's: original, retrain, or a method as the run names it."
    ] = None


FLAGS = {"export": (Export,)}


def export(arguments: list[str]) -> int:
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--run", *arguments]
    given = _flags.parse(arguments, "export", Export)
    if isinstance(given, int):
        return given
    if "run" not in given or "to" not in given:
        return _messages.fail("export which run, and where? As in `mcu-jax export RUN --to DIR`", 2)
    exported = runs.export(given.pop("run"), given["to"], **{k: v for k, v in given.items() if k != "to"})
    at = "" if exported["t"] is None else f" at t = {exported['t']:g}"
    print(f"{exported['method']} of seed {exported['seed']}{at}, written to {given['to']}")
    return 0
