"""What vision transformers share: attention, the two-layer network of a block, and which of their units may move."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mcu_jax import base
from mcu_jax.models import _linen


def _flat(
    x: Float[Array, "*n d"], kernel: Float[Array, "d e"], dimensions: Any, precision: Any = None, **options: Any
) -> Float[Array, "*n e"]:
    """`jax.lax.dot_general` of a dense layer. Of all tokens as rows of one matrix: XLA's CPU backend would transpose
    what has more axes for the gradient of the kernel, which takes longer than the gradient does.
    """
    rows = x.reshape(-1, x.shape[-1])
    product = jax.lax.dot_general(rows, kernel, (((1,), (0,)), ((), ())), precision, **options)
    return product.reshape(*x.shape[:-1], kernel.shape[1])


Dense = functools.partial(nn.Dense, dot_general=_flat)


class Attention(nn.Module):
    """Softmax attention among the tokens of a sequence: one matrix for queries, keys and values, head by head."""

    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "n t d"], bias: Float[Array, "*n heads t t"] | None = None) -> Array:
        n, t, d = x.shape
        qkv = Dense(3 * d, name="qkv")(x).reshape(n, t, 3, self.heads, d // self.heads)
        # Each [n, heads, t, c], which XLA's CPU backend multiplies faster.
        query, key, value = qkv.transpose(2, 0, 3, 1, 4)
        scores = jnp.matmul(query, key.swapaxes(2, 3)) / jnp.sqrt(d / self.heads).astype(x.dtype)
        scores = scores.astype(jnp.promote_types(x.dtype, jnp.float32))
        weights = jax.nn.softmax(scores if bias is None else scores + bias).astype(x.dtype)
        return Dense(d, name="proj")(jnp.matmul(weights, value).swapaxes(1, 2).reshape(n, t, d))


class Mlp(nn.Module):
    """Four times as wide inside, with the exact GELU."""

    @nn.compact
    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        return Dense(x.shape[-1], name="fc2")(_gelu(Dense(4 * x.shape[-1], name="fc1")(x)))


def _gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x Φ(x), by the error function, where jax.nn.gelu takes its complement: twice as fast on a CPU."""
    return x * (0.5 + 0.5 * jax.lax.erf(x * (0.5**0.5)))


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
