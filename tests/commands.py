"""Command lines that tests of the command line share, and the environment of a process of its own."""

from __future__ import annotations

import json
import os
import pathlib

SETTINGS = "--train-size 60 --validation-size 40 --train.epochs 3 --steps 6 --points 5 --seeds 0 1 --baselines"
FLAGS = SETTINGS.split()
"""The settings `conftest.SMALL` as flags."""

CONNECT = "connect --train-size 60 --validation-size 40 --train.epochs 3 --a neggrad_plus --b npo --curve linear bezier"
CONNECT += " --also mia continued relearning --steps 4 --points 5 --retrains 2 --seeds 0 1"


def numbers(directory: pathlib.Path) -> list:
    """What a run found, without its seconds."""
    results = json.loads((directory / "results.json").read_text())
    return [[{k: v for k, v in row.items() if k != "seconds"} for row in results["rows"]], results["paths"]]


def environment(compilations: dict[str, str]) -> dict[str, str]:
    here = str(pathlib.Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    return {**os.environ, **compilations, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
