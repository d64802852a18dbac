"""A 2-D convolution whose gradients are as fast inside `lax.scan` as outside on a CPU.

XLA's CPU backend falls back to a naive loop for the gradients of a convolution inside a while loop, tens of
times slower: experiments/benchmarks/conv_in_scan.py. Here the weight gradient is one matmul per kernel
position, and the input gradient a plain convolution, with no dilation left for XLA to handle. On images of one
to three channels, and with strides, the convolution itself is one matmul too, there faster than XLA's on a CPU:
experiments/benchmarks/evaluation.py.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_FEW_CHANNELS = 3
_Pads = tuple[tuple[int, int], ...]


def conv(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw c d"],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] = (1, 1),
    rhs_dilation: Sequence[int] = (1, 1),
    feature_group_count: int = 1,
    **_: Any,
) -> Float[Array, "n oh ow d"]:
    """`lax.conv_general_dilated` for `nn.Conv(conv_general_dilated=conv)`: NHWC, at default precision.

    Differentiable by reverse mode, and forward over reverse (Hessian products); not by forward mode alone.
    Raises NotImplementedError for groups and dilation.
    """
    if feature_group_count != 1 or {*lhs_dilation, *rhs_dilation} != {1}:
        raise NotImplementedError("conv has neither groups nor dilation; use a plain nn.Conv for these")
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    return _conv(x, kernel, tuple(strides), tuple((lo, hi) for lo, hi in padding))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: Array, kernel: Array, strides: tuple[int, ...], pads: _Pads) -> Array:
    return convolution(x, kernel, strides, pads)


@functools.partial(jax.jit, static_argnums=(2, 3))  # so that `paths.convolves` knows it by name
def convolution(x: Array, kernel: Array, strides: tuple[int, ...], pads: _Pads) -> Array:
    if x.shape[-1] <= _FEW_CHANNELS or min(strides) > 1:
        kh, kw, c, d = kernel.shape
        sizes = zip(x.shape[1:3], (kh, kw), strides, pads, strict=True)
        out = tuple((size + sum(pad) - k) // stride + 1 for size, k, stride, pad in sizes)
        return jnp.concatenate(_slices(x, (kh, kw), out, strides, pads), -1) @ kernel.reshape(kh * kw * c, d)
    return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=_LAYOUT)


def _slices(
    x: Array, window: tuple[int, ...], out: tuple[int, ...], strides: tuple[int, ...], pads: _Pads
) -> list[Array]:
    """What each position of the kernel sees: [n, oh, ow, c] each, row by row."""
    (oh, ow), (sh, sw) = out, strides
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    return [
        x[:, i : i + sh * (oh - 1) + 1 : sh, j : j + sw * (ow - 1) + 1 : sw]
        for i in range(window[0])
        for j in range(window[1])
    ]


def _forward(x: Array, kernel: Array, strides: tuple[int, ...], pads: _Pads) -> tuple[Array, tuple[Array, Array]]:
    # Not _conv: a Hessian product differentiates this rule forward, which a custom_vjp refuses.
    return convolution(x, kernel, strides, pads), (x, kernel)


def _backward(
    strides: tuple[int, ...], pads: _Pads, residuals: tuple[Array, Array], grad: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    return _input_grad(kernel, grad, x.shape, strides, pads), _weight_grad(x, grad, kernel.shape, strides, pads)


def _weight_grad(x: Array, grad: Array, shape: tuple[int, ...], strides: tuple[int, ...], pads: _Pads) -> Array:
    slices = _slices(x, shape[:2], grad.shape[1:3], strides, pads)
    return jnp.stack([jnp.einsum("nhwc,nhwd->cd", part, grad) for part in slices]).reshape(shape)


def _input_grad(kernel: Array, grad: Array, shape: tuple[int, ...], strides: tuple[int, ...], pads: _Pads) -> Array:
    padding = [(0, 0, 0)]
    for size, out, k, stride, (low, _) in zip(
        shape[1:3], grad.shape[1:3], kernel.shape[:2], strides, pads, strict=True
    ):
        before = k - 1 - low
        dilated = stride * (out - 1) + 1
        padding.append((before, size + k - 1 - dilated - before, stride - 1))
    spread = lax.pad(grad, jnp.zeros((), grad.dtype), [*padding, (0, 0, 0)])
    flipped = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    return convolution(spread, flipped, (1, 1), ((0, 0), (0, 0)))


_conv.defvjp(_forward, _backward)
