"""Training a path between two models: what moves, along which gradient, towards which targets."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

from mcu_jax import connect, curves, losses, masks, metrics, outputs, rules, sources, training, trees
from mcu_jax.base import Path, Problem, UserError
from mcu_jax.training import _loop

KEY = jax.random.key(11)
QUICK = {"steps": 6, "lr": 0.05, "batch_size": 32}


def copy(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.array(x), tree)


def check_moved(problem: Problem, end: Any, path: Path, mask: Any) -> None:
    """The ends bit for bit; the inner point bit for bit outside the mask; inside, every leaf moved."""
    chex.assert_trees_all_equal((path.start, path.end), (problem.params, end))
    before = curves.straight(problem.params, end, curves.bends(path)).inner
    chex.assert_trees_all_equal_shapes_and_dtypes(path.inner, before)
    chex.assert_tree_all_finite(path.inner)
    for name, mask_leaf, x, y in zip(
        trees.names(before), *map(jax.tree.leaves, (mask, before, path.inner)), strict=True
    ):
        may = np.broadcast_to(mask_leaf, x.shape)
        moved = np.asarray(x != y)
        assert not moved[~may].any(), name
        assert not may.any() or moved.any(), name


@pytest.mark.parametrize("kind", ["mcu", "random", "none"])
def test_only_the_inner_point_moves_and_only_inside_the_mask(problem: Problem, unlearned: Any, kind: str) -> None:
    before = copy((problem.params, unlearned))
    path, info = connect.mcu(problem, unlearned, KEY, mask=kind, momentum=0.9, **QUICK)
    chex.assert_trees_all_equal(before, copy((problem.params, unlearned)))
    everything = jax.tree.map(lambda _: True, problem.params)
    check_moved(problem, unlearned, path, everything if kind == "none" else info.mask.mask)
    assert (info.mask is None) == (kind == "none")
    assert info.losses.shape == (2 * 3,)
    if info.mask is not None:
        assert 0 < float(info.mask.keep) < 1
        np.testing.assert_allclose(masks.realised(info.mask.mask, problem.params), info.mask.keep)


def test_masks_of_replicates_trained_together_hold_too(problem: Problem, unlearned: Any) -> None:
    """Under vmap over models the mask is not known before compiling: it freezes updates in place of gradients."""
    pairs = [(problem.params, unlearned), (unlearned, problem.params)]

    def run(start: Any, end: Any) -> Any:
        here = dataclasses.replace(problem, params=start)
        return connect.mcu(here, end, KEY, keep=0.1, retain_filter=0.0, **QUICK)

    together, info = jax.jit(jax.vmap(run))(*(trees.stack(side) for side in zip(*pairs, strict=True)))
    for i, (start, end) in enumerate(pairs):
        path, mask = trees.unstack(together)[i], trees.unstack(info.mask.mask)[i]
        assert set(map(bool, jax.tree.leaves(mask))) == {True, False}
        check_moved(dataclasses.replace(problem, params=start), end, path, mask)
    alone, _ = run(*pairs[0])
    chex.assert_trees_all_close(trees.unstack(together)[0], alone, rtol=1e-3, atol=1e-5)


def test_random_mask_is_of_the_realised_size(problem: Problem) -> None:
    options = {"keep": 0.3, "retain_filter": 0.05}
    two_stage = connect.mcu_mask(problem, KEY, kind="mcu", **options)
    control = connect.mcu_mask(problem, KEY, kind="random", **options)
    assert int(masks.count(control.mask, problem.params)) == int(masks.count(two_stage.mask, problem.params))
    assert float(control.keep) == float(two_stage.keep) > 0
    chex.assert_trees_all_equal_shapes(control.mask, problem.params)
    assert connect.mcu_mask(problem, KEY, kind="none") is None
    with pytest.raises(UserError, match="mcu, gradients, random, none; given 'all'"):
        connect.mcu_mask(problem, KEY, kind="all")


@pytest.mark.parametrize(
    ("forget", "retain", "cal_r", "cal_f", "beta"),
    [
        (0.5, 0.9, 0.9, 0.6, 0.0),  # below its target
        (0.6, 0.9, 0.9, 0.6, 0.0),  # at it
        (0.66, 0.9, 0.75, 0.6, 0.01),  # 10 % above its target, retain 20 % above
        (0.75, 0.9, 0.75, 0.6, 0.5),  # 25 % above, retain 20 % above
        (0.75, 0.75, 0.5, 0.5, 0.5),  # equal shares: not less
        (1.0, 1.0, 1.0, 0.9, 0.5),  # the retain accuracy cannot exceed a target of 1
        (0.0, 0.9, 0.9, 0.0, 0.0),  # class-wise, forgotten
        (0.1, 1.0, 0.5, 0.0, 0.5),  # class-wise: no division by zero
    ],
)
def test_adaptive_beta(forget: float, retain: float, cal_r: float, cal_f: float, beta: float) -> None:
    values = (jnp.float32(value) for value in (forget, retain))
    with jax.debug_nans(True):
        found = connect.adaptive_beta(*values, rules.Targets(jnp.float32(cal_r), jnp.float32(cal_f), 0.0))
    assert float(found) == pytest.approx(beta)


def test_adaptive_beta_has_no_gradient() -> None:
    targets = rules.Targets(0.9, 0.5, 0.5)
    assert float(jax.grad(lambda a: connect.adaptive_beta(a, jnp.float32(1.0), targets))(0.8)) == 0


def test_targets(problem: Problem) -> None:
    found = metrics.evaluate(problem, problem.params)
    right = sum(float(jnp.sum(scores.correct)) for scores in (found.forget, found.retain))
    goal = rules.targets(problem)
    np.testing.assert_allclose(goal.retain, right / 120, rtol=1e-6)
    np.testing.assert_allclose(goal.forget, metrics.accuracy(found.validation), rtol=1e-6)
    classwise = rules.targets(dataclasses.replace(problem, forget_test=problem.validation))
    assert float(classwise.forget) == 0
    assert float(classwise.retain) == float(goal.retain)
    assert float(goal.validation) == float(classwise.validation) == float(goal.forget)


# The objective.


def taken(problem: Problem, rows: Any) -> tuple[Any, Any]:
    batch = sources.take(problem.data, rows)
    return outputs.inputs(batch), outputs.labels(batch)


def batch_of(problem: Problem, forget: int, retain: int) -> tuple:
    """As the loop gives it: (examples, which of them are to be forgotten)."""
    mixed = training.mix(problem.forget[:forget], problem.retain[:retain])
    return sources.take(problem.data, mixed.rows), mixed.extra


@functools.partial(jax.jit, static_argnames="curve")
@functools.partial(jax.value_and_grad, argnums=2)
def objective(problem: Problem, end: Any, inner: Any, batch: tuple, curve: Any, beta: Any) -> Any:
    """MCU's loss at the t that `KEY` draws, and its gradient."""
    now = training.Now(jnp.asarray(0), jnp.asarray(1), KEY, jnp.asarray(0))
    goal = rules.Targets(jnp.float32(0.9), jnp.float32(0.2), jnp.float32(0.5))
    beta = jnp.asarray(-1.0 if beta is None else beta)
    at_t = Partial(connect._penalised, problem, goal, beta)
    along = connect._along(curve, connect.SAMPLING["uniform"])
    return training.total(along(at_t, problem.params, end, inner, (batch,), now))


