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
    batch_size: int = 128,
) -> Params:
    """Gradient ascent on D_f: min −L_f, stopped early for want of a minimum (Thudi et al. 2021, arXiv 2109.13398)."""
    return training.fit(
        Partial(_loss, problem),
        problem.params,
        (problem.forget,),
        key,
        optimizer=Partial(training.sgd, lr, momentum),
        epochs=epochs,
        batch_size=batch_size,
    ).state


def _loss(problem: Problem, params: Params, batches: tuple, now: training.Now) -> Any:
    return -training.cross_entropy(problem, params, batches[0], now.key)
