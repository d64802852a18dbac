from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from mcu_jax import losses, models, training
from mcu_jax.base import Params, Problem, RandomKey, Split


def boundary_shrink(
    problem: Problem,
    key: RandomKey,
    *,
    bound: float = 0.1,
    epochs: int = 10,
    lr: float = 1e-5,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    batch_size: int = 128,
    optimizer: str = "sgd",
    curriculum: str = "none",
) -> Params:
    """Boundary shrink: cross-entropy of D_f to the nearest wrong class (Chen et al. 2023, arXiv 2303.11570).

    The nearest class is the likeliest wrong one after one step of the fast gradient sign method on θ_o; bound: the
    length of that step in every pixel, as a share of the range of pixel values. uint8 images are given to the model as
    floats from −1 to 1, as the models here scale them.
    """
    return training.unlearn(
        problem,
        objective(problem, key, bound=bound, batch_size=batch_size),
        key,
        epochs=epochs,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        batch_size=batch_size,
        optimizer=optimizer,
        curriculum=curriculum,
    )


def objective(problem: Problem, key: RandomKey, *, bound: Any, batch_size: int) -> training.Objective:
    del key
    nearest = _nearest(problem, training.original(problem), bound, batch_size=batch_size)
    return training.Objective(Partial(_terms, problem), (Split(problem.forget.x, nearest),))


def _terms(problem: Problem, params: Params, batches: tuple, now: training.Now) -> Any:
    return (training.Term(training.nll(problem, params, batches[0], now.key)),)


@functools.partial(jax.jit, static_argnames="batch_size")
def _nearest(problem: Problem, teacher: training.Teacher, bound: Any, *, batch_size: int) -> Any:
    """The nearest wrong class of every forget example, [n]."""
    x = jnp.asarray(problem.forget.x)
    reach = bound * (2.0 if x.dtype == jnp.uint8 else jnp.max(x) - jnp.min(x))

    def loss(x: Any, y: Any) -> Any:
        return jnp.sum(losses.nll(problem.model.apply(teacher.params, x, teacher.stats)[0], y))

    def nearest(batch: Split) -> Any:
        x = models.as_float(batch.x)
        beyond = x + reach * jnp.sign(jax.grad(loss)(x, batch.y))
        logits = problem.model.apply(teacher.params, beyond, teacher.stats)[0]
        true = jax.nn.one_hot(batch.y, problem.num_classes, dtype=bool)
        return jnp.argmax(jnp.where(true, -jnp.inf, logits), -1).astype(batch.y.dtype)

    batches, _ = training.in_batches(Split(x, jnp.asarray(problem.forget.y)), batch_size)
    return jax.lax.map(nearest, batches).reshape(-1)[: x.shape[0]]
