"""The plane through three models, and what is found on it: the surroundings of a path.

Garipov et al. 2018, arXiv 1802.10026, section 3 and its figures. Coordinates are in units of the distance between
parameters (L2), from the first model.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float

from mcu_jax import chunks, sharding, trees
from mcu_jax.base import Params, UserError

MARGIN = 0.2
"""Around what a grid holds, of its longer side."""
_ROUNDING = 1e-6
"""Of the models' own norm: a direction no longer than that is what float32 makes of none."""


class Plane(NamedTuple):
    """origin: where both coordinates are 0. axes: orthonormal directions, leaves [2, *leaf.shape]."""

    origin: Params
    axes: Params


class Projection(NamedTuple):
    """Of a model onto a plane. at: its coordinates; rest: what leads from there to it, orthogonal to the plane."""

    at: Float[Array, "2"]
    rest: Params

    @property
    def distance(self) -> Float[Array, ""]:
        """Of the model from the plane."""
        return _norm(self.rest)


def through(origin: Params, first: Params, second: Params) -> Plane:
    """The plane of three models: u from the origin to the first, v orthogonal to it on the side of the second.

    û = (w₁ − w₀)/‖w₁ − w₀‖, v̂ the same of (w₂ − w₀) − ⟨w₂ − w₀, û⟩ û; 0 where there is no such direction, as v̂ is of
    three models on one line. Raises TreeMismatchError where the models differ.
    """
    for other in (first, second):
        trees.check_alike(origin, other, "the models that a plane goes through")
    return _through(origin, first, second)


@jax.jit
def _through(origin: Params, first: Params, second: Params) -> Plane:
    along, across = (optax.tree.sub(model, origin) for model in (first, second))
    least = _ROUNDING * (_norm(origin) + jnp.maximum(_norm(along), _norm(across)))
    u = _unit(along, least)
    for _ in range(2):  # once leaves what the first subtraction rounds
        across = _add(across, u, -_dot(across, u))
    return Plane(origin, trees.stack([u, _unit(across, least)]))


def _unit(direction: Params, least: Float[Array, ""]) -> Params:
    length = _norm(direction)
    scale = jnp.where(length > least, 1 / jnp.maximum(length, jnp.finfo(jnp.float32).tiny), 0.0)
    return jax.tree.map(lambda leaf: scale.astype(leaf.dtype) * leaf, direction)


def _norm(tree: Params) -> Float[Array, ""]:
    return jnp.sqrt(_dot(tree, tree))


def _dot(a: Params, b: Params) -> Float[Array, ""]:
    products = jax.tree.map(lambda x, y: jnp.sum(x.astype(jnp.float32) * y.astype(jnp.float32)), a, b)
    return jnp.sum(jnp.stack(jax.tree.leaves(products)))


def _add(tree: Params, direction: Params, times: Float[Array, ""]) -> Params:
    return jax.tree.map(lambda x, d: x + times.astype(x.dtype) * d, tree, direction)


@jax.jit
def project(plane: Plane, params: Params) -> Projection:
    """The nearest point of the plane, and what is off it."""
    moved = optax.tree.sub(params, plane.origin)
    u, v = trees.unstack(plane.axes)
    at = jnp.stack([_dot(moved, u), _dot(moved, v)])
    return Projection(at, _add(_add(moved, u, -at[0]), v, -at[1]))


def point(plane: Plane, at: Float[Any, "2"]) -> Params:
    """The model there."""
    u, v = trees.unstack(plane.axes)
    at = jnp.asarray(at, jnp.float32)
    return _add(_add(plane.origin, u, at[0]), v, at[1])


def grid(
    points: Float[Any, "n 2"], count: int, near: Float[Any, "2"] | None = None
) -> tuple[Float[Array, "count"], Float[Array, "count"]]:
    """(us, vs): so many equally spaced values of either coordinate, whose rectangle holds the points, with a margin.

    near: a further one, which it holds too where that is no farther away than the longer side of the points' own
    rectangle. Traceable. Raises UserError for a count below 2.
    """
    if count < 2:
        raise UserError(f"a grid has at least 2 values of either coordinate, given {count}")
    points = jnp.asarray(points, jnp.float32)
    low, high = jnp.min(points, 0), jnp.max(points, 0)
    if near is not None:
        near = jnp.asarray(near, jnp.float32)
        away = jnp.max(jnp.maximum(low - near, near - high))
        is_near = away <= jnp.max(high - low)
        low = jnp.where(is_near, jnp.minimum(low, near), low)
        high = jnp.where(is_near, jnp.maximum(high, near), high)
    margin = MARGIN * jnp.max(high - low)
    us, vs = jnp.linspace(low - margin, high + margin, count, axis=1)
    return us, vs


def sweep(
    f: Callable[..., Any], plane: Plane, us: Float[Any, "U"], vs: Float[Any, "V"], chunk: int | None = None
) -> Any:
    """f(params there) at every point of a grid in one compiled call; leaves of the result are [V, U, …].

    f, chunk: as in `paths.sweep`; at most a row goes side by side. Raises UserError as that does.
    """
    f, us, vs = trees.as_partial(f), jnp.asarray(us, jnp.float32), jnp.asarray(vs, jnp.float32)
    points = jnp.stack(jnp.meshgrid(us, vs), -1).reshape(-1, 2)

    def brief(count: int) -> chunks.Work:
        return chunks.Work(_sweep, (f, plane, points[:count]), {})

    values = chunks.side_by_side(brief(len(points)), brief, f, plane.origin, len(us), chunk)
    return jax.tree.map(lambda leaf: leaf.reshape(len(vs), len(us), *leaf.shape[1:]), values)


@functools.partial(jax.jit, static_argnames=("chunk",))
def _sweep(f: Partial, plane: Plane, points: Float[Array, "n 2"], *, chunk: int) -> Any:
    return sharding.map_over(lambda at: f(point(plane, at)), points, chunk)
