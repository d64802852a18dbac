"""Along a path: evaluate many t in one compiled call, and read the values."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int

from mcu_jax import chunks, curves, metrics, outputs, rules, sharding, training, trees
from mcu_jax.base import Batch, Curve, Evaluation, Path, Problem, UserError
from mcu_jax.rules import Rule

BRIEF = 500
"""Examples of each split that a measurement looks at."""
GRID = 1001
"""Points of the fine grid on [0, 1] on which a score is minimised."""


class Choice(NamedTuple):
    """A point on a path: t in [0, 1] (never an index), and the score that a rule gives the model there."""

    t: Float[Any, ""]
    score: Float[Any, ""]


def points(count: int) -> np.ndarray:
    """`count` equally spaced t from 0 to 1, both included. Raises UserError for fewer than a cubic needs: four."""
    if count < 4:
        raise UserError(f"a path needs at least 4 points to put a cubic spline through, given {count}")
    return np.linspace(0, 1, count, dtype=np.float32)


def sweep(f: Callable[..., Any], path: Path, ts: Any, curve: Curve = curves.bezier, chunk: int | None = None) -> Any:
    """f(params at t) for every t in one compiled call; leaves of the result are [T, …].

    chunk: how many t are evaluated side by side: 1 a loop, T a full vmap. None: `best_chunk` where that fits the
    memory; on an accelerator what a short measurement finds, which is remembered in the user's cache directory. Where
    memory runs out it halves, and a warning, or a line of the run, says so; under a trace none of this can be.
    f: a module-level function or a `jax.tree_util.Partial` of one over arrays: then new values compile nothing.
    Raises UserError for a chunk below 1, a t outside [0, 1], or memory that does not suffice for one t.
    """
    f, ts = trees.as_partial(f), _checked(ts)

    def brief(count: int) -> chunks.Work:
        return chunks.Work(_sweep, (f, path, ts[:count]), {"curve": curve})

    return chunks.side_by_side(brief(len(ts)), brief, f, path.start, len(ts), chunk)


def _checked(ts: Any) -> Float[Array, "T"]:
    ts = jnp.asarray(ts, jnp.float32)
    if not isinstance(ts, jax.core.Tracer) and not bool(jnp.all((ts >= 0) & (ts <= 1))):
        raise UserError(f"t lies in [0, 1], given {np.asarray(ts).tolist()}")
    return ts


@functools.partial(jax.jit, static_argnames=("curve", "chunk"))
def _sweep(f: Partial, path: Path, ts: Array, *, curve: Curve, chunk: int) -> Any:
    return sharding.map_over(lambda t: f(curve(path, t)), ts, chunk)


def best_chunk(f: Callable[..., Any], path: Path, count: int) -> int:
    """How many of so many t go side by side where nothing is measured: `chunks.usual`."""
    return chunks.usual(trees.as_partial(f), path.start, count)


def evaluate(
    problem: Problem,
    path: Path,
    ts: Any,
    curve: Curve = curves.bezier,
    chunk: int | None = None,
    *,
    references: Mapping[str, Any] | None = None,
) -> Evaluation:
    """`metrics.evaluate` at every t, leaves [T, …]; BatchNorm statistics refreshed from retain data at each.

    Every batch is read once for all t. A model that brought running statistics of its own keeps them where the path is
    at θ_o, and only there. chunk: see `sweep`.
    """
    return evaluate_with_ensembles(problem, path, ts, curve, chunk, references=references, members=())[0]


def evaluate_with_ensembles(
    problem: Problem,
    path: Path,
    ts: Any,
    curve: Curve = curves.bezier,
    chunk: int | None = None,
    *,
    references: Mapping[str, Any] | None = None,
    members: Sequence[Sequence[int]],
) -> tuple[Evaluation, Evaluation]:
    """`evaluate`, and the same of ensembles of points, leaves [ensembles, …].

    members: the points of each, by their place in ts; an ensemble says the mean of their probabilities.
    """
    ts, count = _checked(ts), len(ts)
    settings = {"curve": curve, "members": tuple(map(tuple, members))}
    work = chunks.Work(_evaluate, (problem, path, ts, dict(references or {})), settings)

    def brief(count: int) -> chunks.Work:
        return chunks.Work(_evaluate, (_few(problem), path, ts[:count], {}), {"curve": curve, "members": ()})

    values = chunks.side_by_side(work, brief, Partial(metrics.evaluate, problem), path.start, len(ts), chunk)
    return _parted(values, count=count)


@functools.partial(jax.jit, static_argnames=("count",))
def _parted(values: Evaluation, *, count: int) -> tuple[Evaluation, Evaluation]:
    return jax.tree.map(lambda leaf: leaf[:count], values), jax.tree.map(lambda leaf: leaf[count:], values)


def _few(problem: Problem) -> Problem:
    """With no more than a batch of each split."""
    splits = {name: getattr(problem, name) for name in ("forget", "retain", "validation", "test", "forget_test")}
    return dataclasses.replace(problem, **{name: rows[:BRIEF] for name, rows in splits.items() if rows is not None})


@functools.partial(jax.jit, static_argnames=("curve", "chunk", "members"))
def _evaluate(
    problem: Problem,
    path: Path,
    ts: Array,
    references: dict[str, Array],
    *,
    curve: Curve,
    chunk: int,
    members: tuple[tuple[int, ...], ...],
) -> Evaluation:
    """Points first, then ensembles."""
    stats = sharding.map_over(lambda t: training.evaluation_stats(problem, curve(path, t)), ts, chunk)

    def forward(batch: Batch) -> Array:
        def at(point: tuple[Array, Any]) -> Array:
            t, stats_at_t = point
            return outputs.forward(problem, curve(path, t), batch, stats_at_t)[0]

        logits = sharding.map_over(at, (ts, stats), chunk)
        ensembles = [metrics.ensemble(logits[jnp.asarray(chosen)])[None] for chosen in members]
        return jnp.concatenate([logits, *ensembles])

    return metrics.over_splits(problem, forward, many=1, references=references)


@jax.jit
def standings(evaluation: Evaluation) -> rules.Standing:
    """What rules look at, at every t [T], from an evaluation along a path."""
    return jax.vmap(rules.standing)(evaluation)


def fine_scores(
    ts: np.ndarray, standings: rules.Standing, targets: rules.Targets, rule: Rule = rules.accuracy
) -> Float[Array, "grid"]:
    """The rule's score on `GRID` points of [0, 1], through a cubic not-a-knot spline of each value, clipped to [0, 1].

    ts: known when compiling, increasing from 0 to 1, at least 4 (else UserError). Traceable in the standings.
    """
    ts = np.asarray(ts, np.float64)
    if len(ts) < 4:
        raise UserError(f"a cubic spline needs at least 4 points, given {len(ts)}")
    from scipy.interpolate import CubicSpline

    # A spline is linear in its values, so one matrix serves every path of a sweep, also under vmap.
    basis = jnp.asarray(CubicSpline(ts, np.eye(len(ts)), bc_type="not-a-knot")(np.linspace(0, 1, GRID)), jnp.float32)
    values = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), standings)
    return _spline_scores(basis, values, targets, rule=rule)


@functools.partial(jax.jit, static_argnames=("rule",))
def _spline_scores(
    basis: Array, standings: rules.Standing, targets: rules.Targets, *, rule: Rule
) -> Float[Array, "grid"]:
    smooth = functools.partial(jnp.matmul, basis, precision=jax.lax.Precision.HIGHEST)
    return rule(jax.tree.map(lambda values: jnp.clip(smooth(values), 0, 1), standings), targets)


def best_t(
    ts: np.ndarray,
    standings: rules.Standing,
    targets: rules.Targets,
    forget_size: int,
    rule: Rule = rules.accuracy,
) -> Choice:
    """The point of the smallest of `fine_scores`: the smallest t within half a forget example, ¼ · 1/|D_f|, of it.

    Accuracy moves in steps of 1/|D_f|, so its score has flat bottoms; of equals the one nearest θ_o is taken, but never
    one before a point that has a score of 0. (Shi & Wang 2025, arXiv 2505.10859, search [0.75, 1] for the bare
    minimum.) The score given is the spline's: `choose` evaluates it. Traceable in the standings.
    """
    scores = fine_scores(ts, standings, targets, rule)
    return _first_within(jnp.linspace(0, 1, GRID), scores, rules.tolerance(forget_size))


@jax.jit
def _first_within(ts: Float[Array, "n"], scores: Float[Array, "n"], tolerance: Any) -> Choice:
    least = jnp.min(scores)
    first = jnp.argmax(scores <= least + jnp.where(least <= _EXACT, _EXACT, tolerance))
    return Choice(ts[first], scores[first])


_EXACT = 1e-6
"""A score of no more is rounding: the point has what it should."""


def choose(
    problem: Problem,
    path: Path,
    ts: np.ndarray,
    standings: rules.Standing,
    targets: rules.Targets,
    curve: Curve = curves.bezier,
    rule: Rule = rules.accuracy,
) -> Choice:
    """`best_t` with the score the model there really has; an evaluated point of a path instead, where that is better.

    standings: at ts. Both ends are among them: at t = 0 the choice is to stay at θ_o, at t = 1 to take θ_p. Of equally
    good evaluated points the one nearest θ_o, as in `best_t`. Traceable.
    """
    size = len(problem.forget)
    guess = best_t(ts, standings, targets, size, rule)
    there = rules.standing(metrics.evaluate(problem, curve(path, guess.t)))
    realised = rule(there, targets)
    evaluated = _first_within(jnp.asarray(ts, jnp.float32), rule(standings, targets), rules.tolerance(size))
    return _better(Choice(guess.t, realised), evaluated)


@jax.jit
def _better(guess: Choice, other: Choice) -> Choice:
    is_better = other.score < guess.score - _EXACT
    return jax.tree.map(functools.partial(jnp.where, is_better), other, guess)


def effective_region(
    ts: np.ndarray, standings: rules.Standing, targets: rules.Targets, rule: Rule = rules.accuracy
) -> list[tuple[float, float]]:
    """The maximal intervals [a, b] of t, to a grid of 1/1000, where the rule's score is lower than at t = 1."""
    scores = np.asarray(fine_scores(ts, standings, targets, rule))
    inside = np.concatenate([[False], scores < scores[-1] - 1e-6, [False]])
    edges = np.flatnonzero(np.diff(inside.astype(int)))
    return [(float(a) / (GRID - 1), float(b - 1) / (GRID - 1)) for a, b in edges.reshape(-1, 2)]


