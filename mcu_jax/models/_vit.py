from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from mcu_jax import base
from mcu_jax.models import _linen, _transformer


class _Size(NamedTuple):
    width: int
    depth: int
    heads: int


_SIZES = {"Ti": _Size(192, 12, 3), "S": _Size(384, 12, 6), "B": _Size(768, 12, 12)}
Size = base.OneOf(tuple(_SIZES))


def vit(
    *,
    num_classes: int,
    size: Annotated[str, Size] = "Ti",
    patch: Annotated[int, base.Count] = 16,
    remat: Annotated[bool, base.Switch] = False,
) -> base.Model:
    """Vision transformer with a class token and learnt positions (Dosovitskiy et al. 2021, arXiv 2010.11929).

    size: Ti, S or B (Touvron et al. 2021, arXiv 2012.12877, for the first two): 192, 384 or 768 wide, 12 blocks.
    patch: side of a patch in pixels, which divides the images' sides; positions are of the size it is made with.
    remat: blocks keep only what enters them and compute the rest anew for the gradient: less memory, more time.
    """
    if size not in _SIZES:
        raise base.UserError(f"the size of vit is {', '.join(_SIZES)}; got {size!r}")
    return _made(num_classes, _SIZES[size], patch, remat)


def _made(num_classes: int, size: _Size, patch: int, remat: bool = False) -> base.Model:
    return _linen.model(_Vit(num_classes, *size, patch, remat), "vit", tuple(_units(size.depth)))


def _units(depth: int) -> Iterator[base.Units]:
    """The hidden ones of every block, and the features of the one stream."""
    begin = [("cls_token", 2), ("pos_embed", 2), ("patch_embed/kernel", 1), ("patch_embed/bias", 0)]
    stream = [axis for block in _blocks(depth) for axis in _transformer.stream_axes(block, "attn")]
    yield from map(_transformer.hidden_units, _blocks(depth))
    yield base.Units((*begin, *stream, *_linen.norm_axes("norm"), ("head/kernel", 0)))


def _blocks(depth: int) -> list[str]:
    return [f"block{i}" for i in range(depth)]


class _Block(nn.Module):
    heads: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x + _transformer.Attention(self.heads, name="attn")(nn.LayerNorm(name="norm1")(x))
        return x + _transformer.Mlp(name="mlp")(nn.LayerNorm(name="norm2")(x))


class _Vit(nn.Module):
    num_classes: int
    width: int
    depth: int
    heads: int
    patch: int
    remat: bool

    @nn.compact
    def __call__(self, x: Shaped[Any, "n h w c"], train: bool) -> tuple[Array, Array]:
        x = _linen.as_float(x)
        n, h, w, channels = x.shape
        if h % self.patch or w % self.patch:
            raise base.UserError(f"vit with patch={self.patch} takes images whose sides it divides, given {h} × {w}")
        # A convolution whose strides are its kernel is one matrix on patches.
        x = x.reshape(n, h // self.patch, self.patch, w // self.patch, self.patch, channels)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(n, -1, self.patch * self.patch * channels)
        x = _transformer.Dense(self.width, name="patch_embed")(x)
        normal = nn.initializers.truncated_normal(0.02)
        token = self.param("cls_token", normal, (1, 1, self.width))
        x = jnp.concatenate([jnp.broadcast_to(token, (n, 1, self.width)), x], axis=1)
        x = x + self.param("pos_embed", normal, (1, x.shape[1], self.width))
        block = _linen.forgetful(_Block, self.remat)
        for name in _blocks(self.depth):
            x = block(self.heads, name=name)(x)
        x = nn.LayerNorm(name="norm")(x)[:, 0]
        return nn.Dense(self.num_classes, name="head")(x), x
