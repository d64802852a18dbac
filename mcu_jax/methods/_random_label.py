from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from mcu_jax import outputs, training
from mcu_jax.base import Params, Problem, RandomKey


def random_label(problem: Problem, key: RandomKey, *, train: training.Training = training.Training()) -> Params:
    """Random labels: cross-entropy on D_r and on D_f relabelled, uniformly over the wrong labels and anew each time.

    Golatkar et al. 2020, arXiv 1911.04933.
    """
    return training.unlearn(problem, objective(problem, key), key, train)


def objective(problem: Problem, key: RandomKey) -> training.Objective:
    del key
    return training.Objective(Partial(_terms, problem), (training.mix(problem.forget, problem.retain),))


def _terms(problem: Problem, params: Params, batches: tuple, now: training.Now) -> Any:
    ((batch, is_forget),) = batches
    label_key, model_key = jax.random.split(now.key)
    labels = outputs.labels(batch)
    shift = jax.random.randint(label_key, labels.shape, 1, problem.num_classes, labels.dtype)
    replaced = is_forget.reshape(-1, *[1] * (labels.ndim - 1)) & (labels >= 0)
    labels = jnp.where(replaced, (labels + shift) % problem.num_classes, labels)
    return (training.Term(training.nll(problem, params, outputs.with_labels(batch, labels), model_key)),)
