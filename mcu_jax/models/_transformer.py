"""What vision transformers share: attention, the two-layer network of a block, and which of their units may move."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mcu_jax import base
from mcu_jax.models import _linen


class Attention(nn.Module):
    """Softmax attention among the tokens of a sequence: one matrix for queries, keys and values, head by head."""

    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "n t d"], bias: Float[Array, "*n heads t t"] | None = None) -> Array:
        n, t, d = x.shape
        qkv = nn.Dense(3 * d, name="qkv")(x).reshape(n, t, 3, self.heads, d // self.heads)
        query, key, value = (qkv[:, :, i] for i in range(3))
        scores = jnp.einsum("nqhc,nkhc->nhqk", query, key) / jnp.sqrt(d / self.heads).astype(x.dtype)
        scores = scores.astype(jnp.promote_types(x.dtype, jnp.float32))
        weights = jax.nn.softmax(scores if bias is None else scores + bias).astype(x.dtype)
        return nn.Dense(d, name="proj")(jnp.einsum("nhqk,nkhc->nqhc", weights, value).reshape(n, t, d))


class Mlp(nn.Module):
    """Four times as wide inside, with the exact GELU."""

    @nn.compact
    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        y = nn.gelu(nn.Dense(4 * x.shape[-1], name="fc1")(x), approximate=False)
        return nn.Dense(x.shape[-1], name="fc2")(y)


def hidden_units(block: str) -> base.Units:
    """Of the two layers of a block. Heads are left where they are."""
    return base.Units(((f"{block}/mlp/fc1/kernel", 1), (f"{block}/mlp/fc1/bias", 0), (f"{block}/mlp/fc2/kernel", 0)))


def stream_axes(block: str, attention: str) -> list[tuple[str, int]]:
    """Where a block counts the features of the stream that it adds to. attention: the name of its module there."""
    written = [
        (f"{block}/{layer}/{leaf}", axis) for layer in (f"{attention}/proj", "mlp/fc2") for leaf, axis in _OUTPUT
    ]
    read = [(f"{block}/{layer}/kernel", 0) for layer in (f"{attention}/qkv", "mlp/fc1")]
    return [axis for name in ("norm1", "norm2") for axis in _linen.norm_axes(f"{block}/{name}")] + written + read


_OUTPUT = (("kernel", 1), ("bias", 0))
