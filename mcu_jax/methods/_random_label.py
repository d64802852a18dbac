from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from mcu_jax import training
from mcu_jax.base import Params, Problem, RandomKey


def random_label(
    problem: Problem,
    key: RandomKey,
    *,
    epochs: int = 10,
    lr: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    batch_size: int = 128,
    optimizer: str = "sgd",
    curriculum: str = "none",
) -> Params:
    """Random labels: cross-entropy on D_r and on D_f relabelled, uniformly over the wrong labels and anew each time.

    Golatkar et al. 2020, arXiv 1911.04933.
    """
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
    return training.Objective(Partial(_terms, problem), (training.mix(problem.forget, problem.retain),))


def _terms(problem: Problem, params: Params, batches: tuple[training.Mixed], now: training.Now) -> Any:
    (batch,) = batches
    label_key, model_key = jax.random.split(now.key)
    shift = jax.random.randint(label_key, batch.y.shape, 1, problem.num_classes, batch.y.dtype)
    wrong = (batch.y + shift) % problem.num_classes
    labels = jnp.where(batch.is_forget, wrong, batch.y)
    return (training.Term(training.nll(problem, params, batch._replace(y=labels), model_key)),)
