"""A 2-D convolution in forms that are fast on a CPU, also inside `lax.scan`, and XLA's own elsewhere.

XLA's CPU backend falls back to a naive loop for the gradients of a convolution inside a while loop, tens of
times slower: experiments/benchmarks/conv_in_scan.py. There the weight gradient is a matmul for a few examples at a
time, and the input gradient a plain convolution of the padded gradient. On images of one to three channels,
and with strides, the convolution itself is one matmul, and so are its gradients, there faster than XLA's on a CPU:
experiments/benchmarks/evaluation.py. There bfloat16 is computed in float32: of it XLA has no convolution of its own,
what jaxlib 0.12 makes in its place can give NaN, and as matmuls of bfloat16 it takes twice as long:
experiments/benchmarks/precision.py. Which form it is, is decided when a program is lowered for a platform.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_FEW_CHANNELS = 3
_CACHED = 2**20
"""Bytes: about the cache that a core of a CPU has to itself."""
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
    return _conv(x, kernel, tuple(strides), tuple((low, high) for low, high in padding))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: Array, kernel: Array, strides: tuple[int, ...], pads: _Pads) -> Array:
    return _value(x, kernel, strides, pads)


def _value(x: Array, kernel: Array, strides: tuple[int, ...], pads: _Pads) -> Array:
    own = functools.partial(plain, strides=strides, pads=pads)
    on_cpu = functools.partial(_matmul, strides=strides, pads=pads) if _is_matmul(x, strides) else own
    if on_cpu is own and x.dtype != jnp.bfloat16:
        return own(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=_in_float32(on_cpu), default=own)


def _is_matmul(x: Array, strides: tuple[int, ...]) -> bool:
    """Whether on a CPU the convolution as a whole is one."""
    return x.shape[-1] <= _FEW_CHANNELS or max(strides) > 1


def _in_float32(form: Callable[..., Any]) -> Callable[..., Any]:
    """The same function; of bfloat16 it is computed in float32, and gives bfloat16 again."""

    def computed(*given: Array) -> Any:
        if given[0].dtype != jnp.bfloat16:
            return form(*given)
        # Without barriers jaxlib 0.12 makes convolutions of bfloat16 of it again, and these can give NaN.
        found = form(*lax.optimization_barrier([each.astype(jnp.float32) for each in given]))
        return jax.tree.map(lambda each: each.astype(given[0].dtype), lax.optimization_barrier(found))

    return computed


def plain(x: Array, kernel: Array, strides: tuple[int, ...], pads: _Pads) -> Array:
    """XLA's convolution."""
    return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=_LAYOUT)


def _matmul(x: Array, kernel: Array, strides: tuple[int, ...], pads: _Pads) -> Array:
    kh, kw, c, d = kernel.shape
    return jnp.concatenate(_slices(x, (kh, kw), strides, pads), -1) @ kernel.reshape(kh * kw * c, d)


def _slices(x: Array, window: tuple[int, ...], strides: tuple[int, ...], pads: _Pads) -> list[Array]:
    """What each position of the kernel sees: [n, oh, ow, c] each, row by row."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    kh, kw = window
    sees_h, sees_w = x.shape[1] - kh + 1, x.shape[2] - kw + 1
    return [x[:, i : i + sees_h : strides[0], j : j + sees_w : strides[1]] for i in range(kh) for j in range(kw)]


def _forward(x: Array, kernel: Array, strides: tuple[int, ...], pads: _Pads) -> tuple[Array, tuple[Array, Array]]:
    # Not _conv: a Hessian product differentiates this rule forward, which a custom_vjp refuses.
    return _value(x, kernel, strides, pads), (x, kernel)


def _backward(
    strides: tuple[int, ...], pads: _Pads, residuals: tuple[Array, Array], grad: Array
) -> tuple[Array, Array]:
    x, kernel = residuals

    def of(form: Callable[..., Array]) -> Callable[..., tuple[Array, Array]]:
        """The gradients that jax makes of a form."""
        return lambda x, kernel, grad: jax.vjp(functools.partial(form, strides=strides, pads=pads), x, kernel)[1](grad)

    own = of(_matmul) if _is_matmul(x, strides) else functools.partial(_gradients, pads=pads)
    return lax.platform_dependent(x, kernel, grad, cpu=_in_float32(own), default=of(plain))


def _gradients(x: Array, kernel: Array, grad: Array, *, pads: _Pads) -> tuple[Array, Array]:
    """Of a convolution of stride 1."""
    mirrored = tuple((k - 1 - low, k - 1 - high) for k, (low, high) in zip(kernel.shape[:2], pads, strict=True))
    inputs = plain(grad, jnp.flip(kernel, (0, 1)).swapaxes(2, 3), (1, 1), mirrored)
    return inputs, _of_weights(jnp.pad(x, ((0, 0), *pads, (0, 0))), grad, kernel.shape[:2])


def _of_weights(x: Array, grad: Array, window: tuple[int, ...]) -> Array:
    """One matmul for some examples at a time, few enough that what it takes stays in a core's cache: the columns of the
    kernel are laid out beside each other on the side of the padded x, and its rows on the side of the gradient.
    """
    (kh, kw), (n, h, _, c), (_, _, w, d) = window, x.shape, grad.shape
    fit = max(1, _CACHED // (4 * h * w * kw * c))
    size = next(size for size in range(min(n, fit), 0, -1) if n % size == 0)

    def some(x: Array, grad: Array) -> Array:
        columns = jnp.concatenate([x[:, :, j : j + w] for j in range(kw)], -1)
        grad = jnp.pad(grad, ((0, 0), (kh - 1, kh - 1), (0, 0), (0, 0)))
        rows = jnp.concatenate([grad[:, kh - 1 - i : kh - 1 - i + h] for i in range(kh)], -1)
        return jnp.einsum("nhwc,nhwd->cd", columns, rows)

    parts = [each.reshape(n // size, size, *each.shape[1:]) for each in (x, grad)]
    start = jnp.zeros((kw * c, kh * d), x.dtype)
    total, _ = lax.scan(lambda total, part: (total + some(*part), None), start, parts)
    return total.reshape(kw, c, kh, d).transpose(2, 0, 1, 3)


_conv.defvjp(_forward, _backward)
