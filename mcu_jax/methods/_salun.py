from __future__ import annotations

import jax
import jax.numpy as jnp

from mcu_jax import masks, training
from mcu_jax.base import Params, Problem, RandomKey
from mcu_jax.methods._random_label import objective


def salun(
    problem: Problem,
    key: RandomKey,
    *,
    keep: float = 0.5,
    epochs: int = 10,
    lr: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    batch_size: int = 128,
    optimizer: str = "sgd",
    curriculum: str = "none",
) -> Params:
    """SalUn: random labels on the `keep` weights of largest |Σ∇L_f| at θ_o only (Fan et al. 2023, arXiv 2310.12508)."""
    stats = training.evaluation_stats(problem)
    saliency = jax.tree.map(jnp.abs, training.gradient(problem, problem.params, problem.forget, stats))
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
        mask=masks.top_weights(saliency, keep),
    )
