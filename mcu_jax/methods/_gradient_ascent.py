from __future__ import annotations

from typing import Any

from jax.tree_util import Partial

from mcu_jax import training
from mcu_jax.base import Params, Problem, RandomKey


def gradient_ascent(
    problem: Problem, key: RandomKey, *, train: training.Training = training.Training(epochs=5, lr=1e-4)
) -> Params:
    """Gradient ascent on D_f: min −L_f, stopped early for want of a minimum (Thudi et al. 2021, arXiv 2109.13398)."""
    return training.unlearn(problem, objective(problem, key), key, train)


def objective(problem: Problem, key: RandomKey) -> training.Objective:
    del key
    return training.Objective(Partial(_terms, problem), (training.forget(problem),))


def _terms(problem: Problem, params: Params, batches: tuple, now: training.Now) -> Any:
    return (training.Term(training.nll(problem, params, batches[0], now.key), -1.0),)
