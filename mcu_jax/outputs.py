"""What a model's output means for an example: the one place that tells labels from inputs and examples from tokens.

Labels are [n] of classes or [n, T] of tokens, logits [n, classes] or [n, T, classes]; every function gives one number
an example. Of a sequence that is a mean, or a sum, over the positions whose label is not −1. Labels are not shifted
here: logits [n, t] are asked for labels [n, t].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mcu_jax import losses, sharding, sources, text, trees
from mcu_jax.base import Batch, Model, Params, Problem, RandomKey, Scores, Stats, UserError

LABELS = ("y", "labels")
"""The names labels go by in a batch."""


def label_name(batch: Batch) -> str:
    """Raises UserError for a batch with no labels, or with labels by both names."""
    names = [name for name in LABELS if name in batch]
    if len(names) != 1:
        raise UserError(
            f"a batch is a dict of arrays with its labels under one of {' or '.join(map(repr, LABELS))}; "
            f"this one has {', '.join(map(repr, batch)) or 'nothing'}"
        )
    return names[0]


def labels(batch: Batch) -> Int[Array, "n *positions"]:
    return jnp.asarray(batch[label_name(batch)])


def inputs(batch: Batch) -> Any:
    """What the model is given: all but the labels; the array itself if it is one."""
    name = label_name(batch)
    rest = {key: value for key, value in batch.items() if key != name}
    return next(iter(rest.values())) if len(rest) == 1 else rest


def with_labels(batch: Batch, values: Int[Array, "n *positions"]) -> Batch:
    return {**batch, label_name(batch): values}


def with_inputs(batch: Batch, values: Any) -> Batch:
    """The reverse of `inputs`."""
    name = label_name(batch)
    rest = [key for key in batch if key != name]
    return {**({rest[0]: values} if len(rest) == 1 else values), name: batch[name]}


def forward(
    problem: Problem, params: Params, batch: Batch, stats: Stats | None = None, key: RandomKey | None = None
) -> tuple[Float[Array, "n *positions classes"], Stats]:
    """(logits, statistics) of a batch, as `Model.apply` gives them."""
    frozen = {} if problem.frozen is None else {"frozen": problem.frozen}
    return problem.model.apply(params, inputs(batch), stats, key, **frozen)


def init(model: Model, key: RandomKey, data: Any, rows: Any) -> Params:
    """Fresh parameters of a model for these examples."""
    example = inputs(sources.take(data, jnp.asarray(rows)[:1]))
    if sharding.size(sharding.FSDP) == 1:
        return model.init(key, example)
    # Compiled as a whole, so that no device has to hold all of them.
    return jax.jit(lambda key, example: sharding.split(model.init(key, example)))(key, example)


def nll(
    logits: Float[Array, "n *positions classes"], labels: Int[Array, "..."], *, total: bool = False
) -> Float[Array, "n"]:
    """−log p(label) of every example, in nats: a mean over the positions that count, or their sum (`total`)."""
    _check(logits, labels)
    return _reduce(losses.nll(logits, jnp.maximum(labels, 0)), labels, total=total)


def kl(
    p_logits: Float[Array, "n *positions classes"],
    q_logits: Float[Array, "n *positions classes"],
    labels: Int[Array, "..."],
) -> Float[Array, "n"]:
    """KL(p ‖ q) of every example."""
    _check(p_logits, labels)
    return _reduce(losses.kl(p_logits, q_logits), labels)


def js(
    p_logits: Float[Array, "n *positions classes"],
    q_logits: Float[Array, "n *positions classes"],
    labels: Int[Array, "..."],
) -> Float[Array, "n"]:
    """Jensen–Shannon divergence of every example, in [0, log 2]."""
    _check(p_logits, labels)
    return _reduce(losses.js(p_logits, q_logits), labels)


def scores(logits: Float[Array, "n *positions classes"], labels: Int[Array, "..."]) -> Scores:
    loss = nll(logits, labels)
    prediction = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    correct = _reduce((prediction == labels).astype(jnp.float32), labels)
    return Scores(loss, correct, jnp.exp(-loss), prediction)


def _check(logits: Any, labels: Any) -> None:
    if logits.shape[:-1] != labels.shape:
        raise UserError(
            f"logits are [n, classes] for labels [n], or [n, T, classes] for labels [n, T]; given logits "
            f"{list(logits.shape)} for labels {list(labels.shape)}"
        )


def _reduce(values: Float[Array, "n *positions"], labels: Array, *, total: bool = False) -> Float[Array, "n"]:
    counts = (labels >= 0).astype(values.dtype)
    positions = tuple(range(1, values.ndim))
    sums = jnp.sum(values * counts, positions)
    return sums if total or not positions else sums / jnp.maximum(jnp.sum(counts, positions), 1.0)


def check_rows(data: Any, rows: Mapping[str, Any]) -> None:
    """Raises UserError unless data are examples, and rows, by their names, some of them: jax takes others in place.

    Compiles nothing, and costs as much as the least and the largest index; rows of other processes are not looked at.
    """
    n = _length(data)
    for name, indices in rows.items():
        if isinstance(indices, jax.Array) and not indices.is_fully_addressable:
            continue
        indices = np.asarray(indices)
        if not indices.size:
            raise UserError(f"{name} is empty: give the indices of its examples")
        if indices.min() < 0 or indices.max() >= n:
            raise UserError(f"{name} has indices from {indices.min()} to {indices.max()}; the data has {n} examples")


def _length(data: Any) -> int:
    """Raises UserError for what is neither a batch nor a source."""
    leaves = jax.tree.leaves(data)
    is_batch = isinstance(data, Mapping) and leaves and all(hasattr(leaf, "shape") for leaf in leaves)
    if not isinstance(data, sources.Host) and not is_batch:
        given = ", ".join(sorted({type(leaf).__name__ for leaf in leaves})) or "no arrays"
        raise UserError(
            "data is a dict of arrays with a leading axis of examples, or a source; given a "
            f"{type(data).__name__} of {given}"
        )
    return sources.length(data)


def check(problem: Problem, params: Any = None) -> None:
    """Raises UserError, naming the field, unless the problem can be worked on: before any work.

    Looks at lengths, indices, labels, finite numbers, and whether the model runs on two examples with these parameters.
    params: in place of the problem's; their shapes and dtypes will do.
    """
    n = _length(problem.data)
    fields = ("forget", "retain", "validation", "test") + (("forget_test",) if problem.forget_test is not None else ())
    rows = {name: np.asarray(getattr(problem, name)) for name in fields}
    for name, indices in rows.items():
        _check_rows(name, indices, n)
    both = np.intersect1d(rows["forget"], rows["retain"])
    if both.size:
        raise UserError(
            f"forget and retain share {text.plural(both.size, 'example')}, such as {int(both[0])}: "
            "they must be disjoint"
        )
    training = np.concatenate([rows["forget"], rows["retain"]])
    for name in fields[2:]:
        _check_apart(name, rows[name], "the training data", training)
    for name in fields[3:]:
        _check_apart(name, rows[name], "validation", rows["validation"])
    _check_values(problem, np.unique(np.concatenate(list(rows.values()))))
    weights = problem.params if params is None else params
    _check_weights("params", weights)
    _check_weights("frozen", problem.frozen)
    _check_model(problem, weights, rows["retain"][:2])


def _check_apart(name: str, rows: np.ndarray, other: str, others: np.ndarray) -> None:
    both = np.intersect1d(rows, others)
    if both.size:
        shared = text.plural(both.size, "example")
        raise UserError(f"{name} shares {shared} with {other}, such as {int(both[0])}: they must be disjoint")


def _check_weights(what: str, weights: Any) -> None:
    """Of shapes alone there is nothing to say."""
    for name, leaf in zip(trees.names(weights), jax.tree.leaves(weights), strict=True):
        is_real = hasattr(leaf, "__array__") and jnp.issubdtype(leaf.dtype, jnp.inexact)
        if is_real and not np.isfinite(np.asarray(leaf)).all():
            raise UserError(f"{what} holds NaN or infinity in leaf {name!r}: expected finite numbers")


def _check_rows(name: str, indices: np.ndarray, n: int) -> None:
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise UserError(f"{name} is an array of indices [n], given {indices.dtype}{list(indices.shape)}")
    if not indices.size:
        raise UserError(f"{name} is empty: give the indices of its examples")
    if indices.min() < 0 or indices.max() >= n:
        raise UserError(f"{name} has indices from {indices.min()} to {indices.max()}; the data has {n} examples")
    if len(np.unique(indices)) < len(indices):
        repeated = text.plural(len(indices) - len(np.unique(indices)), "index", "indices")
        raise UserError(f"{name} has {repeated} more than once")


def _check_values(problem: Problem, rows: np.ndarray) -> None:
    data = problem.data
    if not isinstance(data, sources.Host):  # images as bytes are always right, and may lie on a disk
        labelled = label_name(data)
        data = {name: leaf for name, leaf in data.items() if name == labelled or not _are_bytes(leaf)}
    size = min(4096, sources.largest_batch(data))
    for start in range(0, len(rows), size):
        batch = sources.read(data, rows[start : start + size])
        given = np.asarray(batch[label_name(batch)])
        if not np.issubdtype(given.dtype, np.integer) or given.min() < -1 or given.max() >= problem.num_classes:
            raise UserError(
                f"labels are integers from 0 to num_classes − 1 = {problem.num_classes - 1}, or −1 where nothing "
                f"counts; given {given.dtype} from {given.min()} to {given.max()}"
            )
        for name, leaf in batch.items():
            for values in jax.tree.leaves(leaf):
                if np.issubdtype(values.dtype, np.inexact) and not np.isfinite(values).all():
                    where = rows[start + int(np.argwhere(~np.isfinite(values))[0][0])]
                    raise UserError(f"{name!r} of example {where} holds NaN or infinity: expected finite numbers")


def _are_bytes(leaf: Any) -> bool:
    return getattr(leaf, "dtype", None) == np.uint8


def _check_model(problem: Problem, params: Any, rows: np.ndarray) -> None:
    batch = sources.read(problem.data, rows)
    try:
        logits, _ = jax.eval_shape(lambda params, batch: forward(problem, params, batch), params, batch)
    except (
        Exception,
        SystemExit,
    ) as error:  # the model is the user's: whatever it raises is told, with what it was given
        shapes = {name: str(jax.tree.map(jnp.shape, value)) for name, value in batch.items()}
        frozen = "" if problem.frozen is None else f", frozen weights {', '.join(trees.names(problem.frozen))}"
        raise UserError(
            f"the model {problem.model.name!r} does not run with these parameters on a batch of {shapes}{frozen}: "
            f"{type(error).__name__}: {error}"
        ) from error
    _check(logits, labels(batch))
    if logits.shape[-1] != problem.num_classes:
        raise UserError(f"the model gives {logits.shape[-1]} classes, num_classes is {problem.num_classes}")
