"""Boolean trees over parameters: True = may move. A leaf of shape () decides a tensor, a full one weights."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from mcu_jax import trees
from mcu_jax.base import Mask, Params, RandomKey, UserError


def by_name(params: Params, patterns: str | Sequence[str]) -> Mask:
    """Whole leaves whose name `a/b/c` contains a match of any regular expression.

    Raises UserError for a pattern that matches no leaf, and lists the names.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    names = trees.names(params)
    for pattern in patterns:
        if not any(re.search(pattern, name) for name in names):
            raise UserError(f"pattern {pattern!r} matches no parameter; the names are: {', '.join(names)}")
    hits = [any(re.search(pattern, name) for pattern in patterns) for name in names]
    return jax.tree.unflatten(jax.tree.structure(params), hits)


def top_weights(scores: Params, keep: float) -> Mask:
    """The `round(keep · P)` weights of highest score over the whole tree, element by element.

    As in SalUn (Fan et al. 2023, arXiv 2310.12508). Ties go to the earlier weight in leaf order, so that the count is
    exact. Raises UserError for keep outside [0, 1].
    """
    check_fraction("keep", keep)
    return _exactly(scores, round(keep * optax.tree.size(scores)))


def top_leaves(scores: Params, keep: float) -> Mask:
    """Whole leaves going down their mean score while the share of weights covered before the leaf is < keep.

    Ties by name. The last leaf may overshoot: see `realised`. Raises UserError for keep outside [0, 1].
    """
    check_fraction("keep", keep)
    means = jnp.stack([jnp.mean(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(scores)])
    names, sizes = trees.names(scores), _sizes(scores)
    taken = _take_down(means, sizes, names, keep * float(sizes.sum()), jnp.ones(len(sizes), bool))
    return _leaf_mask(scores, taken)


def mcu(
    grad_retain: Params, grad_forget: Params, *, keep: float = 0.5, retain_filter: float = 0.1
) -> tuple[Mask, Mask]:
    """MCU's two-stage mask, leaf by leaf (Shi & Wang 2025, arXiv 2505.10859): (mask, the leaves dropped by stage one).

    grad_retain, grad_forget: gradients of the cross-entropy at θ_o in evaluation mode, summed over the batches of D_r
    and D_f. A leaf's score is ‖G‖₂ / size. Stage one goes down the retain scores and drops leaves, but never the last,
    while the weights covered before the leaf are < retain_filter · P; stage two goes down the forget scores over what
    is left and keeps leaves while the weights kept before the leaf are < keep · P. Ties by name. The last leaf of a
    stage may overshoot: `realised` tells by how much. Both are traceable. Raises UserError for a fraction outside
    [0, 1].
    """
    check_fraction("keep", keep)
    check_fraction("retain_filter", retain_filter)
    trees.check_alike(grad_retain, grad_forget, "retain and forget gradients")
    names, sizes = trees.names(grad_retain), _sizes(grad_retain)
    total = float(sizes.sum())
    every = jnp.ones(len(sizes), bool)
    dropped = _take_down(_mean_norms(grad_retain), sizes, names, retain_filter * total, every, but_last=True)
    kept = _take_down(_mean_norms(grad_forget), sizes, names, keep * total, ~dropped)
    return _leaf_mask(grad_retain, kept), _leaf_mask(grad_retain, dropped)


def by_gradients(grad_retain: Params, grad_forget: Params) -> tuple[Mask, Mask]:
    """MCU's two stages with shares that the gradients themselves give, in place of a keep and a retain_filter by hand.

    Each stage takes the upper of the two classes that the logarithms of the leaves' scores fall into, where the
    variance between the classes is largest (Otsu 1979, IEEE Trans. SMC 9(1)). Otherwise as `mcu`; never are all leaves
    dropped, nor none kept.
    """
    trees.check_alike(grad_retain, grad_forget, "retain and forget gradients")
    every = jnp.ones(len(jax.tree.leaves(grad_retain)), bool)
    upper = _upper_class(_mean_norms(grad_retain), every)
    dropped = upper & ~jnp.all(upper)
    kept = _upper_class(_mean_norms(grad_forget), ~dropped)
    return _leaf_mask(grad_retain, kept), _leaf_mask(grad_retain, dropped)


def random(key: RandomKey, params: Params, count: int | Int[Array, ""]) -> Mask:
    """Exactly `count` weights drawn uniformly from the whole tree: the control for a mask of that size."""
    draws = jax.tree.map(lambda k, p: jax.random.uniform(k, p.shape), optax.tree.split_key_like(key, params), params)
    return _exactly(draws, count)


def realised(mask: Mask, params: Params) -> Float[Any, ""]:
    """The share of weights the mask lets move, in [0, 1]."""
    return count(mask, params) / optax.tree.size(params)


@jax.jit
def count(mask: Mask, params: Params) -> Int[Any, ""]:
    """The number of weights the mask lets move."""
    counts = jax.tree.map(lambda m, p: jnp.sum(jnp.broadcast_to(m, p.shape)), mask, params)
    return sum(jax.tree.leaves(counts))


def check(mask: Mask, params: Params) -> None:
    """Raises UserError, naming the leaf, unless the mask has the tree's structure, is boolean and broadcasts to it."""
    if not trees.same_structure(mask, params):
        raise trees.TreeMismatchError(
            f"a mask has the structure of its parameters {jax.tree.structure(params)}, given {jax.tree.structure(mask)}"
        )
    for name, m, p in zip(trees.names(params), jax.tree.leaves(mask), jax.tree.leaves(params), strict=True):
        if jnp.result_type(m) != jnp.bool_:
            raise UserError(f"mask leaf {name!r} must be boolean, given {jnp.result_type(m)}")
        shape = jnp.shape(m)
        # where() would silently enlarge the parameter to the mask's shape.
        fits = all(n in (1, size) for n, size in zip(shape[::-1], p.shape[::-1], strict=False))
        if len(shape) > p.ndim or not fits:
            raise UserError(f"mask leaf {name!r} of shape {shape} does not broadcast to its parameter's {p.shape}")


def freeze(mask: Mask) -> optax.GradientTransformation:
    """The last link of an optax chain: updates become 0 where the mask is False, so nothing before it can leak."""

    def init(params: Params) -> optax.EmptyState:
        check(mask, params)
        return optax.EmptyState()

    def update(updates: Params, state: optax.EmptyState, params: Params | None = None):  # type: ignore[no-untyped-def]
        del params
        # −0.0, because adding +0.0 would flip the sign of a weight that is −0.0.
        return jax.tree.map(lambda m, u: jnp.where(_align(m, u), u, jnp.full_like(u, -0.0)), mask, updates), state

    return optax.GradientTransformation(init, update)


def moving_leaves(mask: Mask) -> Any:
    """A Python bool for every leaf: whether any weight in it may move. True where that is not known when compiling."""
    return jax.tree.map(lambda m: trees.is_traced(m) or bool(np.any(m)), mask)


def moves_whole_leaves(mask: Mask) -> bool:
    """Whether the mask is known when compiling, and moves every leaf as a whole or not at all."""
    return not any(trees.is_traced(m) or bool(np.any(m)) != bool(np.all(m)) for m in jax.tree.leaves(mask))


def check_fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"{name} must be a fraction in [0, 1], given {value}")


