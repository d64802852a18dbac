"""Metrics that are accuracies, and the average gap to the retrained model."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from mcu_jax import losses
from mcu_jax.base import Outputs, Predictions


def accuracy(outputs: Outputs) -> Float[Array, ""]:
    """Share of examples whose largest logit is the label's."""
    share = jnp.mean(losses.correct(outputs.logits, outputs.labels).astype(jnp.float32))
    return jnp.clip(share, 0, 1)  # compiled, a mean of ones may round to more than 1


def ua(predictions: Predictions) -> Float[Array, ""]:
    """Unlearning accuracy, 1 − accuracy on D_f. Best: equal to the retrained model's."""
    return 1 - accuracy(predictions.forget)


def ua_test(predictions: Predictions) -> Float[Array, ""]:
    """Class-wise only: 1 − accuracy on the forgotten class's test examples. Best: equal to the retrained model's.

    Raises ValueError where no class is forgotten.
    """
    if predictions.forget_test is None:
        raise ValueError("UA on test examples needs a forgotten class; this problem forgets a random set")
    return 1 - accuracy(predictions.forget_test)


def ra(predictions: Predictions) -> Float[Array, ""]:
    """Retain accuracy, on D_r. Best: equal to the retrained model's."""
    return accuracy(predictions.retain)


def ta(predictions: Predictions) -> Float[Array, ""]:
    """Test accuracy, on D_t (without the forgotten class). Best: equal to the retrained model's."""
    return accuracy(predictions.test)


def avg_gap(metrics: Mapping[str, float], retrained: Mapping[str, float]) -> float:
    """Mean over UA, RA, TA, MIA of |value − the retrained model's value|. Best: 0."""
    return sum(abs(metrics[name] - retrained[name]) for name in ("UA", "RA", "TA", "MIA")) / 4
