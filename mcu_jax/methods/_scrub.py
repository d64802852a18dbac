from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from mcu_jax import curricula, losses, optimizers, training
from mcu_jax.base import Params, Problem, RandomKey


def scrub(
    problem: Problem,
    key: RandomKey,
    *,
    gamma: float = 0.99,
    alpha: float = 0.1,
    temperature: float = 4.0,
    max_epochs: int = 2,
    epochs: int = 5,
    lr: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    batch_size: int = 128,
    optimizer: str = "sgd",
    curriculum: str = "none",
) -> Params:
    """SCRUB: away from θ_o on D_f, towards it on D_r, in turns (Kurmanji et al. 2023, arXiv 2302.09880).

    Every step: min γ CE + α T² KL(θ_o ‖ θ) on D_r, softmaxes at temperature T. An epoch is one pass over D_r; in the
    first `max_epochs` of them its first steps, as many as D_f has batches, do before that: max T² KL(θ_o ‖ θ) on D_f.
    """
    make = optimizers.make(optimizer, lr, momentum, weight_decay)
    teacher, weigh = training.original(problem), curricula.make(curriculum)
    away = training.Objective(Partial(_away, problem, teacher, temperature), (problem.forget,))
    towards = training.Objective(Partial(_towards, problem, teacher, gamma, alpha, temperature), (problem.retain,))
    starts = [training.begin(each, problem.params, make, weigh) for each in (away, towards)]
    retain_steps, forget_steps = (
        training.steps_per_epoch(len(split.y), batch_size) for split in (problem.retain, problem.forget)
    )
    ascend, descend = (training.descend(each.terms, make, weigh) for each in (away, towards))
    state = (problem.params, starts[0].optimizer, starts[0].running, starts[1].running)
    update = Partial(_update, ascend, descend, retain_steps, forget_steps, max_epochs)
    streams, steps = (problem.retain, problem.forget), epochs * retain_steps
    return training.loop(update, state, streams, key, steps=steps, batch_size=batch_size).state[0]


def objective(problem: Problem, key: RandomKey, *, gamma: Any, alpha: Any, temperature: Any) -> training.Objective:
    """Both parts at once."""
    del key
    terms = Partial(_both, problem, training.original(problem), gamma, alpha, temperature)
    return training.Objective(terms, (problem.retain, problem.forget))


def _update(
    ascend: Any,
    descend: Any,
    retain_steps: Any,
    forget_steps: Any,
    max_epochs: Any,
    state: tuple,
    batches: tuple,
    now: training.Now,
) -> tuple:
    params, optimizer, away, towards = state
    retain, forget = batches
    ascent_key, descent_key = jax.random.split(now.key)
    start = training.Descent(params, optimizer, away)
    (params, optimizer, away), _ = jax.lax.cond(
        (now.step < max_epochs * retain_steps) & (now.step % retain_steps < forget_steps),
        lambda: ascend(start, (forget,), now._replace(key=ascent_key)),
        lambda: (start, jnp.zeros(())),
    )
    state = training.Descent(params, optimizer, towards)
    (params, optimizer, towards), loss = descend(state, (retain,), now._replace(key=descent_key))
    return (params, optimizer, away, towards), loss


def _both(
    problem: Problem,
    teacher: training.Teacher,
    gamma: Any,
    alpha: Any,
    temperature: Any,
    params: Params,
    batches: tuple,
    now: training.Now,
) -> Any:
    retain, forget = batches
    retain_key, forget_key = jax.random.split(now.key)
    towards = _towards(problem, teacher, gamma, alpha, temperature, params, (retain,), now._replace(key=retain_key))
    return *towards, *_away(problem, teacher, temperature, params, (forget,), now._replace(key=forget_key))


def _away(
    problem: Problem, teacher: training.Teacher, temperature: Any, params: Params, batches: tuple, now: training.Now
) -> Any:
    student, original = training.with_teacher(problem, params, teacher, batches[0].x, now.key)
    return (training.Term(_distillation(original, student, temperature), -1.0),)


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
    student, original = training.with_teacher(problem, params, teacher, retain.x, now.key)
    return (
        training.Term(losses.nll(student, retain.y), gamma),
        training.Term(_distillation(original, student, temperature), alpha),
    )


def _distillation(original: Any, student: Any, temperature: Any) -> Any:
    return temperature**2 * losses.kl(original / temperature, student / temperature)
