"""How alike two models are: what they say, what they see, and where they went."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from mcu_jax import losses, trees
from mcu_jax.base import Outputs, Params, Predictions


def js(predictions: Predictions, reference: Predictions) -> Float[Array, ""]:
    """Mean Jensen–Shannon divergence on D_f from a reference's predictions, nats, ≤ log 2. Best: 0 from retrain's."""
    return jnp.mean(losses.js(predictions.forget.logits, reference.forget.logits))


def zrf(predictions: Predictions, untrained: Predictions) -> Float[Array, ""]:
    """Zero retrain forgetting, 1 − mean JS on D_f to a random network's. Best: equal to the retrained model's.

    Chundawat et al. 2022, arXiv 2205.08210.
    """
    return 1 - js(predictions, untrained)


def disagreement(a: Outputs, b: Outputs) -> Float[Array, ""]:
    """Share of examples on which two models predict different classes. 0: they are alike."""
    return jnp.mean((jnp.argmax(a.logits, -1) != jnp.argmax(b.logits, -1)).astype(jnp.float32))


def cka(x: Float[Array, "n width"], y: Float[Array, "n other"]) -> Float[Array, ""]:
    """Linear centred kernel alignment of two models' features of the same examples, in [0, 1]. 1: alike.

    ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) in Frobenius norms of centred features; 0 where none of a model's vary.
    Kornblith et al. 2019, arXiv 1905.00414.
    """
    x, y = (each - jnp.mean(each, 0, keepdims=True) for each in (x, y))
    scale = jnp.linalg.norm(x.T @ x) * jnp.linalg.norm(y.T @ y)
    return jnp.sum(jnp.square(y.T @ x)) / jnp.where(scale > 0, scale, 1.0)


def task_cosine(a: Params, b: Params, original: Params) -> Float[Array, ""]:
    """Cosine of the task vectors a − θ_o and b − θ_o, in [−1, 1]; 0 where one of them did not move."""
    first, second = trees.sub(a, original), trees.sub(b, original)
    lengths = trees.norm(first) * trees.norm(second)
    return trees.dot(first, second) / jnp.where(lengths > 0, lengths, 1.0)
