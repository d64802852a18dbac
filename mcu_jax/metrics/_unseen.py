"""Whether forgotten examples look like examples that were never seen."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from mcu_jax.base import Evaluation, UserError


def wasserstein(x: Float[Array, "n"], y: Float[Array, "m"]) -> Float[Array, ""]:
    """First Wasserstein distance W₁ of two samples on a line, ∫ |F_x − F_y|, in their unit; 0 for equal ones.

    Traceable. Raises UserError for an empty sample.
    """
    if not len(x) or not len(y):
        raise UserError(f"a distance of distributions needs a sample of either, given {len(x)} and {len(y)} values")
    values, is_x = jnp.concatenate([x, y]), jnp.arange(len(x) + len(y)) < len(x)
    order = jnp.argsort(values)
    values, is_x = values[order], is_x[order]
    below_x, below_y = jnp.cumsum(is_x) / len(x), jnp.cumsum(~is_x) / len(y)
    return jnp.sum(jnp.abs(below_x - below_y)[:-1] * jnp.diff(values))


def unseen_distance(evaluation: Evaluation) -> Float[Array, ""]:
    """W₁ of the confidences p(label) on D_f from those on D_v, which the model has never seen, in [0, 1]. Best: 0.

    Where a class is forgotten no example of D_v is of it: its confidences then belong at 0, and W₁ from there is their
    mean.
    """
    forget = evaluation.forget.confidence
    if evaluation.forget_test is not None:
        return jnp.mean(forget)
    return wasserstein(forget, evaluation.validation.confidence)
