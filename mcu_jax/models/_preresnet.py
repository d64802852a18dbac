from __future__ import annotations

import functools
from typing import Annotated, Any

import flax.linen as nn
from jaxtyping import Array, Shaped

from mcu_jax import base
from mcu_jax.models import _linen

_BOTTLENECK_FROM = 44


def _per_stage(depth: int) -> tuple[int, int]:
    """(blocks in each of the three stages, layers left over)."""
    return divmod(depth - 2, 9 if depth >= _BOTTLENECK_FROM else 6)


Depth = base.Range(
    "a depth 6n + 2 below 44 (8, 14, 20, 26, 32, 38) or 9n + 2 from 44 on (47, 56, 110, 164, 1001 at most)",
    lambda depth: 8 <= depth <= 1001 and not _per_stage(depth)[1],
)
_Conv = functools.partial(
    _linen.Conv, padding=1, kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal")
)


def preresnet(
    *, num_classes: int, depth: Annotated[int, Depth] = 20, remat: Annotated[bool, base.Switch] = False
) -> base.Model:
    """Pre-activation ResNet with BatchNorm for 32×32 images (Garipov et al. 2018, arXiv 1802.10026).

    Three stages of 16, 32 and 64 planes.
    depth: 6n + 2 with basic blocks below 44, 9n + 2 with bottlenecks from 44 to 1001; else a UserError.
    remat: blocks keep only what enters them and compute the rest anew for the gradient: less memory, more time.
    """
    if not Depth.holds(depth):
        raise base.UserError(f"preresnet needs {Depth.words}; got {depth}.")
    per_stage, _ = _per_stage(depth)
    bottleneck = depth >= _BOTTLENECK_FROM
    return _linen.model(
        _PreResNet(num_classes, per_stage, bottleneck, remat), "preresnet", _units(per_stage, bottleneck)
    )


def _units(per_stage: int, bottleneck: bool) -> tuple[base.Units, ...]:
    """Each residual stream, from where it begins until a shortcut begins the next; and each channel inside a block."""
    convolutions = 3 if bottleneck else 2
    inner, stream = [], [("conv1/kernel", 3)]
    for stage in (1, 2, 3):
        for i in range(per_stage):
            block = f"layer{stage}_{i}"
            stream += [*_linen.norm_axes(f"{block}/bn1"), (f"{block}/conv1/kernel", 2)]
            for k in range(1, convolutions):
                channels = [(f"{block}/conv{k}/kernel", 3), *_linen.norm_axes(f"{block}/bn{k + 1}")]
                inner.append(base.Units((*channels, (f"{block}/conv{k + 1}/kernel", 2))))
            if i == 0 and (stage > 1 or bottleneck):
                inner.append(base.Units((*stream, (f"{block}/downsample_conv/kernel", 2))))
                stream = [(f"{block}/downsample_conv/kernel", 3)]
            stream.append((f"{block}/conv{convolutions}/kernel", 3))
    return (*inner, base.Units((*stream, *_linen.norm_axes("bn"), ("head/kernel", 0))))


class _Block(nn.Module):
    planes: int
    strides: int
    bottleneck: bool
    train: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        def norm(x: Array, name: str) -> Array:
            return _norm_relu(x, self.train, name)

        width = 4 * self.planes if self.bottleneck else self.planes
        if self.bottleneck:
            y = _Conv(self.planes, (1, 1), padding=0, name="conv1")(norm(x, "bn1"))
            y = _Conv(self.planes, (3, 3), self.strides, name="conv2")(norm(y, "bn2"))
            y = _Conv(width, (1, 1), padding=0, name="conv3")(norm(y, "bn3"))
        else:
            y = _Conv(width, (3, 3), self.strides, name="conv1")(norm(x, "bn1"))
            y = _Conv(width, (3, 3), name="conv2")(norm(y, "bn2"))
        if x.shape[-1] != width or self.strides != 1:
            x = _Conv(width, (1, 1), self.strides, padding=0, name="downsample_conv")(x)
        return x + y


class _PreResNet(nn.Module):
    num_classes: int
    per_stage: int
    bottleneck: bool
    remat: bool

    @nn.compact
    def __call__(self, x: Shaped[Any, "n ..."], train: bool) -> tuple[Array, Array]:
        x = _linen.as_float(x)
        x = _Conv(16, (3, 3), name="conv1")(x)
        block = _linen.forgetful(_Block, self.remat)
        for stage, planes in enumerate((16, 32, 64), 1):
            for i in range(self.per_stage):
                strides = 2 if stage > 1 and not i else 1
                x = block(planes, strides, self.bottleneck, train, name=f"layer{stage}_{i}")(x)
        x = _norm_relu(x, train, "bn").mean((1, 2))
        return nn.Dense(self.num_classes, name="head")(x), x


def _norm_relu(x: Array, train: bool, name: str) -> Array:
    # Momentum 0: the returned statistics are this batch's alone.
    return nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.0, name=name)(x))
