"""Scores to numbers. Accuracies and metrics are fractions; `BEST` says which value is best.

Everything is computed from the scores of one un-augmented evaluation (`evaluate`), so that it can be mapped over t.
"""

from mcu_jax.metrics._accuracy import accuracy, avg_gap, ra, ta, ua, ua_test
from mcu_jax.metrics._evaluate import evaluate, logits, over_rows, over_splits, scores
from mcu_jax.metrics._interval import curve_interval, mean_interval
from mcu_jax.metrics._mia import mia
from mcu_jax.metrics._relearn import relearn_steps
from mcu_jax.metrics._similarity import cka, cluster, disagreement, ensemble, js, task_cosine, zrf
from mcu_jax.metrics._unseen import unseen_distance, wasserstein

BEST = {
    "ua": "retrain's",
    "ua_test": "retrain's",
    "ra": "retrain's",
    "ta": "retrain's",
    "mia": "retrain's",
    "avg_gap": "0",
    "js": "0",
    "zrf": "retrain's",
    "relearn_steps": "retrain's",
    "unseen_distance": "0",
    "disagreement": "0",
    "cka": "1",
    "task_cosine": "1",
}
"""Which value of a metric is best; of the last three, of two models' likeness, that of equal ones."""

NAMES = tuple(BEST)

__all__ = [
    "BEST",
    "NAMES",
    "accuracy",
    "avg_gap",
    "cka",
    "cluster",
    "curve_interval",
    "disagreement",
    "ensemble",
    "evaluate",
    "js",
    "logits",
    "mean_interval",
    "mia",
    "over_rows",
    "over_splits",
    "ra",
    "relearn_steps",
    "scores",
    "ta",
    "task_cosine",
    "ua",
    "ua_test",
    "unseen_distance",
    "wasserstein",
    "zrf",
]
