"""From a Linen module to a `base.Model`."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from mcu_jax import base
from mcu_jax.models import _conv

Conv = functools.partial(nn.Conv, use_bias=False, conv_general_dilated=_conv.conv)


def as_float(x: Shaped[Any, "n ..."]) -> Float[Array, "n ..."]:
    """uint8 0..255 to float32 -1..1; floats pass."""
    x = jnp.asarray(x)
    return x.astype(jnp.float32) / 127.5 - 1.0 if x.dtype == jnp.uint8 else x


@functools.cache  # Linen modules compare by their fields, so equal arguments give the identical Model
def model(module: nn.Module, name: str, permutations: tuple[base.Units, ...]) -> base.Model:
    """`module(x, train) -> (logits, features)`, its output layer named "head"."""
    initialise = jax.jit(functools.partial(module.init, train=True))  # compiled: the forward pass is left out

    def init(key: base.RandomKey, x: Shaped[Any, "n ..."]) -> base.Params:
        return initialise(key, as_float(x[:1]))["params"]

    def run(params: base.Params, x: Shaped[Any, "n ..."], stats: base.Stats | None) -> tuple[Array, Array, base.Stats]:
        if stats is None:
            outputs: Any = module.apply({"params": params}, as_float(x), train=True, mutable=["batch_stats"])
            (logits, hidden), new = outputs
            return logits, hidden, new.get("batch_stats", {})
        outputs = module.apply({"params": params, "batch_stats": stats}, as_float(x), train=False)
        return *outputs, stats

    def apply(
        params: base.Params,
        x: Shaped[Any, "n ..."],
        stats: base.Stats | None = None,
        key: base.RandomKey | None = None,
    ) -> tuple[Float[Array, "n classes"], base.Stats]:
        logits, _, stats = run(params, x, stats)
        return logits, stats

    def features(
        params: base.Params, x: Shaped[Any, "n ..."], stats: base.Stats | None = None
    ) -> Float[Array, "n width"]:
        return run(params, x, stats)[1]

    return base.Model(name, init, apply, features, head=("head",), permutations=permutations)
