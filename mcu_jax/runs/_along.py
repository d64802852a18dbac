"""What is computed for `mcu-jax connect`: functions of stages, of one seed, so that seeds can be mapped over."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float

from mcu_jax import alignment, connect, curves, methods, metrics, outputs, paths, sources, training, trees
from mcu_jax.base import Curve, Evaluation, Params, Path, Problem, RandomKey
from mcu_jax.runs import _tasks

CONTROL_POINTS = 11
"""How many t of a control's line are evaluated, for its barriers alone."""
RELEARNED = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Where on a path relearning attacks start."""
LIMIT = 100
"""Steps after which a relearning attack gives up."""


@jax.jit
def _references(task: Problem, retrained: Params, key: RandomKey) -> dict[str, Float[Array, "n *positions classes"]]:
    """What models are compared with: logits on D_f of the retrained and of an untrained one."""
    models = {"retrained": retrained, "untrained": outputs.init(task.model, key, task.data, task.retain)}
    return {name: metrics.logits(task, params, task.forget) for name, params in models.items()}


def align(task: Problem, params: Params, reference: Params) -> Params:
    """On the host: the same network with its hidden units where they are closest to the reference's."""
    return alignment.align(task.model, params, reference)


# One model


def measure_model(task: Problem, params: Params, retrained: Params, untrained: RandomKey) -> tuple[Any, Evaluation]:
    """Its measures, as of a path of one point. untrained: the key of a network's first weights."""
    evaluation = metrics.evaluate(task, params, references=_references(task, retrained, untrained))
    evaluation = jax.tree.map(lambda leaf: leaf[None], evaluation)
    return paths.measures(evaluation), evaluation


def model_values(made: tuple[Mapping[str, Any], Evaluation], *, attack: bool) -> dict[str, float]:
    values = _with_attack(*made, attack=attack)
    return {name: value[0] for name, value in values.items()}


# A path


def train(
    task: Problem,
    original: Params,
    key: RandomKey,
    a: Params,
    b: Params,
    *,
    curve: str,
    objective: Mapping[str, Any] | None,
    origin: str,
    **settings: Any,
) -> dict[str, Any]:
    """The trained inner points; objective: method and options of whose it is, None for the neutral one."""
    problem = _tasks.given(task, original)
    objective_key, train_key = jax.random.split(key)
    chosen = (
        connect.neutral(problem)
        if objective is None
        else methods.objective(objective["method"], problem, objective_key, **objective["options"])
    )
    assert chosen is not None  # refused with the configuration
    begin = original if origin == "original" else None
    path, losses = connect.train(chosen, a, b, task.data, train_key, origin=begin, curve=_curve(curve), **settings)
    return {"inner": path.inner, "losses": losses}


def _curve(name: str) -> Curve:
    return getattr(curves, name)


def _path(a: Params, b: Params, inner: Params | None) -> Path:
    """inner: of a trained path."""
    line = curves.straight(a, b, 0)
    return line if inner is None else line._replace(inner=inner)


def measure_path(
    task: Problem,
    original: Params,
    a: Params,
    b: Params,
    retrained: Params,
    untrained: RandomKey,
    inner: Params | None = None,
    *,
    curve: str,
    points: int,
) -> tuple[dict[str, Any], Evaluation]:
    """Everything but membership attacks, and the scores these need."""
    path, problem = _path(a, b, inner), _tasks.given(task, original)
    members = {"all": tuple(range(points)), "ends": (0, points - 1)}
    evaluation, ensembles = paths.evaluate_with_ensembles(
        problem,
        path,
        paths.points(points),
        _curve(curve),
        references=_references(task, retrained, untrained),
        members=tuple(members.values()),
    )
    measures = paths.measures(ensembles)
    kept = [name for name in measures if name.endswith("_accuracy") or name == "js"]
    ensemble = {label: {name: measures[name][i] for name in kept} for i, label in enumerate(members)}
    return {**_read(problem, path, evaluation, curve=_curve(curve), points=points), "ensemble": ensemble}, evaluation


@functools.partial(jax.jit, static_argnames=("curve", "points"))
def _read(problem: Problem, path: Path, evaluation: Evaluation, *, curve: Curve, points: int) -> dict[str, Any]:
    """What is read off a path and its evaluation; without "cka" where the model does not give its features."""
    first, last = (jax.tree.map(lambda leaf, i=i: leaf[i], evaluation.test) for i in (0, points - 1))
    values = {
        "metrics": paths.measures(evaluation),
        "arc_length": paths.arc_length(path, paths.points(points), curve),
        "distance": _distances(problem, path.start, path.end),
        "disagreement": metrics.disagreement(first, last),
        "task_cosine": metrics.task_cosine(path.start, path.end, problem.params),
    }
    if (features := problem.model.features) is not None:
        inputs = outputs.inputs(sources.take(problem.data, problem.test))
        ends = (features(end, inputs, training.evaluation_stats(problem, end)) for end in (path.start, path.end))
        values["cka"] = metrics.cka(*ends)
    return values


