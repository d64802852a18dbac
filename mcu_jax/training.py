"""The one loop. A method calls it; it calls nobody back but the monitor, between compiled segments."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax.extend import core as jax_core
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

from mcu_jax import curricula, losses, optimizers, trees
from mcu_jax.base import Augment, Mask, Model, Params, Problem, RandomKey, Split, Stats

SEGMENT_SECONDS = 1.0


class Now(NamedTuple):
    """Where the loop stands. step, steps: of the whole loop. key: fresh at every step."""

    step: Int[Array, ""]
    steps: Int[Array, ""]
    key: RandomKey

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

    def segment(self, state: Fit, step: int, steps: int, loss: float) -> None:
        """A segment ended. May raise to stop the loop."""


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


class Objective(NamedTuple):
    """What is minimised: terms(params, batches, now) -> the Terms whose sum it is, and the streams of the batches.

    terms: a module-level function or a `jax.tree_util.Partial` of one over arrays: then new values compile nothing.
    streams: see `loop`.
    """

    terms: Callable[[Any, tuple, Now], tuple[Term, ...]]
    streams: tuple[Any, ...]


def fit(
    objective: Objective,
    params: Params,
    key: RandomKey,
    *,
    optimizer: Callable[[], optax.GradientTransformation],
    epochs: int,
    batch_size: int,
    curriculum: Callable | None = None,
) -> Fit:
    """Minimises an objective from `params`; the state of the result is the trained parameters.

    An epoch is one pass over the first stream; streams, batch_size: see `loop`. optimizer, curriculum: as
    `optimizers.make` and `curricula.make` give them.
    """
    state = begin(objective, params, optimizer, curriculum)
    steps = epochs * steps_per_epoch(_length(objective.streams[0]), batch_size)
    update = descend(objective.terms, optimizer, curriculum)
    result = loop(update, state, objective.streams, key, steps=steps, batch_size=batch_size)
    return result._replace(state=result.state.params)


class Descent(NamedTuple):
    """The state of `descend`. running: what the curriculum remembers of each term."""

    params: Params
    optimizer: Any
    running: tuple[curricula.Running, ...]


def begin(
    objective: Objective,
    params: Params,
    optimizer: Callable[[], optax.GradientTransformation],
    curriculum: Callable | None,
) -> Descent:
    """Where a descent of the objective starts."""
    terms: tuple = ()
    if curriculum is not None:
        # Only their number is asked for: the whole streams do for batches.
        now = Now(jnp.asarray(0), jnp.asarray(1), jax.random.key(0))
        terms = jax.eval_shape(objective.terms, params, objective.streams, now)
    return Descent(params, optimizer().init(params), tuple(curricula.start() for _ in terms))


def descend(
    terms: Callable, optimizer: Callable[[], optax.GradientTransformation], curriculum: Callable | None = None
) -> Partial:
    """An update for `loop`: one step down the sum of terms(params, batches, now); its state is a `Descent`."""
    weigh = None if curriculum is None else as_partial(curriculum)
    return Partial(_descend, as_partial(terms), as_partial(optimizer), weigh)


def as_partial(function: Callable) -> Partial:
    """A function as a pytree: its bound arguments are leaves, so that new ones compile nothing."""
    if isinstance(function, Partial):
        return function
    if isinstance(function, functools.partial):
        return Partial(function.func, *function.args, **function.keywords)
    return Partial(function)


def _descend(
    terms: Callable, optimizer: Callable, curriculum: Callable | None, state: Descent, batches: tuple, now: Now
) -> tuple[Descent, Array]:
    def loss(params: Params) -> tuple[Array, tuple]:
        found = terms(params, batches, now)
        if curriculum is None:
            return total(found), ()
        weighed = [
            curriculum(term.values, term.where, running) if term.values.ndim else (term.values, running)
            for term, running in zip(found, state.running, strict=True)
        ]
        new = tuple(term._replace(values=values) for term, (values, _) in zip(found, weighed, strict=True))
        return total(new), tuple(running for _, running in weighed)

    (value, running), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    chain = optax.with_extra_args_support(optimizer())
    updates, opt_state = chain.update(
        grads, state.optimizer, state.params, obj_fn=lambda params: loss(params)[0], step=now.step
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
    streams: tuple[Any, ...],
    key: RandomKey,
    *,
    steps: int,
    batch_size: int,
) -> Fit:
    """Runs state, loss = update(state, batches, now) over mini-batches.

    streams: trees whose leaves have a leading axis of examples; each stream gives one batch a step and reshuffles by
    itself when it is through, wrapping to whole batches. With concrete values this is a Python loop over compiled
    segments of about a second, between which a monitor is told; under a trace it is one scan. An update that is not
    finite, or comes from a loss that is not, is not applied, nor is any after it.

    Raises NonFiniteLossError, but not under a trace: there see `Fit.failed` and `failures`. ValueError for an empty
    stream or batch.
    """
    # Losses are accumulated in a fixed float32 buffer, so that a segment's length is an argument, not a shape.
    start = Fit(state, jnp.zeros(steps, jnp.float32), jnp.asarray(-1, jnp.int32))
    arguments = (as_partial(update), streams, key)
    if trees.is_traced(arguments, state):
        traced = _steps(start, *arguments, 0, steps, batch_size=batch_size)
        return _report(traced)
    return _segments(start, arguments, steps, batch_size)


def _segments(result: Fit, arguments: tuple, steps: int, batch_size: int) -> Fit:
    monitor, done, length = _monitor.get(), 0, 1
    if monitor and (left := monitor.start(result, steps)):
        result, done = left
    while done < steps and int(result.failed) < 0:
        began = time.perf_counter()
        until = min(done + length, steps)
        result = jax.block_until_ready(_compiled(result, *arguments, done, until, batch_size=batch_size))
        # A segment's length never changes a result: it only sets how soon one can look in, or stop.
        seconds = time.perf_counter() - began
        length = max(1, min(2 * length, int(length * SEGMENT_SECONDS / max(seconds, 1e-6))))
        done = until
        if monitor and int(result.failed) < 0:
            monitor.segment(result, done, steps, float(result.losses[done - 1]))
    if int(result.failed) >= 0:
        raise NonFiniteLossError(int(result.failed))
    return result


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
    start: Fit, update: Partial, streams: tuple, key: RandomKey, first: Any, last: Any, *, batch_size: int
) -> Fit:
    sizes = [_length(stream) for stream in streams]
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
            _batch(stream, orders[i], step % per_epoch[i], batches_each[i]) for i, stream in enumerate(streams)
        )
        now = Now(
            jnp.asarray(step, jnp.int32),
            total,
            jax.random.fold_in(step_key, step),
        )
        state, loss = update(result.state, batches, now)
        fine = jnp.isfinite(loss) & trees.all_finite(state)
        apply = fine & (result.failed < 0)
        failed = jnp.where((result.failed < 0) & ~fine, now.step, result.failed)
        kept = result.losses.at[step].set(loss.astype(jnp.float32))
        return Fit(trees.where(apply, state, result.state), kept, failed), orders

    orders = tuple(jnp.zeros(n * size, jnp.int32) for n, size in zip(per_epoch, batches_each, strict=True))
    return jax.lax.fori_loop(first, last, body, (start, orders))[0]


_compiled = jax.jit(_steps, static_argnames=("batch_size",))


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Batches that cover so many examples. Raises ValueError where either is below 1."""
    if examples < 1 or batch_size < 1:
        raise ValueError(f"training needs at least one example and a batch of one, given {examples} and {batch_size}")
    return -(-examples // min(batch_size, examples))


def _length(stream: Any) -> int:
    return jax.tree.leaves(stream)[0].shape[0]


def _batch(stream: Any, order: Array, number: Any, size: int) -> Any:
    chosen = jax.lax.dynamic_slice_in_dim(order, number * size, size)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[chosen], stream)


