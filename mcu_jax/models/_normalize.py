from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mcu_jax import base
from mcu_jax.models._linen import as_float

NORMALIZATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "half": ((0.5,), (0.5,)),
    "unit": ((0.0,), (1.0,)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
"""By name, (mean, standard deviation) of each channel of images of 0 to 1, or one for all channels.

half: −1 to 1, which the built-in models make of uint8 images by themselves, and Google's vision transformers take, by
timm's names too. imagenet: what torchvision's weights take, and timm's but these. cifar10, cifar100: of their training
sets.
"""


def normalized(model: base.Model, mean: Sequence[float], std: Sequence[float]) -> base.Model:
    """The model of images x as (x − mean) / std, x of 0 to 1, in place of what it makes of uint8 images by itself.

    mean, std: of each channel, or one for all. It takes uint8 images, or floats as `as_float` makes them, −1 to 1. The
    same arguments give the same Model. Raises UserError for no or other numbers than these, and for a std of 0 or less.
    """
    if not 0 < len(mean) == len(std) or min(std) <= 0:
        raise base.UserError(
            f"a normalisation has a mean and a std above 0 for every channel, given {list(mean)} and {list(std)}"
        )
    return _normalized(model, tuple(map(float, mean)), tuple(map(float, std)))


@functools.cache
def _normalized(model: base.Model, mean: tuple[float, ...], std: tuple[float, ...]) -> base.Model:
    def scaled(inputs: Any) -> Float[Array, "n ..."]:
        if getattr(inputs, "ndim", 0) < 2 or len(mean) not in (1, inputs.shape[-1]):
            shapes = jax.tree.map(lambda leaf: list(leaf.shape), inputs)
            raise base.UserError(
                f"a normalisation of {len(mean)} channels takes one array of images of as many, given {shapes}"
            )
        x = as_float(inputs)
        shape = (1,) * (x.ndim - 1) + (len(mean),)
        factor = 0.5 / jnp.asarray(std, x.dtype)
        shift = factor - jnp.asarray(mean, x.dtype) / jnp.asarray(std, x.dtype)
        return x * factor.reshape(shape) + shift.reshape(shape)

    def init(key: base.RandomKey, inputs: Any) -> base.Params:
        return model.init(key, scaled(inputs))

    def apply(
        params: base.Params,
        inputs: Any,
        stats: base.Stats | None = None,
        key: base.RandomKey | None = None,
        frozen: base.Params | None = None,
    ) -> tuple[Float[Array, "n *positions classes"], base.Stats]:
        return model.apply(params, scaled(inputs), stats, key, **({} if frozen is None else {"frozen": frozen}))

    def features(params: base.Params, inputs: Any, stats: base.Stats | None = None) -> Float[Array, "n width"]:
        assert model.features is not None
        return model.features(params, scaled(inputs), stats)

    found = None if model.features is None else features
    return base.Model(model.name, init, apply, found, model.head, model.permutations)
