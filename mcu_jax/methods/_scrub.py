from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from mcu_jax import outputs, training
from mcu_jax.base import NonNegative, Params, Positive, Problem, RandomKey, Whole


def scrub(
    problem: Problem,
    key: RandomKey,
    *,
    gamma: Annotated[float, NonNegative] = 0.99,
    alpha: Annotated[float, NonNegative] = 0.1,
    temperature: Annotated[float, Positive] = 4.0,
    max_epochs: Annotated[int, Whole] = 2,
    train: training.Training = training.Training(epochs=5, weight_decay=5e-4),
) -> Params:
    """SCRUB: away from θ_o on D_f, towards it on D_r, in turns (Kurmanji et al. 2023, arXiv 2302.09880).

    Every step: min γ CE + α T² KL(θ_o ‖ θ) on D_r, softmaxes at temperature T. An epoch is one pass over D_r; in the
    first `max_epochs` of them its first steps, as many as D_f has batches, do before that: max T² KL(θ_o ‖ θ) on D_f.
    """
    make, weigh = train.make_optimizer(), train.make_curriculum()
    teacher = training.original(problem)
    away = training.Objective(Partial(_away, problem, teacher, temperature), (training.forget(problem),))
    towards = training.Objective(
        Partial(_towards, problem, teacher, gamma, alpha, temperature), (training.retain(problem),)
    )
    starts = [training.begin(part, problem.params, problem.data, make, weigh) for part in (away, towards)]
    retain_steps, forget_steps = (
        training.steps_per_epoch(len(rows), train.batch_size) for rows in (problem.retain, problem.forget)
    )
    ascend, descend = (training.descend(part.terms, make, weigh) for part in (away, towards))
    state = (problem.params, starts[0].optimizer, starts[0].running, starts[1].running)
    update = Partial(_update, ascend, descend, retain_steps, forget_steps, max_epochs)
    streams, steps = (training.retain(problem), training.forget(problem)), train.epochs * retain_steps
    return training.loop(update, state, streams, problem.data, key, steps=steps, batch_size=train.batch_size).state[0]


def objective(problem: Problem, key: RandomKey, *, gamma: Any, alpha: Any, temperature: Any) -> training.Objective:
    """Both parts at once."""
    del key
    terms = Partial(_both, problem, training.original(problem), gamma, alpha, temperature)
    return training.Objective(terms, (training.retain(problem), training.forget(problem)))


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
    # Both are updates of one optimiser: before this step it made a descent a step, and ascents at the start of epochs.
    epoch, place = now.step // retain_steps, now.step % retain_steps
    earlier = jnp.minimum(epoch, max_epochs) * jnp.minimum(forget_steps, retain_steps)
    ascents = earlier + jnp.where(epoch < max_epochs, jnp.minimum(place, forget_steps), 0)
    ascends = (epoch < max_epochs) & (place < forget_steps)
    count = now.step + ascents
    start = training.Descent(params, optimizer, away)
    (params, optimizer, away), _ = jax.lax.cond(
        ascends,
        lambda: ascend(start, (forget,), now._replace(key=ascent_key, updates=count)),
        lambda: (start, jnp.zeros(())),
    )
    state = training.Descent(params, optimizer, towards)
    count = count + ascends.astype(jnp.int32)
    (params, optimizer, towards), loss = descend(state, (retain,), now._replace(key=descent_key, updates=count))
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