def barrier(ts: Any, values: Float[Any, "T"], *, lower_is_better: bool = True) -> Float[Array, ""]:
    """Largest excess of the values over the straight line between their ends, ≥ 0, in the values' unit. Best: 0.

    lower_is_better=False: the largest shortfall (the loss on D_f, an accuracy). Frankle et al. 2020, arXiv 1912.05671.
    """
    ts, values = jnp.asarray(ts), jnp.asarray(values)
    excess = values - ((1 - ts) * values[0] + ts * values[-1])
    return jnp.maximum(jnp.max(excess if lower_is_better else -excess), 0.0)


class Smoothness(NamedTuple):
    """How a metric moves along a path, in the metric's unit. Best: small."""

    total_variation: Float[Array, ""]
    max_second_difference: Float[Array, ""]


def smoothness(values: Sequence[float] | Float[Any, "T"]) -> Smoothness:
    """Total variation Σ|vᵢ₊₁ − vᵢ| and largest |vᵢ₊₁ − 2vᵢ + vᵢ₋₁| over equally spaced t (at least 3)."""
    values = jnp.asarray(values)
    return Smoothness(jnp.sum(jnp.abs(jnp.diff(values))), jnp.max(jnp.abs(jnp.diff(values, n=2))))


SPLITS = ("retain", "forget", "validation", "test")


