from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from mcu_jax import outputs, training
from mcu_jax.base import Model, Params, Problem, RandomKey, UserError


def boundary_expand(
    problem: Problem, key: RandomKey, *, train: training.Training = training.Training(lr=1e-5)
) -> Params:
    """Boundary expand: D_f is taught to a class of its own, then dropped (Chen et al. 2023, arXiv 2303.11570).

    In sequences every position that counts has the added class as its label. Raises UserError for a model without
    `features`, or without a `head` that is a dense layer of `kernel` and `bias`, and for one over frozen weights.
    """
    if problem.frozen is not None:
        raise UserError(
            f"boundary_expand trains a model with its output layer as a whole; {problem.model.name} has frozen "
            "weights. Choose another method"
        )
    init_key, fit_key = jax.random.split(key)
    kernel = _head(problem.model, problem.params)["kernel"]
    column = jax.random.normal(init_key, kernel.shape[:1]) / jnp.sqrt(kernel.shape[0])
    widened = (problem.params, {"kernel": column, "bias": jnp.zeros(())})
    objective = training.Objective(Partial(_terms, problem), (training.forget(problem),))
    return training.unlearn(dataclasses.replace(problem, params=widened), objective, fit_key, train)[0]


def _terms(problem: Problem, widened: tuple[Params, Params], batches: tuple, now: training.Now) -> Any:
    (forget,) = batches
    params, added = widened
    augmented, _ = training.augmented(problem, forget, now.key)
    hidden = problem.model.features(params, outputs.inputs(augmented))  # type: ignore[misc]
    head = _head(problem.model, params)
    kernel = jnp.concatenate([head["kernel"], added["kernel"][:, None]], 1)
    bias = jnp.expand_dims(jnp.append(head["bias"], added["bias"]), range(hidden.ndim - 1))
    labels = outputs.labels(forget)
    added_labels = jnp.where(labels >= 0, problem.num_classes, labels)
    return (training.Term(outputs.nll(hidden @ kernel + bias, added_labels)),)


def _head(model: Model, params: Params) -> Params:
    if model.features is None or model.head is None:
        raise UserError(
            f"boundary_expand widens the output layer, but {model.name} lacks one or both of features and head: "
            "give models.adapt both, or choose another method"
        )
    for part in model.head:
        params = params[part] if isinstance(params, Mapping) and part in params else {}
    if not {"kernel", "bias"} <= set(params):
        raise UserError(
            f"boundary_expand widens a dense layer of kernel and bias; {model.name} has none at "
            f"{'/'.join(model.head)!r}. Choose another method"
        )
    return params
