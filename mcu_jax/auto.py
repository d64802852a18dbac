"""A path that chooses its own settings by the score of its best point, which needs no retrained model.

`search`: candidates trained together, the better ones of them longer (successive halving: Jamieson &
Talwalkar 2016, arXiv 1502.07943). `finish`: the winner trained on until its score stops improving.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

from mcu_jax import chunks, connect, curves, metrics, outputs, paths, rules, sources, training, trees
from mcu_jax.base import Curve, Mask, Params, Path, Problem, RandomKey, UserError

TRIED = (
    (1.0, connect.SWITCHED, 0),
    (3.0, connect.SWITCHED, 0),
    (10.0, connect.SWITCHED, 0),
    (3.0, 0.2, 0),
    (3.0, connect.SWITCHED, 1),
    (10.0, connect.SWITCHED, 1),
)
"""(factor of the learning rate that is given, forgetting penalty, which mask) of every candidate."""
RUNGS = (6, 2)
"""How many candidates are trained further, each time longer by as much as they are fewer."""
POINTS = 11
"""How many t of a path are evaluated for its score: those of a sweep of 21, 31, … are among them."""
ROUNDS = 4
"""In how many parts the winner is trained on."""
PATIENCE = 2
"""After so many rounds without a better score it is left alone."""
FEWEST = 50
"""At least so many examples of every split are looked at, or all."""


class Tuning(NamedTuple):
    """The settings of the plain path, and how many times its cost may be spent.

    The cost is counted in examples: of a step of training three times its batch, of an evaluation once.
    """

    budget: float = 4.0
    rule: rules.Rule = rules.distribution
    curve: Curve = curves.bezier
    bends: int = 1
    steps: int = connect.STEPS
    lr: float = 0.01
    momentum: Any = 0.9
    batch_size: int = 128
    retain_fraction: float = 0.5


PLAIN = Tuning()


class Candidate(NamedTuple):
    """Settings of a path. mask: what moves; keep, retain_filter: the shares of weights it realises."""

    lr: Float[Any, "*n"]
    beta: Float[Any, "*n"]
    mask: Mask
    keep: Float[Any, "*n"]
    retain_filter: Float[Any, "*n"]


class Found(NamedTuple):
    """The best candidate, and its inner points. score: of its best point; line: of the straight line's, to compare.

    steps: of its own training. bent: whether the path is better than the line; if not, it is the line.
    """

    inner: Params
    settings: Candidate
    score: Float[Any, ""]
    line: Float[Any, ""]
    steps: Int[Any, ""]
    bent: Bool[Any, ""]


def candidates(problem: Problem, mask: connect.MaskInfo | None, lr: float) -> Candidate:
    """[n], those of `TRIED`, the plain path first.

    The masks: the one that is given (None: all weights move), and the one whose shares the gradients give, or where
    these are the same, all weights. Raises UserError for a mask of single weights.
    """
    every = connect.MaskInfo(jax.tree.map(lambda leaf: True, problem.params), 1.0, 0.0)
    mask = every if mask is None else mask
    if any(jnp.ndim(leaf) for leaf in jax.tree.leaves(mask.mask)):
        raise UserError("a path that tunes itself takes a mask of whole leaves, as mcu's, given one of single weights")
    other = connect.mcu_mask(problem, jax.random.key(0), kind="gradients") or every
    leaves = zip(jax.tree.leaves(mask.mask), jax.tree.leaves(other.mask), strict=True)
    same = jnp.all(jnp.stack([jnp.asarray(a == b) for a, b in leaves]))
    other = jax.tree.map(lambda each, whole: jnp.where(same, whole, each), other, every)
    made = [
        Candidate(jnp.float32(factor * lr), jnp.float32(beta), *jax.tree.map(jnp.asarray, tuple((mask, other)[which])))
        for factor, beta, which in TRIED
    ]
    return trees.stack(made)


def search(
    problem: Problem, end: Params, key: RandomKey, mask: connect.MaskInfo | None = None, tuning: Tuning = PLAIN
) -> Found:
    """Successive halving among `candidates`, within half of the budget. end: the pre-unlearned model.

    A candidate whose training is no longer finite is out. Raises UserError for a budget below 1.
    """
    if not tuning.budget >= 1:
        raise UserError(
            f"a budget is how many times the plain path's cost may be spent, at least 1; given {tuning.budget}"
        )
    half, few = _half(problem, tuning), _some(problem, tuning)
    goals = rules.targets(problem), rules.targets(few)
    settings, line = candidates(problem, mask, tuning.lr), curves.straight(problem.params, end, tuning.bends)
    inner = jax.tree.map(lambda leaf: jnp.stack([leaf] * RUNGS[0]), line.inner)
    lengths = [RUNGS[0] // count for count in RUNGS]
    per_step = 3 * tuning.batch_size * sum(map(operator.mul, RUNGS, lengths))
    steps = max(1, int((half - (sum(RUNGS) + 1) * _cost(few)) / per_step))
    together = _one_by_one if _convolves(problem) else _side_by_side
    trained, scores = 0, jnp.zeros(RUNGS[0])
    for count, length in zip(RUNGS, lengths, strict=True):
        best = jnp.argsort(scores, stable=True)[:count]
        inner, settings = jax.tree.map(lambda leaf, best=best: leaf[best], (inner, settings))
        parts = tuple(range(trained, trained + length))
        inner, scores = together(
            (problem, few, goals, end, key), inner, settings, tuning=tuning, parts=parts, steps=steps
        )
        trained += length
    best = jnp.argmin(scores)
    inner, settings = jax.tree.map(lambda leaf: leaf[best], (inner, settings))
    straight = _score(few, goals[1], line, tuning)
    return Found(inner, settings, scores[best], straight, jnp.asarray(steps * trained), jnp.asarray(True))


def mcu(
    problem: Problem, end: Params, key: RandomKey, mask: connect.MaskInfo | None = None, tuning: Tuning = PLAIN
) -> tuple[Path, Found]:
    """`search` and `finish`: the path, and how it was found. Raises as they do."""
    search_key, finish_key = jax.random.split(key)
    found = finish(problem, end, finish_key, search(problem, end, search_key, mask, tuning), tuning)
    return Path(problem.params, found.inner, end), found


def finish(problem: Problem, end: Params, key: RandomKey, found: Found, tuning: Tuning = PLAIN) -> Found:
    """The winner trained on, within the other half of the budget; the straight line where no path has a better score.

    Of all rounds the points of the best score are given. A round whose training is no longer finite is the last.
    """
    few = _some(problem, tuning)
    goals = rules.targets(problem), rules.targets(few)
    steps = max(1, int((_half(problem, tuning) / ROUNDS - _cost(few)) / (3 * tuning.batch_size)))
    best, inner = found, found.inner
    idle, going = jnp.asarray(0), jnp.asarray(True)
    for number in range(ROUNDS):
        if not trees.is_traced(going) and not bool(going):
            break
        inner, score = _further(
            (problem, few, goals, end, key), inner, found.settings, tuning=tuning, parts=(number,), steps=steps
        )
        better = going & (score < best.score)
        kept = jax.tree.map(lambda new, old, better=better: jnp.where(better, new, old), inner, best.inner)
        trained = jnp.where(going, best.steps + steps, best.steps)
        best = best._replace(inner=kept, score=jnp.where(better, score, best.score), steps=trained)
        idle = jnp.where(better, 0, idle + 1)
        going &= (idle < PATIENCE) & jnp.isfinite(score)
    bent = best.score < best.line - rules.tolerance(len(problem.forget))
    line = curves.straight(problem.params, end, tuning.bends).inner
    kept = jax.tree.map(lambda new, old: jnp.where(bent, new, old), best.inner, line)
    return best._replace(inner=kept, score=jnp.where(bent, best.score, best.line), bent=bent)


Given = tuple[Problem, Problem, tuple[rules.Targets, rules.Targets], Params, RandomKey]
"""The problem and the part of it that is looked at, the targets of either, the pre-unlearned model, a random key."""


def _further(
    given: Given, inner: Params, settings: Candidate, *, tuning: Tuning, parts: tuple[int, ...], steps: int
) -> tuple[Params, Float[Array, ""]]:
    """One candidate trained on in parts of so many steps, and its score; where that failed, infinity."""
    problem, few, goals, end, key = given
    half_key, fit_key = jax.random.split(key)
    objective = connect.objective(
        problem, goals[0], half_key, beta=settings.beta, retain_fraction=tuning.retain_fraction
    )
    path, fine = Path(problem.params, inner, end), jnp.asarray(True)
    for part in parts:
        try:
            with training.failures() as failed:
                path, _ = connect.train_on(
                    objective,
                    path,
                    problem.data,
                    jax.random.fold_in(fit_key, part),
                    mask=settings.mask,
                    curve=tuning.curve,
                    steps=steps,
                    lr=settings.lr,
                    momentum=tuning.momentum,
                    batch_size=tuning.batch_size,
                )
        except training.NonFiniteLossError:
            return path.inner, jnp.asarray(jnp.inf)
        fine &= failed[-1] < 0 if failed else True
    return path.inner, jnp.where(fine, _score(few, goals[1], path, tuning), jnp.inf)


@functools.partial(jax.jit, static_argnames=("tuning", "parts", "steps"))
def _side_by_side(
    given: Given, inner: Params, settings: Candidate, *, tuning: Tuning, parts: tuple[int, ...], steps: int
) -> tuple[Params, Array]:
    """The parts as one: there is less to compile."""
    further = functools.partial(_further, given, tuning=tuning, parts=parts[:1], steps=steps * len(parts))
    return jax.vmap(further)(inner, settings)


def _one_by_one(
    given: Given, inner: Params, settings: Candidate, *, tuning: Tuning, parts: tuple[int, ...], steps: int
) -> tuple[Params, Array]:
    """As convolutions want it; parts of one length are one compilation."""
    further = functools.partial(_further, given, tuning=tuning, parts=parts, steps=steps)
    if trees.is_traced(given, inner):
        return jax.lax.map(lambda one: further(*one), (inner, settings))
    return trees.stack([further(*one) for one in zip(*map(trees.unstack, (inner, settings)), strict=True)])


def _convolves(problem: Problem) -> bool:
    batch = sources.take(problem.data, jnp.asarray(problem.retain)[:1])
    return chunks.convolves(lambda params: outputs.forward(problem, params, batch)[0], problem.params)


# The budget, in examples.


def _half(problem: Problem, tuning: Tuning) -> float:
    """One for the search, one for its winner."""
    examples = len(problem.forget) + round(tuning.retain_fraction * len(problem.retain))
    return tuning.budget / 2 * 3 * tuning.steps * min(tuning.batch_size, examples)


def _some(problem: Problem, tuning: Tuning) -> Problem:
    """A part of every split to score by, so that the search spends no more than half of its half on scores."""
    limit = max(FEWEST, int(_half(problem, tuning) / 2 / (sum(RUNGS) + 1) / POINTS / 4))
    splits = (problem.forget, problem.retain, problem.validation)
    forget, retain, validation = (jax.random.permutation(jax.random.key(0), jnp.asarray(x))[:limit] for x in splits)
    few = dataclasses.replace(problem, forget=forget, retain=retain, validation=validation)
    # Nobody looks at test examples here.
    return dataclasses.replace(
        few, test=validation[:1], forget_test=None if problem.forget_test is None else forget[:1]
    )


def _cost(few: Problem) -> int:
    """Of one score. Retain examples are seen twice, where there are statistics to refresh."""
    return POINTS * (len(few.forget) + 2 * len(few.retain) + len(few.validation))


def _score(few: Problem, targets: rules.Targets, path: Path, tuning: Tuning) -> Float[Array, ""]:
    """Of the best of some points of a path."""
    scores = paths.sweep(Partial(_scorer(tuning.rule), few, targets), path, paths.points(POINTS), tuning.curve)
    return jnp.min(jnp.where(jnp.isfinite(scores), scores, jnp.inf))


@functools.cache
def _scorer(rule: rules.Rule) -> Callable[..., Float[Array, ""]]:
    """Cached, so that the same rule is the same function to the compiler."""

    def score(problem: Problem, targets: rules.Targets, params: Params) -> Float[Array, ""]:
        return rule(rules.standing(metrics.evaluate(problem, params)), targets)

    return score
