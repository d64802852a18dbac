"""How alike models are: their predictions, their features, their task vectors; clusters of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from mcu_jax.base import Evaluation, Params, Scores, UserError


def js(evaluation: Evaluation, reference: str = "retrained") -> Float[Array, ""]:
    """Mean Jensen–Shannon divergence on D_f from a reference's predictions, nats, ≤ log 2. Best: 0 to retrain's."""
    return jnp.mean(evaluation.js[reference])


def zrf(evaluation: Evaluation, untrained: str = "untrained") -> Float[Array, ""]:
    """Zero retrain forgetting, 1 − mean JS on D_f to a random network's. Best: equal to the retrained model's.

    Chundawat et al. 2022, arXiv 2205.08210.
    """
    return 1 - js(evaluation, untrained)


def disagreement(a: Scores, b: Scores) -> Float[Array, ""]:
    """Share of examples, or of positions, on which two models predict different classes."""
    return jnp.mean((a.prediction != b.prediction).astype(jnp.float32))


def cka(x: Float[Array, "n width"], y: Float[Array, "n other"]) -> Float[Array, ""]:
    """Linear centred kernel alignment of two models' features of the same examples, in [0, 1]; 1 for equal features.

    ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) in Frobenius norms of centred features; 0 where the features of a model are constant.
    Kornblith et al. 2019, arXiv 1905.00414.
    """
    x, y = (features - jnp.mean(features, 0, keepdims=True) for features in (x, y))
    scale = jnp.linalg.norm(x.T @ x) * jnp.linalg.norm(y.T @ y)
    return jnp.sum(jnp.square(y.T @ x)) / jnp.where(scale > 0, scale, 1.0)


def task_cosine(a: Params, b: Params, original: Params) -> Float[Array, ""]:
    """Cosine of the task vectors a − θ_o and b − θ_o, in [−1, 1]; 0 where one of them did not move."""
    first, second = optax.tree.sub(a, original), optax.tree.sub(b, original)
    lengths = optax.tree.norm(first) * optax.tree.norm(second)
    return optax.tree.vdot(first, second) / jnp.where(lengths > 0, lengths, 1.0)


def ensemble(members: Float[Array, "models n *positions classes"]) -> Float[Array, "n *positions classes"]:
    """Log-probabilities of the mean of the models' probabilities, from their logits."""
    log_p = jax.nn.log_softmax(members)
    return jax.nn.logsumexp(log_p, axis=0) - jnp.log(jnp.asarray(len(members), log_p.dtype))


def cluster(distances: Float[np.ndarray, "n n"]) -> tuple[list[int], Float[np.ndarray, "n-1 4"]]:
    """(an order in which neighbours are alike, the merges as in scipy's `linkage`), by average linkage.

    distances: symmetric, n ≥ 2; the diagonal is ignored. Raises UserError where they are not finite.
    """
    from scipy.cluster import hierarchy
    from scipy.spatial.distance import squareform

    if not np.isfinite(distances).all():
        raise UserError("distances to cluster by must be finite")
    condensed = squareform(np.where(np.eye(len(distances), dtype=bool), 0.0, distances), checks=False)
    merges = hierarchy.linkage(condensed, method="average", optimal_ordering=True)
    return [int(i) for i in hierarchy.leaves_list(merges)], merges