def bent(problem: Problem, end: Any, bends: int) -> Any:
    inner = curves.straight(problem.params, end, bends).inner
    return jax.tree.map(
        lambda k, x: x + 0.1 * jax.random.normal(k, x.shape), optax.tree.split_key_like(KEY, inner), inner
    )


def test_objective_and_gradient_are_the_formula(problem: Problem, unlearned: Any) -> None:
    """Retain mean − β forget mean at one t; the gradient is 2t(1 − t) times the gradient at φ(t)."""
    batch, inner = batch_of(problem, 6, 20), bent(problem, unlearned, 1)
    t = jax.random.uniform(jax.random.split(KEY)[0])
    at_t = curves.bezier(Path(problem.params, inner, unlearned), t)

    x, y = taken(problem, np.concatenate([problem.forget[:6], problem.retain[:20]]))

    @jax.jit
    def expected(params: Any) -> jax.Array:
        nll = losses.nll(problem.model.apply(params, x)[0], y)
        return jnp.mean(nll[6:]) - 0.2 * jnp.mean(nll[:6])

    value, grads = objective(problem, unlearned, inner, batch, curves.bezier, 0.2)
    np.testing.assert_allclose(value, expected(at_t), rtol=1e-4)
    chain_rule = jax.tree.map(lambda g: 2 * t * (1 - t) * g[None], jax.grad(expected)(at_t))
    chex.assert_trees_all_close(grads, chain_rule, rtol=1e-3, atol=1e-5)
    assert float(optax.tree.norm(grads)) > 1e-3


