from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp

from mcu_jax import training
from mcu_jax.base import Count, NonNegative, Params, Positive, Problem, RandomKey, Search


def fisher_noise(
    problem: Problem,
    key: RandomKey,
    *,
    alpha: Annotated[float, NonNegative, Search(1e-4, 0.1)] = 1e-3,
    limit: Annotated[float, Positive] = 100.0,
    fisher_batch: Annotated[int, Count] = 64,
) -> Params:
    """Fisher forgetting: θ_o + α min(F_r^(−1/4), limit) · noise, elementwise (Golatkar et al. 2020, arXiv 1911.04933).

    F_r: diagonal Fisher information, the mean of the squared gradients of batches of `fisher_batch` retain examples.
    The noise is standard normal, so that weights of little importance to D_r change most. Closed form.
    """
    stats = training.evaluation_stats(problem, problem.params)
    fisher = training.squared_gradient(problem, problem.params, problem.retain, stats, batch_size=fisher_batch)
    leaves, structure = jax.tree.flatten(problem.params)
    noise = jax.tree.unflatten(
        structure,
        [jax.random.normal(jax.random.fold_in(key, i), leaf.shape, leaf.dtype) for i, leaf in enumerate(leaves)],
    )
    # min(F^(−1/4), limit) without dividing by F = 0.
    return jax.tree.map(
        lambda theta, f, z: theta + alpha * jnp.maximum(f, limit**-4.0) ** -0.25 * z, problem.params, fisher, noise
    )
