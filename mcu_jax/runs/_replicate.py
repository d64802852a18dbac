"""Replicates: what every job does for each of its seeds. A seed draws its own D_f, original and retrained model."""

from __future__ import annotations

import copy
import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcu_jax import methods, metrics, paths, splits, training
from mcu_jax.base import Params, Predictions, Problem, Split
from mcu_jax.runs import _config, _directory, _stages

VERSION = 6
"""Part of every stage's key: raised when the code changes what a configuration comes to."""


class Replicates:
    """The seeds of one run: their splits and problems, where their stages belong, and how these are made.

    Two jobs that make a stage of the same key find each other's, where they share their stages.
    """

    def __init__(self, directory: _directory.RunDirectory, observer: _stages.Observer):
        self.directory, self.resolved = directory, directory.resolved
        self.config = self.resolved.config
        self.seeds = self.config.seeds
        self.store = _stages.Store(directory.stages)
        data = self.resolved.data
        self.pool = splits.carve(len(data.train.y), self.config.train_size, self.config.validation_size or 0, 0)
        self.indices = {seed: self._indices(seed, self.resolved.fraction, "") for seed in self.seeds}
        self._check_classes(self.pool[1])
        model, x = self.resolved.model, data.train.x[:1]
        blank = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
        together = not paths.convolves(lambda params: model.apply(params, x)[0], blank)
        self.maker = _stages.Maker(self.store, observer, together=together)
        self.problems: list[Problem] = []

    def asking(self, fraction: float) -> Replicates:
        """The same originals, asked to forget another random fraction: nested, for one seed, in each other."""
        other = copy.copy(self)
        other.indices = {seed: self._indices(seed, fraction, f"-random-{fraction:g}") for seed in self.seeds}
        return other

    # Which examples.

    def _check_classes(self, validation: np.ndarray) -> None:
        """Raises SplitError where the forgotten class leaves nothing to evaluate on."""
        data, forgotten = self.resolved.data, self.resolved.forgotten
        for name, y in (("validation", data.train.y[validation]), ("test", data.test.y)):
            if (y == forgotten).all():
                raise splits.SplitError(f"the {name} set is empty without the forgotten class {forgotten}")
        if forgotten is not None and not (data.test.y == forgotten).any():
            raise splits.SplitError(f"the test set has no example of the forgotten class {forgotten}")

    def _indices(self, seed: int, fraction: float | None, suffix: str) -> splits.Indices:
        """Of a class if there is no fraction. suffix: of the name of their file."""
        data, (train, validation) = self.resolved.data, self.pool
        name = f"seed-{seed}{suffix}"
        found = self.directory.saved_indices(name, data.hash)
        if found is None:
            forgotten = None if fraction else self.resolved.forgotten
            if forgotten is None:
                forget, retain = splits.random_forget(train, fraction or 0.0, seed)
            else:
                forget, retain = splits.class_forget(train, data.train.y, forgotten)
            found = splits.Indices(data.hash, train, validation, forget, retain, forgotten)
        self.directory.indices[name] = found
        return found

    def _problem(self, seed: int, params: Params) -> Problem:
        data, indices, forgotten = self.resolved.data, self.indices[seed], self.resolved.forgotten
        validation, test, forget_test = splits.take(data.train, indices.validation), data.test, None
        if forgotten is not None:
            validation = splits.take(validation, np.flatnonzero(validation.y != forgotten))
            forget_test = splits.take(test, np.flatnonzero(test.y == forgotten))
            test = splits.take(test, np.flatnonzero(test.y != forgotten))
        return Problem(
            model=self.resolved.model,
            params=params,
            forget=splits.take(data.train, indices.forget),
            retain=splits.take(data.train, indices.retain),
            validation=validation,
            test=test,
            num_classes=len(data.class_names),
            augment=data.augment,
            forget_test=forget_test,
        )

    # Where stages belong.

    def original_key(self, seed: int) -> dict[str, Any]:
        """All that the original model of a seed depends on."""
        indices, config = self.indices[seed], self.config
        return {
            "version": VERSION,
            "data": indices.data_hash,
            "train": digest(indices.train),
            "model": config.model,
            "training": dataclasses.asdict(config.train),
            "seed": seed,
        }

    def request_key(self, seed: int) -> dict[str, Any]:
        """All that a model depends on that is asked to forget, but the method."""
        return {"original": self.original_key(seed), "forget": digest(self.indices[seed].forget)}

    def method_key(self, seed: int, name: str, options: Mapping[str, Any], run: int = 0) -> dict[str, Any]:
        """All that a method's model depends on. run: of unlearning, each with a key of its own."""
        return {**self.request_key(seed), "method": name, **options, **({"run": run} if run else {})}

    def evaluation_key(self, seed: int) -> dict[str, Any]:
        """All that metrics depend on, but the model."""
        return {"test": "all", "validation": digest(self.indices[seed].validation)}

    def check(self, addresses: Mapping[str, Sequence[_stages.Address]]) -> None:
        """Raises DamagedCheckpointError for a stage that cannot be read: before any work, not after it."""
        for address in (address for each in addresses.values() for address in each):
            self.store.check(address)

    # How they are made.

    def make_originals(self, addresses: Sequence[_stages.Address]) -> list[_stages.Stage]:
        """The originals, and with them the problems that every other stage is given."""
        train = splits.take(self.resolved.data.train, self.indices[self.seeds[0]].train)
        made = self.maker.make(
            addresses,
            self._original,
            [(Split(*map(jnp.asarray, train)), key(seed, "original")) for seed in self.seeds],
            (None, 0),
        )
        self.take_up(made)
        return made

    def take_up(self, originals: Sequence[_stages.Stage]) -> None:
        """The problems, given the originals."""
        self.problems = [self._problem(seed, made.result) for seed, made in zip(self.seeds, originals, strict=True)]

    def make_retrained(self, addresses: Sequence[_stages.Address], run: int = 0) -> list[_stages.Stage]:
        """The yardsticks, trained as the originals were."""
        return self.make(addresses, self._retrain, run=run)

    def make(
        self,
        addresses: Sequence[_stages.Address],
        function: Callable[..., Any],
        *more: tuple[Sequence[Any], Any],
        values: Callable[[Any], Any] | None = None,
        run: int = 0,
        problems: Sequence[Problem] | None = None,
    ) -> list[_stages.Stage]:
        """A stage function(problem, key, *more) of every seed; more: (a value for each seed, its axis among seeds).

        problems: in place of the seeds' own.
        """
        problems, keys = problems or self.problems, [key(seed, addresses[0].name, run) for seed in self.seeds]
        arguments = list(zip(problems, keys, *(own for own, _ in more), strict=True))
        axes = (_axes(problems[0]), 0, *(axis for _, axis in more))
        return self.maker.make(addresses, function, arguments, axes, values)

    def _original(self, train: Split, key: Any) -> Params:
        return training.from_scratch(
            self.resolved.model, train, key, augment=self.resolved.data.augment, **self._training()
        )

    def _retrain(self, problem: Problem, key: Any) -> Params:
        return methods.retrain(problem, key, **self._training())

    def _training(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self.config.train), "momentum": 0.9, "weight_decay": 5e-4}

    def make_metrics(self, addresses: Sequence[_stages.Address], models: Sequence[Params]) -> list[dict[str, float]]:
        """UA, RA, TA, MIA of a model of every seed, as fractions; where a class is forgotten, UA_test too."""
        arguments = list(zip(self.problems, models, strict=True))
        made = self.maker.make(addresses, metrics.predict, arguments, (_axes(self.problems[0]), 0), _values)
        return [stage.result for stage in made]


def _values(predictions: Predictions) -> dict[str, float]:
    values = {name: float(value) for name, value in accuracies(predictions).items()}
    return {**values, "MIA": metrics.mia(predictions)}


@jax.jit
def accuracies(predictions: Predictions) -> dict[str, Any]:
    """The metrics that are accuracies, by name."""
    values = {"UA": metrics.ua(predictions), "RA": metrics.ra(predictions), "TA": metrics.ta(predictions)}
    return values if predictions.forget_test is None else {**values, "UA_test": metrics.ua_test(predictions)}


def _axes(problem: Problem) -> tuple[int | None, ...]:
    """Leaf by leaf: seeds differ in their parameters and their forget and retain sets."""
    leaves = jax.tree_util.tree_leaves_with_path(problem)
    return tuple(0 if path[0].name in ("params", "forget", "retain") else None for path, _ in leaves)


def key(seed: int, name: str, run: int = 0) -> Any:
    """Every part of a replicate draws from a key of its own, the same however a method's options are written."""
    own = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.partition(":")[0].encode()))
    return jax.random.fold_in(own, run) if run else own


def digest(indices: np.ndarray) -> str:
    return _config.digest(indices.tolist())
