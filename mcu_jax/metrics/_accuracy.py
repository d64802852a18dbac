"""Metrics that are accuracies, and the average gap to the retrained model."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from mcu_jax.base import Evaluation, Scores, UserError


def accuracy(scores: Scores) -> Float[Array, ""]:
    """Share of examples, or of the positions of sequences, whose largest logit is the label's."""
    return jnp.clip(jnp.mean(scores.correct), 0, 1)  # compiled, a mean of ones may round to more than 1


def ua(evaluation: Evaluation) -> Float[Array, ""]:
    """Unlearning accuracy, 1 − accuracy on D_f. Best: equal to the retrained model's."""
    return 1 - accuracy(evaluation.forget)


def ua_test(evaluation: Evaluation) -> Float[Array, ""]:
    """Class-wise only: 1 − accuracy on the forgotten class's test examples. Best: equal to the retrained model's.

    Raises UserError where no class is forgotten.
    """
    if evaluation.forget_test is None:
        raise UserError("UA on test examples needs a forgotten class; this problem forgets a random set")
    return 1 - accuracy(evaluation.forget_test)


def ra(evaluation: Evaluation) -> Float[Array, ""]:
    """Retain accuracy, on D_r. Best: equal to the retrained model's."""
    return accuracy(evaluation.retain)


def ta(evaluation: Evaluation) -> Float[Array, ""]:
    """Test accuracy, on D_t (without the forgotten class). Best: equal to the retrained model's."""
    return accuracy(evaluation.test)


def avg_gap(metrics: Mapping[str, float], retrained: Mapping[str, float]) -> float:
    """Mean over UA, RA, TA, MIA of |value − the retrained model's value|. Best: 0."""
    return sum(abs(metrics[name] - retrained[name]) for name in ("UA", "RA", "TA", "MIA")) / 4
