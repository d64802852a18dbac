"""The one loop. A method calls it; it calls nobody back but the monitor, between compiled segments."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend import core as jax_core
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

from mcu_jax import curricula, losses, masks, optimizers, outputs, sharding, sources, trees
from mcu_jax.base import (
    Augment,
    Batch,
    Count,
    Decay,
    Mask,
    Model,
    Named,
    NonNegative,
    Params,
    Positive,
    Problem,
    RandomKey,
    Rows,
    Stats,
    UserError,
)

SEGMENT_SECONDS = 1.0


class Training(NamedTuple):
    """What every method that descends a loss from θ_o is told; each method has defaults of its own.

    epochs: passes over its first stream of examples. lr: a number or an optax schedule. momentum, weight_decay: of
    optimisers that take them. optimizer: see `optimizers.make`; a ready optax transformation has its own learning rate.
    curriculum: see `curricula`.
    """

    epochs: Annotated[int, Count] = 10
    lr: Annotated[Any, Positive] = 0.01
    momentum: Annotated[Any, Decay] = 0.9
    weight_decay: Annotated[Any, NonNegative] = 0.0
    batch_size: Annotated[int, Count] = 128
    optimizer: Annotated[optimizers.Optimizer, Named("optimizers", "optimizer")] = optimizers.sgd
    curriculum: Annotated[curricula.Curriculum | None, Named("curricula", "curriculum", none="none")] = None

    def make_optimizer(self, **chain: Any) -> Partial:
        """`optimizers.make` of these settings."""
        return optimizers.make(self.optimizer, self.lr, self.momentum, self.weight_decay, **chain)

    def make_curriculum(self) -> Partial | None:
        return None if self.curriculum is None else trees.as_partial(self.curriculum)


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
    """What a loop leaves. losses: [steps]. failed: the first step whose loss or update was not finite, else −1."""

    state: Any
    losses: Float[Array, "steps"]
    failed: Int[Array, ""]


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


class Term(NamedTuple):
    """One part of an objective: coefficient · mean of the values, in nats.

    values: of each example [n], or a scalar: a regulariser, which no curriculum weighs. where: the examples that count,
    None for all; a mean over none of them is 0.
    """

    values: Float[Array, "*n"]
    coefficient: Any = 1.0
    where: Bool[Array, "n"] | None = None


class Stream(NamedTuple):
    """Examples to draw batches from. rows: which, indices [n].

    extra: arrays [n, …] beside them, as labels of one's own; then a batch is (examples, extra).
    """

    rows: Rows
    extra: Any = None


class Objective(NamedTuple):
    """What is minimised: terms(params, batches, now) -> the Terms whose sum it is, and the streams of the batches.

    terms: a module-level function or a `jax.tree_util.Partial` of one over arrays: then new values compile nothing.
    """

    terms: Callable[[Any, tuple, Now], tuple[Term, ...]]
    streams: tuple[Stream, ...]


def fit(
    objective: Objective,
    params: Params,
    data: Any,
    key: RandomKey,
    *,
    optimizer: Callable[[], optax.GradientTransformation],
    epochs: int,
    batch_size: int,
    curriculum: Callable | None = None,
    mask: Mask | None = None,
) -> Fit:
    """Minimises an objective from `params`; the state of the result is the trained parameters.

    An epoch is one pass over the first stream; data, batch_size: see `loop`. optimizer: as `optimizers.make` gives it.
    mask: what may move. Leaves in which nothing may have no gradient and no state of the optimiser, if that is known
    before compiling; the others are frozen weight by weight, behind everything the optimiser does.
    """
    terms, moving, still = objective.terms, params, None
    if mask is not None:
        masks.check(mask, params)
        leaves = masks.moving_leaves(mask)
        moving, still = trees.partition(params, leaves)
        terms = Partial(_within, trees.as_partial(terms), still)
        if not masks.moves_whole_leaves(mask):
            optimizer = optimizers.masked(optimizer, trees.partition(mask, leaves)[0])
    part = Objective(terms, objective.streams)
    state = begin(part, moving, data, optimizer, curriculum)
    steps = epochs * steps_per_epoch(len(objective.streams[0].rows), batch_size)
    update = descend(terms, optimizer, curriculum)
    result = loop(update, state, objective.streams, data, key, steps=steps, batch_size=batch_size)
    trained = result.state.params
    return result._replace(state=trained if mask is None else trees.combine(trained, still))


def _within(terms: Callable, still: Params, moving: Params, batches: tuple, now: Now) -> tuple[Term, ...]:
    return terms(trees.combine(moving, still), batches, now)


class Descent(NamedTuple):
    """The state of `descend`. running: what the curriculum remembers of each term."""

    params: Params
    optimizer: Any
    running: tuple[curricula.Running, ...]


def begin(
    objective: Objective,
    params: Params,
    data: Any,
    optimizer: Callable[[], optax.GradientTransformation],
    curriculum: Callable | None,
) -> Descent:
    """Where a descent of the objective starts."""
    terms: tuple = ()
    if curriculum is not None:
        # Only their number is asked for.
        now = Now(jnp.asarray(0), jnp.asarray(1), jax.random.key(0), jnp.asarray(0))
        terms = jax.eval_shape(lambda: objective.terms(params, _whole(objective.streams, data), now))
    return Descent(params, optimizer().init(params), tuple(curricula.start() for _ in terms))


def _whole(streams: tuple[Stream, ...], data: Any) -> tuple:
    return tuple(_examples(stream, data, jnp.arange(len(stream.rows))) for stream in streams)


def descend(
    terms: Callable,
    optimizer: Callable[[], optax.GradientTransformation],
    curriculum: Callable | None = None,
    prepare: Callable[[Params], Params] | None = None,
) -> Partial:
    """An update for `loop`: one step down the sum of terms(params, batches, now); its state is a `Descent`.

    prepare: what is done to gradients before the optimiser sees them.
    """
    weigh, prepared = (None if given is None else trees.as_partial(given) for given in (curriculum, prepare))
    return Partial(_descend, trees.as_partial(terms), trees.as_partial(optimizer), weigh, prepared)


def _descend(
    terms: Callable,
    optimizer: Callable,
    curriculum: Callable | None,
    prepare: Callable | None,
    state: Descent,
    batches: tuple,
    now: Now,
) -> tuple[Descent, Array]:
    def loss(params: Params) -> tuple[Array, tuple]:
        parts = terms(params, batches, now)
        if curriculum is None:
            return total(parts), ()
        weighed = [
            curriculum(term.values, term.where, running) if term.values.ndim else (term.values, running)
            for term, running in zip(parts, state.running, strict=True)
        ]
        new = tuple(term._replace(values=values) for term, (values, _) in zip(parts, weighed, strict=True))
        return total(new), tuple(running for _, running in weighed)

    (value, running), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    chain = optax.with_extra_args_support(optimizer())
    updates, opt_state = chain.update(
        grads if prepare is None else prepare(grads),
        state.optimizer,
        state.params,
        obj_fn=lambda params: loss(params)[0],
        count=now.updates,
        progress=now.progress,
    )
    return Descent(optax.apply_updates(state.params, updates), opt_state, running), value


def total(terms: tuple[Term, ...]) -> Float[Array, ""]:
    """Σ coefficient · mean."""
    means = [jnp.mean(t.values) if t.where is None else losses.masked_mean(t.values, t.where) for t in terms]
    parts = [term.coefficient * mean for term, mean in zip(terms, means, strict=True)]
    return jnp.asarray(sum(parts[1:], parts[0]))


def loop(
    update: Callable[[Any, tuple, Now], tuple[Any, Float[Array, ""]]],
    state: Any,
    streams: tuple[Stream, ...],
    data: Any,
    key: RandomKey,
    *,
    steps: int,
    batch_size: int,
) -> Fit:
    """Runs state, loss = update(state, batches, now) over mini-batches.

    data: where the streams' rows are found, see `sources`. Each stream gives one batch a step and reshuffles by itself
    when it is through, wrapping to whole batches. With concrete values this is a Python loop over compiled segments of
    about a second, between which a monitor is told; so it is under a vmap, if there is a monitor; under any other trace
    it is one scan. An update that is not finite, or comes from a loss that is not, is not applied, nor is any after it.
    Inside `sharding.use` each device has its share of every batch.

    Raises NonFiniteLossError, but not under a trace: there see `Fit.failed` and `failures`. UserError for an empty
    stream or batch.
    """
    # Losses are accumulated in a fixed float32 buffer, so that a segment's length is an argument, not a shape.
    start = Fit(state, jnp.zeros(steps, jnp.float32), jnp.asarray(-1, jnp.int32))
    arguments = (trees.as_partial(update), streams, data, key)
    if trees.is_traced(arguments, state):
        return _report(_traced(start, arguments, steps, batch_size))
    advance = functools.partial(_compiled, batch_size=batch_size, mesh=sharding.current())
    result = _segments(start, lambda fit, first, last: advance(fit, *arguments, first, last), steps)
    if int(result.failed) >= 0:
        raise NonFiniteLossError(int(result.failed))
    return result


def _segments(result: Fit, advance: Callable[[Fit, int, int], Fit], steps: int) -> Fit:
    """Until the last step, or until nothing is finite any more; of several loops side by side, in none of them."""
    monitor, done, length = _monitor.get(), 0, 1
    # A segment gives its input's memory to its output; the first must not take that of the caller's parameters.
    result = jax.tree.map(jnp.copy, result)
    if monitor and (left := monitor.start(result, steps)):
        result, done = left
    while done < steps and bool(jnp.any(result.failed < 0)):
        began = time.perf_counter()
        until = min(done + length, steps)
        result = jax.block_until_ready(advance(result, done, until))
        # A segment's length never changes a result: it only sets how soon one can look in, or stop.
        seconds = time.perf_counter() - began
        length = max(1, min(2 * length, int(length * SEGMENT_SECONDS / max(seconds, 1e-6))))
        done = until
        if monitor and bool(jnp.any(result.failed < 0)):
            monitor.segment(result, done, steps, np.asarray(result.losses[..., done - 1]))
    return result


def _traced(start: Fit, arguments: tuple[Partial, tuple, Any, RandomKey], steps: int, batch_size: int) -> Fit:
    """One scan; but under a vmap alone, and with a monitor, segments of the loops side by side."""
    mesh = sharding.current()
    if _monitor.get() is None:
        return _steps(start, *arguments, 0, steps, batch_size=batch_size, mesh=mesh)
    # Over leaves, because place-holders of no type would fill the structures.
    (states, form), (leaves, structure) = jax.tree.flatten(start), jax.tree.flatten(arguments)

    @jax.custom_batching.custom_vmap
    def loops(states: list, leaves: list) -> list:
        update, streams, data, key = jax.tree.unflatten(structure, leaves)
        start = jax.tree.unflatten(form, states)
        return jax.tree.leaves(_steps(start, update, streams, data, key, 0, steps, batch_size=batch_size, mesh=mesh))

    @loops.def_vmap
    def together(count: int, batched: Any, states: list, leaves: list) -> tuple[list, list]:
        axes = tuple(0 if is_batched else None for is_batched in batched[1])
        first = [x if is_batched else jnp.stack([x] * count) for x, is_batched in zip(states, batched[0], strict=True)]
        advance = functools.partial(_together, structure=structure, axes=axes, batch_size=batch_size, mesh=mesh)
        fit = jax.tree.unflatten(form, first)
        if trees.is_traced(fit, leaves):
            result = advance(fit, leaves, 0, steps)
        else:
            result = _segments(fit, lambda fit, begin, end: advance(fit, leaves, begin, end), steps)
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
    *,
    batch_size: int,
    mesh: Any,
) -> Fit:
    sizes = [len(stream.rows) for stream in streams]
    batches_each = [min(batch_size, n) for n in sizes]
    per_epoch = [steps_per_epoch(n, batch_size) for n in sizes]
    total = jnp.asarray(start.losses.shape[0], jnp.int32)

    *order_keys, step_key = jax.random.split(key, len(streams) + 1)

    def order(i: int, step: Any) -> Int[Array, "indices"]:
        shuffled = jax.random.permutation(jax.random.fold_in(order_keys[i], step // per_epoch[i]), sizes[i])
        return jnp.resize(shuffled, (per_epoch[i] * batches_each[i],))

    def body(step: Any, carry: tuple[Fit, tuple]) -> tuple[Fit, tuple]:
        result, orders = carry
        orders = tuple(
            jax.lax.cond(
                (step % per_epoch[i] == 0) | (step == first), lambda i=i: order(i, step), lambda i=i: orders[i]
            )
            for i in range(len(streams))
        )
        batches = tuple(
            sharding.share_out(_batch(stream, data, orders[i], step % per_epoch[i], batches_each[i]), mesh)
            for i, stream in enumerate(streams)
        )
        step = jnp.asarray(step, jnp.int32)
        now = Now(step, total, jax.random.fold_in(step_key, step), step)
        state, loss = update(result.state, batches, now)
        fine = jnp.isfinite(loss) & trees.all_finite(state)
        apply = fine & (result.failed < 0)
        failed = jnp.where((result.failed < 0) & ~fine, now.step, result.failed)
        kept = result.losses.at[step].set(loss.astype(jnp.float32))
        return Fit(optax.tree.where(apply, state, result.state), kept, failed), orders

    orders = tuple(jnp.zeros(n * size, jnp.int32) for n, size in zip(per_epoch, batches_each, strict=True))
    return jax.lax.fori_loop(first, last, body, (start, orders))[0]


_compiled = jax.jit(_steps, static_argnames=("batch_size", "mesh"), donate_argnums=0)


@functools.partial(jax.jit, static_argnames=("structure", "axes", "batch_size", "mesh"), donate_argnums=0)
def _together(
    start: Fit, leaves: list[Array], first: Any, last: Any, *, structure: Any, axes: tuple, batch_size: int, mesh: Any
) -> Fit:
    """The same steps of several loops side by side; leaves and axes: of the arguments of `_steps`."""

    def one(start: Fit, *leaves: Array) -> Fit:
        update, streams, data, key = jax.tree.unflatten(structure, leaves)
        return _steps(start, update, streams, data, key, first, last, batch_size=batch_size, mesh=mesh)

    return jax.vmap(one, in_axes=(0, *axes))(start, *leaves)


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Batches that cover so many examples. Raises UserError where either is below 1."""
    if examples < 1 or batch_size < 1:
        raise UserError(f"training needs at least one example and a batch of one, given {examples} and {batch_size}")
    return -(-examples // min(batch_size, examples))


def _batch(stream: Stream, data: Any, order: Array, number: Any, size: int) -> Any:
    return _examples(stream, data, jax.lax.dynamic_slice_in_dim(order, number * size, size))


def _examples(stream: Stream, data: Any, chosen: Array) -> Any:
    examples = sources.take(data, jnp.asarray(stream.rows)[chosen])
    if stream.extra is None:
        return examples
    return examples, jax.tree.map(lambda leaf: jnp.asarray(leaf)[chosen], stream.extra)


# What most methods are made of.


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


# What is computed over many examples in evaluation mode.


def in_batches(rows: Rows, batch_size: int) -> tuple[Int[Array, "batches size"], Float[Array, "batches size"]]:
    """Indices [n] as batches, and weights: 1, or 0 where the last batch was filled up. Raises UserError for none."""
    if not len(rows):
        raise UserError("there is no example to evaluate: the set is empty")
    n = len(rows)
    batches = -(-n // batch_size)
    size = -(-n // batches)
    filled = jnp.arange(batches * size)
    return jnp.asarray(rows)[filled % n].reshape(batches, size), (filled < n).astype(jnp.float32).reshape(batches, size)


@functools.partial(jax.jit, static_argnames=("batch_size", "limit"))
def refresh(problem: Problem, params: Params, *, batch_size: int = 500, limit: int = 5000) -> Stats:
    """BatchNorm statistics of `params` from retain data: one pass in training mode, moments pooled over the batches.

    pooled variance = mean of the batch variances + variance of the batch means, so drifting batches count in full.
    limit: at most that many retain examples, drawn once for all calls; never a forget example. An empty tree for a
    model without such layers.
    """
    n = len(problem.retain)
    size = min(batch_size, n, limit, sources.largest_batch(problem.data))
    # Whole batches only: an example counted twice would weigh twice.
    count = min(n, limit) // size * size
    chosen = jax.random.permutation(jax.random.key(0), n)[:count].reshape(-1, size)
    rows = jnp.asarray(problem.retain)[chosen]

    def moments(batch_rows: Array) -> Stats:
        return outputs.forward(problem, params, sources.take(problem.data, batch_rows))[1]

    if not jax.tree.leaves(jax.eval_shape(moments, rows[0])):
        return {}
    return pool(jax.lax.map(moments, rows))


@jax.jit
def evaluation_stats(problem: Problem, params: Params) -> Stats:
    """BatchNorm statistics to evaluate with: those the problem brought if `params` are θ_o, else of retain data."""
    if problem.stats is None:
        return refresh(problem, params)
    same = [jnp.all(x == y) for x, y in zip(jax.tree.leaves(params), jax.tree.leaves(problem.params), strict=True)]
    return jax.lax.cond(jnp.all(jnp.stack(same)), lambda: problem.stats, lambda: refresh(problem, params))


def pool(stats: Stats) -> Stats:
    """Moments of equal batches, `mean` and `var` leaves [batches, …], to the moments of all their examples."""
    if not isinstance(stats, dict):
        raise UserError(f"statistics are nested dicts of 'mean' and 'var', batch moments; given {type(stats).__name__}")
    if set(stats) == {"mean", "var"}:
        return {
            "mean": jnp.mean(stats["mean"], 0),
            "var": jnp.mean(stats["var"], 0) + jnp.var(stats["mean"], 0),
        }
    return {name: pool(child) for name, child in stats.items()}


def gradient(problem: Problem, params: Params, rows: Rows, stats: Stats, *, batch_size: int = 128) -> Params:
    """Σ over batches of these examples of the gradient of the batch's mean cross-entropy, in evaluation mode."""
    return _over_batches(problem, params, rows, stats, batch_size, _same, sharding.current())


def mean_gradient(problem: Problem, params: Params, rows: Rows, stats: Stats, *, batch_size: int = 128) -> Params:
    """Gradient of the mean cross-entropy of these examples, in evaluation mode."""
    return _over_batches(problem, params, rows, stats, batch_size, _portion, sharding.current())


def squared_gradient(problem: Problem, params: Params, rows: Rows, stats: Stats, *, batch_size: int = 128) -> Params:
    """Mean over batches of these examples of the squared batch gradient, in evaluation mode: a diagonal Fisher."""
    total = _over_batches(problem, params, rows, stats, batch_size, _square, sharding.current())
    return optax.tree.scale(1 / -(-len(rows) // batch_size), total)


def _same(grads: Array, share: Array) -> Array:
    del share
    return grads


def _portion(grads: Array, share: Array) -> Array:
    return share * grads


def _square(grads: Array, share: Array) -> Array:
    del share
    return jnp.square(grads)


@functools.partial(jax.jit, static_argnames=("batch_size", "transform", "mesh"))
def _over_batches(
    problem: Problem,
    params: Params,
    rows: Rows,
    stats: Stats,
    batch_size: int,
    transform: Callable[[Array, Array], Array],
    mesh: Any,
) -> Params:
    """Sum over the batches of transform(gradient, the batch's share of the examples)."""

    def loss(params: Params, batch: Batch, weights: Array) -> Array:
        nll = outputs.nll(outputs.forward(problem, params, batch, stats)[0], outputs.labels(batch))
        return jnp.sum(nll * weights) / jnp.sum(weights)

    def add(total: Params, chosen: tuple[Array, Array]) -> tuple[Params, None]:
        batch_rows, weights = chosen
        batch, weights = sharding.share_out((sources.take(problem.data, batch_rows), weights), mesh)
        grads = jax.grad(loss)(params, batch, weights)
        share = jnp.sum(weights) / len(rows)
        return optax.tree.add(total, jax.tree.map(lambda g: transform(g, share), grads)), None

    return jax.lax.scan(add, optax.tree.zeros_like(params), in_batches(rows, batch_size))[0]
