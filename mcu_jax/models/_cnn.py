from __future__ import annotations

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Shaped

from mcu_jax import base
from mcu_jax.models import _linen, _norm

_GROUPS = 8


def cnn(*, num_classes: int) -> base.Model:
    """Three 3×3 convolutions of stride 2 (16, 32, 64 channels) with GroupNorm, then a dense layer of 128."""
    following = (("conv1/kernel", 2), ("conv2/kernel", 2), ("dense/kernel", 0))
    convolved = (
        base.Units(((f"conv{i}/kernel", 3), (f"norm{i}/scale", 0), (f"norm{i}/bias", 0), then), groups=_GROUPS)
        for i, then in enumerate(following)
    )
    dense = base.Units((("dense/kernel", 1), ("dense/bias", 0), ("head/kernel", 0)))
    return _linen.model(_Cnn(num_classes), "cnn", (*convolved, dense))


class _Cnn(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x: Shaped[Any, "n ..."], train: bool) -> tuple[Array, Array]:
        x = _linen.as_float(x)
        for i, channels in enumerate((16, 32, 64)):
            x = _linen.Conv(channels, (3, 3), strides=2, name=f"conv{i}")(x)
            x = nn.relu(_norm.GroupNorm(_GROUPS, name=f"norm{i}")(x))
        x = nn.relu(nn.Dense(128, name="dense")(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.num_classes, name="head")(x), x
