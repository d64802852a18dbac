from __future__ import annotations

from typing import Any

from jax.tree_util import Partial

from mcu_jax import training
from mcu_jax.base import Params, Problem, RandomKey


def finetune(
    problem: Problem,
    key: RandomKey,
    *,
    epochs: int = 10,
    lr: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    batch_size: int = 128,
) -> Params:
    """Fine-tuning on D_r: min L_r from θ_o (Warnecke et al. 2021, arXiv 2108.11577)."""
    return training.fit(
        Partial(_loss, problem),
        problem.params,
        (problem.retain,),
        key,
        optimizer=Partial(training.sgd, lr, momentum, weight_decay),
        epochs=epochs,
        batch_size=batch_size,
    ).state


def _loss(problem: Problem, params: Params, batches: tuple, now: training.Now) -> Any:
    return training.cross_entropy(problem, params, batches[0], now.key)
