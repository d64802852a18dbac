"""What most methods are made of."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from mcu_jax import optimizers, outputs, sources
from mcu_jax.base import Augment, Batch, Mask, Model, Params, Problem, RandomKey, Rows, Stats
from mcu_jax.training._descent import Objective, Term, Training, fit
from mcu_jax.training._evaluation import evaluation_stats
from mcu_jax.training._loop import Now, Stream, steps_per_epoch


def train(
    model: Model,
    data: Any,
    key: RandomKey,
    *,
    rows: Rows | None = None,
    augment: Augment | None = None,
    frozen: Params | None = None,
    epochs: int = 20,
    lr: Any = 0.05,
    momentum: Any = 0.9,
    weight_decay: Any = 5e-4,
    batch_size: int = 128,
) -> Params:
    """Trains a fresh model: an original, or a retrained one. SGD, L2 weight decay, lr falling to 0 along half a cosine.

    data: a `Batch` or a source; rows: which of its examples, all by default. lr: a number, or an optax schedule in the
    cosine's place. Raises NonFiniteLossError.
    """
    chosen = jnp.arange(sources.length(data)) if rows is None else rows
    init_key, fit_key = jax.random.split(key)
    schedule = lr if callable(lr) else optimizers.cosine(lr, epochs * steps_per_epoch(len(chosen), batch_size))
    return fit(
        Objective(Partial(_nll_of(model, augment), frozen), (Stream(chosen),)),
        outputs.init(model, init_key, data, chosen),
        data,
        fit_key,
        optimizer=optimizers.make(optimizers.sgd, schedule, momentum, weight_decay),
        epochs=epochs,
        batch_size=batch_size,
    ).state


@functools.cache
def _nll_of(model: Model, augment: Augment | None) -> Callable:
    """Before there is a problem: the terms of `train`; cached, so that the compiler sees one function."""
    nothing = np.zeros(0, np.int32)

    def terms(frozen: Params | None, params: Params, batches: tuple[Batch], now: Now) -> tuple[Term]:
        rows = {"forget": nothing, "retain": nothing, "validation": nothing, "test": nothing}
        problem = Problem(model=model, params={}, data={}, num_classes=0, augment=augment, frozen=frozen, **rows)
        return (Term(nll(problem, params, batches[0], now.key)),)

    return terms


def unlearn(
    problem: Problem, objective: Objective, key: RandomKey, settings: Training, *, mask: Mask | None = None
) -> Params:
    """Minimises an objective from θ_o: what a gradient-based method does. mask: what may move."""
    return fit(
        objective,
        problem.params,
        problem.data,
        key,
        optimizer=settings.make_optimizer(),
        curriculum=settings.make_curriculum(),
        epochs=settings.epochs,
        steps=settings.steps,
        batch_size=settings.batch_size,
        mask=mask,
    ).state


def forget(problem: Problem) -> Stream:
    """D_f as a stream."""
    return Stream(problem.forget)


def retain(problem: Problem) -> Stream:
    """D_r as a stream."""
    return Stream(problem.retain)


def mix(forget: Rows, retain: Rows) -> Stream:
    """Forget and retain examples in one stream; beside every example whether it is to be forgotten, bool [n]."""
    rows = jnp.concatenate([jnp.asarray(forget), jnp.asarray(retain)])
    return Stream(rows, jnp.arange(len(rows)) < len(forget))


def nll(problem: Problem, params: Params, batch: Batch, key: RandomKey, *, total: bool = False) -> Float[Array, "n"]:
    """−log p(label) of the examples of an augmented batch in training mode, nats; total: see `outputs.nll`."""
    return outputs.nll(logits(problem, params, batch, key), outputs.labels(batch), total=total)


def logits(problem: Problem, params: Params, batch: Batch, key: RandomKey) -> Float[Array, "n *positions classes"]:
    """Logits of an augmented batch in training mode."""
    batch, model_key = augmented(problem, batch, key)
    return outputs.forward(problem, params, batch, None, model_key)[0]


def augmented(problem: Problem, batch: Batch, key: RandomKey) -> tuple[Batch, RandomKey]:
    """(the batch as it is trained on, a key for the model)."""
    augment_key, model_key = jax.random.split(key)
    if problem.augment is None:
        return batch, model_key
    return outputs.with_inputs(batch, problem.augment(outputs.inputs(batch), augment_key)), model_key


class Teacher(NamedTuple):
    """A frozen model with the statistics to evaluate it with."""

    params: Params
    stats: Stats


def with_teacher(
    problem: Problem, params: Params, teacher: Teacher, batch: Batch, key: RandomKey
) -> tuple[Float[Array, "n *positions classes"], Float[Array, "n *positions classes"]]:
    """(student's logits in training mode, teacher's in evaluation mode) of one augmented batch."""
    batch, model_key = augmented(problem, batch, key)
    taught = outputs.forward(problem, teacher.params, batch, teacher.stats)[0]
    return outputs.forward(problem, params, batch, None, model_key)[0], jax.lax.stop_gradient(taught)


def original(problem: Problem) -> Teacher:
    """θ_o as a teacher."""
    return Teacher(problem.params, evaluation_stats(problem, problem.params))
