"""The configuration of `mcu-jax tune`: which methods are tuned, by how many tries, and by what."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import zlib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np

from mcu_jax import base, datasets, methods, registry, rules, text
from mcu_jax.base import Range, Search
from mcu_jax.runs import _config, _directory, _files, _recipe_file, _settings, _specs
from mcu_jax.runs._settings import FEW, SEEDS, ConfigError, Group

SCORE, ORACLE = CRITERIA = ("score", "avg_gap")
TUNED = tuple(name for name in methods.NAMES if name != "retrain")
TRIES = Range("1 to 1000 of them", lambda n: 1 <= n <= 1000)
PAPERS: dict[str, Any] = {"methods": {}, "optimizers": {}}
"""A recipe of nothing: signatures hold the papers' defaults."""
START = "start"
"""The label of what MCU's paths lead to: a run's own, whatever is tuned."""
DRAWN_FROM = 20_260_101
"""The seed of all draws, which are the same in every run."""


@dataclasses.dataclass(frozen=True)
class TuneConfig(_settings.Settings):
    """Tune methods alike: as many tries for each, by one criterion, on seeds that no table reports.

    The first try of a method is its paper's default, the others are drawn at random, once and for all: more tries go on
    where fewer ended. The best of each are written to a recipe file, which unlearn and connect take.
    """

    KIND: ClassVar[str] = "tune"
    EXTENDABLE: ClassVar[tuple[str, ...]] = ("tries", "methods")

    seeds: Annotated[
        tuple[int, ...],
        Group("evaluation", usual=True),
        SEEDS,
        "Replicates to tune on, none of which may be reported with what was found.",
    ] = (100, 101, 102)
    methods: Annotated[
        tuple[str, ...],
        Group("tuning", usual=True),
        FEW,
        "The methods to tune, by name; the paths of mcu lead to the model of --pre.",
    ] = (*("finetune", "l1_sparse", "scrub", "influence", "npo", "mcu"),)
    tries: Annotated[
        int, Group("tuning", usual=True), TRIES, "Tries for each method, its paper's default among them."
    ] = 16
    criterion: Annotated[
        str,
        Group("tuning", usual=True),
        "What is best, in the mean over the seeds: score, which needs no retrained model; or avg_gap to a model "
        "retrained for each seed, an oracle that a user does not have.",
    ] = SCORE
    rule: Annotated[
        str, Group("tuning"), "Of mcu's t*, and of the score: accuracy or distribution, as `mcu-jax list` tells them."
    ] = "distribution"
    pre: Annotated[
        str | None,
        Group("tuning", usual=True),
        "Method whose model the paths of mcu lead to, as the recipe has it (default: the recipe's).",
    ] = None
    to: Annotated[
        str | None,
        Group("tuning", usual=True),
        "Where the recipe file is written (default: recipe.json in the run directory).",
    ] = None


@dataclasses.dataclass(frozen=True)
class Resolved(_config.Resolved):
    """methods: their hyper-parameters as their papers have them; `START`, of MCU's paths, as the recipe has it."""

    recipe: Mapping[str, Any]

    def changed(self, **settings: Any) -> Resolved:
        config = dataclasses.replace(self.config, **settings)
        return dataclasses.replace(self, config=config, methods=_methods(config, self.methods[START]))

    def tries(self, name: str) -> list[dict[str, Any]]:
        """The hyper-parameters of every try of a method: its paper's default, then what is drawn."""
        _, options = self.methods[name]
        return [options, *(options | draw(name, number) for number in range(1, self.config.tries))]


def resolve(config: TuneConfig, model: base.Model | None = None, data: datasets.Data | None = None) -> Resolved:
    """Fills in the recipe and checks everything that can be checked before any work.

    model, data: in place of those that the configuration would name. Raises ConfigError: what was expected, what was
    given, what to do.
    """
    with _settings.checking():
        brought = _config.Brought(model, data)
        config = _config.named(_settings.checked(config), brought)
        recipe = _config.recipe(config, brought)
        pre = _config.or_else(config.pre, recipe["pre"])
        _check(config, pre)
        config = _config.fill(config, recipe, pre=pre, methods=tuple(dict.fromkeys(config.methods)))
        start = _specs.method_options(pre, recipe, config.train.batch_size)
        common = _config.common(config, brought, recipe)
        return Resolved(methods=_methods(config, start), recipe=recipe, **common)


def _check(config: TuneConfig, pre: str) -> None:
    registry.check(config.criterion, CRITERIA, "criterion")
    registry.check(config.rule, rules.NAMES, "rule")
    if not config.methods:
        raise ConfigError("tune which methods? Give one or more, as --methods finetune mcu")
    for name in (*config.methods, pre):
        if ":" in name:
            raise ConfigError(
                f"the options of a method are what is tuned: give its name alone, given {text.show(name)}"
            )
    for name in config.methods:
        registry.check(name, TUNED, "method to tune")
    registry.check(pre, [name for name in TUNED if name != "mcu"], "start for mcu")
    if config.to is not None:
        place = _files.place(config.to, "to")
        _directory.check_writable(place.parent, "--to")
        if place.is_dir():
            raise ConfigError(f"to is a file, as recipe.json; given the folder {text.plain(place)}")
        if place.exists():
            _recipe_file.read(config.to)  # nothing else is written over


def _methods(config: TuneConfig, start: tuple[str, dict[str, Any]]) -> dict[str, tuple[str, dict[str, Any]]]:
    of_mcu = {"pre": registry.spec(*start), "rule": config.rule}
    tuned = {
        name: _specs.method_options(name, PAPERS, config.train.batch_size, of_mcu if name == "mcu" else {})
        for name in config.methods
    }
    return {**tuned, START: start}


def draw(name: str, number: int) -> dict[str, Any]:
    """What is searched of a method, for one of its tries: the same whatever else is tried."""
    method = getattr(methods, name)
    random, usual = np.random.default_rng([DRAWN_FROM, zlib.crc32(name.encode()), number]), registry.schema(method)
    return {
        option: _draw(search, *random.random(2), whole=isinstance(usual[option], int))
        for option, search in registry.search_space(method).items()
    }


def _draw(search: Search, kind: float, where: float, *, whole: bool) -> int | float | str:
    """kind, where: uniform in [0, 1)."""
    if search.low is None or search.high is None or (search.words and kind < 0.5):
        return search.words[int(where * len(search.words))]
    value = search.low * math.exp(where * math.log(search.high / search.low))
    return round(value) if whole else float(f"{value:.3g}")


def searched(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Of a method's hyper-parameters those that are searched and have an effect."""
    without = {"keep", "retain_filter"} if options.get("mask") == "none" else set()
    return {
        option: options[option] for option in registry.search_space(getattr(methods, name)) if option not in without
    }


def place(config: TuneConfig, directory: pathlib.Path) -> pathlib.Path:
    """Of the recipe file."""
    return directory / "recipe.json" if config.to is None else pathlib.Path(config.to)
