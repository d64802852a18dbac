from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped

from mcu_jax import base

_PADDING = 4


def crop_and_flip(x: Shaped[Array, "b h w c"], key: base.RandomKey) -> Shaped[Array, "b h w c"]:
    """A random crop from the image padded by 4 black pixels, then a horizontal flip with probability 1/2."""
    crop_key, flip_key = jax.random.split(key)
    corners = jax.random.randint(crop_key, (x.shape[0], 2), 0, 2 * _PADDING + 1)
    flips = jax.random.bernoulli(flip_key, shape=(x.shape[0],))
    padded = jnp.pad(x, ((0, 0), (_PADDING, _PADDING), (_PADDING, _PADDING), (0, 0)))

    def one(image: Array, corner: Array, flip: Array) -> Array:
        cropped = lax.dynamic_slice(image, (corner[0], corner[1], 0), x.shape[1:])
        return jnp.where(flip, cropped[:, ::-1], cropped)

    return jax.vmap(one)(padded, corners, flips)
