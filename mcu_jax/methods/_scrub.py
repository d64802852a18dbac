from __future__ import annotations

from typing import Annotated, Any

import jax.numpy as jnp
from jax.tree_util import Partial

from mcu_jax import outputs, training
from mcu_jax.base import NonNegative, Params, Positive, Problem, RandomKey, Search, Whole
from mcu_jax.methods import _alternate


def scrub(
    problem: Problem,
    key: RandomKey,
    *,
    gamma: Annotated[float, NonNegative] = 0.99,
    alpha: Annotated[float, NonNegative, Search(0.001, 1.0)] = 0.1,
    temperature: Annotated[float, Positive] = 4.0,
    max_epochs: Annotated[int, Whole, Search(1, 10)] = 2,
    train: training.Training = training.Training(epochs=5, weight_decay=5e-4),
) -> Params:
    """SCRUB: away from θ_o on D_f, towards it on D_r, in turns (Kurmanji et al. 2023, arXiv 2302.09880).

    Every step: min γ CE + α T² KL(θ_o ‖ θ) on D_r, softmaxes at temperature T. An epoch is one pass over D_r. In each
    of the first `max_epochs` epochs the first steps, as many as D_f has batches, begin with an update of the same
    optimiser for max T² KL(θ_o ‖ θ) on D_f.
    """
    away, towards = _terms(problem, gamma, alpha, temperature)
    sizes = (len(problem.retain), len(problem.forget))
    retain_steps, forget_steps = (training.steps_per_epoch(size, train.batch_size) for size in sizes)
    ascents = Partial(_ascents, retain_steps, min(forget_steps, retain_steps), max_epochs)
    optimizers, steps = (train.make_optimizer(),), train.steps or train.epochs * retain_steps
    return _alternate.alternate(problem, key, away, towards, ascents, optimizers=optimizers, steps=steps, train=train)


def objective(problem: Problem, key: RandomKey, *, gamma: Any, alpha: Any, temperature: Any) -> training.Objective:
    """Ascent and descent at once."""
    del key
    return _alternate.both(problem, *_terms(problem, gamma, alpha, temperature))


def _terms(problem: Problem, gamma: Any, alpha: Any, temperature: Any) -> tuple[Partial, Partial]:
    teacher = training.original(problem)
    towards = Partial(_towards, problem, teacher, gamma, alpha, temperature)
    return Partial(_away, problem, teacher, temperature), towards


def _ascents(retain_steps: Any, per_epoch: Any, max_epochs: Any, step: Any) -> Any:
    epoch, place = step // retain_steps, step % retain_steps
    return jnp.minimum(epoch, max_epochs) * per_epoch + jnp.where(epoch < max_epochs, jnp.minimum(place, per_epoch), 0)


def _away(
    problem: Problem, teacher: training.Teacher, temperature: Any, params: Params, batches: tuple, now: training.Now
) -> Any:
    student, original = training.with_teacher(problem, params, teacher, batches[0], now.key)
    return (training.Term(_distillation(original, student, temperature, outputs.labels(batches[0])), -1.0),)


def _towards(
    problem: Problem,
    teacher: training.Teacher,
    gamma: Any,
    alpha: Any,
    temperature: Any,
    params: Params,
    batches: tuple,
    now: training.Now,
) -> Any:
    (retain,) = batches
    student, original = training.with_teacher(problem, params, teacher, retain, now.key)
    labels = outputs.labels(retain)
    return (
        training.Term(outputs.nll(student, labels), gamma),
        training.Term(_distillation(original, student, temperature, labels), alpha),
    )


def _distillation(original: Any, student: Any, temperature: Any, labels: Any) -> Any:
    return temperature**2 * outputs.kl(original / temperature, student / temperature, labels)
