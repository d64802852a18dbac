"""Per-example formulas: golden numbers, laws, and agreement with scipy."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import distance
from scipy.special import softmax
from scipy.stats import entropy

from mcu_jax import losses

LOG3 = jnp.log(jnp.array([[1.0, 2.0, 1.0], [1.0, 1.0, 2.0]]))  # softmax (¼, ½, ¼) and (¼, ¼, ½)


@pytest.fixture
def logits(rng: np.random.Generator) -> tuple[jax.Array, jax.Array]:
    p, q = rng.normal(scale=4, size=(2, 6, 5)).astype(np.float32)
    return jnp.asarray(p), jnp.asarray(q)


def test_golden_numbers() -> None:
    labels = jnp.array([1, 1])
    np.testing.assert_allclose(losses.nll(LOG3, labels), [math.log(2), math.log(4)], rtol=1e-6)
    np.testing.assert_allclose(losses.entropy(LOG3), [1.5 * math.log(2)] * 2, rtol=1e-6)
    np.testing.assert_allclose(losses.margin(LOG3, labels), [0, -math.log(3)], atol=1e-6)
    np.testing.assert_allclose(losses.kl(LOG3[0], LOG3[1]), 0.25 * math.log(2), rtol=1e-6)
    # m = (¼, ⅜, ⅜)
    golden = 0.5 * math.log(4 / 3) + 0.25 * math.log(2 / 3)
    np.testing.assert_allclose(losses.js(LOG3[0], LOG3[1]), golden, rtol=1e-5)
    assert losses.correct(LOG3, labels).tolist() == [True, False]


def test_divergences_are_of_softmaxes_and_equal_to_scipys(logits: tuple) -> None:
    p, q = logits
    soft_p, soft_q = softmax(p, -1), softmax(q, -1)
    np.testing.assert_allclose(losses.kl(p, q), entropy(soft_p, soft_q, axis=-1), rtol=1e-4)
    js = distance.jensenshannon(soft_p, soft_q, axis=-1) ** 2
    np.testing.assert_allclose(losses.js(p, q), js, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(losses.kl(p + 7.0, q - 3.0), losses.kl(p, q), rtol=1e-3, atol=1e-5)


def test_laws_of_divergences(logits: tuple) -> None:
    p, q = logits
    np.testing.assert_array_equal(losses.kl(p, p), jnp.zeros(6))
    np.testing.assert_allclose(losses.js(p, p), jnp.zeros(6), atol=1e-7)
    np.testing.assert_array_equal(losses.js(p, q), losses.js(q, p))
    # Distributions that share nothing reach the bound.
    apart = jnp.array([[90.0, -90.0, -90.0], [-90.0, 90.0, -90.0]])
    both = jnp.concatenate([losses.js(p, q), losses.js(apart[0], apart[1])[None]])
    assert bool(jnp.all((both >= 0) & (both <= math.log(2) + 1e-6)))
    np.testing.assert_allclose(both[-1], math.log(2), rtol=1e-6)


def test_values_do_not_depend_on_batch_mates(logits: tuple) -> None:
    p, q = logits
    labels = jnp.arange(6) % 5
    for formula in (
        losses.entropy,
        lambda p: losses.nll(p, labels[: p.shape[0]]),
        lambda p: losses.margin(p, labels[: p.shape[0]]),
        lambda p: losses.kl(p, q[: p.shape[0]]),
        lambda p: losses.js(p, q[: p.shape[0]]),
    ):
        np.testing.assert_array_equal(formula(p)[:1], formula(p[:1]))


def test_margin_is_the_logit_of_the_probability(logits: tuple) -> None:
    p, _ = logits
    labels = jnp.arange(6) % 5
    probability = np.take_along_axis(softmax(np.float64(p), -1), np.asarray(labels)[:, None], 1)[:, 0]
    np.testing.assert_allclose(losses.margin(p, labels), np.log(probability / (1 - probability)), rtol=1e-4)
    # Where 1 − p rounds to 0 the margin is still finite.
    np.testing.assert_allclose(losses.margin(jnp.array([80.0, 0.0]), jnp.array(0)), 80.0)


def test_masked_mean() -> None:
    values = jnp.array([1.0, 2.0, 6.0])
    np.testing.assert_allclose(losses.masked_mean(values, jnp.array([True, False, True])), 3.5)
    np.testing.assert_allclose(losses.masked_mean(values, jnp.zeros(3, bool)), 0.0)
    gradient = jax.grad(lambda v: losses.masked_mean(v, jnp.zeros(3, bool)))(values)
    np.testing.assert_array_equal(gradient, jnp.zeros(3))
