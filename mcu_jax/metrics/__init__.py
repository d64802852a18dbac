"""Predictions to numbers. Accuracies and metrics are fractions; `BEST` says which value is best.

Everything is computed from one set of un-augmented predictions (`predict`), so that it can be mapped over t.
"""

from mcu_jax.metrics._accuracy import BEST, accuracy, avg_gap, ra, ta, ua, ua_test
from mcu_jax.metrics._mia import mia
from mcu_jax.metrics._predict import predict
from mcu_jax.metrics._similarity import cka, disagreement, js, task_cosine, zrf

NAMES = ("ua", "ua_test", "ra", "ta", "mia", "avg_gap")

__all__ = [
    "BEST",
    "NAMES",
    "accuracy",
    "avg_gap",
    "cka",
    "disagreement",
    "js",
    "mia",
    "predict",
    "ra",
    "ta",
    "task_cosine",
    "ua",
    "ua_test",
    "zrf",
]
