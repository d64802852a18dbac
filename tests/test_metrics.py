"""Metrics: golden numbers, scikit-learn's attack, and predictions that nothing but the model changes."""

from __future__ import annotations

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.svm import SVC

from mcu_jax import metrics, outputs, sources
from mcu_jax.base import Evaluation, Problem, Scores, UserError


def evaluation(forget: Scores, retain: Scores, validation: Scores, test: Scores, **rest: Any) -> Evaluation:
    return Evaluation(forget, retain, validation, test, **{"forget_test": None, "js": {}, **rest})


def hits(signs: str) -> Scores:
    """Two classes, label 0: + is right."""
    logits = jnp.array([[1.0, 0.0] if sign == "+" else [0.0, 1.0] for sign in signs])
    return outputs.scores(logits, jnp.zeros(len(signs), int))


def test_golden_accuracies() -> None:
    found = evaluation(hits("+--"), hits("+++-"), hits("-"), hits("++---"), forget_test=hits("+---"))
    values = [metric(found) for metric in (metrics.ua, metrics.ra, metrics.ta, metrics.ua_test)]
    np.testing.assert_allclose(values, [2 / 3, 0.75, 0.4, 0.75], rtol=1e-6)
    with pytest.raises(UserError, match="needs a forgotten class"):
        metrics.ua_test(found._replace(forget_test=None))


def test_golden_average_gap() -> None:
    method = {"UA": 0.1, "RA": 0.98, "TA": 0.9, "MIA": 0.3, "UA_test": 0.0}
    retrained = {"UA": 0.2, "RA": 1.0, "TA": 0.86, "MIA": 0.3, "UA_test": 1.0}
    assert metrics.avg_gap(method, retrained) == pytest.approx(0.04)
    assert metrics.avg_gap(method, method) == 0


def test_every_column_says_which_value_is_best() -> None:
    ours = {name for name in metrics.__all__ if (getattr(metrics, name).__doc__ or "").find("est: ") >= 0}
    assert ours <= set(metrics.NAMES)  # what tells its best value is listed
    assert set(metrics.BEST.values()) == {"0", "1", "retrain's"}
    assert all(callable(getattr(metrics, name)) for name in metrics.NAMES)


def confident(rng: np.random.Generator, n: int, scale: float) -> Scores:
    labels = rng.integers(0, 4, n)
    logits = rng.normal(size=(n, 4)) + scale * np.eye(4)[labels]
    return outputs.scores(jnp.asarray(logits, jnp.float32), jnp.asarray(labels))


@pytest.fixture
def found(rng: np.random.Generator) -> Evaluation:
    sizes_and_scales = ((40, 3.0), (150, 6.0), (5, 2.0), (60, 2.0))
    return evaluation(*(confident(rng, n, scale) for n, scale in sizes_and_scales))


def test_attack_is_scikit_learns_where_nothing_is_drawn(found: Evaluation) -> None:
    found = found._replace(retain=jax.tree.map(lambda leaf: leaf[:60], found.retain))
    x = np.concatenate([found.retain.confidence, found.test.confidence])[:, None]
    attack = SVC(C=3, kernel="rbf", gamma=1).fit(x, [True] * 60 + [False] * 60)
    expected = np.mean(~attack.predict(found.forget.confidence[:, None]))
    assert 0 < expected < 1
    assert metrics.mia(found) == pytest.approx(expected)