@pytest.mark.parametrize(("curve", "bends"), [(curves.bezier, 2), (curves.polychain, 1)])
def test_gradient_agrees_with_finite_differences(problem: Problem, unlearned: Any, curve: Any, bends: int) -> None:
    batch, inner = batch_of(problem, 6, 20), bent(problem, unlearned, bends)

    def value(inner: Any) -> tuple:
        return objective(problem, unlearned, inner, batch, curve, 0.2)

    grads = value(inner)[1]
    direction = optax.tree.scale(1 / optax.tree.norm(grads), grads)
    step = 1e-2
    ends = [float(value(optax.tree.add(inner, optax.tree.scale(s, direction)))[0]) for s in (step, -step)]
    np.testing.assert_allclose((ends[0] - ends[1]) / (2 * step), optax.tree.norm(grads), rtol=0.02)


def test_another_optimiser_gets_the_same_gradient(problem: Problem, unlearned: Any) -> None:
    """Adam's first step is lr · g/(|g| + ε): a gradient that is copied, and a scaled lr, would not be."""
    batch, inner = batch_of(problem, 6, 20), bent(problem, unlearned, 1)
    _, grads = objective(problem, unlearned, inner, batch, curves.bezier, 0.2)
    with jax.numpy_dtype_promotion("standard"):
        chain = optax.adam(0.1, eps=1e-3)
        updates, _ = chain.update(grads, chain.init(inner))
    chex.assert_trees_all_close(updates, jax.tree.map(lambda g: -0.1 * g / (jnp.abs(g) + 1e-3), grads), rtol=1e-3)


@pytest.mark.parametrize("beta", [0.2, None])
def test_batches_of_one_kind_are_finite(problem: Problem, unlearned: Any, beta: float | None) -> None:
    inner = bent(problem, unlearned, 1)
    t = jax.random.uniform(jax.random.split(KEY)[0])
    at_t = curves.bezier(Path(problem.params, inner, unlearned), t)
    for sizes, rows, sign in (((0, 20), problem.retain, 1.0), ((20, 0), problem.forget, -1.0)):
        batch = batch_of(problem, *sizes)
        value, grads = objective(problem, unlearned, inner, batch, curves.bezier, beta)
        chex.assert_tree_all_finite((value, grads))
        x, y = taken(problem, rows[:20])
        mean = jnp.mean(losses.nll(problem.model.apply(at_t, x)[0], y))
        # Nothing to forget: no penalty. Nothing to retain: the penalty alone, here strong where adaptive.
        strength = 1.0 if sign > 0 else (0.2 if beta else 0.5)
        np.testing.assert_allclose(value, sign * strength * mean, rtol=1e-4)


# Options.


def test_beta_is_fixed_or_adaptive_and_maps(problem: Problem, unlearned: Any) -> None:
    def inner(beta: Any) -> Any:
        return connect.mcu(problem, unlearned, KEY, beta=beta, mask="none", **QUICK)[0].inner

    fixed, none, adaptive = inner(0.3), inner(0.0), inner("adaptive")
    for other in (none, adaptive):
        assert float(optax.tree.norm(optax.tree.sub(fixed, other))) > 1e-4
    mapped = jax.vmap(inner)(jnp.array([0.3, 0.0]))
    chex.assert_trees_all_close(trees.unstack(mapped), [fixed, none], rtol=1e-3, atol=1e-5)
    with pytest.raises(UserError, match="'adaptive' or a number from 0 on, given 'adaptve'"):
        inner("adaptve")


