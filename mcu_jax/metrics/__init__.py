"""Predictions to numbers. Accuracies and metrics are fractions; `BEST` says which value is best.

Everything is computed from one set of un-augmented predictions (`predict`), so that it can be mapped over t.
"""

from mcu_jax.metrics._accuracy import BEST, accuracy, avg_gap, ra, ta, ua, ua_test
from mcu_jax.metrics._mia import mia
from mcu_jax.metrics._predict import predict

NAMES = ("ua", "ua_test", "ra", "ta", "mia", "avg_gap")

__all__ = ["BEST", "NAMES", "accuracy", "avg_gap", "mia", "predict", "ra", "ta", "ua", "ua_test"]
