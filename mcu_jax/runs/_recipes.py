"""What a (data set, model) needs instead of the papers' defaults: data only, written to the config of a run."""

from __future__ import annotations

import pathlib
from typing import Any

from mcu_jax.runs import _recipe_file

MODELS = {"digits": "mlp", "fashion_mnist": "cnn", "cifar10": "preresnet"}
"""The model of a data set where none is asked for; `cnn` for all others."""

VALIDATION_SIZE = 2000
"""Where nothing else is said: at most so many, and at most a fifth of the training examples."""

DEFAULT: dict[str, Any] = {
    "train_size": None,
    "validation_size": None,
    "forget": "random:0.1",
    "pre": "random_label",
    "train": {"epochs": 20, "lr": 0.05, "batch_size": 128},
    "path": {"steps": 1000, "lr": 0.05, "beta": "adaptive", "mask": "mcu"},
    "connection": {"steps": 1000, "lr": 0.01},
    "mask": {"keep": 0.5, "retain_filter": 0.1},
    # What another optimiser's learning rate is to SGD's, so that a model moves about as far.
    "optimizers": {"adam": 0.01, "sophia": 0.003, "sophia_fisher": 0.003},
    "methods": {},
}

RECIPES: dict[tuple[str, str], dict[str, Any]] = {
    ("digits", "mlp"): {
        "train_size": 300,
        "validation_size": 300,
        "forget": "random:0.2",
        "train": {"epochs": 100, "lr": 0.1, "batch_size": 32},
        "path": {"steps": 1200, "lr": 0.05, "beta": "adaptive", "mask": "mcu"},
        "connection": {"steps": 400, "lr": 0.05},
        "optimizers": {"adam": 0.006, "sophia": 0.003, "sophia_fisher": 0.003},
        "methods": {
            "gradient_ascent": {"epochs": 10, "lr": 0.05},
            "neggrad_plus": {"epochs": 20, "lr": 0.05, "beta": 0.1},
            "random_label": {"epochs": 20, "lr": 0.05},
        },
    },
    ("fashion_mnist", "cnn"): {
        "train_size": 12000,
        "validation_size": 2000,
        "train": {"epochs": 20, "lr": 0.05, "batch_size": 128},
        "path": {"steps": 1040, "lr": 0.05, "beta": "adaptive", "mask": "mcu"},
        "connection": {"steps": 425, "lr": 0.01},
        "optimizers": {"adam": 0.02, "sophia": 0.0065, "sophia_fisher": 0.01},
        # One leaf holds 84 % of this network: filtering 10 % would drop every other leaf and leave it alone to train.
        "mask": {"keep": 0.5, "retain_filter": 0.01},
        "methods": {"gradient_ascent": {"lr": 0.002}},
    },
}


TUNED = pathlib.Path(__file__).parent / "recipes"
"""What `mcu-jax tune` wrote: the hyper-parameters of the path and of methods, but of those that a path starts from."""


def of(dataset: str, model: str) -> dict[str, Any]:
    """The recipe of a data set and a model, the default's where it has none of its own."""
    if (dataset, model) not in RECIPES:
        return DEFAULT
    known, file = {**DEFAULT, **RECIPES[dataset, model]}, TUNED / f"{dataset}_{model}.json"
    return _recipe_file.over(known, _recipe_file.read(str(file))) if file.exists() else known
