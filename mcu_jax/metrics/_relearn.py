"""The relearning attack."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from mcu_jax import optimizers, sources, training
from mcu_jax.base import Params, Problem, RandomKey
from mcu_jax.metrics._evaluate import scores


@functools.partial(jax.jit, static_argnames=("batch_size",))
def relearn_steps(
    problem: Problem,
    params: Params,
    key: RandomKey,
    *,
    lr: float | Float[Any, ""] = 0.01,
    momentum: Any = 0.9,
    batch_size: int = 128,
    limit: int | Int[Any, ""] = 100,
) -> Int[Array, ""]:
    """Relearning attack: steps of SGD on D_f until its loss is back at θ_o's; at most `limit`. Best: retrain's.

    The mean loss on D_f, evaluated after every step; 0 for a model that never lost it. Golatkar et al. 2020, arXiv
    1911.04933.
    """
    chain = optimizers.sgd(lr, momentum=momentum)
    size = min(batch_size, len(problem.forget))
    forget = jnp.asarray(problem.forget)

    def loss(params: Params) -> Float[Array, ""]:
        stats = training.evaluation_stats(problem, params)
        return jnp.mean(scores(problem, params, forget, stats).loss)

    def step(state: tuple) -> tuple:
        params, opt_state, count, _ = state
        row_key, nll_key = jax.random.split(jax.random.fold_in(key, count))
        rows = jax.random.choice(row_key, forget, (size,), replace=False)
        batch = sources.take(problem.data, rows)
        grads = jax.grad(lambda p: jnp.mean(training.nll(problem, p, batch, nll_key)))(params)
        updates, opt_state = chain.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return params, opt_state, count + 1, loss(params)

    target = loss(problem.params)
    start = (params, chain.init(params), jnp.zeros((), jnp.int32), loss(params))
    return jax.lax.while_loop(lambda s: (s[3] > target) & (s[2] < limit), step, start)[2]
