from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Annotated, Any

import flax.linen as nn
from jaxtyping import Array, Shaped

from mcu_jax import base
from mcu_jax.models import _linen

Stem = base.OneOf(("imagenet", "cifar"))
_Conv = functools.partial(_linen.Conv, kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"))


def resnet18(
    *, num_classes: int, stem: Annotated[str, Stem] = "cifar", remat: Annotated[bool, base.Switch] = False
) -> base.Model:
    """ResNet with two basic blocks in each of four stages (He et al. 2016, arXiv 1512.03385).

    stem: imagenet (7×7 of stride 2, then a max pool), or cifar (3×3), for images of 32 to 64 pixels.
    remat: blocks keep only what enters them and compute the rest anew for the gradient: less memory, more time.
    """
    return _resnet("resnet18", num_classes, (2, 2, 2, 2), bottleneck=False, stem=stem, remat=remat)


def resnet50(
    *, num_classes: int, stem: Annotated[str, Stem] = "cifar", remat: Annotated[bool, base.Switch] = False
) -> base.Model:
    """ResNet of 3, 4, 6 and 3 bottlenecks, strides in their 3×3 convolutions (He et al. 2016, arXiv 1512.03385).

    stem, remat: as of `resnet18`.
    """
    return _resnet("resnet50", num_classes, (3, 4, 6, 3), bottleneck=True, stem=stem, remat=remat)


def _resnet(
    name: str, num_classes: int, blocks: tuple[int, ...], *, bottleneck: bool, stem: str, remat: bool = False
) -> base.Model:
    if stem not in Stem.words:
        raise base.UserError(f"the stem of {name} is {' or '.join(Stem.words)}; got {stem!r}")
    return _linen.model(_ResNet(num_classes, blocks, bottleneck, stem, remat), name, tuple(_units(blocks, bottleneck)))


def _units(blocks: tuple[int, ...], bottleneck: bool) -> Iterator[base.Units]:
    """Each residual stream, from where it begins until a shortcut begins the next; and each channel inside a block."""
    convolutions = 3 if bottleneck else 2
    stream = [("conv1/kernel", 3), *_linen.norm_axes("bn1")]
    for stage, count in enumerate(blocks, 1):
        for i in range(count):
            block = f"layer{stage}_{i}"
            stream.append((f"{block}/conv1/kernel", 2))
            for k in range(1, convolutions):
                channels = [(f"{block}/conv{k}/kernel", 3), *_linen.norm_axes(f"{block}/bn{k}")]
                yield base.Units((*channels, (f"{block}/conv{k + 1}/kernel", 2)))
            if i == 0 and (stage > 1 or bottleneck):
                yield base.Units((*stream, (f"{block}/downsample_conv/kernel", 2)))
                stream = [(f"{block}/downsample_conv/kernel", 3), *_linen.norm_axes(f"{block}/downsample_bn")]
            stream += [(f"{block}/conv{convolutions}/kernel", 3), *_linen.norm_axes(f"{block}/bn{convolutions}")]
    yield base.Units((*stream, ("head/kernel", 0)))


class _Block(nn.Module):
    planes: int
    strides: int
    bottleneck: bool
    train: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        def norm(y: Array, name: str) -> Array:
            # Momentum 0: the returned statistics are this batch's alone.
            return nn.BatchNorm(use_running_average=not self.train, momentum=0.0, name=name)(y)

        width = 4 * self.planes if self.bottleneck else self.planes
        if self.bottleneck:
            y = nn.relu(norm(_Conv(self.planes, (1, 1), name="conv1")(x), "bn1"))
            y = nn.relu(norm(_Conv(self.planes, (3, 3), self.strides, padding=1, name="conv2")(y), "bn2"))
            y = norm(_Conv(width, (1, 1), name="conv3")(y), "bn3")
        else:
            y = nn.relu(norm(_Conv(width, (3, 3), self.strides, padding=1, name="conv1")(x), "bn1"))
            y = norm(_Conv(width, (3, 3), padding=1, name="conv2")(y), "bn2")
        if x.shape[-1] != width or self.strides != 1:
            x = norm(_Conv(width, (1, 1), self.strides, padding=0, name="downsample_conv")(x), "downsample_bn")
        return nn.relu(x + y)


class _ResNet(nn.Module):
    num_classes: int
    blocks: tuple[int, ...]
    bottleneck: bool
    stem: str
    remat: bool

    @nn.compact
    def __call__(self, x: Shaped[Any, "n ..."], train: bool) -> tuple[Array, Array]:
        x = _linen.as_float(x)
        kernel, strides = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = _Conv(64, (kernel, kernel), strides, padding=kernel // 2, name="conv1")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.0, name="bn1")(x))
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        block = _linen.forgetful(_Block, self.remat)
        for stage, count in enumerate(self.blocks, 1):
            for i in range(count):
                strides = 2 if stage > 1 and not i else 1
                name = f"layer{stage}_{i}"
                x = block(64 * 2 ** (stage - 1), strides, self.bottleneck, train, name=name)(x)
        x = x.mean((1, 2))
        return nn.Dense(self.num_classes, name="head")(x), x
