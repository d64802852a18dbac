from __future__ import annotations

from typing import Any

import jax
from jax.tree_util import Partial

from mcu_jax import training
from mcu_jax.base import Params, Problem, RandomKey


def grad_diff(
    problem: Problem,
    key: RandomKey,
    *,
    forget_weight: float = 1.0,
    retain_weight: float = 1.0,
    epochs: int = 5,
    lr: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    batch_size: int = 128,
    optimizer: str = "sgd",
    curriculum: str = "none",
) -> Params:
    """Gradient difference: min −γ L_f + α L_r on batches of equal size (Liu et al. 2022, arXiv 2203.12817).

    γ: `forget_weight`, α: `retain_weight`. An epoch is one pass over D_f. Without a minimum, as gradient ascent.
    """
    return training.unlearn(
        problem,
        objective(problem, key, forget_weight=forget_weight, retain_weight=retain_weight),
        key,
        epochs=epochs,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        batch_size=batch_size,
        optimizer=optimizer,
        curriculum=curriculum,
    )


def objective(problem: Problem, key: RandomKey, *, forget_weight: Any, retain_weight: Any) -> training.Objective:
    del key
    return training.Objective(Partial(_terms, problem, forget_weight, retain_weight), (problem.forget, problem.retain))


def _terms(
    problem: Problem, forget_weight: Any, retain_weight: Any, params: Params, batches: tuple, now: training.Now
) -> Any:
    # One of the sets may be smaller than a batch; then both give as many as it has.
    size = min(len(batch.y) for batch in batches)
    forget, retain = (jax.tree.map(lambda leaf: leaf[:size], batch) for batch in batches)
    forget_key, retain_key = jax.random.split(now.key)
    return (
        training.Term(training.nll(problem, params, forget, forget_key), -forget_weight),
        training.Term(training.nll(problem, params, retain, retain_key), retain_weight),
    )