def _distances(problem: Problem, a: Params, b: Params) -> dict[str, Array]:
    moved = {"a": (a, problem.params), "b": (b, problem.params), "ab": (a, b)}
    return {name: optax.tree.norm(optax.tree.sub(*ends)) for name, ends in moved.items()}


def path_values(made: tuple[dict[str, Any], Evaluation], *, attack: bool) -> dict[str, Any]:
    values, evaluation = made
    return {**as_json(values), "metrics": _with_attack(values["metrics"], evaluation, attack=attack)}


def _with_attack(values: Mapping[str, Any], evaluation: Evaluation, *, attack: bool) -> dict[str, list[float]]:
    return as_json(dict(values)) | ({"MIA": _tasks.attacks(evaluation)} if attack else {})


def as_json(values: Any) -> Any:
    """Arrays as lists of numbers to 6 digits."""
    return jax.tree.map(lambda leaf: _rounded(np.asarray(leaf).tolist()), values)


def _rounded(value: Any) -> Any:
    return [_rounded(each) for each in value] if isinstance(value, list) else float(f"{value:.6g}")


# Lines, of which only the barriers are asked for


def controls(
    task: Problem,
    original: Params,
    key: RandomKey,
    unlearned: Params,
    retrained: Params,
    aligned: Params | None = None,
) -> dict[str, Any]:
    """The lines of `controls_of`. aligned: the retrained model with its units as the unlearned one has them, if any."""
    return _controls(_tasks.given(task, original), key, unlearned, retrained, aligned)


def controls_of(*, aligned: bool) -> tuple[str, ...]:
    """The lines of `controls`, in their order."""
    return ("perturbation", "original", *["retrain"] * aligned, "unaligned")


@jax.jit
def _controls(
    problem: Problem, key: RandomKey, unlearned: Params, retrained: Params, aligned: Params | None
) -> dict[str, Any]:
    first, second = (trees.perturb(each, problem.params, unlearned) for each in jax.random.split(key))
    ends = [second, problem.params, *([] if aligned is None else [aligned]), retrained]
    return _lines(problem, trees.stack([first, *[unlearned] * (len(ends) - 1)]), trees.stack(ends))


def lines(task: Problem, original: Params, **ends: Params) -> dict[str, Any]:
    """From a to b, and so on for as many pairs of ends as there are, in the order of their names."""
    models = [ends[name] for name in sorted(ends)]
    return _lines(_tasks.given(task, original), trees.stack(models[::2]), trees.stack(models[1::2]))


@jax.jit
def _lines(problem: Problem, starts: Params, ends: Params) -> dict[str, Any]:
    """`Connection`, distances, and the accuracies of the start, of every line of a stack."""
    ts = paths.points(CONTROL_POINTS)

    def line(ends: tuple[Params, Params]) -> dict[str, Any]:
        path = curves.straight(*ends, bends=0)
        values = paths.sweep(Partial(_retain_and_forget, problem), path, ts, curves.linear)
        return {
            **paths.connection(ts, values)._asdict(),
            "distance": _distances(problem, *ends),
            "RA": values["retain_accuracy"][0],
            "UA": 1 - values["forget_accuracy"][0],
        }

    return jax.lax.map(line, (starts, ends))


def _retain_and_forget(problem: Problem, params: Params) -> dict[str, Float[Array, ""]]:
    stats, values = training.evaluation_stats(problem, params), {}
    for name in ("retain", "forget"):
        scores = metrics.scores(problem, params, getattr(problem, name), stats)
        values[f"{name}_loss"] = jnp.mean(scores.loss)
        values[f"{name}_accuracy"] = metrics.accuracy(scores)
    return values


# Beyond


def train_further(task: Problem, params: Params, key: RandomKey, **settings: Any) -> Params:
    """Fine-tuning from `params`."""
    return _tasks.unlearn(task, params, key, method="finetune", options=settings)


def relearn_model(task: Problem, original: Params, key: RandomKey, params: Params, **settings: Any) -> Array:
    """Steps of the relearning attack on one model."""
    return metrics.relearn_steps(_tasks.given(task, original), params, key, **settings)


def relearn(
    task: Problem,
    original: Params,
    key: RandomKey,
    a: Params,
    b: Params,
    inner: Params | None = None,
    *,
    curve: str,
    **settings: Any,
) -> Array:
    """Steps of the relearning attack at `RELEARNED`."""
    return _relearn(_tasks.given(task, original), key, _path(a, b, inner), curve=_curve(curve), **settings)


@functools.partial(jax.jit, static_argnames=("curve", "batch_size"))
def _relearn(
    problem: Problem, key: RandomKey, path: Path, *, curve: Curve, lr: Any, batch_size: int, limit: Any
) -> Array:
    def steps(t: Array) -> Array:
        return metrics.relearn_steps(problem, curve(path, t), key, lr=lr, batch_size=batch_size, limit=limit)

    return jax.lax.map(steps, jnp.asarray(RELEARNED, jnp.float32))


def whole(steps: Any) -> Any:
    """Numbers of steps as JSON values."""
    return np.asarray(steps).tolist()
