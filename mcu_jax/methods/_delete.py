from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from mcu_jax import outputs, training
from mcu_jax.base import Params, Problem, RandomKey


def delete(problem: Problem, key: RandomKey, *, train: training.Training = training.Training()) -> Params:
    """DELETE: min KL(q ‖ p) on D_f, q the softmax of θ_o's logits without the true class.

    Zhou et al. 2025, arXiv 2503.23751. Needs no retain data.
    """
    return training.unlearn(problem, objective(problem, key), key, train)


def objective(problem: Problem, key: RandomKey) -> training.Objective:
    del key
    return training.Objective(Partial(_terms, problem, training.original(problem)), (training.forget(problem),))


def _terms(problem: Problem, teacher: training.Teacher, params: Params, batches: tuple, now: training.Now) -> Any:
    (forget,) = batches
    student, original = training.with_teacher(problem, params, teacher, forget, now.key)
    labels = outputs.labels(forget)
    true = jax.nn.one_hot(labels, problem.num_classes, dtype=bool)
    # Not −∞: 0 · log 0 would be NaN.
    return (training.Term(outputs.kl(jnp.where(true, -1e9, original), student, labels)),)
