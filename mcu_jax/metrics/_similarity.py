"""How alike models are: what they say, what they see, where they went, and who belongs together."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
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


def ensemble(predictions: Predictions) -> Predictions:
    """Of models, leaves [models, …], the one that gives the mean of their probabilities."""

    def mean(outputs: Outputs) -> Outputs:
        count = outputs.logits.shape[0]
        log_p = jax.nn.logsumexp(jax.nn.log_softmax(outputs.logits), axis=0) - jnp.log(jnp.asarray(count, jnp.float32))
        return Outputs(log_p, outputs.labels[0])

    return jax.tree.map(mean, predictions, is_leaf=lambda x: isinstance(x, Outputs))


def cluster(distances: Float[np.ndarray, "n n"]) -> tuple[list[int], Float[np.ndarray, "n-1 4"]]:
    """(an order in which neighbours are alike, the merges as scipy's `linkage` tells them), by average linkage.

    distances: symmetric, of n ≥ 2 things, the diagonal ignored. Raises ValueError where they are not finite.
    """
    from scipy.cluster import hierarchy
    from scipy.spatial.distance import squareform

    if not np.isfinite(distances).all():
        raise ValueError("distances to cluster by must be finite")
    own = np.where(np.eye(len(distances), dtype=bool), 0.0, distances)
    merges = hierarchy.linkage(squareform(own, checks=False), method="average", optimal_ordering=True)
    return [int(i) for i in hierarchy.leaves_list(merges)], merges
