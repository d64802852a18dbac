"""The one loop: its steps, its segments, its failures; and what is computed over a whole split."""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

from mcu_jax import losses, methods, optimizers, outputs, sources, training, trees
from mcu_jax.base import Problem, UserError
from mcu_jax.training import _loop

KEY = jax.random.key(3)
DATA = {"x": jax.random.normal(jax.random.key(0), (11, 3)), "y": jax.random.normal(jax.random.key(1), (11,))}
START = {"w": jnp.array([0.5, -1.0, 2.0]), "b": jnp.asarray(0.1)}
RATE, MOMENTUM, DECAY = 0.05, 0.9, 0.1


def squares(params: dict, batches: tuple, now: training.Now) -> tuple[training.Term, ...]:
    (batch,) = batches
    return (training.Term(jnp.square(batch["x"] @ params["w"] + params["b"] - batch["y"])),)


def fit(key: jax.Array = KEY, lr: Any = RATE, loss: Any = squares, **kwargs: Any) -> training.Fit:
    options = {"epochs": 3, "batch_size": 4, **kwargs}
    objective = training.Objective(loss, (training.Stream(np.arange(11)),))
    chain = optimizers.make(optimizers.sgd, lr, MOMENTUM, DECAY)
    return training.fit(objective, START, DATA, key, optimizer=chain, **options)


def test_steps_are_a_hand_written_loop() -> None:
    """In one batch of everything the order of examples does not matter."""
    x, y = np.float64(DATA["x"]), np.float64(DATA["y"])
    w, b = np.float64(START["w"]), float(START["b"])
    trace_w, trace_b, expected = np.zeros(3), 0.0, []
    for _ in range(6):
        residual = x @ w + b - y
        expected.append(np.mean(residual**2))
        trace_w = MOMENTUM * trace_w + 2 * x.T @ residual / 11 + DECAY * w
        trace_b = MOMENTUM * trace_b + 2 * residual.mean() + DECAY * b
        w, b = w - RATE * trace_w, b - RATE * trace_b
    found = fit(epochs=6, batch_size=99)
    np.testing.assert_allclose(found.losses, expected, rtol=1e-5)
    np.testing.assert_allclose(found.state["w"], w, rtol=1e-5)
    np.testing.assert_allclose(found.state["b"], b, rtol=1e-5)
    assert int(found.failed) == -1


def test_learning_rate_along_a_cosine_falls_to_zero() -> None:
    chain = optimizers.make(optimizers.sgd, optimizers.cosine(0.2, 10), 0.0, 0.0)()
    state, rates = chain.init(START), []
    for _ in range(10):
        updates, state = chain.update(jax.tree.map(jnp.ones_like, START), state, START)
        rates.append(-float(updates["b"]))
    np.testing.assert_allclose(rates, 0.1 * (1 + np.cos(np.pi * np.arange(10) / 10)), rtol=1e-5)


def test_clip_is_by_global_norm_before_decay() -> None:
    chain = optimizers.make(optimizers.sgd, 1.0, 0.0, 0.5, clip=2.0)()
    updates, _ = chain.update({"w": jnp.array([30.0, 40.0])}, chain.init({"w": jnp.ones(2)}), {"w": jnp.ones(2)})
    np.testing.assert_allclose(updates["w"], [-1.7, -2.1], rtol=1e-6)


class Watcher:
    """Records the segments; goes on from what an earlier one left; may stop."""

    def __init__(self, left: tuple | None = None, stop_after: int | None = None):
        self.left, self.stop_after, self.seen = left, stop_after, []

    def start(self, template: training.Fit, steps: int) -> tuple | None:
        return self.left

    def segment(self, state: training.Fit, step: int, steps: int, loss: float) -> None:
        # The next segment takes the memory of the state.
        self.seen.append((jax.tree.map(np.array, state), step, steps, loss))
        if self.stop_after is not None and step >= self.stop_after:
            raise KeyboardInterrupt


def test_segments_do_not_change_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit()
    for seconds, stops in ((1e-9, list(range(1, 10))), (1e9, [1, 3, 7, 9])):  # of one step; doubling
        monkeypatch.setattr(_loop, "SEGMENT_SECONDS", seconds)
        watcher = Watcher()
        with training.monitored(watcher):
            chex.assert_trees_all_equal(fit(), whole)
        assert [(step, steps) for _, step, steps, _ in watcher.seen] == [(step, 9) for step in stops]
        np.testing.assert_allclose([loss for *_, loss in watcher.seen], whole.losses[np.array(stops) - 1])


