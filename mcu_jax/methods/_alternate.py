"""An ascent on D_f before some of the descents on D_r, as in SCRUB and SFRon; each is a descent of its own terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.tree_util import Partial

from mcu_jax import training
from mcu_jax.base import Params, Problem, RandomKey


class State(NamedTuple):
    """Of the ascent and of the descent: states of their optimisers, or of the one they share; `Descent.running`."""

    params: Params
    optimizers: tuple
    running: tuple


def alternate(
    problem: Problem,
    key: RandomKey,
    away: Callable,
    towards: Callable,
    ascents: Callable[[Any], Any],
    *,
    optimizers: tuple[Callable, ...],
    steps: int,
    train: Any,
    prepare: Callable[[Params], Params] | None = None,
) -> Params:
    """The parameters after `steps` descents of `towards` and some of `away`.

    ascents(step): how many of `away` there are before `step`, which has one itself where `step + 1` has more.
    optimizers: of ascent and descent, or one for both. train: gives curriculum and batch size. prepare: what is done to
    the gradients of an ascent.
    """
    streams = training.retain(problem), training.forget(problem)
    sides = zip((away, towards), streams[::-1], (optimizers[0], optimizers[-1]), strict=True)
    starts = [
        training.begin(training.Objective(terms, (stream,)), problem.params, problem.data, optimizer, train.curriculum)
        for terms, stream, optimizer in sides
    ]
    states = tuple(start.optimizer for start in starts[: len(optimizers)])
    state = State(problem.params, states, tuple(start.running for start in starts))
    ascend = training.descend(away, optimizers[0], train.curriculum, prepare)
    update = Partial(_update, ascend, training.descend(towards, optimizers[-1], train.curriculum), ascents)
    fit = training.loop(update, state, streams, problem.data, key, steps=steps, batch_size=train.batch_size)
    return fit.state.params


def _update(
    ascend: Callable, descend: Callable, ascents: Callable, state: State, batches: tuple, now: training.Now
) -> tuple[State, Any]:
    retain, forget = batches
    ascent_key, descent_key = jax.random.split(now.key)
    before, after = ascents(now.step), ascents(now.step + 1)
    shared = len(state.optimizers) == 1
    # A shared optimiser has made the updates of both.
    ascent_now = now._replace(key=ascent_key, updates=now.step + before if shared else before)
    descent_now = now._replace(key=descent_key, updates=now.step + after if shared else now.step)
    start = training.Descent(state.params, state.optimizers[0], state.running[0])
    params, first, away = jax.lax.cond(after > before, lambda: ascend(start, (forget,), ascent_now)[0], lambda: start)
    start = training.Descent(params, first if shared else state.optimizers[1], state.running[1])
    (params, last, towards), loss = descend(start, (retain,), descent_now)
    return State(params, (last,) if shared else (first, last), (away, towards)), loss


def both(problem: Problem, away: Callable, towards: Callable) -> training.Objective:
    """The sum of the two, to train a path with."""
    return training.Objective(Partial(_both, away, towards), (training.retain(problem), training.forget(problem)))


def _both(away: Callable, towards: Callable, params: Params, batches: tuple, now: training.Now) -> tuple:
    retain, forget = batches
    retain_key, forget_key = jax.random.split(now.key)
    descent = towards(params, (retain,), now._replace(key=retain_key))
    return *descent, *away(params, (forget,), now._replace(key=forget_key))
