from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import dtypes

from mcu_jax import base
from mcu_jax.models._linen import as_float

_EXAMPLES = 16
_TOLERANCE = 0.01  # a running average is off by far more, rounding by far less


def check(model: base.Model, params: Any, inputs: Any, frozen: Any = None) -> None:
    """Refuses a model whose BatchNorm statistics are a running average of many batches.

    Along a path statistics are computed afresh from the moments that `model.apply` returns without `stats`, so on one
    batch its logits must be those of `apply` with the statistics that came back. Models of `adapt`, `linen` and `nnx`
    are checked by themselves, when first used; this is for a `base.Model` made otherwise. params: their shapes and
    dtypes will do. inputs: a few examples. Raises UserError, and says what to do.
    """
    arguments = (params, inputs, {} if frozen is None else {"frozen": frozen})
    rng = np.random.default_rng(0)

    def value(leaf: Any) -> Any:
        return _random(leaf, rng) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf

    _compare(model.name, model.apply, arguments, lambda: jax.tree.map(value, arguments))


def check_floats(model: base.Model, params: Any, inputs: Any, frozen: Any = None) -> None:
    """Refuses a model that takes uint8 images for something else than the same as floats by `as_float`.

    Arguments: arrays, traced or not, or shapes and dtypes. Raises UserError, and says what to do.
    """
    few = jax.tree.map(lambda x: _shape(x, _EXAMPLES), inputs)
    extra = {} if frozen is None else {"frozen": frozen}
    leaves, structure = jax.tree.flatten((jax.tree.map(_shape, params), few, jax.tree.map(_shape, extra)))
    _compare_floats(model, structure, tuple(leaves))


@functools.lru_cache
def _compare_floats(model: base.Model, structure: Any, leaves: tuple[jax.ShapeDtypeStruct, ...]) -> None:
    rng = np.random.default_rng(0)
    shapes = jax.tree.unflatten(structure, leaves)

    def both(params: Any, inputs: Any, extra: dict[str, Any]) -> tuple[Any, Any]:
        pair = (model.apply(params, x, None, None, **extra)[0] for x in (inputs, jax.tree.map(as_float, inputs)))
        return next(pair), next(pair)

    values = jax.tree.map(lambda shape: _random(shape, rng), shapes)
    by_bytes, by_floats = map(np.asarray, jax.jit(both).lower(*shapes).compile()(*values))
    if not np.allclose(by_bytes, by_floats, rtol=_TOLERANCE, atol=_TOLERANCE * np.abs(by_bytes).max()):
        raise base.UserError(
            f"{model.name} takes uint8 images for something else than the same images as floats from −1 to 1, and only "
            "floats can be perturbed: scale them by models.as_float in it, or give it floats"
        )


def checked(name: str, apply: Callable[..., Any]) -> Callable[..., Any]:
    """`apply`, checked when it is first called without statistics for arguments of these shapes, traced or not.

    Whether statistics are running averages does not depend on the weights, so random ones do, under a trace too.
    """

    @functools.lru_cache
    def once(structure: Any, shapes: tuple[jax.ShapeDtypeStruct, ...]) -> None:
        rng = np.random.default_rng(0)
        arguments = jax.tree.unflatten(structure, shapes)
        _compare(name, apply, arguments, lambda: jax.tree.map(lambda shape: _random(shape, rng), arguments))

    def checked_apply(
        params: base.Params,
        inputs: Any,
        stats: base.Stats | None = None,
        key: base.RandomKey | None = None,
        frozen: Any = None,
    ) -> Any:
        extra = {} if frozen is None else {"frozen": frozen}
        if stats is None:
            few = jax.tree.map(lambda x: _shape(x, _EXAMPLES), inputs)
            leaves, structure = jax.tree.flatten((jax.tree.map(_shape, params), few, jax.tree.map(_shape, extra)))
            once(structure, tuple(leaves))
        return apply(params, inputs, stats, key, **extra)

    return checked_apply


def _shape(x: Any, most: int | None = None) -> jax.ShapeDtypeStruct:
    shape = np.shape(x)
    if most is not None:
        shape = (min(shape[0], most), *shape[1:])
    return jax.ShapeDtypeStruct(shape, x.dtype if isinstance(x, jax.ShapeDtypeStruct) else jax.typeof(x).dtype)


def _random(like: jax.ShapeDtypeStruct, rng: np.random.Generator) -> Any:
    if jnp.issubdtype(like.dtype, dtypes.prng_key):
        with jax.ensure_compile_time_eval():
            return jnp.broadcast_to(jax.random.key(0), like.shape)
    if jnp.issubdtype(like.dtype, jnp.inexact):
        # Of the size that weights are initialised at: through many layers larger ones overflow.
        fan_in = np.prod(like.shape[:-1]) if len(like.shape) > 1 else 1
        return (rng.normal(size=like.shape) / np.sqrt(fan_in)).astype(like.dtype)
    # uint8 are images; other integers may be indices, of which 0 and 1 always exist.
    return rng.integers(256 if like.dtype == jnp.uint8 else 2, size=like.shape).astype(like.dtype)


def _compare(name: str, apply: Callable[..., Any], shapes: tuple, values: Callable[[], tuple]) -> None:
    """Raises the UserError of `check`. Compiled ahead and then called, which also works inside another trace."""

    def both(params: Any, inputs: Any, extra: dict[str, Any]) -> tuple[Any, Any, Any]:
        logits, stats = apply(params, inputs, None, None, **extra)
        return logits, apply(params, inputs, stats, None, **extra)[0], stats

    jaxpr, (_, _, stats) = jax.make_jaxpr(both, return_shape=True)(*shapes)
    if not jax.tree.leaves(stats) or any(isinstance(value, jax.core.Tracer) for value in jaxpr.consts):
        return  # an apply that closes over values of an outer trace cannot be checked
    by_batch, by_stats = map(np.asarray, jax.jit(both).lower(*shapes).compile()(*values())[:2])
    apart = float(np.max(np.abs(by_batch - by_stats)))
    largest = float(np.max(np.abs([by_batch, by_stats])))
    same = apart <= max(_TOLERANCE, _coarsest(jaxpr) ** 0.5) * largest
    if np.isfinite([by_batch, by_stats]).all() and not same:
        raise base.UserError(
            f"{name} returns statistics that are not those of its batch: on one batch its logits (up to {largest:.3g}) "
            f"are {apart:.3g} apart without `stats` and with the statistics it returned. A running average would make "
            "every metric along a path wrong. Use models.linen or models.nnx, which see to that, or let apply return "
            "the moments of its batch: BatchNorm with momentum=0.0 (Flax's default is 0.99)."
        )


def _coarsest(jaxpr: Any) -> float:
    """The largest rounding error of the floats that a program computes."""
    computed = (value.aval.dtype for equation in jaxpr.eqns for value in equation.outvars)
    return max((float(jnp.finfo(dtype).eps) for dtype in computed if jnp.issubdtype(dtype, jnp.floating)), default=0.0)