def test_attack_is_balanced_limited_and_seeded(found: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = []

    class Spy(SVC):
        def fit(self, x: np.ndarray, y: np.ndarray, sample_weight: np.ndarray) -> Any:
            fitted.append((np.repeat(x[:, 0], sample_weight), np.repeat(y, sample_weight)))
            return super().fit(x, y, sample_weight)

    monkeypatch.setattr("sklearn.svm.SVC", Spy)
    values = [metrics.mia(found), metrics.mia(found), metrics.mia(found, limit=20), metrics.mia(found, seed=1)]
    assert values[0] == values[1]
    for (x, y), count in zip(fitted, (60, 60, 20, 60), strict=True):
        assert (int((y == 1).sum()), int((y == 0).sum())) == (count, count)
        for label, split in ((1, found.retain), (0, found.test)):
            left = np.float64(split.confidence).tolist()
            for value in x[y == label]:
                near = int(np.argmin(np.abs(np.array(left) - value)))
                assert abs(left.pop(near) - value) < 6e-5, "drawn twice, or not from the split"
    np.testing.assert_array_equal(fitted[0][0], fitted[1][0])
    assert not np.array_equal(fitted[0][0], fitted[3][0])


def test_attack_knows_members_from_others(rng: np.random.Generator) -> None:
    member, other = confident(rng, 80, 9.0), confident(rng, 80, -9.0)
    base = evaluation(member, member, other, other)
    assert metrics.mia(base) == 0
    assert metrics.mia(base._replace(forget=other)) == 1


def test_attack_takes_ten_thousand_a_side(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    class Spy(SVC):
        def fit(self, x: np.ndarray, y: np.ndarray, sample_weight: np.ndarray) -> Any:
            sizes.append((sample_weight[y == 1].sum(), sample_weight[y == 0].sum()))
            return super().fit(x, y)

    monkeypatch.setattr("sklearn.svm.SVC", Spy)
    one = hits("+-")
    for members, others, expected in ((9_000, 7_000, 7_000), (12_000, 11_000, 10_000)):
        many = (jax.tree.map(lambda leaf, n=n: jnp.resize(leaf, (n,)), one) for n in (members, 4, others))
        retain, validation, test = many
        metrics.mia(evaluation(one, retain, validation, test))
        assert sizes.pop() == (expected, expected)


@pytest.mark.parametrize("batch_size", [1000, 50, 7])
def test_scores_do_not_depend_on_the_batch_size(problem: Problem, batch_size: int) -> None:
    found = metrics.evaluate(problem, problem.params, batch_size=batch_size)
    for name in ("forget", "retain", "validation", "test"):
        batch = sources.take(problem.data, getattr(problem, name))
        expected = outputs.scores(problem.model.apply(problem.params, batch["x"])[0], batch["y"])
        chex.assert_trees_all_close(getattr(found, name), expected, rtol=1e-4, atol=1e-5)
    assert found.forget_test is None


def spoil(x: jax.Array, key: jax.Array) -> jax.Array:
    return jnp.zeros_like(x)


def test_scores_are_never_augmented(problem: Problem) -> None:
    augmented = dataclasses.replace(problem, augment=spoil)
    chex.assert_trees_all_equal(*(metrics.evaluate(p, p.params) for p in (problem, augmented)))


def test_a_forgotten_class_has_test_examples_of_its_own(problem: Problem) -> None:
    classwise = dataclasses.replace(problem, forget_test=problem.validation)
    found = metrics.evaluate(classwise, problem.params)
    assert float(metrics.ua_test(found)) == 1 - float(metrics.accuracy(found.validation))
    # Neither TA nor the attack looks at the forgotten class.
    wrong = found.validation._replace(correct=1 - found.validation.correct, confidence=1 - found.validation.confidence)
    other = found._replace(forget_test=wrong)
    for metric in (metrics.ta, metrics.mia):
        assert float(metric(other)) == float(metric(found))
    assert float(metrics.ua_test(other)) != float(metrics.ua_test(found))


def test_scores_use_the_given_or_refreshed_statistics(normed: Any) -> None:
    problem = normed(60)
    own = {"norm": {"mean": jnp.ones(4), "var": jnp.ones(4)}}
    test, retain = (sources.take(problem.data, rows) for rows in (problem.test, problem.retain))
    refreshed = {"norm": {"mean": retain["x"].mean(0), "var": retain["x"].var(0)}}
    for given, stats in ((own, own), (None, refreshed)):
        found = metrics.evaluate(problem, problem.params, given)
        expected = outputs.scores(problem.model.apply(problem.params, test["x"], stats)[0], test["y"])
        chex.assert_trees_all_close(found.test, expected, rtol=1e-3)


# Two models.


def test_divergences_from_references_are_scipys(problem: Problem) -> None:
    """Reduced a batch at a time, they are those of the whole outputs."""
    from scipy.spatial.distance import jensenshannon

    half, blank = (jax.tree.map(lambda x, f=f: f * x, problem.params) for f in (0.5, 0.1))
    whole = [np.float64(metrics.logits(problem, params, problem.forget)) for params in (problem.params, half, blank)]
    assert whole[0].shape == (24, 10)
    p, *others = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True) for logits in whole)
    expected = [jensenshannon(p, q, axis=1) ** 2 for q in others]
    references = {"retrained": jnp.float32(whole[1]), "untrained": jnp.float32(whole[2]), "itself": whole[0]}
    references = {name: jnp.asarray(value, jnp.float32) for name, value in references.items()}
    for batch_size in (None, 7):
        found = metrics.evaluate(problem, problem.params, references=references, batch_size=batch_size)
        np.testing.assert_allclose(found.js["retrained"], expected[0], rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(metrics.js(found), expected[0].mean(), rtol=1e-4)
        np.testing.assert_allclose(metrics.zrf(found), 1 - expected[1].mean(), rtol=1e-4)
        assert float(metrics.js(found, "itself")) == pytest.approx(0, abs=1e-6)
    other = metrics.evaluate(problem, half, references={"retrained": references["itself"]})
    np.testing.assert_allclose(metrics.js(other), metrics.js(found), rtol=1e-4)
    assert metrics.evaluate(problem, half).js == {}


def test_disagreement_is_a_share_of_examples() -> None:
    labels = jnp.zeros(4, int)
    a, b = (outputs.scores(jnp.eye(4)[jnp.array(classes)], labels) for classes in ([0, 1, 2, 3], [0, 1, 3, 2]))
    assert float(metrics.disagreement(a, a)) == 0
    assert float(metrics.disagreement(a, b)) == 0.5


def test_cka_sees_through_rotation_scale_and_shift(rng: np.random.Generator) -> None:
    x, noise = rng.normal(size=(50, 6)), rng.normal(size=(50, 4))
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    x, turned, noise = (jnp.asarray(v, jnp.float32) for v in (x, 3 * x @ rotation + 2, noise))
    assert float(metrics.cka(x, turned)) == pytest.approx(1, abs=1e-4)
    assert float(metrics.cka(x, noise)) < 0.5
    # By its kernels: the cosine of the centred Gram matrices.
    centre = np.eye(50) - 1 / 50
    grams = [centre @ np.float64(v) @ np.float64(v).T @ centre for v in (x, noise)]
    cosine = (grams[0] * grams[1]).sum() / np.sqrt((grams[0] ** 2).sum() * (grams[1] ** 2).sum())
    np.testing.assert_allclose(metrics.cka(x, noise), cosine, rtol=1e-3)
    assert float(metrics.cka(x, jnp.ones((50, 2)))) == 0


def test_task_cosine() -> None:
    origin, a, b = ({"w": jnp.array(v)} for v in ([1.0, 1.0], [3.0, 1.0], [2.0, 2.0]))
    assert float(metrics.task_cosine(a, b, origin)) == pytest.approx(np.sqrt(0.5))
    assert float(metrics.task_cosine(a, a, origin)) == pytest.approx(1)
    assert float(metrics.task_cosine(a, origin, origin)) == 0


# Many models


def test_an_ensemble_gives_the_mean_of_probabilities(problem: Problem) -> None:
    members = jnp.asarray([[[0.0, 2.0, -1.0]], [[3.0, 0.0, 0.5]]])
    expected = np.mean(np.asarray(jax.nn.softmax(members)), axis=0)
    np.testing.assert_allclose(np.exp(metrics.ensemble(members)), expected, rtol=1e-5)
    # Of one model, that model.
    alone = metrics.logits(problem, problem.params, problem.test)
    labels = sources.take(problem.data, problem.test)["y"]
    expected = metrics.evaluate(problem, problem.params).test
    chex.assert_trees_all_close(outputs.scores(metrics.ensemble(alone[None]), labels), expected, rtol=1e-4, atol=1e-5)


def test_clusters_put_what_is_near_side_by_side() -> None:
    x = np.array([0.0, 10.0, 1.0, 11.0, 30.0])
    order, merges = metrics.cluster(np.abs(x[:, None] - x[None]))
    assert {frozenset(order[i : i + 2]) for i in range(4)} >= {frozenset({0, 2}), frozenset({1, 3})}
    assert merges[:, 2].tolist() == [1.0, 1.0, 10.0, 24.5]  # average linkage, by hand
    with pytest.raises(UserError, match="finite"):
        metrics.cluster(np.array([[0.0, np.nan], [np.nan, 0.0]]))


def test_relearning_counts_the_steps_to_the_originals_loss(problem: Problem) -> None:
    key = jax.random.key(0)
    assert int(metrics.relearn_steps(problem, problem.params, key)) == 0
    lost = jax.tree.map(lambda leaf: 0.5 * leaf, problem.params)
    steps = int(metrics.relearn_steps(problem, lost, key, lr=0.05, batch_size=8, limit=60))
    assert 0 < steps < 60
    assert int(metrics.relearn_steps(problem, lost, key, lr=0.05, batch_size=8, limit=steps - 1)) == steps - 1
    assert int(metrics.relearn_steps(problem, lost, key, lr=0.0, batch_size=8, limit=7)) == 7