@pytest.mark.parametrize(("curve", "bends"), [(curves.polychain, 1), (curves.bezier, 2)])
def test_other_curves_train_every_bend(problem: Problem, unlearned: Any, curve: Any, bends: int) -> None:
    path, info = connect.mcu(problem, unlearned, KEY, curve=curve, bends=bends, mask="none", **QUICK)
    check_moved(problem, unlearned, path, jax.tree.map(lambda _: True, problem.params))
    before = curves.straight(problem.params, unlearned, bends).inner
    for i in range(bends):
        assert float(optax.tree.norm(jax.tree.map(lambda x, y, i=i: x[i] - y[i], path.inner, before))) > 1e-4
    chex.assert_tree_all_finite(info.losses)


@pytest.mark.parametrize("beta", ["adaptive", 0.2])
def test_what_is_told_of_a_step_is_what_it_used(problem: Problem, unlearned: Any, beta: Any) -> None:
    """By the loss of the first, whose batch is of all examples, on the straight line."""
    every = len(problem.forget) + len(problem.retain)
    _, info = connect.mcu(problem, unlearned, KEY, beta=beta, mask=None, retain_fraction=1.0, steps=3, batch_size=every)
    told = {name: np.asarray(values) for name, values in info.notes.items()}
    assert {name: len(values) for name, values in told.items()} == {"beta": 3, "t": 3}
    assert len(set(told["t"].tolist())) == 3
    line = curves.straight(problem.params, unlearned)
    found = metrics.evaluate(problem, curves.bezier(line, float(told["t"][0])))
    expected = found.retain.loss.mean() - told["beta"][0] * found.forget.loss.mean()
    np.testing.assert_allclose(info.losses[0], expected, rtol=1e-4)
    reached = 1 - metrics.ua(found), metrics.ra(found)
    assert told["beta"][0] == pytest.approx(
        connect.adaptive_beta(*reached, info.targets) if beta == "adaptive" else beta
    )


