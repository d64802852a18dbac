from __future__ import annotations

from typing import Annotated, Any

import jax
from jax.tree_util import Partial

from mcu_jax import outputs, training
from mcu_jax.base import NonNegative, Params, Problem, RandomKey, Search


def grad_diff(
    problem: Problem,
    key: RandomKey,
    *,
    forget_weight: Annotated[float, NonNegative, Search(0.01, 1.0)] = 1.0,
    retain_weight: Annotated[float, NonNegative] = 1.0,
    train: training.Training = training.Training(epochs=5),
) -> Params:
    """Gradient difference: min −γ L_f + α L_r on batches of equal size (Liu et al. 2022, arXiv 2203.12817).

    γ: `forget_weight`, α: `retain_weight`. An epoch is one pass over D_f. Without a minimum, as gradient ascent.
    """
    return training.unlearn(
        problem, objective(problem, key, forget_weight=forget_weight, retain_weight=retain_weight), key, train
    )


def objective(problem: Problem, key: RandomKey, *, forget_weight: Any, retain_weight: Any) -> training.Objective:
    del key
    return training.Objective(
        Partial(_terms, problem, forget_weight, retain_weight), (training.forget(problem), training.retain(problem))
    )


def _terms(
    problem: Problem, forget_weight: Any, retain_weight: Any, params: Params, batches: tuple, now: training.Now
) -> Any:
    # Where one set is smaller than a batch, both batches have its size.
    size = min(len(outputs.labels(batch)) for batch in batches)
    forget, retain = (jax.tree.map(lambda leaf: leaf[:size], batch) for batch in batches)
    forget_key, retain_key = jax.random.split(now.key)
    return (
        training.Term(training.nll(problem, params, forget, forget_key), -forget_weight),
        training.Term(training.nll(problem, params, retain, retain_key), retain_weight),
    )
