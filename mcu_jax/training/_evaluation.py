"""What is computed over many examples in evaluation mode: BatchNorm statistics and gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from mcu_jax import outputs, sharding, sources
from mcu_jax.base import Batch, Params, Problem, Rows, Stats, UserError


def in_batches(rows: Rows, batch_size: int) -> tuple[Int[Array, "batches size"], Float[Array, "batches size"]]:
    """Indices [n] as batches, and weights: 1, or 0 where the last batch was filled up. Raises UserError for none."""
    if not len(rows):
        raise UserError("there is no example to evaluate: the set is empty")
    n = len(rows)
    batches = -(-n // batch_size)
    size = -(-n // batches)
    filled = jnp.arange(batches * size)
    return jnp.asarray(rows)[filled % n].reshape(batches, size), (filled < n).astype(jnp.float32).reshape(batches, size)


@functools.partial(jax.jit, static_argnames=("batch_size", "limit"))
def refresh(problem: Problem, params: Params, *, batch_size: int = 500, limit: int = 5000) -> Stats:
    """BatchNorm statistics of `params` from retain data: one pass in training mode, moments pooled over the batches.

    pooled variance = mean of the batch variances + variance of the batch means, so drifting batches count in full.
    limit: at most that many retain examples, drawn once for all calls; never a forget example. With 2,000 of 4,500
    accuracies of a PreResNet-20 are off by up to 0.8 points: experiments/benchmarks/refresh_part.py. An empty tree for
    a model without such layers.
    """
    n = len(problem.retain)
    size = min(batch_size, n, limit, sources.largest_batch(problem.data))
    # Whole batches only: an example counted twice would weigh twice.
    count = min(n, limit) // size * size
    chosen = jax.random.permutation(jax.random.key(0), n)[:count].reshape(-1, size)
    rows = sources.ahead(problem.data, jnp.asarray(problem.retain)[chosen])

    def moments(batch_rows: Array) -> Stats:
        return outputs.forward(problem, params, sharding.share_out(sources.take(problem.data, batch_rows)))[1]

    if not jax.tree.leaves(jax.eval_shape(moments, rows[0])):
        return {}
    return pool(jax.lax.map(moments, rows))


@jax.jit
def evaluation_stats(problem: Problem, params: Params) -> Stats:
    """BatchNorm statistics to evaluate with: those the problem brought if `params` are θ_o, else of retain data."""
    if problem.stats is None:
        return refresh(problem, params)
    same = [jnp.all(x == y) for x, y in zip(jax.tree.leaves(params), jax.tree.leaves(problem.params), strict=True)]
    return jax.lax.cond(jnp.all(jnp.stack(same)), lambda: problem.stats, lambda: refresh(problem, params))


def pool(stats: Stats) -> Stats:
    """Moments of equal batches, `mean` and `var` leaves [batches, …], to the moments of all their examples."""
    if not isinstance(stats, dict):
        raise UserError(f"statistics are nested dicts of 'mean' and 'var', batch moments; given {type(stats).__name__}")
    if set(stats) == {"mean", "var"}:
        return {
            "mean": jnp.mean(stats["mean"], 0),
            "var": jnp.mean(stats["var"], 0) + jnp.var(stats["mean"], 0),
        }
    return {name: pool(child) for name, child in stats.items()}


def gradient(problem: Problem, params: Params, rows: Rows, stats: Stats, *, batch_size: int = 128) -> Params:
    """Σ over batches of these examples of the gradient of the batch's mean cross-entropy, in evaluation mode."""
    return _over_batches(problem, params, rows, stats, batch_size, _same)


def mean_gradient(problem: Problem, params: Params, rows: Rows, stats: Stats, *, batch_size: int = 128) -> Params:
    """Gradient of the mean cross-entropy of these examples, in evaluation mode."""
    return _over_batches(problem, params, rows, stats, batch_size, _portion)


def squared_gradient(problem: Problem, params: Params, rows: Rows, stats: Stats, *, batch_size: int = 128) -> Params:
    """Mean over batches of these examples of the squared batch gradient, in evaluation mode: a diagonal Fisher."""
    total = _over_batches(problem, params, rows, stats, batch_size, _square)
    return optax.tree.scale(1 / -(-len(rows) // batch_size), total)


def _same(grads: Array, share: Array) -> Array:
    del share
    return grads


def _portion(grads: Array, share: Array) -> Array:
    return share * grads


def _square(grads: Array, share: Array) -> Array:
    del share
    return jnp.square(grads)


@functools.partial(jax.jit, static_argnames=("batch_size", "transform"))
def _over_batches(
    problem: Problem,
    params: Params,
    rows: Rows,
    stats: Stats,
    batch_size: int,
    transform: Callable[[Array, Array], Array],
) -> Params:
    """Sum over the batches of transform(gradient, the batch's share of the examples)."""

    def loss(params: Params, batch: Batch, weights: Array) -> Array:
        nll = outputs.nll(outputs.forward(problem, params, batch, stats)[0], outputs.labels(batch))
        return jnp.sum(nll * weights) / jnp.sum(weights)

    def add(total: Params, chosen: tuple[Array, Array]) -> tuple[Params, None]:
        batch_rows, weights = chosen
        batch, weights = sharding.share_out((sources.take(problem.data, batch_rows), weights))
        grads = jax.grad(loss)(params, batch, weights)
        share = jnp.sum(weights) / len(rows)
        return optax.tree.add(total, jax.tree.map(lambda g: transform(g, share), grads)), None

    batches, weights = in_batches(rows, batch_size)
    return jax.lax.scan(add, optax.tree.zeros_like(params), (sources.ahead(problem.data, batches), weights))[0]
