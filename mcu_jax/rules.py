"""How far a model is from an unlearned one, judged without a retrained model: what a point on a path is chosen by.

A rule is a function (standing, targets) -> score, a fraction; best: 0. Ends of a path, baselines and points between are
judged alike. `NAMES` are the rules there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mcu_jax import metrics
from mcu_jax.base import Evaluation, Problem, UserError


class Standing(NamedTuple):
    """What rules look at, of one model or at every t of a path, as fractions: accuracies on D_r, D_f and D_v, and how
    far the confidences on D_f are from those of unseen examples (`metrics.unseen_distance`).
    """

    retain: Float[Any, "*T"]
    forget: Float[Any, "*T"]
    validation: Float[Any, "*T"]
    distance: Float[Any, "*T"]


class Targets(NamedTuple):
    """The accuracies an unlearned model should have on D_r, D_f and D_v, as fractions."""

    retain: Float[Any, ""]
    forget: Float[Any, ""]
    validation: Float[Any, ""]


Rule = Callable[[Standing, Targets], Float[Any, "*T"]]


@jax.jit
def standing(evaluation: Evaluation) -> Standing:
    """Of one model; of an evaluation along a path: `paths.standings`."""
    seen = evaluation.retain, evaluation.forget, evaluation.validation
    retain, forget, validation = (metrics.accuracy(scores) for scores in seen)
    return Standing(retain, forget, validation, metrics.unseen_distance(evaluation))


def targets(problem: Problem) -> Targets:
    """Cal_r = accuracy of θ_o on D; Cal_f = that on D_v, or 0 where a class is forgotten; Cal_v = that on D_v.

    Raises UserError for a problem without validation examples.
    """
    if not len(problem.validation):
        raise UserError("rules judge by examples that were never trained on, given no validation examples: keep some")
    return _targets(problem)


@jax.jit
def _targets(problem: Problem) -> Targets:
    original = standing(metrics.evaluate(problem, problem.params))
    sizes = len(problem.retain), len(problem.forget)
    hits = original.retain * sizes[0] + original.forget * sizes[1]
    unseen = jnp.zeros(()) if problem.forget_test is not None else original.validation
    return Targets(hits / sum(sizes), unseen, original.validation)


def tolerance(forget_size: int) -> float:
    """Scores this close are equals: accuracy on D_f moves in steps of 1/|D_f|, and this is half of one in a score."""
    return 0.25 / forget_size


@jax.jit
def accuracy(standing: Standing, targets: Targets) -> Float[Array, "*T"]:
    """½ (|Acc_r − Cal_r| + |Acc_f − Cal_f|): accuracies are at their targets (Shi & Wang 2025, arXiv 2505.10859).

    A model that gets the right share of D_f wrong, but is sure of itself as it is of no unseen example, is perfect to
    it.
    """
    retain, forget = jnp.asarray(standing.retain), jnp.asarray(standing.forget)
    return 0.5 * (jnp.abs(retain - targets.retain) + jnp.abs(forget - targets.forget))


@jax.jit
def distribution(standing: Standing, targets: Targets) -> Float[Array, "*T"]:
    """½ (|Acc_r − Cal_r| + max(0, Cal_v − Acc_v)) + W₁: D_f looks like unseen examples, and nothing else was lost.

    W₁: `metrics.unseen_distance`, of the same model's confidences.
    """
    retain, validation = jnp.asarray(standing.retain), jnp.asarray(standing.validation)
    lost = jnp.maximum(targets.validation - validation, 0)
    return 0.5 * (jnp.abs(retain - targets.retain) + lost) + standing.distance


NAMES = ("accuracy", "distribution")
