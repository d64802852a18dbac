from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from mcu_jax import outputs, sources, training
from mcu_jax.base import Batch, Count, NonNegative, Params, Positive, Problem, RandomKey, Search


def influence(
    problem: Problem,
    key: RandomKey,
    *,
    alpha: Annotated[float, NonNegative, Search(0.01, 2.0)] = 1.0,
    damping: Annotated[float, Positive] = 0.001,
    samples: Annotated[int, Count] = 1000,
) -> Params:
    """Influence unlearning: θ_o + α F⁻¹ v, v = (|D_f| / N)(g_f − g_r) (Jia et al. 2023, arXiv 2304.04934).

    F: the empirical Fisher information of `samples` retain examples, λ = `damping` (WoodFisher: Singh & Alistarh 2020,
    arXiv 2004.14340), inverted by the Woodbury identity: F⁻¹v = (1/λ)(v − Gᵀ(λnI + GGᵀ)⁻¹Gv), G their gradients [n, P],
    which must fit in memory. g: mean gradients in evaluation mode. Closed form.
    """
    stats = training.evaluation_stats(problem, problem.params)
    forget, retain = (
        training.mean_gradient(problem, problem.params, rows, stats) for rows in (problem.forget, problem.retain)
    )
    share = len(problem.forget) / (len(problem.forget) + len(problem.retain))
    v, unravel = ravel_pytree(jax.tree.map(lambda f, r: share * (f - r), forget, retain))
    count = min(samples, len(problem.retain))
    chosen = jnp.asarray(problem.retain)[jax.random.permutation(key, len(problem.retain))[:count]]
    step = _solve(problem, stats, chosen, v, damping)
    return jax.tree.map(lambda theta, d: theta + alpha * d, problem.params, unravel(step))


@jax.jit
def _solve(problem: Problem, stats: Any, chosen: Array, v: Float[Array, "P"], damping: Any) -> Float[Array, "P"]:
    def loss(params: Params, batch: Batch) -> Array:
        return jnp.sum(outputs.nll(outputs.forward(problem, params, batch, stats)[0], outputs.labels(batch)))

    def gradient(row: Array) -> Float[Array, "P"]:
        return ravel_pytree(jax.grad(loss)(problem.params, sources.take(problem.data, row[None])))[0]

    grads = jax.lax.map(gradient, chosen)
    n = grads.shape[0]
    inner = jnp.linalg.solve(grads @ grads.T + damping * n * jnp.eye(n), grads @ v)
    return (v - grads.T @ inner) / damping
