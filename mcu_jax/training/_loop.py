"""The one loop. A method calls it; it calls nobody back but the monitor, between compiled segments."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend import core as jax_core
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from mcu_jax import outputs, sharding, sources, trees
from mcu_jax.base import RandomKey, Rows, UserError

SEGMENT_SECONDS = 1.0


class Now(NamedTuple):
    """Where the loop stands. step, steps: of the whole loop. key: fresh at every step.

    updates: how many the optimiser at work has made before; where a loop has several optimisers, its update says.
    """

    step: Int[Array, ""]
    steps: Int[Array, ""]
    key: RandomKey
    updates: Int[Array, ""]

    @property
    def progress(self) -> Float[Array, ""]:
        """Share of the steps done, in [0, 1)."""
        return self.step.astype(jnp.float32) / self.steps.astype(jnp.float32)


class Fit(NamedTuple):
    """What a loop leaves. losses: [steps]. failed: the first step whose loss or update was not finite, else −1.

    notes: [steps] each, the numbers that its updates tell, of those that were asked for.
    """

    state: Any
    losses: Float[Array, "steps"]
    failed: Int[Array, ""]
    notes: Mapping[str, Float[Array, "steps"]]


class Told(NamedTuple):
    """What an update may tell in place of the loss alone. notes: numbers of the step, by name."""

    loss: Float[Array, ""]
    notes: Mapping[str, Float[Any, ""]]


class NonFiniteLossError(FloatingPointError):
    """A loss, or an update made from it, is not finite. `step`: which one."""

    def __init__(self, step: int):
        super().__init__(f"the loss is not finite at step {step}")
        self.step = step


@runtime_checkable
class Monitor(Protocol):
    """Watches the loops of a stage. Set by `monitored`."""

    def start(self, template: Fit, steps: int) -> tuple[Fit, int] | None:
        """A loop begins: where to go on from, if an earlier try left something."""

    def segment(self, state: Fit, step: int, steps: int, loss: np.ndarray) -> None:
        """A segment ended; loss: of its last step, [loops] of loops side by side. May raise to stop the loop.

        The next segment takes the memory of `state`: copy what stays.
        """


_monitor: contextvars.ContextVar[Monitor | None] = contextvars.ContextVar("monitor", default=None)
_failures: contextvars.ContextVar[tuple[Any, list] | None] = contextvars.ContextVar("failures", default=None)


@contextlib.contextmanager
def monitored(monitor: Monitor) -> Iterator[None]:
    """Every loop inside tells `monitor` between its segments."""
    token = _monitor.set(monitor)
    try:
        yield
    finally:
        _monitor.reset(token)


@contextlib.contextmanager
def failures() -> Iterator[list[Int[Array, ""]]]:
    """Collects `Fit.failed` of every traced loop inside: a loop under vmap cannot raise."""
    collected: list[Int[Array, ""]] = []
    token = _failures.set((jax_core.get_opaque_trace_state(), collected))
    try:
        yield collected
    finally:
        _failures.reset(token)


class Stream(NamedTuple):
    """Examples to draw batches from. rows: which, indices [n].

    extra: arrays [n, …] beside them, as labels of one's own; then a batch is (examples, extra).
    """

    rows: Rows
    extra: Any = None


def loop(
    update: Callable[[Any, tuple, Now], tuple[Any, Float[Array, ""] | Told]],
    state: Any,
    streams: tuple[Stream, ...],
    data: Any,
    key: RandomKey,
    *,
    steps: int,
    batch_size: int,
    notes: tuple[str, ...] = (),
) -> Fit:
    """Runs state, loss = update(state, batches, now) over mini-batches; of what else it tells, `notes` are kept.

    data: where the streams' rows are found, see `sources`. Each stream gives one batch a step and reshuffles by itself
    when it is through, wrapping to whole batches. With concrete values this is a Python loop over compiled segments of
    about a second, between which a monitor is told; so it is under a vmap, if there is a monitor; under any other trace
    it is one scan. An update that is not finite, or comes from a loss that is not, is not applied, nor is any after it.
    Inside `sharding.use` each device has its share of every batch.

    Raises NonFiniteLossError, but not under a trace: there see `Fit.failed` and `failures`. UserError for an empty
    stream or batch; with concrete values also for data whose leaves differ in length, and rows that are not of it.
    """
    # Losses go to a buffer of a power of two: lengths of segments and of loops are no shapes to compile for.
    kept = jnp.zeros(1 << (steps - 1).bit_length(), jnp.float32)
    start = Fit(state, kept, jnp.asarray(-1, jnp.int32), dict.fromkeys(notes, kept))
    arguments = (trees.as_partial(update), streams, data, key)
    if trees.is_traced(arguments, state):
        return _report(_cut(_traced(start, arguments, steps, batch_size), steps))
    outputs.check_rows(
        data, {f"rows of stream {i}": stream.rows for i, stream in enumerate(streams) if len(stream.rows)}
    )
    start, arguments = sharding.split(start), (sharding.split(arguments[0]), *arguments[1:])
    advance = functools.partial(_compiled, batch_size=batch_size)
    result = _segments(start, lambda fit, first, last: advance(fit, *arguments, first, last, steps), steps)
    if int(result.failed) >= 0:
        raise NonFiniteLossError(int(result.failed))
    return _cut(result, steps)


def _cut(result: Fit, steps: int) -> Fit:
    return result._replace(
        losses=result.losses[:steps], notes={name: values[:steps] for name, values in result.notes.items()}
    )


def _segments(result: Fit, advance: Callable[[Fit, int, int], Fit], steps: int) -> Fit:
    """Until the last step, or until nothing is finite any more; of several loops side by side, in none of them."""
    monitor, done, length = _monitor.get(), 0, 1
    # A segment gives its input's memory to its output; the first must not take that of the caller's parameters.
    result = _copied(result)
    if monitor and (left := monitor.start(result, steps)):
        result, done = sharding.split(left[0]), left[1]
    while done < steps and bool(jnp.any(result.failed < 0)):
        began = time.perf_counter()
        until = min(done + length, steps)
        result = jax.block_until_ready(advance(result, done, until))
        # A segment's length never changes a result: it only sets how soon one can look in, or stop.
        seconds = time.perf_counter() - began
        length = int(sharding.agree(max(1, min(2 * length, int(length * SEGMENT_SECONDS / max(seconds, 1e-6))))))
        done = until
        if monitor and bool(jnp.any(result.failed < 0)):
            monitor.segment(result, done, steps, sharding.fetch(result.losses[..., done - 1]))
    return result


@jax.jit
def _copied(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


@functools.partial(jax.jit, static_argnames=("count", "are_batched"))
def _batched(leaves: list, *, count: int, are_batched: tuple[bool, ...]) -> list:
    """With those that are one for all repeated."""
    return [x if is_so else jnp.stack([x] * count) for x, is_so in zip(leaves, are_batched, strict=True)]


def _traced(start: Fit, arguments: tuple[Partial, tuple, Any, RandomKey], steps: int, batch_size: int) -> Fit:
    """One scan; but under a vmap alone, and with a monitor, segments of the loops side by side."""
    if _monitor.get() is None:
        return _steps(start, *arguments, 0, steps, steps, batch_size=batch_size)
    # Over leaves, because place-holders of no type would fill the structures.
    (states, form), (leaves, structure) = jax.tree.flatten(start), jax.tree.flatten(arguments)

    @jax.custom_batching.custom_vmap
    def loops(states: list, leaves: list) -> list:
        update, streams, data, key = jax.tree.unflatten(structure, leaves)
        start = jax.tree.unflatten(form, states)
        result = _steps(start, update, streams, data, key, 0, steps, steps, batch_size=batch_size)
        return jax.tree.leaves(result)

    @loops.def_vmap
    def together(count: int, batched: Any, states: list, leaves: list) -> tuple[list, list]:
        axes = tuple(0 if is_batched else None for is_batched in batched[1])
        first = _batched(states, count=count, are_batched=tuple(batched[0]))
        advance = functools.partial(_together, structure=structure, axes=axes, batch_size=batch_size)
        fit = jax.tree.unflatten(form, first)
        if trees.is_traced(fit, leaves):
            result = advance(fit, leaves, 0, steps, steps)
        else:
            result = _segments(fit, lambda fit, begin, end: advance(fit, leaves, begin, end, steps), steps)
        return jax.tree.leaves(result), [True] * len(states)

    return jax.tree.unflatten(form, loops(states, leaves))


def _report(result: Fit) -> Fit:
    collector = _failures.get()
    if collector is None:
        return result
    state, collected = collector
    if state == jax_core.get_opaque_trace_state():
        collected.append(result.failed)
        return result
    # Inside a transformation of the method's own the collector cannot reach this value: spoil the result, so that
    # the failure is seen all the same.
    ok = result.failed < 0
    spoilt = jax.tree.map(
        lambda x: jnp.where(ok, x, jnp.nan) if jnp.issubdtype(x.dtype, jnp.floating) else x, result.state
    )
    return result._replace(state=spoilt)


def _steps(
    start: Fit,
    update: Partial,
    streams: tuple[Stream, ...],
    data: Any,
    key: RandomKey,
    first: Any,
    last: Any,
    total: Any,
    *,
    batch_size: int,
) -> Fit:
    """From the first step to the last, of `total` of the whole loop."""
    sizes = [len(stream.rows) for stream in streams]
    batches_each = [min(batch_size, n) for n in sizes]
    per_epoch = [steps_per_epoch(n, batch_size) for n in sizes]
    total = jnp.asarray(total, jnp.int32)

    *order_keys, step_key = jax.random.split(key, len(streams) + 1)

    def order(i: int, step: Any) -> _Order:
        shuffled = jax.random.permutation(jax.random.fold_in(order_keys[i], step // per_epoch[i]), sizes[i])
        chosen = jnp.resize(shuffled, (per_epoch[i], batches_each[i]))
        return _Order(chosen, sources.ahead(data, jnp.asarray(streams[i].rows)[chosen].astype(jnp.int32)))

    def body(step: Any, carry: tuple[Fit, tuple]) -> tuple[Fit, tuple]:
        result, orders = carry
        orders = tuple(
            jax.lax.cond(
                (step % per_epoch[i] == 0) | (step == first), lambda i=i: order(i, step), lambda i=i: orders[i]
            )
            for i in range(len(streams))
        )
        batches = tuple(
            sharding.share_out(_batch(stream, data, orders[i], step % per_epoch[i])) for i, stream in enumerate(streams)
        )
        step = jnp.asarray(step, jnp.int32)
        now = Now(step, total, jax.random.fold_in(step_key, step), step)
        state, told = update(result.state, batches, now)
        loss, notes = told if isinstance(told, Told) else Told(told, {})
        fine = jnp.isfinite(loss) & trees.all_finite(state)
        apply = fine & (result.failed < 0)
        failed = jnp.where((result.failed < 0) & ~fine, now.step, result.failed)
        kept = result.losses.at[step].set(loss.astype(jnp.float32))
        noted = {name: values.at[step].set(notes[name]) for name, values in result.notes.items()}
        return Fit(sharding.split(optax.tree.where(apply, state, result.state)), kept, failed, noted), orders

    shapes = zip(per_epoch, batches_each, strict=True)
    orders = tuple(_Order(*2 * (jnp.zeros(shape, jnp.int32),)) for shape in shapes)
    return jax.lax.fori_loop(first, last, body, (start, orders))[0]


_compiled = jax.jit(_steps, static_argnames=("batch_size",), donate_argnums=0)


@functools.partial(jax.jit, static_argnames=("structure", "axes", "batch_size"), donate_argnums=0)
def _together(
    start: Fit,
    leaves: list[Array],
    first: Any,
    last: Any,
    total: Any,
    *,
    structure: Any,
    axes: tuple,
    batch_size: int,
) -> Fit:
    """The same steps of several loops side by side; leaves and axes: of the arguments of `_steps`."""

    def one(start: Fit, *leaves: Array) -> Fit:
        update, streams, data, key = jax.tree.unflatten(structure, leaves)
        return _steps(start, update, streams, data, key, first, last, total, batch_size=batch_size)

    return jax.vmap(one, in_axes=(0, *axes))(start, *leaves)


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Batches that cover so many examples. Raises UserError where either is below 1."""
    if examples < 1 or batch_size < 1:
        raise UserError(f"training needs at least one example and a batch of one, given {examples} and {batch_size}")
    return -(-examples // min(batch_size, examples))


class _Order(NamedTuple):
    """The batches of an epoch, each [batches, size]. chosen: which of the stream's rows. rows: these, of the data."""

    chosen: Int[Array, "batches size"]
    rows: Int[Array, "batches size"]


def _batch(stream: Stream, data: Any, order: _Order, number: Any) -> Any:
    chosen, rows = (jax.lax.dynamic_index_in_dim(part, number, keepdims=False) for part in order)
    return _beside(stream, sources.take(data, rows), chosen)


def examples(stream: Stream, data: Any, chosen: Array) -> Any:
    """A batch of these of the stream's examples."""
    return _beside(stream, sources.take(data, jnp.asarray(stream.rows)[chosen]), chosen)


def _beside(stream: Stream, examples: Any, chosen: Array) -> Any:
    if stream.extra is None:
        return examples
    return examples, jax.tree.map(lambda leaf: jnp.asarray(leaf)[chosen], stream.extra)
