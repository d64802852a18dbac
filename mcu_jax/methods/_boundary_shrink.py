from __future__ import annotations

import functools
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from mcu_jax import models, outputs, sources, training
from mcu_jax.base import Params, Positive, Problem, RandomKey, Search, UserError


def boundary_shrink(
    problem: Problem,
    key: RandomKey,
    *,
    bound: Annotated[float, Positive, Search(0.01, 0.3)] = 0.1,
    train: training.Training = training.Training(lr=1e-5),
) -> Params:
    """Boundary shrink: cross-entropy of D_f to the nearest wrong class (Chen et al. 2023, arXiv 2303.11570).

    The nearest class is the likeliest wrong one after one step of the fast gradient sign method on θ_o. bound: the
    length of that step in every pixel, as a share of the range of pixel values, to which the result is clipped: −1 to 1
    for uint8 images, scaled to floats, else the range of D_f. Raises UserError for inputs that are not one array of
    pixels, as tokens, which have no gradient, and for a model that scales uint8 images otherwise.
    """
    return training.unlearn(problem, objective(problem, key, bound=bound, batch_size=train.batch_size), key, train)


def objective(problem: Problem, key: RandomKey, *, bound: Any, batch_size: int) -> training.Objective:
    del key
    few = jnp.asarray(problem.forget)[:16]
    images = jax.eval_shape(lambda: outputs.inputs(sources.take(problem.data, few)))
    if getattr(images, "dtype", None) == jnp.uint8:
        models.check_floats(problem.model, problem.params, images, problem.frozen)
    nearest = _nearest(problem, training.original(problem), bound, batch_size=batch_size)
    return training.Objective(Partial(_terms, problem), (training.Stream(problem.forget, nearest),))


def _terms(problem: Problem, params: Params, batches: tuple, now: training.Now) -> Any:
    ((batch, nearest),) = batches
    return (training.Term(training.nll(problem, params, outputs.with_labels(batch, nearest), now.key)),)


@functools.partial(jax.jit, static_argnames="batch_size")
def _nearest(problem: Problem, teacher: training.Teacher, bound: Any, *, batch_size: int) -> Any:
    """The nearest wrong class of every forget example, shaped as the labels; padding labels stay."""
    rows, _ = training.in_batches(problem.forget, batch_size)
    low, high = _pixel_range(problem, rows)
    reach = bound * (high - low)

    def nearest(batch_rows: Any) -> Any:
        batch = sources.take(problem.data, batch_rows)
        x, labels = models.as_float(outputs.inputs(batch)), outputs.labels(batch)

        def logits(x: Any) -> Any:
            return outputs.forward(problem, teacher.params, outputs.with_inputs(batch, x), teacher.stats)[0]

        gradient = jax.grad(lambda x: jnp.sum(outputs.nll(logits(x), labels)))(x)
        beyond = jnp.clip(x + reach * jnp.sign(gradient), low, high)
        true = jax.nn.one_hot(labels, problem.num_classes, dtype=bool)
        wrong = jnp.argmax(jnp.where(true, -jnp.inf, logits(beyond)), -1).astype(labels.dtype)
        return jnp.where(labels >= 0, wrong, labels)

    return jnp.concatenate(jax.lax.map(nearest, sources.ahead(problem.data, rows)))[: len(problem.forget)]


def _pixel_range(problem: Problem, rows: Any) -> tuple[Any, Any]:
    given = jax.eval_shape(lambda: outputs.inputs(sources.take(problem.data, rows[0])))
    dtype = getattr(given, "dtype", None)
    if dtype == jnp.uint8:
        return -1.0, 1.0
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise UserError(
            "boundary_shrink perturbs pixels: it needs inputs that are one array of floats or uint8; given "
            f"{jax.tree.map(lambda leaf: str(leaf.dtype), given)}. Choose another method"
        )

    def ends(batch_rows: Any) -> Any:
        x = outputs.inputs(sources.take(problem.data, batch_rows))
        return jnp.min(x), jnp.max(x)

    lows, highs = jax.lax.map(ends, rows)
    return jnp.min(lows), jnp.max(highs)
