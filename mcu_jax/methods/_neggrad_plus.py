from __future__ import annotations

from typing import Annotated, Any

import jax
from jax.tree_util import Partial

from mcu_jax import training
from mcu_jax.base import NonNegative, Params, Problem, RandomKey, Search


def neggrad_plus(
    problem: Problem,
    key: RandomKey,
    *,
    beta: Annotated[float, NonNegative, Search(0.01, 1.0)] = 0.15,
    train: training.Training = training.Training(weight_decay=5e-4),
) -> Params:
    """NegGrad+: min L_r − β L_f, a batch of either at every step (Kurmanji et al. 2023, arXiv 2302.09880)."""
    return training.unlearn(problem, objective(problem, key, beta=beta), key, train)


def objective(problem: Problem, key: RandomKey, *, beta: Any) -> training.Objective:
    del key
    return training.Objective(Partial(_terms, problem, beta), (training.retain(problem), training.forget(problem)))


def _terms(problem: Problem, beta: Any, params: Params, batches: tuple, now: training.Now) -> Any:
    retain, forget = batches
    retain_key, forget_key = jax.random.split(now.key)
    return (
        training.Term(training.nll(problem, params, retain, retain_key)),
        training.Term(training.nll(problem, params, forget, forget_key), -beta),
    )
