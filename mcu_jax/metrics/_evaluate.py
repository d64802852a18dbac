"""One evaluation, from which every metric is computed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mcu_jax import outputs, sharding, sources, training, trees
from mcu_jax.base import Batch, Evaluation, Params, Problem, Rows, Scores, Stats


def evaluate(
    problem: Problem,
    params: Params,
    stats: Stats | None = None,
    *,
    references: Mapping[str, Float[Array, "n *positions classes"]] | None = None,
    batch_size: int | None = None,
) -> Evaluation:
    """Scores of `params` on every split of the problem, in evaluation mode and without augmentation.

    stats: BatchNorm statistics; None: those the problem brought where `params` are θ_o, else refreshed from retain data
    (`training.evaluation_stats`). references: `logits` on D_f of models to compare predictions with. Evaluated, and
    reduced to scores, in batches of `batch_size`; None: 100 on a CPU, where that fits its cache, else 500, and never
    more than the budget of a source on the host holds. Traceable,
    so that it can be mapped over t or over seeds. Raises UserError, with concrete values, for rows that are not of the
    data.
    """
    if not trees.is_traced(problem, params):
        splits = {name: getattr(problem, name) for name in ("forget", "retain", "validation", "test", "forget_test")}
        outputs.check_rows(problem.data, {name: rows for name, rows in splits.items() if rows is not None})
    return _evaluate(problem, params, stats, references, batch_size=batch_size)


@functools.partial(jax.jit, static_argnames=("batch_size",))
def _evaluate(
    problem: Problem,
    params: Params,
    stats: Stats | None,
    references: Mapping[str, Float[Array, "n *positions classes"]] | None,
    *,
    batch_size: int | None,
) -> Evaluation:
    if stats is None:
        stats = training.evaluation_stats(problem, params)

    def forward(batch: Batch) -> Array:
        return outputs.forward(problem, params, batch, stats)[0]

    return over_splits(problem, forward, references=references, batch_size=batch_size)


def over_splits(
    problem: Problem,
    forward: Callable[[Batch], Float[Array, "*many n *positions classes"]],
    *,
    many: int = 0,
    references: Mapping[str, Array] | None = None,
    batch_size: int | None = None,
) -> Evaluation:
    """An evaluation by a function of a batch, each read once. many: leading axes of its logits, as one of t."""
    size = batch_size or _default_size(problem)
    score, diverge = outputs.scores, outputs.js
    for _ in range(many):
        score, diverge = jax.vmap(score, (0, None)), jax.vmap(diverge, (0, None, None))

    def scores(rows: Rows) -> Scores:
        def one(batch: Batch, chosen: Array) -> Scores:
            del chosen
            return score(forward(batch), outputs.labels(batch))

        return _collect(one, problem.data, rows, size, many)

    def forget(batch: Batch, chosen: Array) -> tuple[Scores, dict[str, Array]]:
        logits, labels = forward(batch), outputs.labels(batch)
        js = {name: diverge(logits, given[chosen], labels) for name, given in (references or {}).items()}
        return score(logits, labels), js

    forget_scores, js = _collect(forget, problem.data, problem.forget, size, many)
    return Evaluation(
        forget=forget_scores,
        retain=scores(problem.retain),
        validation=scores(problem.validation),
        test=scores(problem.test),
        forget_test=None if problem.forget_test is None else scores(problem.forget_test),
        js=js,
    )


def scores(problem: Problem, params: Params, rows: Rows, stats: Stats, *, batch_size: int | None = None) -> Scores:
    """The scores of these examples, with given statistics."""
    return over_rows(outputs.scores, problem, params, rows, stats, batch_size=batch_size)


def over_rows(
    function: Callable[[Array, Array], Any],
    problem: Problem,
    params: Params,
    rows: Rows,
    stats: Stats,
    *,
    batch_size: int | None = None,
) -> Any:
    """function(logits, labels), leaves [n, …], of these examples, batch by batch, with given statistics."""

    def one(batch: Batch, chosen: Array) -> Any:
        del chosen
        return function(outputs.forward(problem, params, batch, stats)[0], outputs.labels(batch))

    return _collect(one, problem.data, rows, batch_size or _default_size(problem))


@functools.partial(jax.jit, static_argnames=("batch_size",))
def logits(
    problem: Problem, params: Params, rows: Rows, *, batch_size: int | None = None
) -> Float[Array, "n *positions classes"]:
    """Whole outputs for these examples: a reference to compare with. They take memory by the class."""
    stats = training.evaluation_stats(problem, params)

    def whole(logits: Array, labels: Array) -> Array:
        del labels
        return logits

    return over_rows(whole, problem, params, rows, stats, batch_size=batch_size)


def _default_size(problem: Problem) -> int:
    return min(100 if jax.default_backend() == "cpu" else 500, sources.largest_batch(problem.data))


def _collect(function: Callable[[Batch, Array], Any], data: Any, rows: Rows, batch_size: int, many: int = 0) -> Any:
    """function(batch, which of the rows it is), leaves [*many, size, …], of all rows: [*many, n, …]."""
    chosen, _ = training.in_batches(jnp.arange(len(rows)), batch_size)
    batches = sources.ahead(data, jnp.asarray(rows)[chosen])

    def one(numbers: tuple[Array, Array]) -> Any:
        return function(sharding.share_out(sources.take(data, numbers[0])), numbers[1])

    def leaf(values: Array) -> Array:
        values = jnp.moveaxis(values, 0, many)
        lead, rest = values.shape[:many], values.shape[many + 2 :]
        return jax.lax.slice_in_dim(values.reshape(*lead, -1, *rest), 0, len(rows), axis=many)

    return jax.tree.map(leaf, jax.lax.map(one, (batches, chosen)))
