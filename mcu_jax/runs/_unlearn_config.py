"""The configuration of `mcu-jax unlearn`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from mcu_jax import base, connect, paths, registry
from mcu_jax.runs import _config, _recipes
from mcu_jax.runs._config import ConfigError


@dataclasses.dataclass(frozen=True)
class MaskConfig:
    """Which weights of the path's inner points are trained."""

    kind: str = "mcu"
    """mcu (two-stage, whole leaves), random (weights, as many as mcu's), or none (all weights)."""
    keep: float | None = None
    """Share of all weights the mask keeps, in [0, 1] (default: the recipe's)."""
    retain_filter: float | None = None
    """Share of all weights dropped first, those that matter most for the retain set (default: the recipe's)."""


@dataclasses.dataclass(frozen=True)
class Config(_config.Settings):
    """Unlearn along a path: original, retrained, pre-unlearned model, path, sweep, choice of t, for several seeds.

    A recipe is what a data set and model need; --dry-run shows what every setting comes to. `mcu-jax list` shows
    every NAME with its hyper-parameters, which are set by NAME:key=value,key=value.
    """

    KIND: ClassVar[str] = "unlearn"
    EXTENDABLE: ClassVar[tuple[str, ...]] = ("seeds", "points")

    pre: str = "random_label"
    """Pre-unlearning method, whose model the path leads to: NAME, or NAME:epochs=5,lr=0.01."""
    baselines: tuple[str, ...] = ()
    """Further methods to compare with, as --pre; mcu:beta=0.2 is another path to the same model."""
    beta: str = connect.ADAPTIVE
    """Forgetting penalty of the path: adaptive, or a number."""
    epochs: int | None = None
    """Epochs of path training (default: the recipe's)."""
    lr: float | None = None
    """Learning rate of path training (default: the recipe's)."""
    curve: str = "bezier"
    """bezier or polychain; with :bends=2 for more than one inner point."""
    mask: MaskConfig = MaskConfig()
    points: int = 21
    """How many t of the path are evaluated, from 0 to 1; at least 4."""


@dataclasses.dataclass(frozen=True)
class Resolved(_config.Resolved):
    """beta: a number or "adaptive". curve, bends: of the path."""

    beta: float | str
    curve: base.Curve
    bends: int


def resolve(config: Config) -> Resolved:
    """Fills in the recipe and checks everything that can be checked before any work.

    Raises ConfigError: what was expected, what was given, what to do.
    """
    with _config.checking():
        spec, model, _ = _config.named_model(config)
        recipe = _recipes.of(config.dataset, model)
        mask = {name: _config.or_else(getattr(config.mask, name), recipe["mask"][name]) for name in recipe["mask"]}
        config = _config.fill(
            config,
            spec,
            recipe,
            beta=str(_config.beta(str(config.beta))),
            mask=dataclasses.replace(config.mask, **mask),
            epochs=_config.or_else(config.epochs, recipe["path"]["epochs"]),
            lr=_config.or_else(config.lr, recipe["path"]["lr"]),
            baselines=tuple(dict.fromkeys(spec for spec in config.baselines if spec != config.pre)),
        )
        path_curve, bends = _config.path_curve(config.curve)
        registry.check(config.mask.kind, _config.MASKS, "mask kind")
        paths.points(config.points)
        mask = {"mask.keep": config.mask.keep, "mask.retain_filter": config.mask.retain_filter}
        _config.check_options("", {**mask, "epochs": config.epochs, "lr": config.lr})
        specs = _methods(config, recipe)
        return Resolved(
            config=config,
            methods=specs,
            beta=_config.beta(config.beta),
            curve=path_curve,
            bends=bends,
            **_config.common(config),
        )


def _methods(config: Config, recipe: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    found = {}
    for spec in (config.pre, *config.baselines):
        name, asked = registry.parse(spec)
        given: dict[str, Any] = {}
        if name == "retrain":
            raise ConfigError(
                "retrain is the yardstick and always computed: it is neither a start for a path nor a baseline"
            )
        if name == "mcu":
            _check_mcu(spec == config.pre, asked)
            given = {"epochs": config.epochs, "lr": config.lr, "pre": config.pre, "points": config.points}
            path_curve, bends = _config.path_curve(config.curve)
            given |= {"beta": _config.beta(config.beta), "curve": path_curve.__name__, "bends": bends}
            given |= {
                "keep": config.mask.keep,
                "retain_filter": config.mask.retain_filter,
                "mask": config.mask.kind,
            }
        found[spec] = _config.method_options(spec, recipe, config.train.batch_size, given)
    return found


def _check_mcu(is_pre: bool, options: Mapping[str, Any]) -> None:
    """As a baseline of itself, MCU is another path to the run's pre-unlearned model."""
    if is_pre:
        raise ConfigError("mcu needs another method's model to draw its path to; choose one with --pre")
    if "pre" in options:
        raise ConfigError("a baseline mcu leads to the run's own pre-unlearned model; for another, run with --pre")
    if not options:
        raise ConfigError("mcu itself is always computed; as a baseline give it other options, as mcu:beta=0.2")
