from __future__ import annotations

from typing import Annotated, Any

import jax
from jax.tree_util import Partial

from mcu_jax import outputs, training
from mcu_jax.base import Params, Positive, Problem, RandomKey, Search


def bad_teacher(
    problem: Problem,
    key: RandomKey,
    *,
    temperature: Annotated[float, Positive, Search(0.5, 4.0)] = 1.0,
    train: training.Training = training.Training(),
) -> Params:
    """Bad teacher: KL(p_o ‖ p) on D_r + KL(p_random ‖ p) on D_f, p_random a fresh network.

    T: `temperature` of all softmaxes (Chundawat et al. 2022, arXiv 2205.08210). Raises ValueError for a model that
    cannot be initialised.
    """
    return training.unlearn(problem, objective(problem, key, temperature=temperature), key, train)


def objective(problem: Problem, key: RandomKey, *, temperature: Any) -> training.Objective:
    fresh = outputs.init(problem.model, jax.random.fold_in(key, 1), problem.data, problem.retain)
    teachers = (training.original(problem), training.Teacher(fresh, training.refresh(problem, fresh)))
    return training.Objective(
        Partial(_terms, problem, teachers, temperature), (training.retain(problem), training.forget(problem))
    )


def _terms(
    problem: Problem, teachers: tuple, temperature: Any, params: Params, batches: tuple, now: training.Now
) -> Any:
    terms = []
    for teacher, batch, key in zip(teachers, batches, jax.random.split(now.key), strict=True):
        student, taught = training.with_teacher(problem, params, teacher, batch, key)
        terms.append(training.Term(outputs.kl(taught / temperature, student / temperature, outputs.labels(batch))))
    return tuple(terms)
