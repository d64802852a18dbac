"""Parameter trees, beyond what `jax.tree` and `optax.tree` do."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float

from mcu_jax.base import Params, RandomKey, UserError


class TreeMismatchError(UserError):
    """Two parameter trees that should agree do not."""


def names(tree: Any) -> list[str]:
    """The key path of every leaf, `a/b/c`, in leaf order."""
    return [
        jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    ]


def same_structure(a: Any, b: Any) -> bool:
    structure: Any = jax.tree.structure(a)
    return structure == jax.tree.structure(b)


def check_alike(a: Any, b: Any, what: str = "parameter trees") -> None:
    """Raises TreeMismatchError, naming the first leaf, unless structure, shapes and dtypes agree."""
    name_a, name_b = names(a), names(b)
    for name in [*name_a, *name_b]:
        if (name in name_a) != (name in name_b):
            side = "first" if name in name_a else "second"
            raise TreeMismatchError(
                f"{what} differ: leaf {name!r} is only in the {side}; both must come from one model"
            )
    if not same_structure(a, b):
        raise TreeMismatchError(f"{what} differ in structure: {jax.tree.structure(a)} against {jax.tree.structure(b)}")
    for name, x, y in zip(name_a, jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.shape(x) != jnp.shape(y) or jnp.result_type(x) != jnp.result_type(y):
            raise TreeMismatchError(
                f"{what} differ at leaf {name!r}: {jnp.result_type(x)}{list(jnp.shape(x))} "
                f"against {jnp.result_type(y)}{list(jnp.shape(y))}"
            )


def lerp(a: Params, b: Params, t: float | Float[Array, ""]) -> Params:
    """(1 − t) a + t b, exact at t = 0 and t = 1."""
    return jax.tree.map(lambda x, y: jnp.asarray(1 - t, x.dtype) * x + jnp.asarray(t, x.dtype) * y, a, b)


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether every inexact leaf is finite throughout; true for a tree without any."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(x), jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves])) if leaves else jnp.asarray(True)


def stack(trees: Sequence[Any]) -> Any:
    """Trees of one structure to one tree with a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstack(tree: Any) -> list[Any]:
    """The inverse of `stack`."""
    count = jax.tree.leaves(tree)[0].shape[0]
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(count)]


def perturb(key: RandomKey, origin: Params, like: Params) -> Params:
    """`origin` and Gaussian noise, in every leaf of the Euclidean norm of `like` − `origin`: as far, elsewhere."""

    def leaf(key: RandomKey, x: Array, y: Array) -> Array:
        noise = jax.random.normal(key, x.shape, x.dtype)
        return x + noise * (jnp.linalg.norm((y - x).ravel()) / jnp.linalg.norm(noise.ravel()))

    return jax.tree.map(leaf, optax.tree.split_key_like(key, origin), origin, like)


def partition(tree: Any, mask: Any) -> tuple[Any, Any]:
    """(where the mask is True, where it is False); the other's leaves are None. The mask: a Python bool a leaf."""
    kept = jax.tree.map(lambda keep, x: x if keep else None, mask, tree)
    rest = jax.tree.map(lambda keep, x: None if keep else x, mask, tree)
    return kept, rest


def combine(kept: Any, rest: Any) -> Any:
    """The inverse of `partition`."""
    return jax.tree.map(lambda a, b: b if a is None else a, kept, rest, is_leaf=lambda x: x is None)


def as_partial(function: Callable) -> Partial:
    """A function as a pytree: its bound arguments are leaves, so that new ones compile nothing."""
    if isinstance(function, Partial):
        return function
    if isinstance(function, functools.partial):
        return Partial(function.func, *function.args, **function.keywords)
    return Partial(function)


def is_traced(*values: Any) -> bool:
    """Whether any leaf is abstract: inside jit, vmap, grad or a scan."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))