@jax.jit
def measures(evaluation: Evaluation) -> dict[str, Float[Array, "T"]]:
    """Everything that an evaluation along a path [T, …] says at every t, by name.

    `SPLIT_loss` (mean, nats), `SPLIT_accuracy` of `SPLITS`; `unseen_distance`, of D_f from unseen examples, which sees
    what was forgotten too much as well as too little; with references "retrained" and "untrained", `js`: to the
    retrained model, `zrf`: against the untrained one. Membership attacks are fitted on the host, one t after another:
    `metrics.mia`.
    """

    def at_one(one: Evaluation) -> dict[str, Array]:
        values = {}
        for split in SPLITS:
            scores = getattr(one, split)
            values[f"{split}_loss"] = jnp.mean(scores.loss)
            values[f"{split}_accuracy"] = metrics.accuracy(scores)
        values["unseen_distance"] = metrics.unseen_distance(one)
        if "retrained" in one.js:
            values["js"] = metrics.js(one, "retrained")
        if "untrained" in one.js:
            values["zrf"] = metrics.zrf(one, "untrained")
        return values

    return jax.vmap(at_one)(evaluation)


RISING = ("retain_accuracy", "validation_accuracy", "test_accuracy", "forget_loss", "MIA")
"""Measures that may not fall below the straight line between their ends."""
FALLING = ("retain_loss", "validation_loss", "test_loss", "forget_accuracy", "js", "unseen_distance")
"""Measures that may not rise above it; any other may do neither."""