def test_batches_are_of_the_forget_set_and_a_part_of_the_rest_drawn_once(
    problem: Problem, unlearned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, halves = [], []

    def spy(objective: training.Objective, params: Any, *_: Any, **options: Any) -> training.Fit:
        drawn.append(objective.streams)
        return training.Fit(params, jnp.zeros(1), jnp.asarray(-1), {})

    monkeypatch.setattr(training, "fit", spy)
    for fraction, size in ((0.5, 48), (1.0, 96), (0.25, 24)):
        connect.mcu(problem, unlearned, KEY, mask="none", retain_fraction=fraction)
        (stream,) = drawn.pop()
        assert stream.extra.tolist() == [True] * 24 + [False] * size
        np.testing.assert_array_equal(stream.rows[:24], problem.forget)
        chosen = set(stream.rows[24:].tolist())
        assert chosen <= set(problem.retain.tolist())
        assert len(chosen) == size
    for seed in (0, 0, 1):
        connect.mcu(problem, unlearned, jax.random.key(seed), mask="none")
        halves.append(set(drawn.pop()[0].rows[24:].tolist()))
    assert halves[0] == halves[1] != halves[2]
    for bad in (0.0, 1.1, -0.5):
        with pytest.raises(UserError, match=r"retain_fraction lies in \(0, 1\]"):
            connect.mcu(problem, unlearned, KEY, retain_fraction=bad)


def test_models_that_differ_are_refused_by_the_leaf(problem: Problem, unlearned: Any) -> None:
    other = jax.tree.map(lambda x: x, unlearned)
    other["head"]["bias"] = jnp.zeros(11)
    with pytest.raises(trees.TreeMismatchError, match=r"'head/bias': float32\[10\] against float32\[11\]"):
        connect.mcu(problem, other, KEY)


def test_new_values_compile_nothing(problem: Problem, unlearned: Any) -> None:
    connect.mcu(problem, unlearned, KEY, beta=0.2, **QUICK)
    before = _loop._compiled._cache_size()
    end = jax.tree.map(lambda x: x * 1.1, unlearned)
    connect.mcu(problem, end, jax.random.key(12), beta=0.3, momentum=0.8, **{**QUICK, "lr": 0.01})
    assert _loop._compiled._cache_size() == before


# Between any two models.

SHORT = {"steps": 4, "lr": 0.05, "batch_size": 48}


def test_a_path_between_unlearned_models_leaves_its_ends_alone(problem: Problem, unlearned: Any) -> None:
    other = jax.tree.map(lambda x: 0.9 * x, problem.params)
    before = jax.tree.map(np.array, (other, unlearned))
    path, losses_seen = connect.train(connect.neutral(problem), other, unlearned, problem.data, KEY, **SHORT)
    chex.assert_trees_all_equal((path.start, path.end), before)
    line = curves.straight(other, unlearned, 1)
    assert all(bool((x != y).any()) for x, y in zip(*map(jax.tree.leaves, (path.inner, line.inner)), strict=True))
    assert losses_seen.shape == (4,)


def test_the_neutral_objective_is_the_formula_and_forgets_no_more_than_unseen_examples(problem: Problem) -> None:
    def value(params: Any, weight: float, problem: Problem = problem) -> Any:
        found = connect.neutral(problem, weight=weight)
        now = training.Now(jnp.asarray(0), jnp.asarray(1), KEY, jnp.asarray(0))
        batches = tuple(sources.take(problem.data, stream.rows) for stream in found.streams)
        return training.total(found.terms(params, batches, now))

    def mean(params: Any, rows: Any) -> Any:
        x, y = taken(problem, rows)
        return jnp.mean(losses.nll(problem.model.apply(params, x)[0], y))

    params = jax.tree.map(lambda x: 0.8 * x, problem.params)
    retain, forget = mean(params, problem.retain), mean(params, problem.forget)
    unseen = mean(problem.params, problem.validation)
    assert 0 < float(forget) < float(unseen) < np.log(10)
    np.testing.assert_allclose(value(params, 0.3), retain - 0.3 * forget, rtol=1e-5)
    far = jax.tree.map(lambda x: -5 * x, problem.params)
    assert float(mean(far, problem.forget)) > np.log(10)
    np.testing.assert_allclose(value(far, 0.3), mean(far, problem.retain) - 0.3 * unseen, rtol=1e-5)
    of_a_class = dataclasses.replace(problem, forget_test=problem.validation)
    expected = mean(far, problem.retain) - 0.3 * np.log(10)
    np.testing.assert_allclose(value(far, 0.3, of_a_class), expected, rtol=1e-5)


def test_where_a_path_begins_and_where_t_is_drawn(problem: Problem, unlearned: Any) -> None:
    still = {**SHORT, "lr": 0.0}
    other = jax.tree.map(lambda x: 0.9 * x, problem.params)
    path, _ = connect.train(
        connect.neutral(problem), other, unlearned, problem.data, KEY, origin=problem.params, bends=2, **still
    )
    chex.assert_trees_all_equal(path.inner, trees.stack([problem.params] * 2))
    drawn = jax.vmap(connect.SAMPLING["centred"])(jax.random.split(KEY, 4000))
    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(drawn.std()) == pytest.approx(0.1, abs=0.01)
    found = [
        connect.train(connect.neutral(problem), other, unlearned, problem.data, KEY, sampling=s, **SHORT)[0]
        for s in connect.SAMPLING
    ]
    assert float(optax.tree.norm(optax.tree.sub(found[0].inner, found[1].inner))) > 1e-4
    with pytest.raises(UserError, match="uniform, centred; given 'normal'"):
        connect.train(connect.neutral(problem), other, unlearned, problem.data, KEY, sampling="normal")
    with pytest.raises(trees.TreeMismatchError, match="two ends"):
        connect.train(connect.neutral(problem), other, {"w": jnp.zeros(1)}, problem.data, KEY)
