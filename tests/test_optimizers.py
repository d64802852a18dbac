"""Optimisers and curricula against their formulas."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import lambertw

from mcu_jax import curricula, losses, optimizers, registry, training, trees

KEY = jax.random.key(4)
START = {"w": jnp.array([1.0, -2.0, 0.5])}
CURVATURE = jnp.array([4.0, 0.5, 0.0])
DATA = (jnp.zeros((6, 3)),)


def bowl(params: dict, batches: tuple, now: training.Now) -> tuple[training.Term, ...]:
    """½ Σ cᵢ wᵢ² + Σ wᵢ: gradient c w + 1, Hessian diag(c), in which every Hutchinson estimate is exact."""
    return (training.Term(0.5 * jnp.sum(CURVATURE * params["w"] ** 2) + jnp.sum(params["w"])),)


def run(spec: str, steps: int, lr: Any = 0.1, decay: float = 0.0, terms: Any = bowl) -> Any:
    objective = training.Objective(terms, DATA)
    make = optimizers.make(spec, lr, 0.9, decay)
    return training.fit(objective, START, KEY, optimizer=make, epochs=steps, batch_size=6).state


def test_adam_decays_apart_from_its_moments() -> None:
    w, m, v = np.array(START["w"]), np.zeros(3), np.zeros(3)
    for step in range(1, 5):
        g = CURVATURE * w + 1
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
        w = w - 0.1 * (m / (1 - 0.8**step) / (np.sqrt(v / (1 - 0.95**step)) + 1e-8) + 0.3 * w)
    np.testing.assert_allclose(run("adam:b1=0.8,b2=0.95", 4, decay=0.3)["w"], w, rtol=1e-4)


def test_sophia_looks_at_the_curvature_every_interval() -> None:
    """The moments are corrected for their start; what a step looks at is the curvature known before it."""
    w, m, h = np.array(START["w"]), np.zeros(3), np.zeros(3)
    for step in range(5):
        g = CURVATURE * w + 1
        m = 0.9 * m + 0.1 * g
        move = np.clip(m / (1 - 0.9 ** (step + 1)) / np.maximum(2.0 * h, 1e-8), -1, 1)
        h = 0.8 * h + 0.2 * CURVATURE if step % 3 == 0 else h
        w = w - 0.05 * (move + 0.2 * w)
    found = run("sophia:b1=0.9,b2=0.8,gamma=2.0,interval=3", 5, lr=0.05, decay=0.2)["w"]
    np.testing.assert_allclose(found, w, rtol=1e-4)


def test_sophias_hessian_products_are_skipped_under_vmap() -> None:
    """A batched `cond` would become a select that computes both sides: then no `cond` on a scalar were left."""

    def conds(jaxpr: Any) -> list[tuple]:
        found = []
        for equation in jaxpr.eqns:
            if equation.primitive.name == "cond":
                found.append(equation.invars[0].aval.shape)
            for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
                inner = getattr(inner, "jaxpr", inner)
                found += conds(inner) if hasattr(inner, "eqns") else []
        return found

    def alike(spec: str) -> list[tuple]:
        return conds(jax.make_jaxpr(jax.vmap(lambda lr: run(spec, 4, lr)))(jnp.array([0.1, 0.2])).jaxpr)

    assert len(alike("sophia")) == len(alike("sgd")) + 1
    assert set(alike("sophia")) == {()}


def test_fisher_sophia_applies_its_momentum_once() -> None:
    w, m, h = np.array(START["w"]), np.zeros(3), np.zeros(3)
    for _ in range(4):
        g = CURVATURE * w + 1
        m, h = 0.9 * m + 0.1 * g, 0.95 * h + 0.05 * g**2
        w = w - 0.1 * np.clip(m / np.maximum(0.5 * 4.0 * h, 1e-15), -1, 1)
    np.testing.assert_allclose(run("sophia_fisher:rho=0.5,scale=4.0", 4)["w"], w, rtol=1e-4)


def test_lambert_w_is_scipys() -> None:
    z = np.concatenate([[-1 / np.e], -np.geomspace(1e-6, 0.36787, 50), [0.0], np.geomspace(1e-6, 1e3, 50)])
    z = z.astype(np.float32)
    expected = lambertw(np.maximum(z.astype(np.float64), -1 / np.e + 1e-12)).real
    # At −1/e the slope is infinite: half the digits are all there is.
    np.testing.assert_allclose(losses.lambert_w(jnp.asarray(z)), expected, rtol=1e-3, atol=2e-3)
    away = z > -0.3
    np.testing.assert_allclose(losses.lambert_w(jnp.asarray(z[away])), expected[away], rtol=1e-5, atol=1e-6)


def test_superloss_is_the_formula_and_the_best_confidence() -> None:
    values, tau, strength = jnp.array([-1.0, 0.0, 0.5, 1.0, 3.0, 40.0]), 1.0, 2.0
    depth = 0.5 * (np.float64(values) - tau) / strength
    sigma = np.where(depth > -1 / np.e, np.exp(-lambertw(np.maximum(-0.3, depth)).real), np.e)
    expected = (np.float64(values) - tau) * sigma + strength * np.log(sigma) ** 2
    np.testing.assert_allclose(losses.superloss(values, tau, strength), expected, rtol=1e-5, atol=1e-6)
    # The confidence minimises the loss over all others, unless held at its largest, e.
    grid = np.exp(np.linspace(-6, 1, 20001))[:, None]
    all_confidences = (np.float64(values)[None] - tau) * grid + strength * np.log(grid) ** 2
    np.testing.assert_allclose(expected, all_confidences.min(0), atol=1e-4)
    # It is held constant: the slope is the confidence.
    slopes = jax.vmap(jax.grad(lambda value: losses.superloss(value, tau, strength)))(values)
    np.testing.assert_allclose(slopes, sigma, rtol=1e-4)
    assert np.all(np.diff(slopes) < 0), "easy examples first"


def test_superloss_measures_against_the_running_mean_of_its_own_term() -> None:
    weigh, running = curricula.make("superloss:strength=2"), curricula.start()
    batches = ([1.0, 3.0], [5.0, 7.0], [100.0, 0.0])
    for i, (batch, tau) in enumerate(zip(batches, (2.0, 4.0, 4.0), strict=True)):
        # Of the last batch nothing counts; it is weighed, and forgotten.
        where = jnp.array([False, False]) if i == 2 else None
        values, running = weigh(jnp.array(batch), where, running)
        np.testing.assert_allclose(values, losses.superloss(jnp.array(batch), tau, 2.0), rtol=1e-5)
    assert curricula.make("none") is None
    with pytest.raises(registry.UnknownNameError, match="superloss"):
        curricula.make("supperloss")


def two(params: dict, batches: tuple, now: training.Now) -> tuple[training.Term, ...]:
    """Two terms with signs of their own, and a regulariser."""
    values = jnp.arange(6.0) * params["w"][0] ** 2
    return training.Term(values, 0.5), training.Term(10 * values, -0.1), training.Term(jnp.sum(params["w"] ** 2), 0.2)


def test_a_curriculum_weighs_each_term_by_itself_and_no_regulariser() -> None:
    objective = training.Objective(two, DATA)
    make, weigh = optimizers.make("sgd", 1.0, 0.0), curricula.make("superloss:strength=3")
    found = training.fit(objective, START, KEY, optimizer=make, curriculum=weigh, epochs=1, batch_size=6)

    def loss(params: dict) -> jax.Array:
        a, b, penalty = two(params, (), None)
        means = [jnp.mean(losses.superloss(t.values, jax.lax.stop_gradient(t.values.mean()), 3.0)) for t in (a, b)]
        return 0.5 * means[0] - 0.1 * means[1] + 0.2 * penalty.values

    value, grads = jax.value_and_grad(loss)(START)
    chex.assert_trees_all_close(found.state, trees.sub(START, grads), rtol=1e-5)
    np.testing.assert_allclose(found.losses[0], value, rtol=1e-5)
