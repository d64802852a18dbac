"""One set of predictions, from which every metric is computed."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from mcu_jax import training
from mcu_jax.base import Outputs, Params, Predictions, Problem, Split, Stats


@functools.partial(jax.jit, static_argnames=("batch_size",))
def predict(problem: Problem, params: Params, stats: Stats | None = None, *, batch_size: int = 500) -> Predictions:
    """Predictions of `params` on every split of the problem, in evaluation mode and without augmentation.

    stats: BatchNorm statistics; None: refreshed from retain data (`training.refresh`). Evaluated in batches of
    `batch_size`. Traceable, so that it can be mapped over t or over seeds.
    """
    if stats is None:
        stats = training.refresh(problem, params)

    def outputs(split: Split) -> Outputs:
        batches, _ = training.in_batches(split.x, batch_size)
        logits = jax.lax.map(lambda x: problem.model.apply(params, x, stats)[0], batches)
        return Outputs(logits.reshape(-1, logits.shape[-1])[: split.x.shape[0]], jnp.asarray(split.y))

    return Predictions(
        forget=outputs(problem.forget),
        retain=outputs(problem.retain),
        validation=outputs(problem.validation),
        test=outputs(problem.test),
        forget_test=None if problem.forget_test is None else outputs(problem.forget_test),
    )
