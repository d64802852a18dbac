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
) -> Params:
    """NegGrad+: min L_r − β L_f, a batch of either at every step (Kurmanji et al. 2023, arXiv 2302.09880)."""
    return training.fit(
        Partial(_loss, problem, beta),
        problem.params,
        (problem.retain, problem.forget),
        key,
        optimizer=Partial(training.sgd, lr, momentum, weight_decay),
        epochs=epochs,
        batch_size=batch_size,
    ).state


def _loss(problem: Problem, beta: Any, params: Params, batches: tuple, now: training.Now) -> Any:
    retain, forget = batches
    retain_key, forget_key = jax.random.split(now.key)
    retain_loss = training.cross_entropy(problem, params, retain, retain_key)
    return retain_loss - beta * training.cross_entropy(problem, params, forget, forget_key)
