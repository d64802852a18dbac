from __future__ import annotations

import flax.linen as nn
from jaxtyping import Array

from mcu_jax import base
from mcu_jax.models import _linen


def cnn(*, num_classes: int) -> base.Model:
    """Three 3×3 convolutions of stride 2 (16, 32, 64 channels) with GroupNorm, then a dense layer of 128."""
    return _linen.model(_Cnn(num_classes), "cnn")


class _Cnn(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> tuple[Array, Array]:
        for i, channels in enumerate((16, 32, 64)):
            x = _linen.Conv(channels, (3, 3), strides=2, name=f"conv{i}")(x)
            x = nn.relu(nn.GroupNorm(num_groups=8, name=f"norm{i}")(x))
        x = nn.relu(nn.Dense(128, name="dense")(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.num_classes, name="head")(x), x
