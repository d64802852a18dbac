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
    optimizer: str = "sgd",
    curriculum: str = "none",
) -> Params:
    """Fine-tuning on D_r: min L_r (Golatkar et al. 2020, arXiv 1911.04933)."""
    return training.unlearn(
        problem,
        objective(problem, key),
        key,
        epochs=epochs,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        batch_size=batch_size,
        optimizer=optimizer,
        curriculum=curriculum,
    )


def objective(problem: Problem, key: RandomKey) -> training.Objective:
    del key
    return training.Objective(Partial(_terms, problem), (problem.retain,))


def _terms(problem: Problem, params: Params, batches: tuple, now: training.Now) -> Any:
    return (training.Term(training.nll(problem, params, batches[0], now.key)),)
