"""What a model was trained on, kept beside exported weights: other data give it chance, without a word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mcu_jax import checkpoint, datasets, sources, text
from mcu_jax.runs._settings import ConfigError, Settings

META = "inputs"
NORMALIZE = "normalize"
"""Where a checkpoint's meta keeps both."""
_ROWS = 1000
"""Training examples that mean and spread are of."""
_SPREAD, _SHIFT = 1.5, 0.5
"""By how much the spread may differ, as a factor, and the mean, in spreads: of one data set, or a part of it."""


def kept(data: datasets.Data, config: Settings) -> dict[str, Any]:
    """What `check` compares, for the meta of a checkpoint: of every input dtype, shape, mean and spread (one number
    each, of a thousand training examples), and the normalisation that was asked for.
    """
    return {META: _described(data), NORMALIZE: config.normalize}


def _described(data: datasets.Data) -> dict[str, dict[str, Any]]:
    rows = np.unique(np.linspace(0, data.train_size - 1, min(_ROWS, data.train_size)).astype(int))
    sample = sources.read(data.examples, rows)
    return {
        name: {
            "dtype": str(values.dtype),
            "shape": list(values.shape[1:]),
            "mean": float(np.mean(values, dtype=np.float64)),
            "spread": float(np.std(values, dtype=np.float64)),
        }
        for name, values in sample.items()
        if name != "y"
    }


def check(place: str, data: datasets.Data, config: Settings, setting: str) -> None:
    """Raises ConfigError where a checkpoint tells that its model was trained on inputs of another shape, dtype or
    scale, or normalised otherwise. One that tells nothing, as `checkpoint.save` writes it, is not checked.
    """
    meta = checkpoint.read_meta(place)
    told, shown = meta.get(META), f"{setting}: the model in {text.plain(place)}"
    if not isinstance(told, Mapping):
        return
    for name, here in _described(data).items():
        there = told.get(name)
        if not isinstance(there, Mapping) or _are_alike(there, here):
            continue
        raise ConfigError(
            f"{shown} was trained on {text.plain(name)} of {_told(there)}, this data has {_told(here)}: give the data "
            "that it was trained on, in the same scale"
        )
    if NORMALIZE in meta and meta[NORMALIZE] != config.normalize:
        asked, usual = (text.plain(each or "none asked for") for each in (meta[NORMALIZE], config.normalize))
        raise ConfigError(f"{shown} was trained with normalize {asked}, this run has {usual}: ask for the same")


def _are_alike(there: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    if any(there.get(name, here[name]) != here[name] for name in ("dtype", "shape")):
        return False
    mean, spread = (there.get(name, here[name]) for name in ("mean", "spread"))
    if not all(isinstance(value, int | float) for value in (mean, spread)):
        return True
    most, least = max(spread, here["spread"]), min(spread, here["spread"])
    return most <= _SPREAD * least and abs(mean - here["mean"]) <= _SHIFT * most


def _told(inputs: Mapping[str, Any]) -> str:
    mean, spread = (inputs.get(name) for name in ("mean", "spread"))
    scale = f", {mean:.3g} ± {spread:.3g}" if isinstance(mean, int | float) and isinstance(spread, int | float) else ""
    return text.plain(f"{inputs.get('dtype')} {inputs.get('shape')}{scale}")
