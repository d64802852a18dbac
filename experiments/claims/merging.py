"""Merging the weights of two models unlearned from one original."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mcu_jax import trees
from mcu_jax.base import Params


def average(a: Params, b: Params) -> Params:
    """The point half-way (Wortsman et al. 2022, arXiv 2203.05482)."""
    return trees.lerp(a, b, 0.5)


def ties(a: Params, b: Params, original: Params, keep: float = 0.2) -> Params:
    """TIES: of each task vector the largest weights, of each weight the sign that weighs more, the mean of those that
    have it (Yadav et al. 2023, arXiv 2306.01708; scale 1). keep: share of each vector that is not set to 0.
    """
    vectors = trees.stack([_trimmed(optax.tree.sub(model, original), keep) for model in (a, b)])

    def merged(vector: Any) -> Any:
        sign = jnp.sign(jnp.sum(vector, axis=0))
        agrees = (jnp.sign(vector) == sign[None]) & (sign[None] != 0)
        return jnp.sum(jnp.where(agrees, vector, 0.0), axis=0) / jnp.maximum(
            jnp.sum(agrees.astype(vector.dtype), axis=0), 1.0
        )

    return optax.tree.add(original, jax.tree.map(merged, vectors))


def _trimmed(vector: Params, keep: float) -> Params:
    sizes = jnp.concatenate([jnp.abs(leaf).ravel() for leaf in jax.tree.leaves(vector)])
    least = jnp.quantile(sizes, 1 - keep)
    return jax.tree.map(lambda leaf: jnp.where(jnp.abs(leaf) >= least, leaf, 0.0), vector)
