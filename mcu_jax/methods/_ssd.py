from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp

from mcu_jax import training
from mcu_jax.base import Count, NonNegative, Params, Problem, RandomKey, Search


def ssd(
    problem: Problem,
    key: RandomKey,
    *,
    alpha: Annotated[float, NonNegative, Search(1.0, 50.0)] = 10.0,
    dampening: Annotated[float, NonNegative, Search(0.1, 1.0)] = 1.0,
    fisher_batch: Annotated[int, Count] = 64,
) -> Params:
    """Selective synaptic dampening (Foster et al. 2023, arXiv 2308.07707). Closed form; the key is not used.

    Where the diagonal Fisher information has F_f > α F_D: θ ← θ · min(λ F_D / F_f, 1), λ = `dampening`,
    F = mean of the squared gradients of batches of `fisher_batch`.
    """
    del key
    stats = training.evaluation_stats(problem, problem.params)
    every = jnp.concatenate([jnp.asarray(problem.forget), jnp.asarray(problem.retain)])
    fisher_forget, fisher_all = (
        training.squared_gradient(problem, problem.params, rows, stats, batch_size=fisher_batch)
        for rows in (problem.forget, every)
    )

    def leaf(theta: jax.Array, forget: jax.Array, whole: jax.Array) -> jax.Array:
        damped = theta * jnp.minimum(dampening * whole / jnp.where(forget > 0, forget, 1.0), 1.0)
        return jnp.where(forget > alpha * whole, damped, theta)

    return jax.tree.map(leaf, problem.params, fisher_forget, fisher_all)
