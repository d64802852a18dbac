"""What is computed on the paths of `mcu-jax connect`: of one seed, so that seeds can be mapped over."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from mcu_jax import connect, curves, losses, methods, metrics, paths, training, trees
from mcu_jax.base import Curve, Params, Path, Predictions, Problem, RandomKey

CONTROL_POINTS = 11
"""How many t of a control's line are evaluated, for its barriers alone."""
CONTROLS = ("perturbation", "original", "retrain", "unaligned")
"""The lines of `controls`, in that order."""
RELEARNED = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Where on a path relearning attacks start."""
LIMIT = 100
"""Steps after which a relearning attack gives up."""


class Reference(NamedTuple):
    """What models are compared with: predictions of the retrained and of an untrained one."""

    retrained: Predictions
    untrained: Predictions


def reference(problem: Problem, retrained: Params, key: RandomKey) -> Reference:
    untrained = problem.model.init(key, problem.retain.x[:1])
    return Reference(metrics.predict(problem, retrained), metrics.predict(problem, untrained))


# One model


def measure_model(problem: Problem, key: RandomKey, params: Params, compared: Reference) -> tuple[Any, Predictions]:
    """Its measures, as of a path of one point."""
    del key
    found = jax.tree.map(lambda leaf: leaf[None], metrics.predict(problem, params))
    return paths.measures(found, *compared), found


def model_values(made: tuple[Mapping[str, Any], Predictions], *, attack: bool) -> dict[str, float]:
    values = _with_attack(*made, attack=attack)
    return {name: value[0] for name, value in values.items()}


# A path


def train(
    problem: Problem,
    key: RandomKey,
    start: Params,
    end: Params,
    *,
    method: str | None,
    options: Mapping[str, Any],
    from_original: bool,
    **settings: Any,
) -> dict[str, Any]:
    """The trained inner points; method: whose objective, None for the neutral one."""
    objective_key, train_key = jax.random.split(key)
    objective = (
        connect.neutral(problem) if method is None else methods.objective(method, problem, objective_key, **options)
    )
    assert objective is not None  # refused with the configuration
    origin = problem.params if from_original else None
    path, found = connect.train(objective, start, end, train_key, origin=origin, **settings)
    return {"inner": path.inner, "losses": found}


def measure_path(
    problem: Problem, key: RandomKey, path: Path, compared: Reference, *, curve: Curve, points: int
) -> tuple[dict[str, Any], Predictions]:
    """Everything but membership attacks, and the predictions these need."""
    del key
    ts = paths.points(points)
    found = paths.predictions(problem, path, ts, curve)
    return _read(problem, path, compared, found, curve=curve, points=points), found


@functools.partial(jax.jit, static_argnames=("curve", "points"))
def _read(
    problem: Problem, path: Path, compared: Reference, found: Predictions, *, curve: Curve, points: int
) -> dict[str, Any]:
    def of_ensemble(predictions: Predictions) -> dict[str, Array]:
        together = metrics.ensemble(predictions)
        values = {f"{name}_accuracy": metrics.accuracy(getattr(together, name)) for name in paths.SPLITS}
        return {**values, "js": metrics.js(together, compared.retrained)}

    def features(params: Params) -> Array:
        return problem.model.features(params, problem.test.x, training.refresh(problem, params))  # type: ignore[misc]

    ends = jax.tree.map(lambda leaf: leaf[jnp.asarray([0, points - 1])], found)
    first, last = (jax.tree.map(lambda leaf, i=i: leaf[i], found.test) for i in (0, points - 1))
    return {
        "metrics": paths.measures(found, *compared),
        "arc_length": paths.arc_length(path, paths.points(points), curve),
        "distance": _distances(problem, path.start, path.end),
        "disagreement": metrics.disagreement(first, last),
        "cka": metrics.cka(features(path.start), features(path.end)),
        "task_cosine": metrics.task_cosine(path.start, path.end, problem.params),
        "ensemble": {"all": of_ensemble(found), "ends": of_ensemble(ends)},
    }


def _distances(problem: Problem, a: Params, b: Params) -> dict[str, Array]:
    moved = {"a": (a, problem.params), "b": (b, problem.params), "ab": (a, b)}
    return {name: trees.norm(trees.sub(*both)) for name, both in moved.items()}


def path_values(made: tuple[dict[str, Any], Predictions], *, attack: bool) -> dict[str, Any]:
    values, found = made
    return {**as_json(values), "metrics": _with_attack(values["metrics"], found, attack=attack)}


def _with_attack(values: Mapping[str, Any], found: Predictions, *, attack: bool) -> dict[str, list[float]]:
    told = as_json(dict(values))
    if attack:
        each = [jax.tree.map(lambda leaf, i=i: leaf[i], found) for i in range(len(found.forget.labels))]
        with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            told["MIA"] = list(pool.map(metrics.mia, each))
    return told


def as_json(values: Any) -> Any:
    """Arrays as lists of numbers to 6 digits."""
    return jax.tree.map(lambda leaf: _rounded(np.asarray(leaf).tolist()), values)


def _rounded(value: Any) -> Any:
    return [_rounded(each) for each in value] if isinstance(value, list) else float(f"{value:.6g}")


# Lines, of which only the barriers are asked for


@jax.jit
def controls(
    problem: Problem, key: RandomKey, unlearned: Params, retrained: Params, aligned: Params
) -> tuple[Params, Params]:
    """(starts, ends) of the lines of `CONTROLS`, stacked."""
    first, second = (trees.perturb(each, problem.params, unlearned) for each in jax.random.split(key))
    ends = [second, problem.params, aligned, retrained]
    return trees.stack([first, *[unlearned] * 3]), trees.stack(ends)


def lines(problem: Problem, key: RandomKey, starts: Params, ends: Params) -> dict[str, Any]:
    """Of every line of a stack: its `Connection`, distances, and the accuracies of its start."""
    del key
    return _lines(problem, starts, ends)


@jax.jit
def _lines(problem: Problem, starts: Params, ends: Params) -> dict[str, Any]:
    ts = paths.points(CONTROL_POINTS)

    def one(both: tuple[Params, Params]) -> dict[str, Any]:
        path = curves.straight(*both, bends=0)
        values = paths.sweep(Partial(_retain_and_forget, problem), path, ts, curves.linear)
        found = paths.connection(ts, values)
        return {
            **found._asdict(),
            "distance": _distances(problem, *both),
            "RA": values["retain_accuracy"][0],
            "UA": 1 - values["forget_accuracy"][0],
        }

    return jax.lax.map(one, (starts, ends))


def _retain_and_forget(problem: Problem, params: Params) -> dict[str, Float[Array, ""]]:
    stats, values = training.refresh(problem, params), {}
    for name in ("retain", "forget"):
        outputs = metrics.outputs(problem, params, getattr(problem, name), stats)
        values[f"{name}_loss"] = jnp.mean(losses.nll(outputs.logits, outputs.labels))
        values[f"{name}_accuracy"] = metrics.accuracy(outputs)
    return values


# Beyond


def train_further(problem: Problem, key: RandomKey, params: Params, **settings: Any) -> Params:
    """Fine-tuning from `params`."""
    return methods.finetune(dataclasses.replace(problem, params=params, stats=None), key, **settings)


def relearn_model(problem: Problem, key: RandomKey, params: Params, **settings: Any) -> Array:
    """Steps of the relearning attack on one model."""
    return metrics.relearn_steps(problem, params, key, **settings)


@functools.partial(jax.jit, static_argnames=("curve", "batch_size"))
def relearn(
    problem: Problem, key: RandomKey, path: Path, *, curve: Curve, lr: Any, batch_size: int, limit: Any
) -> Array:
    """Steps of the relearning attack at `RELEARNED`."""

    def steps(t: Array) -> Array:
        return metrics.relearn_steps(problem, curve(path, t), key, lr=lr, batch_size=batch_size, limit=limit)

    return jax.lax.map(steps, jnp.asarray(RELEARNED, jnp.float32))