def test_going_on_from_a_stopped_loop_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_loop, "SEGMENT_SECONDS", 1e-9)
    first = Watcher(stop_after=4)  # in the middle of an epoch
    with training.monitored(first), pytest.raises(KeyboardInterrupt):
        fit()
    state, step, _, _ = first.seen[-1]
    second = Watcher(left=(jax.tree.map(jnp.asarray, state), step))
    with training.monitored(second):
        resumed = fit()
    chex.assert_trees_all_equal(resumed, fit())
    assert second.seen[0][1] == 5


def test_a_monitor_is_told_inside_its_block_only() -> None:
    watcher = Watcher()
    with training.monitored(watcher):
        pass
    fit()
    assert not watcher.seen


def test_traced_equals_concrete_and_vmap_equals_a_loop() -> None:
    keys, rates = jax.random.split(KEY, 3), jnp.array([0.01, 0.05, 0.1])
    one_by_one = trees.stack([fit(key, lr) for key, lr in zip(keys, rates, strict=True)])
    chex.assert_trees_all_close(jax.vmap(fit)(keys, rates), one_by_one, rtol=1e-5)
    chex.assert_trees_all_close(jax.lax.map(lambda both: fit(*both), (keys, rates)), one_by_one, rtol=1e-5)


def test_new_values_compile_nothing() -> None:
    fit()
    before = _loop._compiled._cache_size()
    fit(jax.random.key(9), 0.123)
    assert _loop._compiled._cache_size() == before


def poisoned(at: Any, params: dict, batches: tuple, now: training.Now) -> tuple[training.Term, ...]:
    """Not finite from step `at` on."""
    (term,) = squares(params, batches, now)
    return (term._replace(coefficient=jnp.where(now.step >= at, jnp.nan, 1.0)),)


def steep(at: Any, params: dict, batches: tuple, now: training.Now) -> tuple[training.Term, ...]:
    """A finite loss whose gradient is not finite at step `at`."""
    cliff = jnp.sqrt(jnp.where(now.step == at, 0.0 * params["b"], 1.0))
    return *squares(params, batches, now), training.Term(cliff)


@pytest.mark.parametrize("loss", [poisoned, steep])
def test_a_bad_step_stops_the_loop_and_is_named(loss: Any) -> None:
    for at in (0, 5):
        with pytest.raises(training.NonFiniteLossError, match=f"at step {at}") as caught:
            fit(loss=Partial(loss, at))
        assert caught.value.step == at


def test_under_a_trace_a_bad_step_is_returned_and_its_update_not_applied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(at: jax.Array) -> tuple[training.Fit, list]:
        with training.failures() as failed:
            return fit(loss=Partial(poisoned, at)), failed

    result, collected = jax.vmap(run)(jnp.array([3, 6, 99]))
    assert result.failed.tolist() == [3, 6, -1]
    assert [steps.tolist() for steps in collected] == [[3, 6, -1]]
    # What is left is the state after the last good step.
    watcher = Watcher()
    monkeypatch.setattr(_loop, "SEGMENT_SECONDS", 1e-9)
    with training.monitored(watcher):
        fit()
    for state, steps in zip(trees.unstack(result.state), (3, 6, 9), strict=True):
        chex.assert_trees_all_close(state, watcher.seen[steps - 1][0].state[0], rtol=1e-5)


def test_a_failure_out_of_the_collectors_reach_spoils_the_result() -> None:
    def inner(at: jax.Array) -> dict:
        return jax.jit(lambda at: fit(loss=Partial(poisoned, at)).state)(at)

    with training.failures() as failed:
        bad, good = (jax.vmap(inner)(jnp.array([at]))["w"] for at in (2, 99))
    assert failed == []
    assert bool(jnp.all(jnp.isnan(bad)))
    assert bool(jnp.all(jnp.isfinite(good)))


def count_seen(state: jax.Array, batches: tuple, now: training.Now) -> tuple[jax.Array, jax.Array]:
    """[steps, streams, examples]: what every step saw."""
    rows = [jnp.zeros(state.shape[-1], jnp.int32).at[batch["i"]].add(1) for batch in batches]
    return state.at[now.step].set(jnp.stack(rows)), jnp.zeros(())


def seen(sizes: tuple[int, ...], steps: int, batch_size: int, key: jax.Array = KEY) -> np.ndarray:
    streams = tuple(training.Stream(np.arange(n)) for n in sizes)
    data = {"i": jnp.arange(max(sizes))}
    state = jnp.zeros((steps, len(sizes), max(sizes)), jnp.int32)
    return np.asarray(training.loop(count_seen, state, streams, data, key, steps=steps, batch_size=batch_size).state)


