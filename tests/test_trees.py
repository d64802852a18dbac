"""Parameter trees."""

from __future__ import annotations

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

from mcu_jax import trees


class Pair(NamedTuple):
    first: jax.Array
    second: jax.Array


def tree(seed: int = 0) -> dict:
    a, b, c = jax.random.split(jax.random.key(seed), 3)
    return {
        "layer": Pair(jax.random.normal(a, (2, 3)), jax.random.normal(b, (4,))),
        "list": [jax.random.normal(c, ()).astype(jnp.bfloat16)],
    }


def test_names() -> None:
    assert trees.names(tree()) == ["layer/first", "layer/second", "list/0"]


def test_lerp_keeps_dtypes_and_is_exact_at_the_ends() -> None:
    a, b = tree(0), tree(1)
    between = trees.lerp(a, b, 0.25)
    chex.assert_trees_all_equal_shapes_and_dtypes(between, a)
    expected = jax.tree.map(lambda x, y: 0.75 * np.float64(x) + 0.25 * np.float64(y), a, b)
    tolerances = jax.tree.map(lambda x: 2e-2 if x.dtype == jnp.bfloat16 else 1e-6, a)
    jax.tree.map(
        lambda x, y, tol: np.testing.assert_allclose(np.float64(x), y, atol=tol), between, expected, tolerances
    )
    for t in (0.0, jnp.zeros(())):
        chex.assert_trees_all_equal(trees.lerp(a, b, t), a)
    for t in (1.0, jnp.ones(())):
        chex.assert_trees_all_equal(trees.lerp(a, b, t), b)


def test_stack_and_partition_have_inverses() -> None:
    both = [tree(0), tree(1)]
    stacked = trees.stack(both)
    assert stacked["layer"].first.shape == (2, 2, 3)
    chex.assert_trees_all_equal(trees.unstack(stacked), both)

    mask = {"layer": Pair(True, False), "list": [True]}
    kept, rest = trees.partition(both[0], mask)
    assert (optax.tree.size(kept), optax.tree.size(rest)) == (7, 4)
    chex.assert_trees_all_equal(trees.combine(kept, rest), both[0])


def test_all_finite() -> None:
    assert bool(trees.all_finite(tree()))
    assert bool(trees.all_finite({"count": jnp.ones((), jnp.int32)}))
    for bad in (jnp.nan, jnp.inf):
        assert not bool(trees.all_finite({**tree(), "bad": jnp.array([1.0, bad])}))


def test_trees_that_differ_are_refused_by_the_leaf() -> None:
    good = {"a": jnp.ones(2), "b": {"c": jnp.ones((2, 3))}}
    trees.check_alike(good, jax.tree.map(jnp.zeros_like, good))
    for bad, message in (
        ({"a": jnp.ones(2), "b": {"c": jnp.ones((3, 2))}}, r"'b/c': float32\[2, 3\] against float32\[3, 2\]"),
        ({"a": jnp.ones(2, jnp.bfloat16), "b": good["b"]}, "'a'"),
        ({"a": jnp.ones(2), "b": {}}, "'b/c' is only in the first"),
        ({**good, "d": jnp.ones(())}, "'d' is only in the second"),
        ({"a": good["a"], "b": Pair(*[good["b"]["c"]] * 2)}, "only in the"),
    ):
        with pytest.raises(trees.TreeMismatchError, match=message):
            trees.check_alike(good, bad)
    with pytest.raises(trees.TreeMismatchError, match="structure"):
        trees.check_alike([jnp.ones(2)], (jnp.ones(2),))


def test_a_perturbation_has_the_length_of_another_in_every_leaf() -> None:
    origin = {"a": jnp.ones((3, 4)), "b": jnp.zeros(5), "c": jnp.ones(2)}
    like = {"a": jnp.ones((3, 4)) * 3, "b": jnp.arange(5.0), "c": jnp.ones(2)}
    first, second = (trees.perturb(jax.random.key(i), origin, like) for i in (0, 1))
    for name in origin:
        moved, expected = (np.linalg.norm(np.asarray(x[name] - origin[name])) for x in (first, like))
        np.testing.assert_allclose(moved, expected, rtol=1e-5)
    assert not np.allclose(first["a"], second["a"])
    np.testing.assert_array_equal(first["c"], origin["c"])


def test_functions_become_trees_of_their_arguments() -> None:
    partial = trees.as_partial(functools.partial(trees.lerp, 3.0, t=0.5))
    assert isinstance(partial, Partial)
    assert jax.tree.leaves(partial) == [3.0, 0.5]
    assert trees.as_partial(partial) is partial
    assert jax.tree.leaves(trees.as_partial(trees.lerp)) == []
