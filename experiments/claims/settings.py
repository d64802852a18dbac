"""What the claims are asked of: data sets, seeds, starts, and the runs that every claim is read from."""

from __future__ import annotations

import json
import pathlib
from typing import Any, NamedTuple

from mcu_jax import report, runs

HERE = pathlib.Path(__file__).parent
RESULTS = HERE.parent / "results"

TUNING_SEEDS = (100, 101, 102)
"""On which recipes were tuned (`experiments/recipes`)."""
PILOT_SEEDS = tuple(range(200, 208))
"""On which the candidates of `mcu_jax.auto`, and the path of a data set without a recipe, were looked at."""

STARTS = ("random_label", "gradient_ascent", "neggrad_plus", "finetune")
BETAS = (0.0, 0.05, 0.1, 0.2, 0.5)
PLAIN = "mcu:mask=mcu"
"""The path as it is, drawn as its variants are."""
TUNED = "mcu:budget=4,rule=distribution"
VARIANTS = (
    *(f"mcu:beta={beta}" for beta in BETAS),
    PLAIN,
    "mcu:mask=none",
    "mcu:mask=random",
    "mcu:retain_filter=0",
    "mcu:retain_fraction=1",
    "mcu:curve=polychain",
    TUNED,
    "neg_tv",
)
"""Beside the first start, which all claims about the path itself are read from."""


class Dataset(NamedTuple):
    """seeds: used nowhere else. settings: of every run."""

    seeds: tuple[int, ...]
    settings: dict[str, Any]
    forgotten: str


DATASETS = {
    "digits": Dataset(tuple(range(1000, 1020)), {}, "class:3"),
    "fashion_mnist": Dataset(tuple(range(1000, 1008)), {"train_size": 6000, "points": 11}, "class:3"),
    "cifar10": Dataset(tuple(range(1000, 1008)), {"model": "cnn", "train_size": 6000, "points": 11}, "class:3"),
}

Runs = dict[str, report.Results]
"""By start, and "class": of the first start where a class is forgotten."""


def configs(name: str, data_dir: str | None) -> dict[str, runs.Config]:
    """The runs of a data set."""
    dataset, made = DATASETS[name], {}
    for start in (*STARTS, "class"):
        settings: dict[str, Any] = {"pre": start, "rule": "accuracy"}
        if start == "class":
            settings |= {"pre": STARTS[0], "forget": dataset.forgotten}
        if start == STARTS[0]:
            settings["baselines"] = [*DEFAULTS, *VARIANTS]
        place = HERE.parent / "runs"
        made[start] = runs.from_mapping(
            {
                "dataset": name,
                "data_dir": data_dir,
                "seeds": dataset.seeds,
                "out": str(place / f"claims-{name}-{start}"),
                "stages": str(place / "stages"),
                **dataset.settings,
                **settings,
            }
        )
    return made


DEFAULTS = ("finetune", "l1_sparse", "scrub", "influence", "npo")
"""What `mcu-jax unlearn` compares with."""


def kept(dataset: str) -> pathlib.Path:
    """Where the results of a data set are."""
    return RESULTS / f"claims_{dataset}"


def measured(claim: str, runs: Runs) -> list[dict[str, Any]]:
    """What a claim measured on the models of the first start's run, seed by seed."""
    return json.loads((kept(runs[STARTS[0]].summary["config"]["dataset"]) / f"{claim}.json").read_text())


def points(results: report.Results, method: str, metric: str = "avg_gap") -> Any:
    """In points of per cent, a pandas `Series` by seed."""
    table = results.table
    rows = table[(table.role == "model") & (table.subject == method) & (table.metric == metric)]
    return 100.0 * rows.set_index("replicate").value
