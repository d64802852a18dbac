from __future__ import annotations

from typing import Any

import jax
from jax.tree_util import Partial

from mcu_jax import training
from mcu_jax.base import Params, Problem, RandomKey


def neggrad_plus(
    problem: Problem,
    key: RandomKey,
    *,
    beta: float = 0.15,
    epochs: int = 10,
    lr: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    batch_size: int = 128,
    optimizer: str = "sgd",
    curriculum: str = "none",
) -> Params:
    """NegGrad+: min L_r − β L_f, a batch of either at every step (Kurmanji et al. 2023, arXiv 2302.09880)."""
    return training.unlearn(
        problem,
        objective(problem, key, beta=beta),
        key,
        epochs=epochs,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        batch_size=batch_size,
        optimizer=optimizer,
        curriculum=curriculum,
    )


def objective(problem: Problem, key: RandomKey, *, beta: Any) -> training.Objective:
    del key
    return training.Objective(Partial(_terms, problem, beta), (problem.retain, problem.forget))


def _terms(problem: Problem, beta: Any, params: Params, batches: tuple, now: training.Now) -> Any:
    retain, forget = batches
    retain_key, forget_key = jax.random.split(now.key)
    return (
        training.Term(training.nll(problem, params, retain, retain_key)),
        training.Term(training.nll(problem, params, forget, forget_key), -beta),
    )
