"""Per-example formulas, in nats. Everything here acts on the last axis; callers take the mean."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Shaped


def nll(logits: Float[Array, "*n classes"], labels: Int[Array, "*n"]) -> Float[Array, "*n"]:
    """−log p(label). Best value: 0."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def kl(p_logits: Float[Array, "*n classes"], q_logits: Float[Array, "*n classes"]) -> Float[Array, "*n"]:
    """KL(p ‖ q) of the softmaxes; 0 where they agree."""
    log_p, log_q = jax.nn.log_softmax(p_logits), jax.nn.log_softmax(q_logits)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def js(p_logits: Float[Array, "*n classes"], q_logits: Float[Array, "*n classes"]) -> Float[Array, "*n"]:
    """Jensen–Shannon divergence of the softmaxes, in [0, log 2]; symmetric."""
    log_p, log_q = jax.nn.log_softmax(p_logits), jax.nn.log_softmax(q_logits)
    log_m = jnp.logaddexp(log_p, log_q) - jnp.log(2.0).astype(log_p.dtype)
    both = jnp.exp(log_p) * (log_p - log_m) + jnp.exp(log_q) * (log_q - log_m)
    return jnp.maximum(0.5 * jnp.sum(both, axis=-1), 0.0)


def entropy(logits: Float[Array, "*n classes"]) -> Float[Array, "*n"]:
    """Entropy of the softmax, in [0, log classes]."""
    log_p = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def margin(logits: Float[Array, "*n classes"], labels: Int[Array, "*n"]) -> Float[Array, "*n"]:
    """logit of the label − log-sum-exp of the others = log p/(1 − p) (Carlini et al. 2022, arXiv 2112.03570)."""
    hit = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    others = jax.nn.logsumexp(logits, axis=-1, where=~hit)
    return jnp.sum(jnp.where(hit, logits, 0.0), axis=-1) - others


def correct(logits: Float[Array, "*n classes"], labels: Int[Array, "*n"]) -> Bool[Array, "*n"]:
    return jnp.argmax(logits, axis=-1) == labels


def masked_mean(values: Shaped[Array, "n"], mask: Bool[Array, "n"]) -> Float[Array, ""]:
    """Mean where the mask is True; 0 where it is nowhere True."""
    weights = mask.astype(jnp.float32)
    return jnp.sum(values.astype(jnp.float32) * weights) / jnp.maximum(jnp.sum(weights), 1.0)


def superloss(values: Float[Array, "*n"], tau: Any, strength: Any) -> Float[Array, "*n"]:
    """(ℓ − τ)σ + λ(log σ)², σ = exp(−W(½ max(−2/e, (ℓ − τ)/λ))) held constant: the derivative of W at −1/e is infinite.

    strength: λ > 0. In the unit of the losses; may be negative. Castells et al. 2020 (NeurIPS), equations 3 and 5.
    """
    depth, least = (values - tau) / strength, -2 / jnp.e
    # So steep is W at −1/e that rounding would move it by 5e-4 for the examples held there.
    w = jnp.where(depth > least, lambert_w(0.5 * jnp.maximum(least, depth)), -1.0)
    log_sigma = jax.lax.stop_gradient(-w)
    return (values - tau) * jnp.exp(log_sigma) + strength * log_sigma**2


def lambert_w(z: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """The principal branch of w eʷ = z for z ≥ −1/e, by Halley's iteration."""
    root = jnp.sqrt(jnp.maximum(2 * (jnp.e * z + 1), 0.0))
    near = -1 + root - root**2 / 3 + 11 / 72 * root**3
    w = jnp.where(z < 0, near, jnp.log1p(jnp.maximum(z, 0.0)))
    for _ in range(6):
        off = w * jnp.exp(w) - z
        slope = jnp.exp(w) * (w + 1) - (w + 2) * off / (2 * jnp.maximum(w + 1, 1e-3))
        w = jnp.where(root < 1e-3, near, w - off / jnp.where(slope == 0, 1.0, slope))
    return w
