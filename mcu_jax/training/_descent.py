"""Going down an objective: its terms, weighed by a curriculum, and the update that the loop repeats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float

from mcu_jax import curricula, losses, masks, optimizers, sharding, trees
from mcu_jax.base import Count, Decay, Mask, Named, NonNegative, Params, Positive, RandomKey, Search, Whole
from mcu_jax.training import _loop
from mcu_jax.training._loop import Fit, Now, Stream, Told


class Training(NamedTuple):
    """What every method that descends a loss from θ_o is told; each method has defaults of its own.

    epochs: passes over its first stream of examples. lr: a number or an optax schedule. momentum, weight_decay: of
    optimisers that take them. optimizer: see `optimizers.make`; a ready optax transformation has its own learning rate.
    curriculum: see `curricula`. steps: so many in place of epochs, unless 0.
    """

    epochs: Annotated[int, Count, Search(2, 40)] = 10
    lr: Annotated[Any, Positive, Search(5e-4, 0.5)] = 0.01
    momentum: Annotated[Any, Decay] = 0.9
    weight_decay: Annotated[Any, NonNegative] = 0.0
    batch_size: Annotated[int, Count] = 128
    optimizer: Annotated[optimizers.Optimizer, Named("optimizers", "optimizer")] = optimizers.sgd
    curriculum: Annotated[curricula.Curriculum | None, Named("curricula", "curriculum", none="none")] = None
    steps: Annotated[int, Whole] = 0

    def make_optimizer(self, **chain: Any) -> Partial:
        """`optimizers.make` of these settings."""
        return optimizers.make(self.optimizer, self.lr, self.momentum, self.weight_decay, **chain)

    def make_curriculum(self) -> Partial | None:
        return None if self.curriculum is None else trees.as_partial(self.curriculum)


class Term(NamedTuple):
    """One part of an objective: coefficient · mean of the values, in nats.

    values: of each example [n], or a scalar: a regulariser, which no curriculum weighs. where: the examples that count,
    None for all; a mean over none of them is 0. notes: numbers of the step that are worth keeping, by name.
    """

    values: Float[Array, "*n"]
    coefficient: Any = 1.0
    where: Bool[Array, "n"] | None = None
    notes: Mapping[str, Float[Array, ""]] | None = None


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
    epochs: int = 1,
    steps: int = 0,
    batch_size: int,
    curriculum: Callable | None = None,
    mask: Mask | None = None,
    notes: tuple[str, ...] = (),
) -> Fit:
    """Minimises an objective from `params`; the state of the result is the trained parameters.

    An epoch is one pass over the first stream; steps: so many in place of whole epochs, unless 0. data,
    batch_size: see `loop`. optimizer: as `optimizers.make` gives it. mask: what may move. notes: those of its terms
    that are kept.
    Leaves in which nothing may have no gradient and no state of the optimiser, if that is known before compiling; the
    others are frozen weight by weight, behind everything the optimiser does.
    """
    terms, moving, still = objective.terms, sharding.split(params), None
    if mask is not None:
        masks.check(mask, params)
        leaves = masks.moving_leaves(mask)
        moving, still = trees.partition(params, leaves)
        terms = Partial(_within, trees.as_partial(terms), still)
        if not masks.moves_whole_leaves(mask):
            optimizer = optimizers.masked(optimizer, trees.partition(mask, leaves)[0])
    part = Objective(terms, objective.streams)
    state = begin(part, moving, data, optimizer, curriculum)
    steps = steps or epochs * _loop.steps_per_epoch(len(objective.streams[0].rows), batch_size)
    update = descend(terms, optimizer, curriculum)
    result = _loop.loop(update, state, objective.streams, data, key, steps=steps, batch_size=batch_size, notes=notes)
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
    return tuple(_loop.examples(stream, data, jnp.arange(len(stream.rows))) for stream in streams)


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
) -> tuple[Descent, Told]:
    def loss(params: Params) -> tuple[Array, tuple]:
        parts = terms(params, batches, now)
        notes = {name: value for term in parts for name, value in (term.notes or {}).items()}
        if curriculum is None:
            return total(parts), ((), notes)
        weighed = [
            curriculum(term.values, term.where, running) if term.values.ndim else (term.values, running)
            for term, running in zip(parts, state.running, strict=True)
        ]
        new = tuple(term._replace(values=values) for term, (values, _) in zip(parts, weighed, strict=True))
        return total(new), (tuple(running for _, running in weighed), notes)

    (value, (running, notes)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    chain = optax.with_extra_args_support(optimizer())
    updates, opt_state = chain.update(
        grads if prepare is None else prepare(grads),
        state.optimizer,
        state.params,
        obj_fn=lambda params: loss(params)[0],
        count=now.updates,
        progress=now.progress,
    )
    return Descent(optax.apply_updates(state.params, updates), opt_state, running), Told(value, notes)


def total(terms: tuple[Term, ...]) -> Float[Array, ""]:
    """Σ coefficient · mean."""
    means = [jnp.mean(t.values) if t.where is None else losses.masked_mean(t.values, t.where) for t in terms]
    parts = [term.coefficient * mean for term, mean in zip(terms, means, strict=True)]
    return jnp.asarray(sum(parts[1:], parts[0]))
