from __future__ import annotations

from typing import Any

import jax
from jax.tree_util import Partial

from mcu_jax import training
from mcu_jax.base import Params, Problem, RandomKey


def simnpo(
    problem: Problem,
    key: RandomKey,
    *,
    beta: float = 4.5,
    margin: float = 0.0,
    forget_weight: float = 0.125,
    retain_weight: float = 1.0,
    epochs: int = 5,
    lr: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    batch_size: int = 128,
    optimizer: str = "sgd",
    curriculum: str = "none",
) -> Params:
    """SimNPO: min γ · −(2/β) E log σ(β(ℓ − δ)) on D_f + α L_r (Fan et al. 2024, arXiv 2410.07163).

    NPO without θ_o: ℓ is the negative log-likelihood per token, and an image is one. γ: `forget_weight`, δ: `margin`,
    α: `retain_weight`. An epoch is one pass over D_f.
    """
    return training.unlearn(
        problem,
        objective(problem, key, beta=beta, margin=margin, forget_weight=forget_weight, retain_weight=retain_weight),
        key,
        epochs=epochs,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        batch_size=batch_size,
        optimizer=optimizer,
        curriculum=curriculum,
    )


def objective(
    problem: Problem, key: RandomKey, *, beta: Any, margin: Any, forget_weight: Any, retain_weight: Any
) -> training.Objective:
    del key
    terms = Partial(_terms, problem, beta, margin, forget_weight, retain_weight)
    return training.Objective(terms, (problem.forget, problem.retain))


def _terms(
    problem: Problem,
    beta: Any,
    margin: Any,
    forget_weight: Any,
    retain_weight: Any,
    params: Params,
    batches: tuple,
    now: training.Now,
) -> Any:
    forget, retain = batches
    forget_key, retain_key = jax.random.split(now.key)
    excess = training.nll(problem, params, forget, forget_key) - margin
    return (
        training.Term(2 / beta * jax.nn.softplus(-beta * excess), forget_weight),
        training.Term(training.nll(problem, params, retain, retain_key), retain_weight),
    )
