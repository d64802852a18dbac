"""Along a path: sweeps, barriers, and the choice of t."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial
from scipy.interpolate import CubicSpline

from mcu_jax import chunks, curves, metrics, models, outputs, paths, rules, sources, training, trees
from mcu_jax.base import Path, Problem, UserError

TS = np.linspace(0, 1, 7, dtype=np.float32)


def toy(start: float = 1.0) -> Path:
    return Path({"a": jnp.full(3, start)}, {"a": jnp.full((1, 3), 5.0)}, {"a": jnp.arange(3.0)})


def cubes(scale: Any, params: dict) -> dict:
    return {"sum": scale * jnp.sum(params["a"] ** 3), "all": params["a"]}


@pytest.mark.parametrize("chunk", [1, 3, 7, 99, None])
@pytest.mark.parametrize("curve", [curves.linear, curves.bezier, curves.polychain])
def test_a_sweep_is_a_loop_of_calls(curve: Any, chunk: int | None) -> None:
    found = paths.sweep(Partial(cubes, 2.0), toy(), TS, curve, chunk)
    chex.assert_trees_all_close(found, trees.stack([cubes(2.0, curve(toy(), float(t))) for t in TS]), rtol=1e-5)


def test_new_values_compile_nothing() -> None:
    paths.sweep(Partial(cubes, 2.0), toy(), TS)
    before = chunks._call._cache_size()
    paths.sweep(Partial(cubes, 3.0), toy(7.0), TS**2)
    assert chunks._call._cache_size() == before


def test_a_sweep_maps_over_paths() -> None:
    several = trees.stack([toy(1.0), toy(2.0)])
    mapped = jax.vmap(lambda path: paths.sweep(Partial(cubes, 1.0), path, TS))(several)
    chex.assert_trees_all_close(trees.unstack(mapped)[1], paths.sweep(Partial(cubes, 1.0), toy(2.0), TS), rtol=1e-5)


def test_bad_points_are_refused() -> None:
    for ts in ([0.0, 1.1], [-0.1, 1.0], [float("nan")]):
        with pytest.raises(UserError, match=r"t lies in \[0, 1\]"):
            paths.sweep(Partial(cubes, 1.0), toy(), ts)
    with pytest.raises(UserError, match="at least 1, given 0"):
        paths.sweep(Partial(cubes, 1.0), toy(), TS, chunk=0)
    with pytest.raises(UserError, match="at least 4 points"):
        paths.points(3)
    with pytest.raises(UserError, match="at least 4 points"):
        paths.best_t(np.linspace(0, 1, 3), standing(jnp.ones(3), jnp.ones(3)), targets_of(1.0, 1.0), 10)
    np.testing.assert_allclose(paths.points(5), [0, 0.25, 0.5, 0.75, 1])


def test_a_convolution_is_seen_and_decides_the_chunk() -> None:
    images = jnp.zeros((2, 8, 8, 1))
    for name, expected in (("mlp", False), ("cnn", True)):
        model = getattr(models, name)(num_classes=3)
        params = model.init(jax.random.key(0), images)

        def inside(params: dict, apply: Any = model.apply) -> jax.Array:
            return jax.lax.map(lambda x: jax.jit(apply)(params, x)[0], images[None])

        assert chunks.convolves(inside, params) == expected
        path = curves.straight(params, params)
        assert paths.best_chunk(inside, path, 9) == (1 if expected and jax.default_backend() == "cpu" else 9)


def test_large_networks_are_evaluated_one_by_one_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = ({"w": jnp.zeros((1000, width))} for width in (1000, 1001))
    dense = Partial(lambda params: params["w"].sum())
    for where, least in (("cpu", 1), ("gpu", 9)):
        monkeypatch.setattr(chunks, "platform", lambda where=where: where)
        assert [chunks.usual(dense, params, 9) for params in (small, large)] == [9, least]


# Evaluated along a path.


@pytest.mark.parametrize("chunk", [1, 7])
def test_the_ends_of_a_path_have_their_models_metrics_exactly(problem: Problem, unlearned: Any, chunk: int) -> None:
    path = curves.straight(problem.params, unlearned)
    path = path._replace(inner=jax.tree.map(lambda x: x + 1.0, path.inner))
    found = paths.evaluate(problem, path, TS, chunk=chunk)
    retain, forget, *_ = paths.standings(found)
    for i, params in ((0, problem.params), (-1, unlearned)):
        alone = metrics.evaluate(problem, params)
        at_end = jax.tree.map(lambda x, i=i: x[i], found)
        chex.assert_trees_all_close(at_end, alone, rtol=1e-5, atol=1e-5)
        for metric in (metrics.ua, metrics.ra, metrics.ta):
            assert float(metric(at_end)) == float(metric(alone))
        assert (float(retain[i]), float(forget[i])) == (float(metrics.ra(alone)), 1 - float(metrics.ua(alone)))
    # And between them it is another model.
    assert float(jnp.abs(retain[1:-1] - retain[0]).max()) > 0.1


def retain_scores(problem: Problem, params: Any, stats: Any) -> Any:
    batch = sources.take(problem.data, problem.retain)
    return outputs.scores(problem.model.apply(params, batch["x"], stats)[0], batch["y"])


def test_batchnorm_statistics_are_refreshed_at_every_t(normed: Any) -> None:
    problem = normed(60)
    end = {"v": 3.0 * problem.params["v"] + 1.0, "w": -problem.params["w"]}
    path = curves.straight(problem.params, end)
    found = paths.evaluate(problem, path, TS)
    for i, t in enumerate(TS):
        params = curves.bezier(path, float(t))
        stats = training.refresh(problem, params)
        assert abs(float(stats["norm"]["mean"].mean())) < 30, "forget data is far away"
        expected = retain_scores(problem, params, stats)
        np.testing.assert_allclose(found.retain.loss[i], expected.loss, rtol=1e-3, atol=1e-4)


def test_statistics_of_its_own_stay_with_the_original(normed: Any) -> None:
    """On a path from it, its end; on a path between two other models, no point."""
    own = {"norm": {"mean": jnp.ones(4), "var": jnp.ones(4)}}
    plain, brought = normed(60), normed(60, stats=own)
    other, end = (jax.tree.map(lambda x, f=f: f * x, plain.params) for f in (0.5, -1.0))
    from_it, elsewhere = curves.straight(plain.params, end), curves.straight(other, end)
    refreshed, found = paths.evaluate(plain, from_it, TS), paths.evaluate(brought, from_it, TS)
    np.testing.assert_array_equal(found.retain.loss[1:], refreshed.retain.loss[1:])
    expected = retain_scores(plain, plain.params, own)
    np.testing.assert_allclose(found.retain.loss[0], expected.loss, rtol=1e-4, atol=1e-5)
    assert float(jnp.abs(expected.loss - refreshed.retain.loss[0]).max()) > 0.1
    both = [paths.evaluate(problem, elsewhere, TS) for problem in (plain, brought)]
    chex.assert_trees_all_equal(*both)
    at_start = jax.tree.map(lambda x: x[0], both[1])
    chex.assert_trees_all_close(at_start, metrics.evaluate(brought, other), rtol=1e-4, atol=1e-5)


# From values along a path to numbers.


def standing(retain: Any, forget: Any) -> rules.Standing:
    """Of which the rule of accuracies sees all that there is."""
    return rules.Standing(jnp.asarray(retain), jnp.asarray(forget), jnp.ones(len(retain)), jnp.zeros(len(retain)))


def targets_of(retain: float, forget: float) -> rules.Targets:
    return rules.Targets(retain, forget, 1.0)


accuracies = st.lists(st.integers(0, 20).map(lambda k: k / 20), min_size=7, max_size=7)
fraction = st.integers(0, 20).map(lambda k: k / 20)


@settings(deadline=None, max_examples=40)
@given(accuracies, accuracies, fraction, fraction, st.sampled_from([1, 10, 100, 10**9]))
def test_best_t_is_the_first_near_minimum_of_the_splines(
    retain: list, forget: list, target_r: float, target_f: float, size: int
) -> None:
    grid = np.linspace(0, 1, 1001)
    smooth = [np.clip(CubicSpline(np.float64(TS), values)(grid), 0, 1) for values in (retain, forget)]
    gaps = 0.5 * (abs(smooth[0] - target_r) + abs(smooth[1] - target_f))
    choice = paths.best_t(TS, standing(retain, forget), targets_of(target_r, target_f), size)
    t, index = float(choice.t), round(1000 * float(choice.t))
    assert 0 <= t <= 1
    np.testing.assert_allclose(choice.score, gaps[index], atol=1e-5)
    # Where both targets are met, no tolerance; rounding decides whether they are.
    limit = gaps.min() + (0.25 / size if gaps.min() > 2e-6 else 0)
    assert gaps[index] <= max(limit, gaps.min() + 0.25 / size) + 1e-5, "not the minimum"
    assert not np.any(gaps[:index] < limit - 1e-5), "not the first of equals"


def test_best_t_by_hand_and_under_vmap() -> None:
    """Gap ½|½ − t| + 0.05: within ¼ · ⅛ of its minimum from t = 0.4375 on."""
    line, ones = 1 - jnp.asarray(TS), jnp.ones(7)
    targets = targets_of(0.9, 0.5)
    assert float(paths.best_t(TS, standing(ones, line), targets, 8).t) == pytest.approx(0.438)
    assert float(paths.best_t(TS, standing(ones, line), targets, 10**6).t) == pytest.approx(0.5, abs=1e-3)
    # All flat: the point nearest the original.
    assert float(paths.best_t(TS, standing(ones, ones), targets, 8).t) == 0.0
    both = jnp.stack([line, ones])
    mapped = jax.jit(jax.vmap(lambda forget: paths.best_t(TS, standing(ones, forget), targets, 8)))(both)
    np.testing.assert_allclose(mapped.t, [0.438, 0.0], rtol=1e-5)


def test_a_tie_never_passes_a_point_that_meets_both_targets() -> None:
    """21 examples of a forgotten class; retain accuracy is back at t = 0.1: half a forget example before is no tie."""
    ts, gone = paths.points(21), np.zeros(21)
    retain = np.array([0.96, 0.985, *[1.0] * 19])
    targets = targets_of(1.0, 0.0)
    gaps = np.asarray(paths.fine_scores(ts, standing(retain, gone), targets))
    assert gaps.min() < 1e-7
    assert np.any((gaps[:50] > 1e-3) & (gaps[:50] < 0.25 / 21)), "the tolerance would stop before it"
    choice = paths.best_t(ts, standing(retain, gone), targets, 21)
    assert float(choice.score) == pytest.approx(0, abs=1e-6)
    # Where no point meets both, ties go as before.
    near = paths.best_t(ts, standing(0.99 * retain, gone), targets, 21)
    assert float(near.t) < 0.05 < float(choice.t)


def choose(problem: Problem, path: Path, ts: Any, targets: Any) -> tuple[paths.Choice, Any]:
    found = paths.evaluate(problem, path, ts)
    return paths.choose(problem, path, ts, paths.standings(found), targets), found


def realised(problem: Problem, path: Path, t: Any, targets: Any) -> float:
    there = metrics.evaluate(problem, curves.bezier(path, t))
    return float(rules.accuracy(rules.standing(there), targets))


def test_the_score_of_the_choice_is_what_the_model_there_has(problem: Problem, unlearned: Any) -> None:
    path, ts = curves.straight(problem.params, jax.tree.map(lambda x: -x, unlearned)), paths.points(5)
    taken = set()
    for forget in (0.0, 0.3, 0.6, 0.9):
        targets = rules.Targets(jnp.float32(1.0), jnp.float32(forget), jnp.float32(1.0))
        choice, found = choose(problem, path, ts, targets)
        assert float(choice.score) == pytest.approx(realised(problem, path, choice.t, targets), abs=1e-6)
        # An evaluated point that is better than the spline's guess is taken in its place.
        guess = paths.best_t(ts, paths.standings(found), targets, 24)
        evaluated = rules.accuracy(paths.standings(found), targets)
        assert float(choice.score) <= float(evaluated.min()) + 0.25 / 24 + 1e-6
        taken.add("guess" if float(choice.t) == float(guess.t) else "evaluated")
        assert float(choice.t) in {float(guess.t), *map(float, ts)}
    assert taken == {"guess", "evaluated"}


def test_splines_are_clipped_to_fractions() -> None:
    retain = jnp.array([1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    gaps = paths.fine_scores(TS, standing(retain, jnp.ones(7)), targets_of(1.0, 1.0))
    assert float(gaps.max()) == pytest.approx(0.5, abs=1e-6)
    np.testing.assert_allclose(gaps.min(), 0.0, atol=1e-7)


def test_effective_region_by_hand() -> None:
    targets, ones = targets_of(1.0, 0.5), jnp.ones(7)
    line = 1 - jnp.asarray(TS)
    assert paths.effective_region(TS, standing(ones, line), targets) == [(0.001, 0.999)]
    assert paths.effective_region(TS, standing(ones, ones), targets) == []
    # Better than the end only at the start: |1 − t| grows towards it.
    np.testing.assert_allclose(
        paths.effective_region(TS, standing(ones, jnp.asarray(TS) / 2), targets_of(1.0, 0.0)), [(0.0, 0.999)]
    )
    # The cubic 4s³ − 3s on s = 0.95 (2t − 1) is below its end value on three intervals.
    s = 0.95 * (2 * np.float64(TS) - 1)
    wave = jnp.asarray(0.5 + 0.3 * (4 * s**3 - 3 * s), jnp.float32)
    np.testing.assert_allclose(
        paths.effective_region(TS, standing(ones, wave), targets),
        [(0.001, 0.107), (0.393, 0.607), (0.893, 0.999)],
        atol=0.0011,
    )


def test_barrier_by_hand() -> None:
    ts, values = [0.0, 0.25, 0.5, 1.0], jnp.array([1.0, 4.0, 2.0, 3.0])
    np.testing.assert_allclose(paths.barrier(jnp.array(ts), values), 2.5)
    np.testing.assert_allclose(paths.barrier(jnp.array(ts), values, lower_is_better=False), 0.0)
    np.testing.assert_allclose(paths.barrier(jnp.array(ts), -values, lower_is_better=False), 2.5)
    assert float(paths.barrier(TS, 3 - 2 * jnp.asarray(TS))) == pytest.approx(0, abs=1e-6)


def test_smoothness_by_hand() -> None:
    found = paths.smoothness([0.0, 1.0, 0.0, 2.0])
    assert (float(found.total_variation), float(found.max_second_difference)) == (4.0, 3.0)
    still = paths.smoothness(jnp.full(5, 0.3))
    assert (float(still.total_variation), float(still.max_second_difference)) == (0.0, 0.0)


# Between two models.


def test_measures_are_the_metrics_at_each_t(problem: Problem, unlearned: Any) -> None:
    line = curves.straight(problem.params, unlearned, 1)
    shrunk = {"retrained": 0.5, "untrained": 0.1}
    references = {
        name: metrics.logits(problem, jax.tree.map(lambda x, f=f: f * x, problem.params), problem.forget)
        for name, f in shrunk.items()
    }
    values = paths.measures(paths.evaluate(problem, line, [0.0, 0.3, 1.0], curves.linear, references=references))
    assert all(v.shape == (3,) for v in values.values())
    there = metrics.evaluate(problem, curves.linear(line, jnp.float32(0.3)), references=references)
    for split in paths.SPLITS:
        scores = getattr(there, split)
        np.testing.assert_allclose(values[f"{split}_loss"][1], jnp.mean(scores.loss), rtol=1e-4)
        np.testing.assert_allclose(values[f"{split}_accuracy"][1], metrics.accuracy(scores), rtol=1e-5)
    np.testing.assert_allclose(values["js"][1], metrics.js(there), rtol=1e-3)
    np.testing.assert_allclose(values["zrf"][1], metrics.zrf(there), rtol=1e-3)
    np.testing.assert_allclose(values["unseen_distance"][1], metrics.unseen_distance(there), rtol=1e-3)
    without = paths.measures(paths.evaluate(problem, line, [0.0, 0.3, 1.0], curves.linear))
    assert set(values) - set(without) == {"js", "zrf"}


def test_connection_reads_losses_and_accuracies_the_right_way_up() -> None:
    ts = jnp.array([0.0, 0.5, 1.0])
    flat = {"retain_loss": [1.0, 1.0, 1.0], "forget_loss": [2.0, 2.0, 2.0]}
    flat |= {"retain_accuracy": [0.9, 0.9, 0.9], "forget_accuracy": [0.5, 0.5, 0.5]}
    flat = {name: jnp.array(values) for name, values in flat.items()}
    at_middle = {  # (value in the middle, barriers): the harmless direction first
        "retain_loss": ((0.5, (0, 0, 0)), (1.3, (0.3, 0, 0))),
        "forget_loss": ((2.5, (0, 0, 0)), (1.6, (0, 0.4, 0))),
        "retain_accuracy": ((1.0, (0, 0, 0)), (0.85, (0, 0, 0.05))),
        "forget_accuracy": ((0.4, (0, 0, 0)), (0.53, (0, 0, 0.03))),
    }
    for name, cases in at_middle.items():
        for value, expected in cases:
            ends = flat[name]
            found = paths.connection(ts, {**flat, name: jnp.array([ends[0], value, ends[2]])})
            np.testing.assert_allclose(found, expected, atol=1e-6)
            assert bool(found.connected) == (expected[2] <= 0.02)
    # Over the line between the ends, not over the better or the worse of them.
    sloped = paths.connection(ts, {**flat, "retain_loss": jnp.array([0.0, 0.6, 1.0])})
    np.testing.assert_allclose(sloped.retain_loss, 0.1, atol=1e-6)


def test_arc_length_is_that_of_the_curve() -> None:
    """A straight line's distance; a parabola's integral."""
    start, end = ({"w": jnp.array(v)} for v in ([0.0, 0.0], [3.0, 4.0]))
    ts = np.linspace(0, 1, 201)
    assert float(paths.arc_length(curves.straight(start, end, 1), ts)) == pytest.approx(5, rel=1e-5)
    bent = Path({"w": jnp.zeros(2)}, {"w": jnp.array([[0.5, 1.0]])}, {"w": jnp.array([1.0, 0.0])})
    # φ(t) = (t, 2t(1 − t)), speed √(1 + (2 − 4t)²).
    fine = np.linspace(0, 1, 100001)
    expected = np.sqrt(1 + (2 - 4 * fine) ** 2).mean()
    assert float(paths.arc_length(bent, ts)) == pytest.approx(expected, rel=1e-4)


def test_interior_points_that_beat_both_ends() -> None:
    found = paths.interior(jnp.array([0.3, 0.1, 0.25, 0.2, 0.15, 0.2]))
    assert float(found.share) == 0.5  # 0.2 itself is no better
    assert int(found.best) == 1
    assert float(paths.interior(jnp.array([0.0, 0.5, 0.1])).share) == 0
    with pytest.raises(UserError, match="no interior"):
        paths.interior(jnp.array([0.1, 0.2]))


def test_share_within_the_spread_of_retrained_models() -> None:
    values = jnp.array([0.0, 0.1, 0.2, 0.3])
    assert float(paths.share_within(values, jnp.array([0.25, 0.1, 0.15]))) == 0.5


def test_barriers_are_on_the_side_that_is_worse() -> None:
    ts = jnp.asarray([0.0, 0.5, 1.0])
    up, down = jnp.asarray([0.0, 1.0, 0.0]), jnp.asarray([0.0, -1.0, 0.0])
    names = ("retain_loss", "forget_loss", "retain_accuracy", "forget_accuracy", "test_accuracy", "js", "zrf", "MIA")
    rising = {name: float(value) for name, value in paths.barriers(ts, dict.fromkeys(names, up)).items()}
    falling = {name: float(value) for name, value in paths.barriers(ts, dict.fromkeys(names, down)).items()}
    assert {name for name in names if rising[name]} == {"retain_loss", "forget_accuracy", "js", "zrf"}
    assert {name for name in names if falling[name]} == set(names) - {"retain_loss", "forget_accuracy", "js"}
