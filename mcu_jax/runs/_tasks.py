"""What every job has for each of its seeds: which examples stages are given of them, and the models to begin with.

A seed is a replicate: it draws its own D_f, original and retrained model. Two jobs that state a stage alike find each
other's, where they share their stages.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mcu_jax import chunks, methods, metrics, models, outputs, registry, rules, sharding, sources, splits
from mcu_jax.base import Batch, Evaluation, Params, Problem
from mcu_jax.runs import _config, _directory, _graph, _own
from mcu_jax.runs._graph import Leaf, Stage


class Rows(NamedTuple):
    """Which examples a stage may look at: indices into a data set's training examples, which its test examples follow.

    forget_test: None where no class is forgotten.
    """

    forget: np.ndarray
    retain: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    forget_test: np.ndarray | None = None

    def unseen(self) -> Rows:
        """For a stage that may not look at test examples: validation stands in for test, forget for forget_test."""
        return self._replace(test=self.validation, forget_test=None if self.forget_test is None else self.forget)


@dataclasses.dataclass(frozen=True, eq=False)
class Replicate:
    """One seed of a run.

    indices: by the fraction to forget, None for the run's own request. placed: the examples of the whole data set,
    which all seeds share, or a source of them where they do not fit the device. examples: the same, on the device if
    they fit.
    """

    resolved: _config.Resolved
    seed: int
    indices: Mapping[float | None, splits.Indices]
    placed: Batch | sources.Host
    examples: Callable[[], Batch | sources.Host]
    tasks: dict[Any, Leaf] = dataclasses.field(default_factory=dict)

    def rows(self, fraction: float | None = None) -> Rows:
        """All examples of a request, to evaluate on."""
        data, indices, forgotten = self.resolved.data, self.indices[fraction], self.resolved.forgotten
        n, validation, test_labels = data.train_size, indices.validation, data.test["y"]
        test, forget_test = np.arange(len(test_labels)), None
        if forgotten is not None:
            validation = validation[data.train["y"][validation] != forgotten]
            test, forget_test = np.flatnonzero(test_labels != forgotten), np.flatnonzero(test_labels == forgotten)
        return Rows(
            indices.forget, indices.retain, validation, n + test, None if forget_test is None else n + forget_test
        )

    def sampled(self, rows: Rows, size: int) -> Rows:
        """With a seeded sample of at most so many examples of D_r and D_t."""

        def sample(chosen: np.ndarray, seed: int) -> np.ndarray:
            order = np.random.default_rng([seed, 2]).permutation(len(chosen))
            return chosen[np.sort(order[:size])]

        return rows._replace(retain=sample(rows.retain, self.seed), test=sample(rows.test, 0))

    @property
    def own_statistics(self) -> dict[str, Any]:
        """As the function of that name."""
        return own_statistics(self.resolved.original)

    def task(self, rows: Rows, *, plain: bool = False) -> Leaf:
        """A `Problem` without its original, which is a stage; plain: without `own_statistics` too."""
        digests = [None if indices is None else _config.digest(indices.tolist()) for indices in rows]
        own = {} if plain else self.own_statistics
        known = (bool(own), *digests)
        if known not in self.tasks:
            data, normalize = self.resolved.data, self.resolved.config.normalize
            identity = {
                "data": data.hash,
                "model": self.resolved.model_id,
                "classes": len(data.class_names),
                "augment": data.augment and data.augment.__name__,
                **({} if normalize is None else {"normalize": normalize}),
                **dict(zip(Rows._fields, digests, strict=True)),
            }
            if own:
                identity["original"] = self.resolved.digests["original"]
            if self.resolved.config.precision is not None:
                identity["precision"] = self.resolved.config.precision
            self.tasks[known] = Leaf(identity, lambda: self.problem(rows, own), self._axes(rows, own))
        return self.tasks[known]

    def problem(self, rows: Rows, own: Mapping[str, Any]) -> Problem:
        """Of these examples; own: as `own_statistics`."""
        return Problem(
            model=self.resolved.model,
            **{"params": {}, **jax.tree.map(jnp.asarray, dict(own))},
            data=self.examples(),
            num_classes=len(self.resolved.data.class_names),
            augment=self.resolved.data.augment,
            **rows._asdict(),
        )

    def _axes(self, rows: Rows, own: Mapping[str, Any]) -> tuple[int | None, ...]:
        """Of the leaves of a task, in their order: seeds share the data and its fixed splits, and have D_f and D_r."""
        per_seed = ("forget", "retain", "forget_test")
        places = jax.tree.map(lambda _: jnp.zeros(()), dict(own))  # only their number is asked for
        given = {"params": {}, **places, "data": self.placed, **rows._asdict()}
        task = Problem(self.resolved.model, num_classes=0, **given)
        return tuple(0 if path[0].name in per_seed else None for path, _ in jax.tree_util.tree_leaves_with_path(task))

    def unseen(self, fraction: float | None = None, *, plain: bool = False) -> Leaf:
        """The task as unlearning is given it: without test examples."""
        return self.task(self.rows(fraction).unseen(), plain=plain)

    # The models to begin with.

    @functools.cached_property
    def original(self) -> Stage:
        if (original := self.resolved.original) is not None:
            return taken_up("original", self.seed, original, self.resolved.digests["original"])
        train = self.indices[None].train
        everything = self.task(Rows(train, train, train, train))._replace(axes=None)
        return self._trained("original", everything, _graph.draw(self.seed, "original"))

    def retrained(self, label: str, fraction: float | None = None, run: int = 0) -> Stage:
        """The yardstick, trained as the original was."""
        return self._trained(label, self.unseen(fraction, plain=True), _graph.draw(self.seed, "retrain", run))

    def _trained(self, label: str, task: Leaf, key: Leaf) -> Stage:
        settings = {**dataclasses.asdict(self.resolved.config.train), "momentum": 0.9, "weight_decay": 5e-4}
        return Stage(label, self.seed, train, {"task": task, "key": key}, settings)

    def unlearned(
        self, label: str, name: str, options: Mapping[str, Any], fraction: float | None = None, run: int = 0
    ) -> Stage:
        """The model of a method. run: each with a random key of its own."""
        return Stage(label, self.seed, unlearn, self.begin(name, fraction, run), {"method": name, "options": options})

    def begin(self, name: str, fraction: float | None = None, run: int = 0) -> dict[str, _graph.Input]:
        """What is trained from the original is given: the task, the original, and a random key by this name."""
        key = _graph.draw(self.seed, name, run)
        return {"task": self.unseen(fraction), "original": self.original, "key": key}


def replicates(
    directory: _directory.RunDirectory, resolved: _config.Resolved, fractions: Iterable[float] = ()
) -> list[Replicate]:
    """The seeds of a run. fractions: of requests beside the run's own.

    Raises SplitError where there are too few examples, or saved indices cannot be used; UserError for data or a model
    that cannot be worked on.
    """
    config, data, pool = resolved.config, resolved.data, resolved.pool
    _check_classes(resolved, pool[1])
    requests = (None, *fractions)
    placed = sources.placed(data.examples)
    on_devices = functools.cache(lambda mesh: jax.tree.map(jnp.asarray, placed))

    def examples() -> Any:
        return on_devices(sharding.current())

    made = []
    for seed in config.seeds:
        indices = {share: _indices(directory, resolved, pool, seed, share) for share in requests}
        made.append(Replicate(resolved, seed, indices, placed, examples))
    _check(resolved, made[0].rows())
    return made


def _check(resolved: _config.Resolved, rows: Rows) -> None:
    """Raises UserError for data or a model that cannot be worked on, before any work."""
    data, classes = resolved.data, len(resolved.data.class_names)
    task = Problem(resolved.model, {}, data.examples, num_classes=classes, **rows._asdict())
    shapes = _config.shapes(resolved.model, data)
    outputs.check(task, shapes)
    models.check(resolved.model, shapes, outputs.inputs(sources.read(data.examples, rows.retain[:16])))


def seeds_fit_together(resolved: _config.Resolved) -> bool:
    """Whether the network is made for seeds side by side: convolutions are not, on any backend."""
    model, x = resolved.model, outputs.inputs(sources.first(resolved.data.examples))
    blank = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    return not chunks.convolves(lambda params: model.apply(params, x)[0], blank)


def _check_classes(resolved: _config.Resolved, validation: np.ndarray) -> None:
    """Raises SplitError where the forgotten class leaves nothing to evaluate on."""
    data, forgotten = resolved.data, resolved.forgotten
    for name, y in (("validation", data.train["y"][validation]), ("test", data.test["y"])):
        if (y == forgotten).all():
            raise splits.SplitError(f"the {name} set is empty without the forgotten class {forgotten}")
    if forgotten is not None and not (data.test["y"] == forgotten).any():
        raise splits.SplitError(f"the test set has no example of the forgotten class {forgotten}")


def _indices(
    directory: _directory.RunDirectory,
    resolved: _config.Resolved,
    pool: tuple[np.ndarray, np.ndarray],
    seed: int,
    fraction: float | None,
) -> splits.Indices:
    """Saved, or drawn anew: nested in each other, for one seed, where several fractions are asked for."""
    name = f"seed-{seed}" if fraction is None else f"seed-{seed}-random-{fraction:g}"
    data, (train, validation) = resolved.data, pool
    indices = directory.saved_indices(name, data.hash)
    if indices is None:
        forgotten = None if fraction else resolved.forgotten
        if fraction is None and resolved.forget is not None:
            forget, retain = resolved.forget, np.setdiff1d(train, resolved.forget)
        elif forgotten is None:
            forget, retain = splits.random_forget(train, fraction or resolved.fraction or 0.0, seed)
        else:
            forget, retain = splits.class_forget(train, data.train["y"], forgotten)
        indices = splits.Indices(data.hash, train, validation, forget, retain, forgotten)
    directory.indices[name] = indices
    return indices


# What the user brings


def own_statistics(original: _own.Weights | None) -> dict[str, Any]:
    """What a `Problem` is told of an original whose BatchNorm statistics the user has brought, else nothing.

    They are used for it alone, so that it has to be known wherever something is evaluated.
    """
    return {} if original is None or not jax.tree.leaves(original.stats) else original._asdict()


def taken_up(label: str, seed: int, weights: _own.Weights, digest: str) -> Stage:
    """A model that the user brings."""
    leaf = Leaf({"checkpoint": digest}, lambda: jax.tree.map(jnp.asarray, weights.params))
    return Stage(label, seed, take_up, {"params": leaf})


# Functions of stages


def given(task: Problem, original: Params) -> Problem:
    """The problem that a task is with its original model."""
    return dataclasses.replace(task, params=original)


def take_up(params: Params) -> Params:
    """The user's own model."""
    return params


