"""Curves: values, ends, tangents and gradients, over any tree, dtype and number of bends."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcu_jax import curves, trees
from mcu_jax.base import Path

ALL = [getattr(curves, name) for name in curves.NAMES]
TS = st.floats(0, 1, width=32)
BENDS = st.integers(0, 4)
quick = settings(deadline=None, max_examples=25)


class Layer(NamedTuple):
    kernel: jax.Array
    rest: list


def path(bends: int, seed: int = 0, dtype: jnp.dtype = jnp.float32) -> Path:
    """Random control points: of a tree that is not made of dicts."""

    def points(key: jax.Array, *lead: int) -> Layer:
        a, b = jax.random.split(key)
        return Layer(jax.random.normal(a, (*lead, 2, 3), dtype), [jax.random.normal(b, lead, dtype)])

    start, inner, end = jax.random.split(jax.random.key(seed), 3)
    return Path(points(start), points(inner, bends), points(end))


def control(path: Path) -> list[np.ndarray]:
    """Control points of the first leaf, in float64."""
    inner = np.float64(path.inner.kernel)
    return [np.float64(path.start.kernel), *inner, np.float64(path.end.kernel)]


def de_casteljau(points: list[np.ndarray], t: float) -> np.ndarray:
    while len(points) > 1:
        points = [(1 - t) * a + t * b for a, b in itertools.pairwise(points)]
    return points[0]


def chain(points: list[np.ndarray], t: float) -> np.ndarray:
    n = len(points)
    return sum(max(0.0, 1 - abs((n - 1) * t - i)) * p for i, p in enumerate(points))


@quick
@given(TS, BENDS, st.integers(0, 99))
def test_values_are_the_formulas(t: float, bends: int, seed: int) -> None:
    given_path = path(bends, seed)
    points = control(given_path)
    for curve, expected in (
        (curves.linear, (1 - t) * points[0] + t * points[-1]),
        (curves.bezier, de_casteljau(points, t)),
        (curves.polychain, chain(points, t)),
    ):
        at_t = curve(given_path, t)
        chex.assert_trees_all_equal_shapes_and_dtypes(at_t, given_path.start)
        np.testing.assert_allclose(at_t.kernel, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("bends", [0, 1, 3])
@pytest.mark.parametrize("curve", ALL)
def test_ends_are_exact_also_compiled_and_mapped(curve: object, bends: int, dtype: jnp.dtype) -> None:
    given_path = path(bends, 1, dtype)
    mapped = jax.vmap(curve, (None, 0))(given_path, jnp.array([0.0, 0.5, 1.0]))
    for t, i, expected in ((0.0, 0, given_path.start), (1.0, 2, given_path.end)):
        chex.assert_trees_all_equal_shapes_and_dtypes(curve(given_path, t), expected)
        chex.assert_trees_all_equal(curve(given_path, t), expected)
        chex.assert_trees_all_equal(jax.jit(curve)(given_path, jnp.float32(t)), expected)
        chex.assert_trees_all_equal(jax.tree.map(lambda x, i=i: x[i], mapped), expected)


def test_vmap_and_jit_agree_with_one_at_a_time() -> None:
    ts = jnp.linspace(0, 1, 7)
    for curve in ALL:
        one = trees.stack([curve(path(2), t) for t in ts])
        chex.assert_trees_all_close(jax.vmap(curve, (None, 0))(path(2), ts), one, atol=1e-6)
        chex.assert_trees_all_close(jax.jit(jax.vmap(curve, (None, 0)))(path(2), ts), one, atol=1e-6)


@pytest.mark.parametrize("bends", [1, 2, 3])
@pytest.mark.parametrize("curve", [curves.bezier, curves.polychain])
def test_tangents_at_the_ends(curve: object, bends: int) -> None:
    given_path = path(bends, 2)
    points, n = control(given_path), bends + 1
    for t, expected in ((0.0, n * (points[1] - points[0])), (1.0, n * (points[-1] - points[-2]))):
        found = curves.tangent(curve, given_path, t)
        chex.assert_tree_all_finite(found)
        np.testing.assert_allclose(found.kernel, expected, rtol=1e-5, atol=1e-5)
        reverse = jax.jacrev(lambda s: curve(given_path, s).kernel)(jnp.float32(t))
        np.testing.assert_allclose(reverse, expected, rtol=1e-5, atol=1e-5)


def test_tangent_of_the_chain_is_right_sided_at_a_bend() -> None:
    points = control(path(1, 3))
    found = curves.tangent(curves.polychain, path(1, 3), 0.5)
    np.testing.assert_allclose(found.kernel, 2 * (points[2] - points[1]), rtol=1e-5)


@quick
@given(TS, st.integers(1, 4))
def test_straight_control_points_are_the_straight_line(t: float, bends: int) -> None:
    ends = path(1, 4)
    straight = curves.straight(ends.start, ends.end, bends)
    assert curves.bends(straight) == bends
    # One leaf bent, as by a mask: the others stay on the line.
    bent = straight._replace(inner=straight.inner._replace(rest=path(bends, 5).inner.rest))
    line = curves.linear(straight, t)
    for curve in (curves.bezier, curves.polychain):
        chex.assert_trees_all_close(curve(straight, t), line, atol=1e-5)
        np.testing.assert_allclose(curve(bent, t).kernel, line.kernel, atol=1e-5)


def test_straight_refuses_ends_that_differ() -> None:
    with pytest.raises(trees.TreeMismatchError, match="kernel"):
        curves.straight(path(1).start, Layer(jnp.ones((3, 2)), [jnp.ones(())]))


def bowl(params: Layer) -> jax.Array:
    """Any function of the parameters."""
    return jnp.sum(jnp.sin(params.kernel)) * jnp.square(params.rest[0]) + jnp.sum(jnp.square(params.kernel))


def test_gradient_of_the_quadratic_bezier_is_the_chain_rule() -> None:
    given_path = path(1, 6)
    for t in (0.0, 0.3, 0.5, 1.0):
        at_t = jax.grad(bowl)(curves.bezier(given_path, t))
        found = jax.grad(lambda inner, t=t: bowl(curves.bezier(given_path._replace(inner=inner), t)))(given_path.inner)
        expected = jax.tree.map(lambda g, t=t: 2 * t * (1 - t) * g[None], at_t)
        chex.assert_trees_all_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("bends", [1, 2, 4])
@pytest.mark.parametrize("curve", [curves.bezier, curves.polychain])
def test_gradient_agrees_with_finite_differences(curve: object, bends: int) -> None:
    given_path, direction, step = path(bends, 7), path(bends, 8).inner, 1e-2

    def value(s: jax.Array) -> jax.Array:
        moved = jax.tree.map(lambda x, d: x + s * d, given_path.inner, direction)
        return bowl(curve(given_path._replace(inner=moved), 0.4))

    difference = (value(jnp.float32(step)) - value(jnp.float32(-step))) / (2 * step)
    grads = jax.grad(lambda inner: bowl(curve(given_path._replace(inner=inner), 0.4)))(given_path.inner)
    np.testing.assert_allclose(optax.tree.vdot(grads, direction), difference, rtol=5e-3, atol=1e-3)
