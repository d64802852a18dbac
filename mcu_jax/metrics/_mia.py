"""The confidence membership attack."""

from __future__ import annotations

import numpy as np

from mcu_jax.base import Evaluation


def mia(evaluation: Evaluation, *, limit: int = 10_000, seed: int = 0) -> float:
    """Membership attack: share of D_f that an SVC on p(label) calls non-member. Best: equal to the retrained model's.

    SVC(C=3, rbf, gamma=1), trained on members = a sample of D_r and non-members = a sample of D_t, as many of either
    and at most `limit`, drawn by `seed`; confidences to 4 decimals. As in Jia et al. 2023, arXiv 2304.04934. Not
    traceable: fits on the host.
    """
    from sklearn.svm import SVC

    rng = np.random.default_rng(seed)
    members, others, forget = (
        np.asarray(scores.confidence, np.float64) for scores in (evaluation.retain, evaluation.test, evaluation.forget)
    )
    count = min(limit, len(members), len(others))
    x = np.concatenate([rng.choice(members, count, replace=False), rng.choice(others, count, replace=False)])
    # Most confidences are close to 1: equal ones, to 4 decimals, are one point with a weight, which is the same SVC.
    points, weights = np.unique(np.stack([x.round(4), np.repeat([1, 0], count)], 1), axis=0, return_counts=True)
    attack = SVC(C=3, kernel="rbf", gamma=1).fit(points[:, :1], points[:, 1].astype(int), sample_weight=weights)
    return float(np.mean(attack.predict(forget[:, None]) == 0))
