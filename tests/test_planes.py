"""The plane through three models."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from mcu_jax import chunks, metrics, planes, training, trees
from mcu_jax.base import Problem


def model(*values: float) -> dict[str, Any]:
    """In two leaves, so that nothing holds of one leaf alone."""
    return {"a": jnp.array(values[:1], jnp.float32), "b": jnp.array([values[1:]], jnp.float32)}


ORIGIN, FIRST, SECOND = model(1, 2, 3), model(4, 6, 3), model(1, 7, 5)
"""(3, 4, 0) leads to the first; to the second (0, 5, 2), which is 4 along that and (−2.4, 1.8, 2) across it."""


def test_a_plane_by_hand() -> None:
    plane = planes.through(ORIGIN, FIRST, SECOND)
    u, v = trees.unstack(plane.axes)
    across = np.array([-2.4, 1.8, 2]) / np.sqrt(13)
    chex.assert_trees_all_close(u, model(0.6, 0.8, 0), rtol=1e-5)
    chex.assert_trees_all_close(v, model(*across), rtol=1e-5)
    for params, at in ((ORIGIN, (0, 0)), (FIRST, (5, 0)), (SECOND, (4, np.sqrt(13)))):
        found = planes.project(plane, params)
        np.testing.assert_allclose(found.at, at, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.distance, 0, atol=1e-5)
    chex.assert_trees_all_equal(planes.point(plane, jnp.zeros(2)), ORIGIN)
    # Seven along the normal (0.8, −0.6, 1.5) from a point of the plane.
    normal = np.cross([0.6, 0.8, 0], across)
    off = model(*(np.array([1, 2, 3]) + 2 * np.array([0.6, 0.8, 0]) - across + 7 * normal))
    found = planes.project(plane, off)
    np.testing.assert_allclose(found.at, [2, -1], rtol=1e-5)
    np.testing.assert_allclose(found.distance, 7, rtol=1e-6)
    chex.assert_trees_all_close(found.rest, model(*7 * normal), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_any_point_is_where_it_says(seed: int) -> None:
    """Of large models close to each other, as trained ones are, whose differences are rounded."""
    keys = jax.random.split(jax.random.key(seed), 3)
    origin, along, across = ({"a": jax.random.normal(key, (40, 30)), "b": jnp.zeros(7)} for key in keys)
    first, second = (jax.tree.map(lambda x, d: x + 1e-2 * d, origin, moved) for moved in (along, across))
    plane = planes.through(origin, first, second)
    products = [[float(planes._dot(a, b)) for a in trees.unstack(plane.axes)] for b in trees.unstack(plane.axes)]
    np.testing.assert_allclose(products, np.eye(2), atol=1e-5)
    for at in ((0.3, -0.2), (-1.0, 2.0)):
        found = planes.project(plane, planes.point(plane, jnp.array(at)))
        np.testing.assert_allclose(found.at, at, rtol=1e-4)
        assert float(found.distance) < 1e-4


def test_models_on_a_line_have_no_second_axis() -> None:
    plane = jax.jit(planes.through)(ORIGIN, FIRST, trees.lerp(ORIGIN, FIRST, 0.3))
    u, v = trees.unstack(plane.axes)
    chex.assert_trees_all_close(u, model(0.6, 0.8, 0), rtol=1e-6)
    chex.assert_trees_all_equal(v, model(0, 0, 0))
    chex.assert_trees_all_equal(planes.through(ORIGIN, ORIGIN, ORIGIN).axes, trees.stack([model(0, 0, 0)] * 2))
    with pytest.raises(trees.TreeMismatchError, match="the models that a plane goes through"):
        planes.through(ORIGIN, FIRST, {"a": jnp.zeros(1)})


def test_a_grid_holds_its_points_and_what_is_near() -> None:
    points = np.array([[0, 0], [10, 0], [4, 3.0]])
    us, vs = planes.grid(points, 8)
    np.testing.assert_allclose(us, np.linspace(-2, 12, 8), atol=1e-5)
    np.testing.assert_allclose(vs, np.linspace(-2, 5, 8), atol=1e-5)
    us, vs = planes.grid(points, 3, near=np.array([5.0, -7.0]))
    np.testing.assert_allclose(us, [-2, 5, 12], rtol=1e-6)
    np.testing.assert_allclose(vs, [-9, -2, 5], rtol=1e-6)
    chex.assert_trees_all_equal(planes.grid(points, 8, near=np.array([21.0, 0.0])), planes.grid(points, 8))
    with pytest.raises(ValueError, match="at least 2 values of either coordinate, given 1"):
        planes.grid(points, 1)


def cubes(scale: Any, params: dict) -> dict:
    return {"sum": scale * jnp.sum(params["b"] ** 3), "all": params["a"]}


@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_a_sweep_is_a_loop_of_calls_in_rows_of_v(chunk: int | None) -> None:
    plane = planes.through(ORIGIN, FIRST, SECOND)
    us, vs = jnp.array([0.0, 1.0, 2.0]), jnp.array([-1.0, 5.0])
    found = planes.sweep(Partial(cubes, 2.0), plane, us, vs, chunk)
    rows = [[cubes(2.0, planes.point(plane, jnp.array([u, v]))) for u in us] for v in vs]
    chex.assert_trees_all_close(found, trees.stack([trees.stack(row) for row in rows]), rtol=1e-5)


def test_a_sweep_maps_over_planes_and_no_more_than_a_row_goes_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    several = trees.stack([planes.through(ORIGIN, FIRST, SECOND), planes.through(SECOND, ORIGIN, FIRST)])
    us, vs = jnp.arange(3.0), jnp.arange(2.0)
    mapped = jax.vmap(lambda plane: planes.sweep(Partial(cubes, 1.0), plane, us, vs))(several)
    chex.assert_trees_all_close(
        trees.unstack(mapped)[1], planes.sweep(Partial(cubes, 1.0), trees.unstack(several)[1], us, vs), rtol=1e-5
    )
    tried: list[int] = []
    monkeypatch.setattr(chunks, "run", lambda work, chunk: tried.append(chunk) or work.at(chunk))
    planes.sweep(Partial(cubes, 1.0), trees.unstack(several)[0], us, vs)
    planes.sweep(Partial(cubes, 1.0), trees.unstack(several)[0], us, vs, chunk=99)
    assert tried == [3, 3]


def mean_loss(problem: Problem, params: Any) -> jax.Array:
    stats = training.evaluation_stats(problem, params)
    return jnp.mean(metrics.scores(problem, params, problem.retain, stats).loss)


def test_statistics_are_refreshed_everywhere(normed: Any) -> None:
    """Of the model there: at θ_o the loss is that of its evaluation, and so it is elsewhere."""
    problem = normed(60)
    first = {"v": 3.0 * problem.params["v"] + 1.0, "w": -problem.params["w"]}
    second = {"v": problem.params["v"] - 1.0, "w": problem.params["w"] + 2.0}
    plane = planes.through(problem.params, first, second)
    found = planes.sweep(Partial(mean_loss, problem), plane, jnp.array([0.0, 1.0]), jnp.array([0.0, 0.5]))
    for i, v in enumerate((0.0, 0.5)):
        for j, u in enumerate((0.0, 1.0)):
            expected = mean_loss(problem, planes.point(plane, jnp.array([u, v])))
            np.testing.assert_allclose(found[i, j], expected, rtol=1e-4)
