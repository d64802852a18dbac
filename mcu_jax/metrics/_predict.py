"""One set of predictions, from which every metric is computed."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from mcu_jax import training
from mcu_jax.base import Outputs, Params, Predictions, Problem, Split, Stats


@functools.partial(jax.jit, static_argnames=("batch_size",))
def predict(
    problem: Problem, params: Params, stats: Stats | None = None, *, batch_size: int | None = None
) -> Predictions:
    """Predictions of `params` on every split of the problem, in evaluation mode and without augmentation.

    stats: BatchNorm statistics; None: refreshed from retain data (`training.refresh`). Evaluated in batches of
    `batch_size`; None: 100 on a CPU, where that fits its cache, else 500. Traceable, so that it can be mapped over t
    or over seeds.
    """
    if stats is None:
        stats = training.refresh(problem, params)

    def of(split: Split) -> Outputs:
        return outputs(problem, params, split, stats, batch_size=batch_size)

    return Predictions(
        forget=of(problem.forget),
        retain=of(problem.retain),
        validation=of(problem.validation),
        test=of(problem.test),
        forget_test=None if problem.forget_test is None else of(problem.forget_test),
    )


def outputs(problem: Problem, params: Params, split: Split, stats: Stats, *, batch_size: int | None = None) -> Outputs:
    """The same of one split, with given statistics."""
    if batch_size is None:
        batch_size = 100 if jax.default_backend() == "cpu" else 500
    batches, _ = training.in_batches(split.x, batch_size)
    logits = jax.lax.map(lambda x: problem.model.apply(params, x, stats)[0], batches)
    return Outputs(logits.reshape(-1, logits.shape[-1])[: split.x.shape[0]], jnp.asarray(split.y))
