"""Permutation alignment: reorder the hidden units of one network so that its weights lie close to another's.

The order of its units does not change what a network computes, and differs between networks trained from scratch: a
barrier between two of them says something only after alignment. On the host, in NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mcu_jax import trees
from mcu_jax.base import Model, Params, Units, UserError

Order = np.ndarray
"""[units] integers: which unit of the given network takes each place."""


def align(model: Model, params: Params, reference: Params, *, seed: int = 0) -> Params:
    """The network `params` with its hidden units in the order in which its weights lie closest to `reference`'s.

    It computes the same function. Raises UserError for a model that does not give its `permutations`,
    TreeMismatchError where the trees differ.
    """
    if model.permutations is None:
        raise UserError(
            f"{model.name} does not say which of its units may change places: give models.adapt `permutations`, or "
            "compare networks that come from one original, which need no alignment"
        )
    trees.check_alike(params, reference, "the network to align and its reference")
    return apply(params, model.permutations, match(params, reference, model.permutations, seed=seed))


def apply(params: Params, units: Sequence[Units], orders: Sequence[Order]) -> Params:
    """The same network with its hidden units in another order: its unit order[i] becomes unit i."""
    leaves = {name: np.asarray(leaf) for name, leaf in zip(trees.names(params), jax.tree.leaves(params), strict=True)}
    for unit, order in zip(units, orders, strict=True):
        for name, axis in unit.axes:
            leaves[name] = np.take(leaves[name], _positions(leaves[name].shape[axis], order), axis)
    return jax.tree.unflatten(jax.tree.structure(params), map(jnp.asarray, leaves.values()))


def match(params: Params, reference: Params, units: Sequence[Units], *, seed: int = 0) -> list[Order]:
    """Weight matching: orders of the units that locally maximise ⟨reference, params in these orders⟩.

    One set of units after another, in random order, by a linear assignment, until none improves. Units under a group
    normalisation keep together: the best assignment within every pair of groups, then of groups. Ainsworth et al. 2022,
    arXiv 2209.04836, algorithm 1.
    """
    names = trees.names(params)
    ours = dict(zip(names, map(_exact, jax.tree.leaves(params)), strict=True))
    theirs = dict(zip(names, map(_exact, jax.tree.leaves(reference)), strict=True))
    sizes = [min(ours[name].shape[axis] for name, axis in unit.axes) for unit in units]
    orders = [np.arange(size) for size in sizes]
    rng = np.random.default_rng(seed)
    improved = True
    while improved:
        improved = False
        for i in rng.permutation(len(units)):
            gains = np.zeros((sizes[i], sizes[i]))
            for name, axis in units[i].axes:
                gains += _products(theirs[name], ours[name], axis, sizes[i])
            order = _assign(gains, units[i].groups)
            before, after = np.trace(gains), gains[np.arange(sizes[i]), order].sum()
            if after > before + 1e-9 * (1 + abs(before)):
                for name, axis in units[i].axes:
                    ours[name] = np.take(ours[name], _positions(ours[name].shape[axis], order), axis)
                orders[i], improved = orders[i][order], True
    return orders


def _exact(leaf: jax.Array) -> np.ndarray:
    return np.asarray(leaf, np.float64)


def _positions(length: int, order: Order) -> np.ndarray:
    """The order along a flattened axis whose last index are the units."""
    return (np.arange(0, length, len(order))[:, None] + order[None]).ravel()


def _products(a: np.ndarray, b: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Inner products of every unit of a with every unit of b: [size, size]."""
    first, second = (np.moveaxis(x, axis, -1).reshape(-1, size) for x in (a, b))
    return first.T @ second


def _assign(gains: np.ndarray, groups: int) -> Order:
    """The order of largest total gain; gains: [place, unit]."""
    from scipy.optimize import linear_sum_assignment

    if groups == 1:
        return linear_sum_assignment(gains, maximize=True)[1]
    size = len(gains) // groups
    blocks = gains.reshape(groups, size, groups, size).swapaxes(1, 2)
    inner = np.array([[linear_sum_assignment(block, maximize=True)[1] for block in row] for row in blocks])
    totals = np.take_along_axis(blocks, inner[..., None], -1).sum((-2, -1))
    chosen = linear_sum_assignment(totals, maximize=True)[1]
    return (chosen[:, None] * size + inner[np.arange(groups), chosen]).ravel()
