from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from mcu_jax import curricula, losses, optimizers, training
from mcu_jax.base import Model, Params, Problem, RandomKey


def boundary_expand(
    problem: Problem,
    key: RandomKey,
    *,
    epochs: int = 10,
    lr: float = 1e-5,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    batch_size: int = 128,
    optimizer: str = "sgd",
    curriculum: str = "none",
) -> Params:
    """Boundary expand: D_f is taught to a class of its own, then dropped (Chen et al. 2023, arXiv 2303.11570).

    Raises ValueError for a model that does not tell `features` and `head`, a dense layer of `kernel` and `bias`.
    """
    init_key, fit_key = jax.random.split(key)
    kernel = _head(problem.model, problem.params)["kernel"]
    column = jax.random.normal(init_key, kernel.shape[:1]) / jnp.sqrt(kernel.shape[0])
    widened = (problem.params, {"kernel": column, "bias": jnp.zeros(())})
    found = training.fit(
        training.Objective(Partial(_terms, problem), (problem.forget,)),
        widened,
        fit_key,
        optimizer=optimizers.make(optimizer, lr, momentum, weight_decay),
        curriculum=curricula.make(curriculum),
        epochs=epochs,
        batch_size=batch_size,
    )
    return found.state[0]


def _terms(problem: Problem, widened: tuple[Params, Params], batches: tuple, now: training.Now) -> Any:
    (forget,) = batches
    params, own = widened
    hidden = training.features(problem, params, forget.x, now.key)
    head = _head(problem.model, params)
    kernel = jnp.concatenate([head["kernel"], own["kernel"][:, None]], 1)
    logits = hidden @ kernel + jnp.append(head["bias"], own["bias"])[None]
    return (training.Term(losses.nll(logits, jnp.full_like(forget.y, problem.num_classes))),)


def _head(model: Model, params: Params) -> Params:
    if model.features is None or model.head is None:
        raise ValueError(
            f"boundary_expand widens the output layer, but {model.name} tells neither or only one of features and "
            "head: give models.adapt both, or choose another method"
        )
    for part in model.head:
        params = params[part]
    return params
