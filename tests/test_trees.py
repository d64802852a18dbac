"""Arithmetic on parameter trees."""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


def test_names_and_sizes() -> None:
    assert trees.names(tree()) == ["layer/first", "layer/second", "list/0"]
    assert trees.size(tree()) == 11


def test_arithmetic_keeps_dtypes_and_agrees_with_numpy() -> None:
    a, b = tree(0), tree(1)
    for result, formula in (
        (trees.add(a, b), lambda x, y: x + y),
        (trees.sub(a, b), lambda x, y: x - y),
        (trees.scale(-0.9, a), lambda x, y: -0.9 * x),
        (trees.lerp(a, b, 0.25), lambda x, y: 0.75 * x + 0.25 * y),
        (trees.zeros_like(a), lambda x, y: 0 * x),
    ):
        chex.assert_trees_all_equal_shapes_and_dtypes(result, a)
        expected = jax.tree.map(lambda x, y, f=formula: f(np.float64(x), np.float64(y)), a, b)
        tolerances = jax.tree.map(lambda x: 2e-2 if x.dtype == jnp.bfloat16 else 1e-6, a)
        jax.tree.map(
            lambda x, y, tol: np.testing.assert_allclose(np.float64(x), y, atol=tol), result, expected, tolerances
        )


def test_lerp_is_exact_at_the_ends() -> None:
    a, b = tree(0), tree(1)
    for t in (0.0, jnp.zeros(())):
        chex.assert_trees_all_equal(trees.lerp(a, b, t), a)
    for t in (1.0, jnp.ones(())):
        chex.assert_trees_all_equal(trees.lerp(a, b, t), b)


def test_dot_and_norm_are_those_of_the_whole_tree_in_float32() -> None:
    a, b = tree(0), tree(1)
    flat_a, flat_b = (np.concatenate([np.float64(x).ravel() for x in jax.tree.leaves(t)]) for t in (a, b))
    np.testing.assert_allclose(trees.dot(a, b), flat_a @ flat_b, rtol=1e-5)
    np.testing.assert_allclose(trees.norm(a), np.linalg.norm(flat_a), rtol=1e-5)
    assert trees.dot(a, b).dtype == jnp.float32


def test_stack_and_partition_have_inverses() -> None:
    both = [tree(0), tree(1)]
    stacked = trees.stack(both)
    assert stacked["layer"].first.shape == (2, 2, 3)
    chex.assert_trees_all_equal(trees.unstack(stacked), both)

    mask = {"layer": Pair(True, False), "list": [True]}
    kept, rest = trees.partition(both[0], mask)
    assert trees.size(kept) == 7
    assert trees.size(rest) == 4
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


def test_every_leaf_has_a_key_of_its_own() -> None:
    keys = trees.split_keys(jax.random.key(0), tree())
    drawn = {float(jax.random.uniform(key)) for key in jax.tree.leaves(keys)}
    assert len(drawn) == 3


def test_a_perturbation_has_the_length_of_another_in_every_leaf() -> None:
    origin = {"a": jnp.ones((3, 4)), "b": jnp.zeros(5), "c": jnp.ones(2)}
    like = {"a": jnp.ones((3, 4)) * 3, "b": jnp.arange(5.0), "c": jnp.ones(2)}
    first, second = (trees.perturb(jax.random.key(i), origin, like) for i in (0, 1))
    for name in origin:
        moved, expected = (np.linalg.norm(np.asarray(x[name] - origin[name])) for x in (first, like))
        np.testing.assert_allclose(moved, expected, rtol=1e-5)
    assert not np.allclose(first["a"], second["a"])
    np.testing.assert_array_equal(first["c"], origin["c"])