def train(task: Problem, key: Any, **settings: Any) -> Params:
    """A model from scratch on D_r; the original has all examples there."""
    return methods.retrain(task, key, **settings)


def unlearn(task: Problem, original: Params, key: Any, *, method: str, options: Mapping[str, Any]) -> Params:
    function = getattr(methods, method)
    return function(given(task, original), key, **registry.arguments(function, options))


def evaluate(task: Problem, params: Params) -> Evaluation:
    return metrics.evaluate(task, params)


def targets(task: Problem, original: Params) -> rules.Targets:
    return rules.targets(given(task, original))


def target_values(targets: rules.Targets) -> dict[str, float]:
    return {name: float(value) for name, value in targets._asdict().items()}


def scores(values: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, float]:
    """The score of a model by every rule, without a retrained model: of what `evaluate` and `targets` came to."""
    standing = rules.Standing(values["RA"], 1 - values["UA"], values["VA"], values["unseen_distance"])
    goal = rules.Targets(**targets)
    return {f"score_{name}": float(getattr(rules, name)(standing, goal)) for name in rules.NAMES}


def seen_values(evaluation: Evaluation) -> dict[str, float]:
    """Of `metric_values` what rules look at: nothing of test examples."""
    values = traceable(evaluation)
    return {name: float(values[name]) for name in ("UA", "RA", "VA", "unseen_distance")}