# What most methods are made of.


def from_scratch(
    model: Model,
    split: Split,
    key: RandomKey,
    *,
    augment: Augment | None,
    epochs: int,
    lr: float,
    momentum: float,
    weight_decay: float,
    batch_size: int,
) -> Params:
    """Trains a fresh model: SGD, L2 weight decay, lr falling to 0 along half a cosine."""
    init_key, fit_key = jax.random.split(key)
    steps = epochs * steps_per_epoch(_length(split), batch_size)
    return fit(
        Objective(Partial(_augmented_nll(model, augment)), (split,)),
        model.init(init_key, split.x[:1]),
        fit_key,
        optimizer=Partial(optimizers.cosine_sgd, lr, steps, momentum, weight_decay),
        epochs=epochs,
        batch_size=batch_size,
    ).state


@functools.cache
def _augmented_nll(model: Model, augment: Augment | None) -> Callable:
    """Before there is a problem: the terms of `from_scratch`; cached, so that the compiler sees one function."""

    def terms(params: Params, batches: tuple[Split], now: Now) -> tuple[Term]:
        (batch,) = batches
        return (Term(losses.nll(_logits(model, augment, params, batch.x, now.key), batch.y)),)

    return terms


def unlearn(
    problem: Problem,
    objective: Objective,
    key: RandomKey,
    *,
    epochs: int,
    lr: Any,
    momentum: Any,
    weight_decay: Any,
    batch_size: int,
    optimizer: str,
    curriculum: str,
    mask: Mask | None = None,
) -> Params:
    """Minimises an objective from θ_o at a constant learning rate: what a gradient-based method does.

    optimizer, curriculum: NAME or NAME:key=value of `optimizers.NAMES` and `curricula.NAMES`. mask: what may move.
    """
    return fit(
        objective,
        problem.params,
        key,
        optimizer=optimizers.make(optimizer, lr, momentum, weight_decay, mask=mask),
        curriculum=curricula.make(curriculum),
        epochs=epochs,
        batch_size=batch_size,
    ).state


