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

from mcu_jax import metrics
from mcu_jax.base import Outputs, Predictions, Problem


def outputs(hits: str) -> Outputs:
    """Two classes, label 0: + is right."""
    return Outputs(jnp.array([[1.0, 0.0] if hit == "+" else [0.0, 1.0] for hit in hits]), jnp.zeros(len(hits), int))


def test_golden_accuracies() -> None:
    found = Predictions(outputs("+--"), outputs("+++-"), outputs("-"), outputs("++---"), outputs("+---"))
    values = [metric(found) for metric in (metrics.ua, metrics.ra, metrics.ta, metrics.ua_test)]
    np.testing.assert_allclose(values, [2 / 3, 0.75, 0.4, 0.75], rtol=1e-6)
    with pytest.raises(ValueError, match="needs a forgotten class"):
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


def confident(rng: np.random.Generator, n: int, scale: float) -> Outputs:
    labels = rng.integers(0, 4, n)
    logits = rng.normal(size=(n, 4)) + scale * np.eye(4)[labels]
    return Outputs(jnp.asarray(logits, jnp.float32), jnp.asarray(labels))


@pytest.fixture
def found(rng: np.random.Generator) -> Predictions:
    sizes_and_scales = ((40, 3.0), (150, 6.0), (5, 2.0), (60, 2.0))
    return Predictions(*(confident(rng, n, scale) for n, scale in sizes_and_scales))


def confidence(out: Outputs) -> np.ndarray:
    probabilities = np.exp(np.float64(out.logits))
    chosen = np.take_along_axis(probabilities, np.asarray(out.labels)[:, None], 1)[:, 0]
    return chosen / probabilities.sum(1)


def test_attack_is_scikit_learns_where_nothing_is_drawn(found: Predictions) -> None:
    found = found._replace(retain=Outputs(*(leaf[:60] for leaf in found.retain)))
    x = np.concatenate([confidence(found.retain), confidence(found.test)])[:, None]
    attack = SVC(C=3, kernel="rbf", gamma=1).fit(x, [True] * 60 + [False] * 60)
    expected = np.mean(~attack.predict(confidence(found.forget)[:, None]))
    assert 0 < expected < 1
    assert metrics.mia(found) == pytest.approx(expected)


def test_attack_is_balanced_limited_and_seeded(found: Predictions, monkeypatch: pytest.MonkeyPatch) -> None:
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
            left = confidence(split).astype(np.float64).tolist()
            for value in x[y == label]:
                near = int(np.argmin(np.abs(np.array(left) - value)))
                assert abs(left.pop(near) - value) < 6e-5, "drawn twice, or not from the split"
    np.testing.assert_array_equal(fitted[0][0], fitted[1][0])
    assert not np.array_equal(fitted[0][0], fitted[3][0])


def test_attack_knows_members_from_others(rng: np.random.Generator) -> None:
    member, other = confident(rng, 80, 9.0), confident(rng, 80, -9.0)
    base = Predictions(member, member, other, other)
    assert metrics.mia(base) == 0
    assert metrics.mia(base._replace(forget=other)) == 1


