from __future__ import annotations

from typing import Annotated, Any

import jax
from jax.tree_util import Partial

from mcu_jax import training
from mcu_jax.base import NonNegative, Params, Positive, Problem, RandomKey, Search


def simnpo(
    problem: Problem,
    key: RandomKey,
    *,
    beta: Annotated[float, Positive, Search(0.5, 10.0)] = 4.5,
    margin: Annotated[float, NonNegative] = 0.0,
    forget_weight: Annotated[float, NonNegative, Search(0.01, 1.0)] = 0.125,
    retain_weight: Annotated[float, NonNegative] = 1.0,
    train: training.Training = training.Training(epochs=5),
) -> Params:
    """SimNPO: min γ · −(2/β) E log σ(β(ℓ − δ)) on D_f + α L_r (Fan et al. 2024, arXiv 2410.07163).

    NPO without θ_o: ℓ is the negative log-likelihood per token, and an image is one. γ: `forget_weight`, δ: `margin`,
    α: `retain_weight`. An epoch is one pass over D_f.
    """
    return training.unlearn(
        problem,
        objective(problem, key, beta=beta, margin=margin, forget_weight=forget_weight, retain_weight=retain_weight),
        key,
        train,
    )


def objective(
    problem: Problem, key: RandomKey, *, beta: Any, margin: Any, forget_weight: Any, retain_weight: Any
) -> training.Objective:
    del key
    terms = Partial(_terms, problem, beta, margin, forget_weight, retain_weight)
    return training.Objective(terms, (training.forget(problem), training.retain(problem)))


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