def test_every_stream_goes_through_all_its_examples_at_its_own_pace() -> None:
    found = seen((12, 8, 3), steps=12, batch_size=4)
    for stream, n, epoch in ((0, 12, 3), (1, 8, 2), (2, 3, 1)):
        for start in range(0, 12, epoch):
            counts = found[start : start + epoch, stream].sum(0)
            assert counts.tolist() == [1] * n + [0] * (12 - n)
    # Reshuffled at that pace: the first batches of a stream's epochs differ.
    for stream, starts in ((0, range(0, 12, 3)), (1, range(0, 12, 2))):
        assert len({found[start, stream].tobytes() for start in starts}) == len(starts)
    assert found.tobytes() != seen((12, 8, 3), 12, 4, jax.random.key(4)).tobytes()


def test_an_epoch_wraps_to_whole_batches() -> None:
    found = seen((10,), steps=6, batch_size=4)[:, 0]
    assert found.sum(1).tolist() == [4] * 6
    for start in (0, 3):
        counts = found[start : start + 3].sum(0)
        assert set(counts) == {1, 2}
        assert counts.sum() == 12
    assert training.steps_per_epoch(10, 4) == 3
    assert training.steps_per_epoch(3, 4) == 1


def test_streams_and_batches_that_are_empty_are_refused() -> None:
    for size, batch_size in ((0, 4), (4, 0)):
        with pytest.raises(UserError, match="at least one example"):
            seen((size, 4), 1, batch_size)


def now_of(state: Any, batches: tuple, now: training.Now) -> tuple:
    return state.at[now.step].set(now.progress), jax.random.uniform(now.key)


def test_progress_and_keys_of_the_steps() -> None:
    result = training.loop(now_of, jnp.zeros(8), (training.Stream(np.arange(4)),), DATA, KEY, steps=8, batch_size=2)
    np.testing.assert_allclose(result.state, np.arange(8) / 8)
    assert len(set(result.losses.tolist())) == 8


# Over a whole split, in evaluation mode.


@pytest.mark.parametrize("batch_size", [60, 20, 7])
def test_pooled_moments_are_numpys_on_drifting_batches(normed: Any, batch_size: int) -> None:
    x = normed(60).data["x"][: 60 // batch_size * batch_size].reshape(-1, batch_size, 4)
    found = training.pool({"a": {"mean": x.mean(1), "var": x.var(1)}})
    flat = np.float64(x).reshape(-1, 4)
    np.testing.assert_allclose(found["a"]["mean"], flat.mean(0), atol=1e-5)
    np.testing.assert_allclose(found["a"]["var"], flat.var(0), rtol=1e-5)
    if batch_size < 60:
        assert bool(jnp.all(x.var(1).mean(0) < 0.9 * found["a"]["var"]))


def test_statistics_of_another_form_are_refused() -> None:
    with pytest.raises(ValueError, match="nested dicts of 'mean' and 'var'"):
        training.pool({"norm": {"mean": jnp.zeros((2, 3)), "var": jnp.ones((2, 3)), "count": jnp.zeros(2)}})


def test_refresh_is_over_retain_data_only(normed: Any) -> None:
    problem = normed(60)
    x = problem.data["x"][problem.retain]
    for batch_size in (60, 15):
        found = training.refresh(problem, problem.params, batch_size=batch_size)["norm"]
        np.testing.assert_allclose(found["mean"], np.mean(x, 0), atol=1e-5)
        np.testing.assert_allclose(found["var"], np.var(x, 0), rtol=1e-4)
    # Part of it: whole batches of distinct retain examples, the same for all calls.
    part = training.refresh(problem, problem.params, batch_size=15, limit=40)
    chex.assert_trees_all_equal(part, training.refresh(problem, problem.params, batch_size=15, limit=40))
    assert bool(jnp.all(jnp.abs(part["norm"]["mean"]) < 10))


def test_statistics_that_came_with_a_model_are_its_alone(normed: Any) -> None:
    own = {"norm": {"mean": jnp.ones(4), "var": jnp.ones(4)}}
    problem, plain = normed(60, stats=own), normed(60)
    chex.assert_trees_all_equal(training.evaluation_stats(problem, problem.params), own)
    moved = jax.tree.map(lambda x: x * 1.001, problem.params)
    for given, params in ((problem, moved), (plain, moved), (plain, plain.params)):
        chex.assert_trees_all_equal(training.evaluation_stats(given, params), training.refresh(plain, params))
    both = jax.vmap(lambda params: training.evaluation_stats(problem, params))(trees.stack([moved, problem.params]))
    chex.assert_trees_all_close(trees.unstack(both), [training.refresh(plain, moved), own], rtol=1e-5)


def test_a_model_without_normalisation_has_no_statistics(problem: Problem) -> None:
    assert training.refresh(problem, problem.params) == {}


def test_gradients_over_a_split_are_plain_jax(normed: Any) -> None:
    problem, n = normed(60), 10
    x, y, stats = problem.data["x"], problem.data["y"], training.refresh(problem, problem.params)

    def loss(params: dict, rows: slice) -> jax.Array:
        return jnp.mean(losses.nll(problem.model.apply(params, x[rows], stats)[0], y[rows]))

    # In batches of 4 at most: three, as equal as can be.
    batches = [slice(0, 4), slice(4, 8), slice(8, n)]
    grads = [jax.grad(loss)(problem.params, rows)["w"] for rows in batches]
    expected = {
        training.gradient: sum(grads),
        training.mean_gradient: jax.grad(loss)(problem.params, slice(0, n))["w"],
        training.squared_gradient: sum(g**2 for g in grads) / 3,
    }
    for function, value in expected.items():
        found = function(problem, problem.params, np.arange(n), stats, batch_size=4)["w"]
        np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5)


