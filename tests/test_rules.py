"""Rules: what they look at, what they say by hand, and that the second one sees what the first does not."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mcu_jax import curves, metrics, paths, rules
from mcu_jax.base import Evaluation, Problem, Scores, UserError

# Of few lengths: each pair of them is compiled for.
values = st.sampled_from((1, 2, 5, 12)).flatmap(
    lambda n: st.lists(st.integers(0, 8).map(lambda k: k / 8), min_size=n, max_size=n)
)


@settings(deadline=None, max_examples=60)
@given(values, values)
def test_wasserstein_is_scipys(x: list[float], y: list[float]) -> None:
    """Of samples of different sizes, with ties."""
    found = metrics.wasserstein(jnp.array(x), jnp.array(y))
    assert float(found) == pytest.approx(stats.wasserstein_distance(x, y), abs=1e-6)


def test_wasserstein_by_hand_and_under_vmap() -> None:
    x, y = jnp.array([[0.0, 1.0], [0.5, 0.5]]), jnp.array([[1.0, 1.0, 1.0], [0.5, 0.5, 0.5]])
    np.testing.assert_allclose(jax.jit(jax.vmap(metrics.wasserstein))(x, y), [0.5, 0.0], atol=1e-7)
    with pytest.raises(UserError, match="needs a sample of either, given 2 and 0"):
        metrics.wasserstein(x[0], jnp.zeros(0))


def scores(confidence: Any, correct: Any = None) -> Scores:
    confidence = jnp.asarray(confidence, jnp.float32)
    hits = (confidence > 0.5) if correct is None else jnp.asarray(correct)
    return Scores(-jnp.log(confidence), hits.astype(jnp.float32), confidence, jnp.zeros(len(confidence), jnp.int32))


def evaluation(forget: Scores, validation: Scores, forget_test: Scores | None = None) -> Evaluation:
    return Evaluation(forget, scores([0.9, 0.9]), validation, scores([0.9]), forget_test, {})


def test_a_forgotten_class_is_compared_with_no_confidence_at_all() -> None:
    """D_v has no example of the class: were it the reference, a model that knows the class well would look unseen."""
    knows, seen = scores([0.9, 0.8]), scores([0.9, 0.8, 0.9, 0.8])
    assert float(metrics.unseen_distance(evaluation(knows, seen))) == pytest.approx(0, abs=1e-6)
    class_wise = metrics.unseen_distance(evaluation(knows, seen, forget_test=knows))
    assert float(class_wise) == pytest.approx(stats.wasserstein_distance([0.9, 0.8], [0.0]), abs=1e-6)
    gone = metrics.unseen_distance(evaluation(scores([0.01, 0.03]), seen, forget_test=knows))
    assert float(gone) == pytest.approx(0.02, abs=1e-6)


def test_rules_by_hand() -> None:
    standing = rules.Standing(jnp.array([1.0, 0.9]), jnp.array([0.5, 0.9]), jnp.array([0.9, 0.7]), jnp.array([0.1, 0]))
    targets = rules.Targets(0.95, 0.8, 0.8)
    np.testing.assert_allclose(rules.accuracy(standing, targets), [0.175, 0.075], rtol=1e-5)
    # A validation accuracy above the original's is no loss.
    np.testing.assert_allclose(rules.distribution(standing, targets), [0.125, 0.075], rtol=1e-5)


def test_the_rule_of_distributions_sees_confidence() -> None:
    """Three of four forgotten examples right, as of unseen ones; but one model is sure of all of them."""
    unseen = scores([0.6, 0.7, 0.8, 0.4])
    alike, sure = scores([0.7, 0.6, 0.8, 0.4]), scores([0.99, 0.99, 0.99, 0.01])
    targets = rules.Targets(1.0, 0.75, 0.75)
    standings = [rules.standing(evaluation(forget, unseen)) for forget in (alike, sure)]
    assert [float(rules.accuracy(each, targets)) for each in standings] == [0.0, 0.0]
    by_distribution = [float(rules.distribution(each, targets)) for each in standings]
    assert by_distribution[0] == pytest.approx(0, abs=1e-6)
    assert by_distribution[1] > 0.2


def test_standings_along_a_path_are_those_of_its_points(problem: Problem, unlearned: Any) -> None:
    path, ts = curves.straight(problem.params, unlearned), paths.points(4)
    along = paths.standings(paths.evaluate(problem, path, ts))
    for i, t in enumerate(ts):
        there = metrics.evaluate(problem, curves.bezier(path, float(t)))
        own = rules.standing(there)
        np.testing.assert_allclose([leaf[i] for leaf in along], list(own), atol=1e-5)
        expected = stats.wasserstein_distance(there.forget.confidence, there.validation.confidence)
        assert float(own.distance) == pytest.approx(expected, abs=1e-5)


def test_each_rule_chooses_by_its_own_score(problem: Problem, unlearned: Any) -> None:
    """The best of the evaluated points, or the splines' minimum where that model is better."""
    path, ts, targets = curves.straight(problem.params, unlearned), paths.points(5), rules.targets(problem)
    standings = paths.standings(paths.evaluate(problem, path, ts))
    for rule in (rules.accuracy, rules.distribution):
        choice = paths.choose(problem, path, ts, standings, targets, rule=rule)
        there = rules.standing(metrics.evaluate(problem, curves.bezier(path, choice.t)))
        assert float(choice.score) == pytest.approx(float(rule(there, targets)), abs=1e-6)
        assert float(choice.score) <= float(rule(standings, targets).min()) + 0.25 / len(problem.forget) + 1e-6
    guess = paths.best_t(ts, standings, targets, len(problem.forget), rules.distribution)
    fine = np.asarray(paths.fine_scores(ts, standings, targets, rules.distribution))
    within = np.flatnonzero(fine <= fine.min() + 0.25 / len(problem.forget))
    assert float(guess.t) == pytest.approx(within[0] / 1000, abs=1e-6)


def test_a_rule_needs_examples_that_the_model_has_never_seen(problem: Problem) -> None:
    without = dataclasses.replace(problem, validation=problem.validation[:0])
    with pytest.raises(UserError, match="given no validation examples"):
        rules.targets(without)
