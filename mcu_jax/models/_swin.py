from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from mcu_jax import base
from mcu_jax.models import _linen, _transformer

_PATCH, _WINDOW, _EPSILON = 4, 7, 1e-5


class _Size(NamedTuple):
    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]


_SIZES = {"T": _Size(96, (2, 2, 6, 2), (3, 6, 12, 24)), "B": _Size(128, (2, 2, 18, 2), (4, 8, 16, 32))}
Size = base.OneOf(tuple(_SIZES))


def swin(
    *, num_classes: int, size: Annotated[str, Size] = "T", remat: Annotated[bool, base.Switch] = False
) -> base.Model:
    """Swin transformer (Liu et al. 2021, arXiv 2103.14030).

    size: T or B. Attention within windows of 7 × 7 patches, every other time shifted. Patches of 4 × 4 pixels, merged
    two by two before each of the last three stages: images of 224 pixels fit without padding. Without stochastic depth.
    remat: blocks keep only what enters them and compute the rest anew for the gradient: less memory, more time.
    """
    if size not in _SIZES:
        raise base.UserError(f"the size of swin is {', '.join(_SIZES)}; got {size!r}")
    return _made(num_classes, _SIZES[size], remat)


def _made(num_classes: int, size: _Size, remat: bool = False) -> base.Model:
    return _linen.model(_Swin(num_classes, *size, remat), "swin", tuple(_units(size.depths)))


def _units(depths: tuple[int, ...]) -> Iterator[base.Units]:
    """The hidden ones of every block, and the features of every stage's stream, which ends where patches are merged."""
    stream = [("patch_embed/kernel", 1), ("patch_embed/bias", 0), *_linen.norm_axes("patch_norm")]
    for stage, depth in enumerate(depths):
        if stage:
            merged = [*_linen.norm_axes(f"merge{stage}_norm"), (f"merge{stage}_reduction/kernel", 0)]
            yield base.Units((*stream, *merged))
            stream = [(f"merge{stage}_reduction/kernel", 1)]
        for block in (f"stage{stage}_block{i}" for i in range(depth)):
            yield _transformer.hidden_units(block)
            stream += _transformer.stream_axes(block, "window/attn")
    yield base.Units((*stream, *_linen.norm_axes("norm"), ("head/kernel", 0)))


def _norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=_EPSILON, name=name)


class _WindowAttention(nn.Module):
    heads: int
    shifted: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        n, h, w, _ = x.shape
        padded = [-(-side // _WINDOW) * _WINDOW for side in (h, w)]
        x = jnp.pad(x, ((0, 0), (0, padded[0] - h), (0, padded[1] - w), (0, 0)))
        # One window has no neighbours to shift to.
        shift = [_WINDOW // 2 if self.shifted and side > _WINDOW else 0 for side in padded]
        x = jnp.roll(x, [-s for s in shift], (1, 2))
        table = self.param(
            "relative_position_bias_table", nn.initializers.truncated_normal(0.02), ((2 * _WINDOW - 1) ** 2, self.heads)
        )
        area = _WINDOW * _WINDOW
        bias = table[_relative_positions()].reshape(area, area, self.heads).transpose(2, 0, 1)[None]
        windows = _split(x)
        if any(shift):
            bias = jnp.tile(bias + _neighbours(*padded, *shift)[:, None], (n, 1, 1, 1))
        windows = _transformer.Attention(self.heads, name="attn")(windows, bias)
        x = _join(windows, n, *padded)
        return jnp.roll(x, shift, (1, 2))[:, :h, :w]


def _split(x: Array) -> Array:
    """[n, h, w, d] to [n · windows, tokens, d]."""
    n, h, w, d = x.shape
    x = x.reshape(n, h // _WINDOW, _WINDOW, w // _WINDOW, _WINDOW, d).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, _WINDOW * _WINDOW, d)


def _join(windows: Array, n: int, h: int, w: int) -> Array:
    x = windows.reshape(n, h // _WINDOW, w // _WINDOW, _WINDOW, _WINDOW, -1).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h, w, -1)


def _relative_positions() -> np.ndarray:
    """Of every two places of a window the row of the table that holds their bias, flattened."""
    places = np.stack(np.meshgrid(np.arange(_WINDOW), np.arange(_WINDOW), indexing="ij")).reshape(2, -1)
    apart = places[:, :, None] - places[:, None, :] + _WINDOW - 1
    return (apart[0] * (2 * _WINDOW - 1) + apart[1]).reshape(-1)


def _neighbours(h: int, w: int, down: int, right: int) -> np.ndarray:
    """[windows, tokens, tokens]: −100 between places that the shift has brought together from opposite sides."""
    region = np.zeros((h, w), np.float32)
    parts = [(slice(0, -_WINDOW), slice(-_WINDOW, -s), slice(-s, None)) if s else (slice(None),) for s in (down, right)]
    for number, (rows, columns) in enumerate((a, b) for a in parts[0] for b in parts[1]):
        region[rows, columns] = number
    region = region.reshape(h // _WINDOW, _WINDOW, w // _WINDOW, _WINDOW).transpose(0, 2, 1, 3).reshape(-1, _WINDOW**2)
    return np.where(region[:, None, :] == region[:, :, None], 0.0, -100.0).astype(np.float32)


class _Block(nn.Module):
    heads: int
    shifted: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x + _WindowAttention(self.heads, self.shifted, name="window")(_norm("norm1")(x))
        return x + _transformer.Mlp(name="mlp")(_norm("norm2")(x))


class _Swin(nn.Module):
    num_classes: int
    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    remat: bool

    @nn.compact
    def __call__(self, x: Shaped[Any, "n h w c"], train: bool) -> tuple[Array, Array]:
        x = _linen.as_float(x)
        n, h, w, channels = x.shape
        if h % _PATCH or w % _PATCH:
            raise base.UserError(f"swin takes images whose sides {_PATCH} divides, given {h} × {w}")
        x = x.reshape(n, h // _PATCH, _PATCH, w // _PATCH, _PATCH, channels).transpose(0, 1, 3, 2, 4, 5)
        x = _transformer.Dense(self.width, name="patch_embed")(x.reshape(n, h // _PATCH, w // _PATCH, -1))
        x = _norm("patch_norm")(x)
        block = _linen.forgetful(_Block, self.remat)
        for stage, (depth, heads) in enumerate(zip(self.depths, self.heads, strict=True)):
            if stage:
                x = _merge(x, f"merge{stage}")
            for i in range(depth):
                x = block(heads, bool(i % 2), name=f"stage{stage}_block{i}")(x)
        x = _norm("norm")(x).mean((1, 2))
        return nn.Dense(self.num_classes, name="head")(x), x


def _merge(x: Array, name: str) -> Array:
    """Every 2 × 2 patches to one, of twice the width; an odd side is padded."""
    _, h, w, d = x.shape
    x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
    x = jnp.concatenate([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], axis=-1)
    return _transformer.Dense(2 * d, use_bias=False, name=f"{name}_reduction")(_norm(f"{name}_norm")(x))
