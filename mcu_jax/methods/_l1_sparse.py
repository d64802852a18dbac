from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from mcu_jax import training
from mcu_jax.base import Params, Problem, RandomKey


def l1_sparse(
    problem: Problem,
    key: RandomKey,
    *,
    alpha: float = 5e-4,
    epochs: int = 10,
    lr: float = 0.01,
    momentum: float = 0.9,
    batch_size: int = 128,
) -> Params:
    """ℓ₁-sparse unlearning: min L_r + α_e ‖θ‖₁, α_e falling linearly to 0 (Jia et al. 2023, arXiv 2304.04934)."""
    return training.fit(
        Partial(_loss, problem, alpha),
        problem.params,
        (problem.retain,),
        key,
        optimizer=Partial(training.sgd, lr, momentum),
        epochs=epochs,
        batch_size=batch_size,
    ).state


def _loss(problem: Problem, alpha: Any, params: Params, batches: tuple, now: training.Now) -> Any:
    penalty = sum(jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(params))
    return training.cross_entropy(problem, params, batches[0], now.key) + alpha * (1 - now.progress) * penalty