def barriers(ts: Any, values: Mapping[str, Float[Any, "T"]]) -> dict[str, Float[Array, ""]]:
    """The `barrier` of every measure along a path, on the side that is worse for an unlearned model; in its own unit.

    Retain loss may not rise, forget loss may not fall, and so on: `RISING`, `FALLING`; of a measure without a good side
    (zrf) the larger of both. values: as `measures` gives them, perhaps with MIA.
    """
    worst = {}
    for name, value in values.items():
        above, below = barrier(ts, value), barrier(ts, value, lower_is_better=False)
        worst[name] = above if name in FALLING else below if name in RISING else jnp.maximum(above, below)
    return worst


class Connection(NamedTuple):
    """Barriers of the mean losses, in nats, and of accuracies, as fractions. Best: 0.

    retain_loss: how far the loss on D_r rises over the straight line between its ends; forget_loss: how far that on D_f
    falls below it. accuracy: the largest barrier of an accuracy, on D_r (it may not fall) or D_f (it may not rise).
    """

    retain_loss: Float[Any, ""]
    forget_loss: Float[Any, ""]
    accuracy: Float[Any, ""]

    @property
    def connected(self) -> Bool[Array, ""]:
        """A reading aid, no finding: whether no accuracy barrier passes 2 points. Publish the barriers."""
        return jnp.asarray(self.accuracy) <= 0.02


def connection(ts: Any, values: Mapping[str, Float[Any, "T"]]) -> Connection:
    """Whether retain loss stays low and forget loss high along a path (Cheng & Amiri 2025, arXiv 2504.06407).

    values: as `measures` gives them.
    """
    worst = barriers(ts, values)
    accuracy = jnp.maximum(worst["retain_accuracy"], worst["forget_accuracy"])
    return Connection(worst["retain_loss"], worst["forget_loss"], accuracy)


def arc_length(path: Path, ts: Any, curve: Curve = curves.bezier) -> Float[Array, ""]:
    """Length of a path in parameter space, Σ ‖φ(tᵢ₊₁) − φ(tᵢ)‖ over increasing t; at least ‖φ(1) − φ(0)‖."""
    ts = jnp.asarray(ts, jnp.float32)
    pairs = (ts[:-1], ts[1:])
    steps = jax.lax.map(lambda pair: optax.tree.norm(optax.tree.sub(curve(path, pair[1]), curve(path, pair[0]))), pairs)
    return jnp.sum(steps)


class Interior(NamedTuple):
    """Points strictly between the ends. share: those of a lower score than both ends. best: index of the lowest."""

    share: Float[Array, ""]
    best: Int[Array, ""]


def interior(scores: Float[Any, "T"]) -> Interior:
    """Whether a path holds better models than its ends, by any score whose best value is 0, such as a rule's.

    To choose on D_v and report on D_t, the score is `rules.accuracy` with D_v's accuracy, and θ_o's there, in place of
    D_r's.
    Raises UserError for fewer than 3 points.
    """
    scores = jnp.asarray(scores)
    if scores.shape[0] < 3:
        raise UserError(f"a path without points between its ends has no interior, given {scores.shape[0]} points")
    inside = scores[1:-1]
    better = inside < jnp.minimum(scores[0], scores[-1])
    return Interior(jnp.mean(better.astype(jnp.float32)), 1 + jnp.argmin(inside))


def share_within(values: Float[Any, "T"], spread: Float[Any, "runs"]) -> Float[Array, ""]:
    """Fraction of t whose value lies between the smallest and the largest of retrained models: the oracle's reading."""
    values, spread = jnp.asarray(values), jnp.asarray(spread)
    return jnp.mean(((values >= jnp.min(spread)) & (values <= jnp.max(spread))).astype(jnp.float32))
