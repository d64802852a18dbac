from __future__ import annotations

from typing import Any

import jax
from jax.tree_util import Partial

from mcu_jax import losses, training
from mcu_jax.base import Params, Problem, RandomKey


def npo(
    problem: Problem,
    key: RandomKey,
    *,
    beta: float = 0.1,
    retain_weight: float = 1.0,
    epochs: int = 5,
    lr: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    batch_size: int = 128,
    optimizer: str = "sgd",
    curriculum: str = "none",
) -> Params:
    """Negative preference optimisation: min −(2/β) E log σ(β(ℓ − ℓ_o)) on D_f + α L_r.

    Zhang et al. 2024, arXiv 2404.05868. ℓ, ℓ_o: negative log-likelihoods under the model and under θ_o. As β → 0
    this is gradient ascent; unlike it, it is bounded below. α: `retain_weight`. An epoch is one pass over D_f.
    """
    return training.unlearn(
        problem,
        objective(problem, key, beta=beta, retain_weight=retain_weight),
        key,
        epochs=epochs,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        batch_size=batch_size,
        optimizer=optimizer,
        curriculum=curriculum,
    )


def objective(problem: Problem, key: RandomKey, *, beta: Any, retain_weight: Any) -> training.Objective:
    del key
    terms = Partial(_terms, problem, training.original(problem), beta, retain_weight)
    return training.Objective(terms, (problem.forget, problem.retain))


def _terms(
    problem: Problem,
    teacher: training.Teacher,
    beta: Any,
    retain_weight: Any,
    params: Params,
    batches: tuple,
    now: training.Now,
) -> Any:
    forget, retain = batches
    forget_key, retain_key = jax.random.split(now.key)
    student, original = training.with_teacher(problem, params, teacher, forget.x, forget_key)
    excess = losses.nll(student, forget.y) - losses.nll(original, forget.y)
    return (
        training.Term(2 / beta * jax.nn.softplus(-beta * excess)),
        training.Term(training.nll(problem, params, retain, retain_key), retain_weight),
    )
