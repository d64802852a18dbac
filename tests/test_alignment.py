"""Renamed units compute the same, and their names are found again."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mcu_jax import alignment, models, trees
from mcu_jax.base import Model
from mcu_jax.models import _resnet, _swin, _vgg, _vit

MODELS = {
    "mlp": (models.mlp(num_classes=5, hidden=(8, 6)), (6, 4, 4, 1)),
    "cnn": (models.cnn(num_classes=5), (6, 16, 16, 1)),
    "basic": (models.preresnet(num_classes=5, depth=14), (6, 8, 8, 3)),
    "bottleneck": (models.preresnet(num_classes=5, depth=47), (6, 8, 8, 3)),
    "resnet18": (_resnet._resnet("resnet18", 5, (1, 2), bottleneck=False, stem="cifar"), (6, 8, 8, 3)),
    "resnet50": (_resnet._resnet("resnet50", 5, (1, 2), bottleneck=True, stem="imagenet"), (6, 16, 16, 3)),
    "vgg16_bn": (_vgg._made(5, ((8, 6), (10,)), 7), (6, 32, 32, 3)),
    "vit": (_vit._made(5, _vit._Size(24, 2, 3), 4), (6, 8, 8, 3)),
    "swin": (_swin._made(5, _swin._Size(24, (1, 2), (3, 6))), (6, 64, 64, 3)),
}
FIXED = ("qkv/bias", "relative_position_bias_table")
"""Leaves of heads, which keep their places."""
every_model = pytest.mark.parametrize("name", MODELS)


def network(name: str, seed: int = 0) -> tuple[Model, Any, jax.Array]:
    """With every leaf at random: a unit that is left out of a renaming shows."""
    model, shape = MODELS[name]
    x = jax.random.normal(jax.random.key(9), shape)
    blank = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    rng = np.random.default_rng(seed + 1)
    return model, jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), jnp.float32), blank), x


def shuffled(model: Model, params: Any, seed: int = 0) -> list[np.ndarray]:
    """Random orders that keep groups together."""
    rng, orders = np.random.default_rng(seed), []
    leaves = dict(zip(trees.names(params), jax.tree.leaves(params), strict=True))
    for units in model.permutations:
        size = min(leaves[name].shape[axis] for name, axis in units.axes) // units.groups
        rows = [group * size + rng.permutation(size) for group in rng.permutation(units.groups)]
        orders.append(np.concatenate(rows) if units.groups > 1 else rng.permutation(size))
    return orders


@every_model
def test_renamed_units_compute_the_same(name: str) -> None:
    model, params, x = network(name)
    renamed = alignment.apply(params, model.permutations, shuffled(model, params))
    # Every leaf but the first layer's inputs and the last one's outputs is counted by some unit.
    moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != np.asarray(b)).any()), params, renamed)
    still = [leaf for leaf, changed in zip(trees.names(params), jax.tree.leaves(moved), strict=True) if not changed]
    assert [leaf for leaf in still if not leaf.endswith(FIXED)] == ["head/bias"]
    before, after = (jax.jit(model.apply)(each, x)[0] for each in (params, renamed))
    chex.assert_trees_all_close(before, after, rtol=1e-3, atol=1e-4)


@every_model
def test_names_are_found_again(name: str) -> None:
    model, params, _ = network(name)
    renamed = alignment.apply(params, model.permutations, shuffled(model, params))
    chex.assert_trees_all_equal(alignment.align(model, renamed, params), params)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_another_network_is_brought_closer_and_stays_itself(name: str) -> None:
    model, params, x = network(name)
    _, other, _ = network(name, 1)
    found = alignment.align(model, other, params)
    near, far = (float(optax.tree.norm(optax.tree.sub(each, params))) for each in (found, other))
    assert near < 0.99 * far
    chex.assert_trees_all_close(model.apply(found, x)[0], model.apply(other, x)[0], rtol=1e-3, atol=1e-4)
    chex.assert_trees_all_equal(alignment.align(model, other, params), found)


def test_channels_of_a_group_stay_together() -> None:
    model, params, x = network("cnn")
    orders = shuffled(model, params)
    orders[0] = np.roll(np.arange(16), 1)  # every group gives one channel to the next
    broken = alignment.apply(params, model.permutations, orders)
    assert float(jnp.abs(model.apply(broken, x)[0] - model.apply(params, x)[0]).max()) > 1e-2
    _, other, _ = network("cnn", 1)
    found = alignment.match(other, params, model.permutations)
    assert [units.groups for units in model.permutations] == [8, 8, 8, 1]
    for units, order in zip(model.permutations, found, strict=True):
        groups = order.reshape(units.groups, -1) // (len(order) // units.groups)
        assert (groups == groups[:, :1]).all()


def test_assignment_is_the_best_of_all() -> None:
    """Of 2 groups of 2: against every allowed order."""
    gains = np.random.default_rng(3).normal(size=(4, 4))
    allowed = [a + b for a, b in (([0, 1], [2, 3]), ([2, 3], [0, 1]))]
    allowed = [p for g in allowed for p in (g, [g[1], g[0], *g[2:]], [*g[:2], g[3], g[2]], [g[1], g[0], g[3], g[2]])]
    best = max(allowed, key=lambda order: gains[np.arange(4), order].sum())
    assert alignment._assign(gains, 2).tolist() == best


def test_a_model_that_does_not_tell_is_refused() -> None:
    model, params, _ = network("mlp")
    plain = models.adapt(lambda params, x: x)
    with pytest.raises(ValueError, match="permutations"):
        alignment.align(plain, params, params)
    with pytest.raises(trees.TreeMismatchError, match="reference"):
        alignment.align(model, params, {"w": jnp.ones(1)})
