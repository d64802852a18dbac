"""Curves through control points: a basis in t, applied leaf by leaf. A curve is (path, t) -> params.

With `path.inner` holding n − 1 bends a path has n + 1 control points P₀ (start), P₁ … Pₙ₋₁, Pₙ (end).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mcu_jax import trees
from mcu_jax.base import Curve, Params, Path

Scalar = float | Float[Array, ""]


def linear(path: Path, t: Scalar) -> Params:
    """The straight line (1 − t) P₀ + t Pₙ; bends are ignored."""
    return trees.lerp(path.start, path.end, t)


def bezier(path: Path, t: Scalar) -> Params:
    """Bézier curve Σᵢ C(n, i) (1 − t)ⁿ⁻ⁱ tⁱ Pᵢ.

    One bend: the quadratic one of MCU (Shi & Wang 2025, arXiv 2505.10859). As a way to connect modes: Garipov et al.
    2018, arXiv 1802.10026.
    """
    n = bends(path) + 1
    # Integer exponents: with powers as arrays the derivative in t is NaN at both ends.
    return _combine(path, [math.comb(n, i) * (1 - t) ** (n - i) * t**i for i in range(n + 1)])


def polychain(path: Path, t: Scalar) -> Params:
    """Polygonal chain through the control points at equal steps of t: weights max(0, 1 − |n t − i|).

    Garipov et al. 2018, arXiv 1802.10026. Written segment by segment, so that the derivative in t is one-sided at the
    ends and right-sided at a bend.
    """
    n = bends(path) + 1
    segment = jnp.clip(jnp.floor(jax.lax.stop_gradient(jnp.asarray(t)) * n), 0, n - 1)
    along = t * n - segment
    weights = [jnp.where(segment == i, 1 - along, jnp.where(segment == i - 1, along, 0.0)) for i in range(n + 1)]
    return _combine(path, weights)


NAMES = ("linear", "bezier", "polychain")


def straight(start: Params, end: Params, bends: int = 1) -> Path:
    """A path whose control points lie equally spaced on a line: every curve through them is that line.

    Raises TreeMismatchError where the two trees differ.
    """
    trees.check_alike(start, end, "the end points of a path")
    points = [trees.lerp(start, end, (i + 1) / (bends + 1)) for i in range(bends)]
    inner = trees.stack(points) if points else jax.tree.map(lambda x: jnp.zeros((0, *x.shape), x.dtype), start)
    return Path(start, inner, end)


def bends(path: Path) -> int:
    """Number of inner control points."""
    return jax.tree.leaves(path.inner)[0].shape[0]


def tangent(curve: Curve, path: Path, t: Scalar) -> Params:
    """dφ/dt at t."""
    t = jnp.asarray(t, jnp.float32)
    return jax.jvp(lambda s: curve(path, s), (t,), (jnp.ones_like(t),))[1]


def _combine(path: Path, weights: list) -> Params:
    def leaf(start: Array, inner: Array, end: Array) -> Array:
        points = [start, *(inner[i] for i in range(inner.shape[0])), end]
        terms = [jnp.asarray(w).astype(start.dtype) * p for w, p in zip(weights, points, strict=True)]
        return sum(terms[1:], terms[0])

    return jax.tree.map(leaf, path.start, path.inner, path.end)