class Mixed(NamedTuple):
    """Forget and retain examples in one stream: x [n, …], y [n], is_forget [n]."""

    x: Array
    y: Array
    is_forget: Bool[Array, "n"]


def mix(forget: Split, retain: Split) -> Mixed:
    return Mixed(
        x=jnp.concatenate([forget.x, retain.x]),
        y=jnp.concatenate([forget.y, retain.y]),
        is_forget=jnp.arange(_length(forget) + _length(retain)) < _length(forget),
    )


def nll(problem: Problem, params: Params, batch: Split | Mixed, key: RandomKey) -> Float[Array, "n"]:
    """−log p(label) of the examples of an augmented batch in training mode, in nats."""
    return losses.nll(logits(problem, params, batch.x, key), batch.y)


def logits(problem: Problem, params: Params, x: Array, key: RandomKey) -> Float[Array, "n classes"]:
    """Logits of an augmented batch in training mode."""
    return _logits(problem.model, problem.augment, params, x, key)


def features(problem: Problem, params: Params, x: Array, key: RandomKey) -> Float[Array, "n width"]:
    """Last hidden layer of an augmented batch in training mode; of a model that tells it (`Model.features`)."""
    x, _ = _augmented(problem.augment, x, key)
    return problem.model.features(params, x)  # type: ignore[misc]


class Teacher(NamedTuple):
    """A frozen model with the statistics to evaluate it with."""

    params: Params
    stats: Stats


def with_teacher(
    problem: Problem, params: Params, teacher: Teacher, x: Array, key: RandomKey
) -> tuple[Float[Array, "n classes"], Float[Array, "n classes"]]:
    """(student's logits in training mode, teacher's in evaluation mode) of one augmented batch."""
    x, model_key = _augmented(problem.augment, x, key)
    frozen = problem.model.apply(teacher.params, x, teacher.stats)[0]
    return problem.model.apply(params, x, None, model_key)[0], jax.lax.stop_gradient(frozen)


def original(problem: Problem) -> Teacher:
    """θ_o as a teacher."""
    return Teacher(problem.params, evaluation_stats(problem))


def _logits(model: Model, augment: Augment | None, params: Params, x: Array, key: RandomKey) -> Array:
    x, model_key = _augmented(augment, x, key)
    return model.apply(params, x, None, model_key)[0]


def _augmented(augment: Augment | None, x: Array, key: RandomKey) -> tuple[Array, RandomKey]:
    augment_key, model_key = jax.random.split(key)
    return (x if augment is None else augment(x, augment_key)), model_key


# What is computed over a whole split in evaluation mode.