def metric_values(evaluation: Evaluation) -> dict[str, float]:
    """`traceable` and MIA, as fractions; losses in nats."""
    values = {name: float(value) for name, value in traceable(evaluation).items()}
    return {**values, "MIA": attack(evaluation)}


@jax.jit
def traceable(evaluation: Evaluation) -> dict[str, Any]:
    """The metrics that can be mapped over, by name: UA, RA, TA, accuracy on D_v, the distance of D_f from unseen
    examples, losses; where a class is forgotten, UA on its test examples.
    """
    values = {"UA": metrics.ua(evaluation), "RA": metrics.ra(evaluation), "TA": metrics.ta(evaluation)}
    values |= {"VA": metrics.accuracy(evaluation.validation)}
    values |= {"unseen_distance": metrics.unseen_distance(evaluation)}
    values |= {f"{split}_loss": jnp.mean(getattr(evaluation, split).loss) for split in ("retain", "forget", "test")}
    return values if evaluation.forget_test is None else {**values, "UA_test": metrics.ua_test(evaluation)}


def attacks(evaluation: Evaluation) -> list[float]:
    """MIA at every t of an evaluation along a path, as many at a time as there are cores."""
    evaluation = jax.device_get(evaluation)
    points = [jax.tree.map(lambda leaf, i=i: leaf[i], evaluation) for i in range(len(evaluation.forget.loss))]
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(attack, points))


def attack(evaluation: Evaluation) -> float:
    """MIA; NaN where a score is not finite, which no attack can be fitted to."""
    splits = (evaluation.forget, evaluation.retain, evaluation.test)
    finite = all(np.isfinite(np.asarray(scores.loss)).all() for scores in splits)
    return metrics.mia(evaluation) if finite else float("nan")
