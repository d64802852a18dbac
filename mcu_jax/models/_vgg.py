from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import flax.linen as nn
from jaxtyping import Array, Shaped

from mcu_jax import base
from mcu_jax.models import _linen

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_WIDTH = 512
_Stages = tuple[tuple[int, ...], ...]


def vgg16_bn(*, num_classes: int, remat: Annotated[bool, base.Switch] = False) -> base.Model:
    """VGG-16 with BatchNorm, and two dense layers of 512 with dropout (Simonyan & Zisserman 2015, arXiv 1409.1556).

    Dense layers as Garipov et al. 2018, arXiv 1802.10026, have them; for images of 32 pixels or more.
    remat: stages keep only what enters them and compute the rest anew for the gradient: less memory, more time.
    """
    return _made(num_classes, _STAGES, _WIDTH, remat)


def _made(num_classes: int, stages: _Stages, width: int, remat: bool = False) -> base.Model:
    return _linen.model(_Vgg(num_classes, stages, width, remat), "vgg16_bn", tuple(_units(stages)))


def _units(stages: _Stages) -> Iterator[base.Units]:
    """The channels of each convolution, as `conv0_1`, with those of its norm, `bn0_1`; and of each dense layer."""
    names = [f"{stage}_{i}" for stage, widths in enumerate(stages) for i in range(len(widths))]
    following = [*((f"conv{name}/kernel", 2) for name in names[1:]), ("dense0/kernel", 0)]
    for name, then in zip(names, following, strict=True):
        axes = ((f"conv{name}/kernel", 3), *((f"{part}/bias", 0) for part in (f"conv{name}", f"bn{name}")))
        yield base.Units((*axes, (f"bn{name}/scale", 0), then))
    for name, next_name in (("dense0", "dense1"), ("dense1", "head")):
        yield base.Units(((f"{name}/kernel", 1), (f"{name}/bias", 0), (f"{next_name}/kernel", 0)))


class _Vgg(nn.Module):
    num_classes: int
    stages: _Stages
    width: int
    remat: bool

    @nn.compact
    def __call__(self, x: Shaped[Any, "n ..."], train: bool) -> tuple[Array, Array]:
        x = _linen.as_float(x)
        if min(x.shape[1:3]) < 32:
            raise base.UserError(f"vgg16_bn takes images of 32 pixels or more, given {x.shape[1]} × {x.shape[2]}")
        for stage, widths in enumerate(self.stages):

            def convolved(_: _Vgg, x: Array, stage: int = stage, widths: tuple[int, ...] = widths) -> Array:
                for i, channels in enumerate(widths):
                    x = _linen.Conv(channels, (3, 3), padding=1, use_bias=True, name=f"conv{stage}_{i}")(x)
                    x = nn.BatchNorm(use_running_average=not train, momentum=0.0, name=f"bn{stage}_{i}")(x)
                    x = nn.relu(x)
                return nn.max_pool(x, (2, 2), (2, 2))

            x = _linen.forgetful(convolved, self.remat)(self, x)
        x = x.reshape(x.shape[0], -1)
        for i in range(2):
            x = nn.Dropout(0.5, deterministic=not train)(x)
            x = nn.relu(nn.Dense(self.width, name=f"dense{i}")(x))
        return nn.Dense(self.num_classes, name="head")(x), x