def in_batches(tree: Any, batch_size: int) -> tuple[Any, Float[Array, "batches size"]]:
    """A tree of [n, …] leaves as [batches, size, …], and weights: 1, or 0 where the last batch was filled up."""
    n = _length(tree)
    batches = -(-n // batch_size)
    size = -(-n // batches)
    filled = jnp.arange(batches * size)

    def leaf(x: Array) -> Array:
        x = jnp.asarray(x)
        return (x if x.shape[0] == filled.size else x[filled % n]).reshape(batches, size, *x.shape[1:])

    return jax.tree.map(leaf, tree), (filled < n).astype(jnp.float32).reshape(batches, size)


@functools.partial(jax.jit, static_argnames=("batch_size", "limit"))
def refresh(problem: Problem, params: Params, *, batch_size: int = 500, limit: int = 5000) -> Stats:
    """BatchNorm statistics of `params` from retain data: one pass in training mode, moments pooled over the batches.

    pooled variance = mean of the batch variances + variance of the batch means, so drifting batches count in full.
    limit: at most that many retain examples, drawn once for all calls; never a forget example. An empty tree for a
    model without such layers.
    """
    n = _length(problem.retain)
    size = min(batch_size, n, limit)
    # Whole batches only: an example counted twice would weigh twice.
    count = min(n, limit) // size * size
    if not jax.tree.leaves(jax.eval_shape(lambda x: problem.model.apply(params, x)[1], problem.retain.x[:size])):
        return {}
    chosen = jax.random.permutation(jax.random.key(0), n)[:count].reshape(-1, size)
    return pool(jax.lax.map(lambda rows: problem.model.apply(params, jnp.asarray(problem.retain.x)[rows])[1], chosen))


def evaluation_stats(problem: Problem) -> Stats:
    """BatchNorm statistics to evaluate θ_o with: those it brought, else from retain data."""
    return refresh(problem, problem.params) if problem.stats is None else problem.stats


def pool(stats: Stats) -> Stats:
    """Moments of equal batches, `mean` and `var` leaves [batches, …], to the moments of all their examples."""
    if not isinstance(stats, dict):
        raise ValueError(
            f"statistics are nested dicts of 'mean' and 'var', batch moments; given {type(stats).__name__}"
        )
    if set(stats) == {"mean", "var"}:
        return {
            "mean": jnp.mean(stats["mean"], 0),
            "var": jnp.mean(stats["var"], 0) + jnp.var(stats["mean"], 0),
        }
    return {name: pool(child) for name, child in stats.items()}


def gradient(problem: Problem, params: Params, split: Split, stats: Stats, *, batch_size: int = 128) -> Params:
    """Σ over the batches of a split of the gradient of the batch's mean cross-entropy, in evaluation mode."""
    return _over_batches(problem, params, split, stats, batch_size, _same)


def mean_gradient(problem: Problem, params: Params, split: Split, stats: Stats, *, batch_size: int = 128) -> Params:
    """Gradient of the mean cross-entropy of a split, in evaluation mode."""
    return _over_batches(problem, params, split, stats, batch_size, _portion)


def squared_gradient(problem: Problem, params: Params, split: Split, stats: Stats, *, batch_size: int = 128) -> Params:
    """Mean over the batches of a split of the squared batch gradient, in evaluation mode: a diagonal Fisher."""
    total = _over_batches(problem, params, split, stats, batch_size, _square)
    return trees.scale(1 / -(-_length(split) // batch_size), total)


def _same(grads: Array, share: Array) -> Array:
    del share
    return grads


def _portion(grads: Array, share: Array) -> Array:
    return share * grads


def _square(grads: Array, share: Array) -> Array:
    del share
    return jnp.square(grads)


@functools.partial(jax.jit, static_argnames=("batch_size", "of"))
def _over_batches(
    problem: Problem,
    params: Params,
    split: Split,
    stats: Stats,
    batch_size: int,
    of: Callable[[Array, Array], Array],
) -> Params:
    """Sum over the batches of of(gradient, the batch's share of the examples)."""

    def loss(params: Params, batch: Split, weights: Array) -> Array:
        nll = losses.nll(problem.model.apply(params, batch.x, stats)[0], batch.y)
        return jnp.sum(nll * weights) / jnp.sum(weights)

    def add(total: Params, batch: tuple[Split, Array]) -> tuple[Params, None]:
        share = jnp.sum(batch[1]) / _length(split)
        return trees.add(total, jax.tree.map(lambda g: of(g, share), jax.grad(loss)(params, *batch))), None

    return jax.lax.scan(add, trees.zeros_like(params), in_batches(split, batch_size))[0]
