from __future__ import annotations

from typing import Any

from jax.tree_util import Partial

from mcu_jax import training
from mcu_jax.base import Params, Problem, RandomKey


def gradient_ascent(
    problem: Problem,
    key: RandomKey,
    *,
    epochs: int = 5,
    lr: float = 1e-4,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    batch_size: int = 128,
    optimizer: str = "sgd",
    curriculum: str = "none",
) -> Params:
    """Gradient ascent on D_f: min −L_f, stopped early for want of a minimum (Thudi et al. 2021, arXiv 2109.13398)."""
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
    return training.Objective(Partial(_terms, problem), (problem.forget,))


def _terms(problem: Problem, params: Params, batches: tuple, now: training.Now) -> Any:
    return (training.Term(training.nll(problem, params, batches[0], now.key), -1.0),)
