"""Group normalisation whose forward pass costs two reductions and one multiply-add.

On a CPU flax's takes as long as the whole rest of a small convolutional net, which a sweep along a path is made of:
experiments/benchmarks/evaluation.py. Same parameters, names and result. Of what is less
than float32, it computes in float32.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_EPSILON = 1e-6


class GroupNorm(nn.Module):
    """Wu & He 2018, arXiv 1803.08494: over the positions and channels of each of `num_groups` groups."""

    num_groups: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        n, *_, channels = x.shape
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))

        def mean(values: Array) -> Float[Array, "n g 1"]:
            return values.mean((1, 2)).reshape(n, self.num_groups, -1).mean(-1, keepdims=True)

        given, x = x.dtype, x.astype(jnp.promote_types(x.dtype, jnp.float32))
        centre = mean(x)
        spread = lax.rsqrt(jnp.maximum(mean(x * x) - centre * centre, 0) + _EPSILON)
        factor = spread * scale.reshape(1, self.num_groups, -1)
        centre = jnp.broadcast_to(centre, factor.shape)
        y = (x - centre.reshape(n, 1, 1, channels)) * factor.reshape(n, 1, 1, channels) + bias.reshape(1, 1, 1, -1)
        return y.astype(given)
