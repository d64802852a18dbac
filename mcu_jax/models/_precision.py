from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mcu_jax import base
from mcu_jax.models import _check
from mcu_jax.models._linen import as_float


@functools.cache
def in_bfloat16(model: base.Model) -> base.Model:
    """The same model, computed in bfloat16: its parameters, and gradients by them, stay what they are, float32.

    Parameters, frozen weights and inputs are cast where the model is applied; logits, features and statistics are
    float32 again. BatchNorm takes and gives moments in float32, as Flax does by itself. Wrapped twice by this function
    a model is the same Model. Raises UserError, when called, for a model that takes uint8 images for something else
    than the floats of `as_float`, which is what it is given (`check_floats`).
    """

    def lowered(params: base.Params, inputs: Any) -> tuple[base.Params, Any]:
        if any(leaf.dtype == jnp.uint8 for leaf in jax.tree.leaves(inputs)):
            _check.check_floats(model, params, inputs)
        return _low(params), _low(jax.tree.map(as_float, inputs))

    # What a model mixes, as BatchNorm does its moments with what it normalises, is mixed on purpose.
    @jax.numpy_dtype_promotion("standard")
    def apply(
        params: base.Params,
        inputs: Any,
        stats: base.Stats | None = None,
        key: base.RandomKey | None = None,
        frozen: base.Params | None = None,
    ) -> tuple[Float[Array, "n *positions classes"], base.Stats]:
        extra = {} if frozen is None else {"frozen": _low(frozen)}
        logits, new = model.apply(*lowered(params, inputs), stats, key, **extra)
        return logits.astype(jnp.float32), _high(new) if stats is None else stats

    @jax.numpy_dtype_promotion("standard")
    def features(params: base.Params, inputs: Any, stats: base.Stats | None = None) -> Float[Array, "n width"]:
        assert model.features is not None
        return model.features(*lowered(params, inputs), stats).astype(jnp.float32)

    return dataclasses.replace(model, apply=apply, features=None if model.features is None else features)


def _low(tree: Any) -> Any:
    return _cast(tree, jnp.bfloat16)


def _high(tree: Any) -> Any:
    return _cast(tree, jnp.float32)


def _cast(tree: Any, dtype: Any) -> Any:
    """Floats alone."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)
