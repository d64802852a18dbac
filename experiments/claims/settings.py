"""What the claims are asked of: data sets, seeds, and the runs that every claim is read from."""

from __future__ import annotations

import json
import pathlib
from typing import Any, NamedTuple

from mcu_jax import report, runs

HERE = pathlib.Path(__file__).parent
RESULTS = HERE.parent / "results"

TUNING_SEEDS = (100, 101, 102)
"""On which recipes were tuned (`mcu_jax/runs/recipes`)."""
PILOT_SEEDS = tuple(range(200, 208))
"""On which the candidates of `mcu_jax.auto`, and the path of a data set without a recipe, were looked at."""

# Unlearning along a path

STARTS = ("random_label", "gradient_ascent", "neggrad_plus", "finetune")
BETAS = (0.0, 0.05, 0.1, 0.2, 0.5)
PLAIN = "mcu:curve=bezier"
"""The path as it is, drawn as its variants are."""
TUNED = "mcu:budget=4,rule=distribution"
VARIANTS = (
    *(f"mcu:beta={beta}" for beta in BETAS),
    PLAIN,
    *(f"mcu:mask={kind}" for kind in ("mcu", "none", "random")),
    "mcu:mask=mcu,retain_filter=0",
    "mcu:retain_fraction=1",
    "mcu:curve=polychain",
    TUNED,
    "neg_tv",
)
"""Beside the first start, which all claims about the path itself are read from."""
DEFAULTS = ("finetune", "l1_sparse", "scrub", "influence", "npo")
"""What `mcu-jax unlearn` compares with."""

# Between unlearned models

CONNECTED = ("finetune", "l1_sparse", "random_label", "npo", "scrub")
"""All pairs of them, and two runs of each."""
SIZED = ("npo", "random_label")
"""Whose forget sets are of two sizes."""
CURVES = ("linear", "bezier")


class Dataset(NamedTuple):
    """seeds: used nowhere else. settings: of every run. forgotten: a class. samples: of the retain and test
    images that unlearn (None: all) and connect evaluate.

    sizes, lengths: fractions to forget, the smaller first, and steps of unlearning, for the lines between two runs.
    varied: methods that have a curriculum or another optimiser, and which.
    """

    seeds: tuple[int, ...]
    settings: dict[str, Any]
    forgotten: str
    samples: tuple[int | None, int]
    sizes: tuple[float, float]
    lengths: tuple[int, ...]
    varied: tuple[tuple[str, ...], tuple[str, ...]]


_IMAGES: dict[str, Any] = {
    "seeds": tuple(range(1000, 1008)),
    "forgotten": "class:3",
    "samples": (5000, 1000),
    "sizes": (0.02, 0.1),
    "lengths": (40, 80, 160),
    "varied": (
        ("finetune", "scrub"),
        ("curriculum=superloss:strength=1", "optimizer=adam", "optimizer=sophia_fisher"),
    ),
}
DATASETS = {
    "digits": Dataset(
        seeds=tuple(range(1000, 1020)),
        settings={"points": 21},
        forgotten="class:3",
        samples=(None, 240),  # as many as the smallest D_r holds: then both sizes share their compiled code
        sizes=(0.05, 0.2),
        lengths=(25, 50, 100, 200),
        varied=(
            ("finetune", "l1_sparse", "scrub"),
            (
                *(f"curriculum=superloss{strength}" for strength in ("", ":strength=1", ":strength=0.1")),
                *(f"optimizer={optimizer}" for optimizer in ("adam", "sophia", "sophia_fisher")),
            ),
        ),
    ),
    "fashion_mnist": Dataset(settings={"train_size": 12000, "points": 11}, **_IMAGES),
    "cifar10": Dataset(settings={"model": "cnn", "train_size": 12000, "points": 11}, **_IMAGES),
}
REFERENCE = {"cifar10": "fashion_mnist"}
"""A data set that another is compared with, decided before it: of the same model, sizes and request."""

Runs = dict[str, report.Results]
"""By name: each start, and "class", of the first start where a class is forgotten; "varied", the first start's with
curricula and optimisers as baselines; "lines" between methods and "sizes", between two runs."""


def configs(name: str, data_dir: str | None) -> dict[str, runs.Config | runs.ConnectConfig]:
    """The runs of a data set."""
    dataset, place = DATASETS[name], HERE.parent / "runs"
    asked: dict[str, dict[str, Any]] = {start: {"pre": start} for start in STARTS}
    asked[STARTS[0]]["baselines"] = [*DEFAULTS, *VARIANTS]
    asked["class"] = {"pre": STARTS[0], "forget": dataset.forgotten}
    asked["varied"] = {"pre": STARTS[0], "baselines": varied(name)}
    asked["lines"] = {"grid": "methods", "methods": CONNECTED, "curve": CURVES, "also": ["mia"]}
    asked["sizes"] = {"grid": "seeds", "methods": [sized(*each) for each in _each_size(dataset)]}
    made = {}
    for run, settings in asked.items():
        connects = "grid" in settings
        kind = {"kind": "connect", "retrains": 1} if connects else {"rule": "accuracy"}
        made[run] = runs.from_mapping(
            {
                "dataset": name,
                "data_dir": data_dir,
                "seeds": dataset.seeds,
                "out": str(place / f"claims-{name}-{run}"),
                "stages": str(place / "stages"),
                "sample": dataset.samples[connects],
                **dataset.settings,
                **kind,
                **settings,
            }
        )
    return made


def _each_size(dataset: Dataset) -> list[tuple[str, float, int]]:
    return [(method, size, steps) for method in SIZED for size in dataset.sizes for steps in dataset.lengths]


def sized(method: str, size: float, steps: int) -> str:
    """How a method is asked for with a size and a length."""
    return f"{method}:forget={size:g},steps={steps}"


def varied(name: str) -> list[str]:
    """Methods as they are, and each with a curriculum or another optimiser."""
    methods, ways = DATASETS[name].varied
    return [*methods, *(f"{method}:{way}" for method in methods for way in ways)]


def kept(dataset: str) -> pathlib.Path:
    """Where the results of a data set are."""
    return RESULTS / f"claims_{dataset}"


def asked_of(runs: Runs) -> str:
    """The data set of some runs."""
    return runs[STARTS[0]].summary["config"]["dataset"]


def measured(claim: str, runs: Runs) -> list[dict[str, Any]]:
    """What a claim measured on the models of the first start's run, seed by seed."""
    return json.loads((kept(asked_of(runs)) / f"{claim}.json").read_text())


def points(results: report.Results, method: str, metric: str = "avg_gap") -> Any:
    """In points of per cent, a pandas `Series` by seed."""
    table = results.table
    rows = table[(table.role == "model") & (table.subject == method) & (table.metric == metric)]
    return 100.0 * rows.set_index("replicate").value
