from __future__ import annotations

from typing import Any

import jax
from jax.tree_util import Partial

from mcu_jax import losses, training
from mcu_jax.base import Params, Problem, RandomKey


def bad_teacher(
    problem: Problem,
    key: RandomKey,
    *,
    temperature: float = 1.0,
    epochs: int = 10,
    lr: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    batch_size: int = 128,
    optimizer: str = "sgd",
    curriculum: str = "none",
) -> Params:
    """Bad teacher: KL(p_o ‖ p) on D_r + KL(p_random ‖ p) on D_f, p_random a fresh network.

    T: `temperature` of all softmaxes (Chundawat et al. 2022, arXiv 2205.08210). Raises ValueError for a model that
    cannot be initialised.
    """
    return training.unlearn(
        problem,
        objective(problem, key, temperature=temperature),
        key,
        epochs=epochs,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        batch_size=batch_size,
        optimizer=optimizer,
        curriculum=curriculum,
    )


def objective(problem: Problem, key: RandomKey, *, temperature: Any) -> training.Objective:
    fresh = problem.model.init(jax.random.fold_in(key, 1), problem.retain.x[:1])
    teachers = (training.original(problem), training.Teacher(fresh, training.refresh(problem, fresh)))
    return training.Objective(Partial(_terms, problem, teachers, temperature), (problem.retain, problem.forget))


def _terms(
    problem: Problem, teachers: tuple, temperature: Any, params: Params, batches: tuple, now: training.Now
) -> Any:
    terms = []
    for teacher, batch, key in zip(teachers, batches, jax.random.split(now.key), strict=True):
        student, taught = training.with_teacher(problem, params, teacher, batch.x, key)
        terms.append(training.Term(losses.kl(taught / temperature, student / temperature)))
    return tuple(terms)
