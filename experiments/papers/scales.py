"""What the experiments of the papers share: their scales, their command line, and what is done with a run."""

from __future__ import annotations

import argparse
import pathlib
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mcu_jax import UserError, datasets, report, runs, sharding

FOLDER = datasets.FOLDER
HERE = pathlib.Path(__file__).parents[1]
KEPT = ("environment.json", "results.json", "results.csv", "path.png", "matrix.png", "barriers.png")

BASELINES = (
    *("finetune", "gradient_ascent", "neggrad_plus", "grad_diff", "salun", "neg_tv", "sfron", "scrub", "bad_teacher"),
    *("npo", "l1_sparse", "boundary_shrink", "influence"),
    "mcu:beta=0.2",
    "mcu:budget=4,rule=distribution",
)
"""What the papers compare, and MCU with a fixed penalty, and one that tunes itself, beside its adaptive penalty."""

UNLEARN: dict[str, dict[str, Any]] = {
    # The papers' optimisers and lengths. Of the path: 10 passes over half of D_r, `steps` being the experiment's own.
    "paper": {"lr": 0.01, "points": 21, "seeds": (0, 1, 2, 3, 4), "baselines": BASELINES},
    "small": {"train_size": 10_000, "lr": 0.03, "steps": 600, "points": 11, "seeds": (0, 1, 2), "baselines": BASELINES},
    "smoke": {
        **{"train_size": 16, "validation_size": 4, "steps": 2, "points": 4, "seeds": (0,), "sample": 8},
        "baselines": (),
    },
}
CONNECT: dict[str, dict[str, Any]] = {
    "paper": {"points": 31, "retrains": 2, "seeds": (0, 1, 2, 3, 4)},
    "small": {"train_size": 10_000, "steps": 300, "points": 11, "retrains": 1, "seeds": (0, 1, 2)},
    "smoke": {
        **{"train_size": 16, "validation_size": 4, "steps": 2, "points": 5, "retrains": 1, "seeds": (0,), "sample": 8},
    },
}
"""By scale: the papers' own; minutes on a GPU, of CIFAR-10 less, for a CPU; seconds on a CPU, for tests alone."""


class Piece(runs.Progress):
    """Asks the run to stop when its minutes are over: the same command goes on."""

    def __init__(self, minutes: float | None):
        super().__init__()
        self.end = None if minutes is None else time.monotonic() + 60 * minutes

    def should_stop(self) -> bool:
        return super().should_stop() or (self.end is not None and time.monotonic() > self.end)


def main(
    file: str,
    about: str,
    scales: Mapping[str, Mapping[str, Any]],
    *,
    dataset: str,
    requests: Sequence[str],
    defaults: Mapping[str, Mapping[str, Any]] = UNLEARN,
    arguments: Sequence[str] | None = None,
) -> int:
    """Runs every request of an experiment at the scale that is asked for.

    dataset: a name of tfds, or `FOLDER`, of whose pictures a scale may tell the size.
    """
    name = pathlib.Path(file).stem
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter, prog=f"{name}.py"
    )
    parser.add_argument("--scale", choices=scales, required=True)
    parser.add_argument("--data", required=True, metavar="DIR", help="where the data set is")
    if dataset == FOLDER:
        parser.add_argument("--classes", metavar="FILE", help="the classes to take, one a line (default: all)")
    parser.add_argument("--mesh", help="as of mcu-jax, data=4,map=2")
    parser.add_argument("--minutes", type=float, help="stop after so many; the same command goes on")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="where runs and results are kept")
    asked = parser.parse_args(arguments)
    kind, settings = "connect" if defaults is CONNECT else "unlearn", {**defaults[asked.scale], **scales[asked.scale]}
    size = settings.pop("size", None)
    if dataset == FOLDER:
        options = {"size": size, "classes": asked.classes}
        told = ",".join(f"{name}={value}" for name, value in options.items() if value is not None)
        settings["dataset"] = FOLDER + asked.data + (f":{told}" if told else "")
    else:
        settings |= {"dataset": dataset, "data_dir": asked.data}
    try:
        with sharding.use(sharding.mesh(asked.mesh) if asked.mesh else None), Piece(asked.minutes) as observer:
            for request in requests:
                label = f"{name}-{asked.scale}-{request.replace(':', '-')}"
                settings |= {"kind": kind, "forget": request, "out": str(asked.out / "runs" / label)}
                settings |= {"stages": str(asked.out / "runs" / "stages")}  # an original serves all requests
                config = runs.from_mapping(settings)
                run = (runs.connect if kind == "connect" else runs.unlearn)(config, observer)
                print(report.write(run.directory))
                keep(run.directory, asked.out / "results" / label)
    except (runs.InterruptedRunError, UserError) as error:
        print(f"{name}.py: {error}", file=sys.stderr)
        return 130 if isinstance(error, runs.InterruptedRunError) else 2
    return 0


def keep(directory: pathlib.Path, to: pathlib.Path) -> None:
    to.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if (directory / name).exists():
            shutil.copy(directory / name, to / name)
