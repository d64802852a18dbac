from __future__ import annotations

from typing import Any

from jax.tree_util import Partial

from mcu_jax import training
from mcu_jax.base import Params, Problem, RandomKey


def finetune(
    problem: Problem, key: RandomKey, *, train: training.Training = training.Training(weight_decay=5e-4)
) -> Params:
    """Fine-tuning on D_r: min L_r (Golatkar et al. 2020, arXiv 1911.04933)."""
    return training.unlearn(problem, objective(problem, key), key, train)


def objective(problem: Problem, key: RandomKey) -> training.Objective:
    del key
    return training.Objective(Partial(_terms, problem), (training.retain(problem),))


def _terms(problem: Problem, params: Params, batches: tuple, now: training.Now) -> Any:
    return (training.Term(training.nll(problem, params, batches[0], now.key)),)