def spoil(x: jax.Array, key: jax.Array) -> jax.Array:
    return 0 * x


def test_training_augments_and_evaluation_does_not(normed: Any) -> None:
    plain, augmented = normed(60), normed(60, augment=spoil)
    stats = training.evaluation_stats(plain, plain.params)
    chex.assert_trees_all_equal(training.evaluation_stats(augmented, plain.params), stats)
    chex.assert_trees_all_equal(
        *(training.gradient(p, p.params, p.retain, stats) for p in (plain, augmented)),
    )
    batch = sources.take(plain.data, plain.retain)
    logits = training.logits(augmented, plain.params, batch, KEY)
    np.testing.assert_allclose(logits, jnp.zeros_like(logits), atol=1e-6)
    assert float(jnp.mean(training.nll(augmented, plain.params, batch, KEY))) == pytest.approx(np.log(3), rel=1e-5)
    assert float(jnp.mean(training.nll(plain, plain.params, batch, KEY))) != pytest.approx(np.log(3), rel=1e-3)


def test_a_batch_has_what_is_beside_its_examples() -> None:
    mixed = training.mix(np.array([7, 2]), np.array([3, 9, 4]))
    assert mixed.rows.tolist() == [7, 2, 3, 9, 4]
    assert mixed.extra.tolist() == [True, True, False, False, False]

    def update(state: jax.Array, batches: tuple, now: training.Now) -> tuple:
        ((batch, is_forget),) = batches
        return state.at[now.step].set(jnp.stack([batch["i"], is_forget.astype(jnp.int32)])), jnp.zeros(())

    data, start = {"i": 10 * jnp.arange(10)}, jnp.zeros((5, 2, 1), jnp.int32)
    seen = training.loop(update, start, (mixed,), data, KEY, steps=5, batch_size=1).state[..., 0]
    assert sorted(seen.tolist()) == [[20, 1], [30, 0], [40, 0], [70, 1], [90, 0]]


def test_functions_become_trees_of_their_arguments() -> None:
    partial = trees.as_partial(functools.partial(poisoned, 3))
    assert isinstance(partial, Partial)
    assert jax.tree.leaves(partial) == [3]
    assert trees.as_partial(partial) is partial


# One's own original.


def test_a_fresh_model_is_trained_on_its_rows_alone(problem: Problem) -> None:
    rows = np.concatenate([problem.forget, problem.retain])
    options = {"rows": rows, "epochs": 3, "lr": 0.1, "batch_size": 32}

    def train(data: Any, **changes: Any) -> Any:
        return training.train(problem.model, data, KEY, **{**options, **changes})

    def accuracy(params: Any) -> float:
        batch = sources.take(problem.data, rows)
        return float(jnp.mean(outputs.scores(outputs.forward(problem, params, batch)[0], batch["y"]).correct))

    params = train(problem.data)
    assert accuracy(params) > accuracy(train(problem.data, epochs=1, lr=1e-9)) + 0.2
    others = np.setdiff1d(np.arange(sources.length(problem.data)), rows)
    spoilt = {**problem.data, "y": problem.data["y"].at[others].set(0)}
    chex.assert_trees_all_equal(train(spoilt), params)
    assert accuracy(train(problem.data, augment=spoil)) < accuracy(params) - 0.2
    cosine = optax.cosine_decay_schedule(0.1, 3 * training.steps_per_epoch(len(rows), 32))
    chex.assert_trees_all_close(train(problem.data, lr=cosine), params, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(
        methods.retrain(problem, KEY, lr=optax.constant_schedule(0.0), epochs=1),
        methods.retrain(problem, KEY, lr=1e-30, epochs=1),
        atol=1e-20,
    )