@pytest.mark.parametrize("batch_size", [1000, 50, 7])
def test_predictions_do_not_depend_on_the_batch_size(problem: Problem, batch_size: int) -> None:
    found = metrics.predict(problem, problem.params, batch_size=batch_size)
    for name in ("forget", "retain", "validation", "test"):
        split, out = getattr(problem, name), getattr(found, name)
        logits = problem.model.apply(problem.params, split.x)[0]
        np.testing.assert_allclose(out.logits, logits, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(out.labels, split.y)
    assert found.forget_test is None


def spoil(x: jax.Array, key: jax.Array) -> jax.Array:
    return jnp.zeros_like(x)


def test_predictions_are_never_augmented(problem: Problem) -> None:
    augmented = dataclasses.replace(problem, augment=spoil)
    chex.assert_trees_all_equal(*(metrics.predict(p, p.params) for p in (problem, augmented)))


def test_a_forgotten_class_has_test_examples_of_its_own(problem: Problem) -> None:
    classwise = dataclasses.replace(problem, forget_test=problem.validation)
    found = metrics.predict(classwise, problem.params)
    assert float(metrics.ua_test(found)) == 1 - float(metrics.accuracy(found.validation))
    # Neither TA nor the attack looks at the forgotten class.
    other = found._replace(forget_test=Outputs(-found.validation.logits, found.validation.labels))
    for metric in (metrics.ta, metrics.mia):
        assert float(metric(other)) == float(metric(found))
    assert float(metrics.ua_test(other)) != float(metrics.ua_test(found))


def test_predictions_use_the_given_or_refreshed_statistics(normed: Any) -> None:
    problem = normed(60)
    own = {"norm": {"mean": jnp.ones(4), "var": jnp.ones(4)}}
    found = metrics.predict(problem, problem.params, own)
    expected = problem.model.apply(problem.params, problem.test.x, own)[0]
    np.testing.assert_allclose(found.test.logits, expected, rtol=1e-5)
    refreshed = {"norm": {"mean": problem.retain.x.mean(0), "var": problem.retain.x.var(0)}}
    expected = problem.model.apply(problem.params, problem.test.x, refreshed)[0]
    np.testing.assert_allclose(metrics.predict(problem, problem.params).test.logits, expected, rtol=1e-3)


# Two models.


def test_divergences_between_models_are_scipys(problem: Problem) -> None:
    from scipy.spatial.distance import jensenshannon

    found = metrics.predict(problem, problem.params)
    other = metrics.predict(problem, jax.tree.map(lambda x: 0.5 * x, problem.params))
    p, q = (np.float64(jax.nn.softmax(each.forget.logits)) for each in (found, other))
    expected = np.mean(jensenshannon(p, q, axis=1) ** 2)
    np.testing.assert_allclose(metrics.js(found, other), expected, rtol=1e-4)
    np.testing.assert_allclose(metrics.js(other, found), expected, rtol=1e-4)
    np.testing.assert_allclose(metrics.zrf(found, other), 1 - expected, rtol=1e-4)
    assert float(metrics.js(found, found)) == pytest.approx(0, abs=1e-6)


def test_disagreement_is_a_share_of_examples() -> None:
    a = Outputs(jnp.eye(4), jnp.zeros(4, int))
    b = Outputs(jnp.eye(4)[jnp.array([0, 1, 3, 2])], jnp.zeros(4, int))
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


def test_an_ensemble_gives_the_mean_of_probabilities() -> None:
    logits = jnp.asarray([[[0.0, 2.0, -1.0]], [[3.0, 0.0, 0.5]]])
    one = Outputs(logits, jnp.asarray([[1], [1]]))
    together = metrics.ensemble(Predictions(one, one, one, one))
    expected = np.mean(np.asarray(jax.nn.softmax(logits)), axis=0)
    np.testing.assert_allclose(np.exp(together.forget.logits), expected, rtol=1e-5)
    assert together.test.labels.tolist() == [1]


def test_clusters_put_what_is_near_side_by_side() -> None:
    x = np.array([0.0, 10.0, 1.0, 11.0, 30.0])
    order, merges = metrics.cluster(np.abs(x[:, None] - x[None]))
    assert {frozenset(order[i : i + 2]) for i in range(4)} >= {frozenset({0, 2}), frozenset({1, 3})}
    assert merges[:, 2].tolist() == [1.0, 1.0, 10.0, 24.5]  # average linkage, by hand
    with pytest.raises(ValueError, match="finite"):
        metrics.cluster(np.array([[0.0, np.nan], [np.nan, 0.0]]))


def test_relearning_counts_the_steps_to_the_originals_loss(problem: Problem) -> None:
    key = jax.random.key(0)
    assert int(metrics.relearn_steps(problem, problem.params, key)) == 0
    lost = jax.tree.map(lambda leaf: 0.5 * leaf, problem.params)
    steps = int(metrics.relearn_steps(problem, lost, key, lr=0.05, batch_size=8, limit=60))
    assert 0 < steps < 60
    assert int(metrics.relearn_steps(problem, lost, key, lr=0.05, batch_size=8, limit=steps - 1)) == steps - 1
    assert int(metrics.relearn_steps(problem, lost, key, lr=0.0, batch_size=8, limit=7)) == 7