def _align(mask: Any, leaf: Array) -> Array:
    return jnp.broadcast_to(jnp.asarray(mask), leaf.shape)


def _sizes(tree: Any) -> np.ndarray:
    return np.array([leaf.size for leaf in jax.tree.leaves(tree)])


def _mean_norms(grads: Params) -> Float[Array, "leaves"]:
    return jnp.stack([jnp.linalg.norm(g.astype(jnp.float32).ravel()) / g.size for g in jax.tree.leaves(grads)])


def _upper_class(scores: Float[Array, "leaves"], allowed: Array) -> Array:
    """Of one allowed leaf, that one."""
    logs = jnp.log(jnp.maximum(scores, jnp.finfo(jnp.float32).tiny))
    order = jnp.argsort(jnp.where(allowed, -logs, jnp.inf), stable=True)
    ranked, count = jnp.where(allowed, logs, 0.0)[order], jnp.sum(allowed).astype(jnp.float32)
    upper = jnp.arange(1.0, len(scores) + 1)
    lower = jnp.maximum(count - upper, 1.0)
    sums = jnp.cumsum(ranked)
    between = upper * lower * jnp.square(sums / upper - (sums[-1] - sums) / lower)
    size = 1 + jnp.argmax(jnp.where(upper < count, between, -1.0))
    return jnp.zeros(len(scores), bool).at[order].set(jnp.arange(len(scores)) < size) & allowed


def _take_down(
    scores: Array, sizes: np.ndarray, names: list[str], budget: float, allowed: Array, *, but_last: bool = False
) -> Array:
    """Going down the scores among the allowed leaves, take those before which less than the budget is covered."""
    by_name = np.argsort(np.array(names), kind="stable")
    ranked = jnp.where(allowed, -scores, jnp.inf)[by_name]
    order = jnp.asarray(by_name)[jnp.argsort(ranked, stable=True)]
    covered = jnp.where(allowed, jnp.asarray(sizes, jnp.int32), 0)[order]
    before = jnp.cumsum(covered) - covered
    # Whole numbers: 0.1 · 30 must not count as more than 3.
    taken = before < math.ceil(round(budget, 6))
    if but_last:
        taken = taken.at[-1].set(False)
    return jnp.zeros(len(sizes), bool).at[order].set(taken) & allowed


def _leaf_mask(tree: Any, taken: Array) -> Mask:
    return jax.tree.unflatten(jax.tree.structure(tree), [taken[i] for i in range(taken.shape[0])])


def _exactly(scores: Params, count: int | Int[Array, ""]) -> Mask:
    leaves, structure = jax.tree.flatten(scores)
    flat = jnp.concatenate([leaf.ravel().astype(jnp.float32) for leaf in leaves])
    order = jnp.argsort(-flat, stable=True)
    chosen = jnp.zeros(flat.size, bool).at[order].set(jnp.arange(flat.size) < count)
    parts = jnp.split(chosen, np.cumsum([leaf.size for leaf in leaves])[:-1])
    return jax.tree.unflatten(structure, [p.reshape(x.shape) for p, x in zip(parts, leaves, strict=True)])
