"""Training augmentations of batches of images: (x, key) -> x of the same shape and dtype, inside the compiled step."""

from __future__ import annotations

import functools
import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Shaped

from mcu_jax import base, registry

NAMES = ("crop", "flip", "color_jitter", "random_resized_crop")
NONE = "none"
"""What stands for no augmentation where one is asked for by name."""

_TRIES = 10
_RATIO = 4 / 3
"""Of the sides of a random crop, the longer one to the shorter, at most."""
_GREY = (0.299, 0.587, 0.114)
"""What red, green and blue add to brightness (ITU-R BT.601)."""


def make(spec: str) -> base.Augment | None:
    """What `crop+flip` or `random_resized_crop:scale=0.2+flip` asks for, one after the other; None for `none`.

    One function for one request, however it is written; its `__name__` tells it from others. Raises UserError for a
    name or an option there is not.
    """
    return None if spec == NONE else _made(canonical(spec))


def canonical(spec: str) -> str:
    """The shortest way to ask for the same. Raises UserError as `make` does."""
    return spec if spec == NONE else "+".join(map(_shortest, spec.split("+")))


def _shortest(part: str) -> str:
    name, options = registry.parse(part)
    registry.check(name, NAMES, "augmentation")
    usual = registry.schema(globals()[name])
    bound = registry.bind(globals()[name], options, f"augmentation {name}")
    return registry.spec(name, {key: bound[key] for key in usual if bound.get(key, usual[key]) != usual[key]})


def check(augment: base.Augment, inputs: Any) -> None:
    """Raises UserError unless such inputs can be augmented so, which are arrays, or their shapes and dtypes."""
    if len(getattr(inputs, "shape", ())) != 4:
        given = jax.tree.map(lambda leaf: list(leaf.shape), inputs)
        raise base.UserError(
            f"augmentations take one array of images [examples, height, width, channels], given {given}; ask for {NONE}"
        )
    jax.eval_shape(augment, inputs, jax.random.key(0))


@functools.cache
def _made(spec: str) -> base.Augment:
    if spec == "crop+flip":
        return crop_and_flip
    if spec in NAMES:
        return globals()[spec]
    parts = [registry.parse(part) for part in spec.split("+")]
    functions = [functools.partial(globals()[name], **registry.bind(globals()[name], o, name)) for name, o in parts]

    def augment(x: Shaped[Array, "b h w c"], key: base.RandomKey) -> Shaped[Array, "b h w c"]:
        for function, own in zip(functions, jax.random.split(key, len(functions)), strict=True):
            x = function(x, own)
        return x

    augment.__name__ = spec
    return augment


def crop_and_flip(x: Shaped[Array, "b h w c"], key: base.RandomKey) -> Shaped[Array, "b h w c"]:
    """`crop`, then `flip`: the usual of images of 32 pixels."""
    crop_key, flip_key = jax.random.split(key)
    return flip(crop(x, crop_key), flip_key)


def crop(
    x: Shaped[Array, "b h w c"], key: base.RandomKey, *, padding: Annotated[int, base.Whole] = 4
) -> Shaped[Array, "b h w c"]:
    """A random crop from the image padded by so many black pixels on each side, at most as many as it has."""
    if padding > min(x.shape[1:3]):
        raise base.UserError(f"crop pads images of {x.shape[1]} × {x.shape[2]} by at most their side, given {padding}")
    corners = jax.random.randint(key, (x.shape[0], 2), 0, 2 * padding + 1)
    padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))

    def one(image: Array, corner: Array) -> Array:
        return lax.dynamic_slice(image, (corner[0], corner[1], 0), x.shape[1:])

    return jax.vmap(one)(padded, corners)


def flip(x: Shaped[Array, "b h w c"], key: base.RandomKey) -> Shaped[Array, "b h w c"]:
    """Left becomes right with probability 1/2."""
    flips = jax.random.bernoulli(key, shape=(x.shape[0],))
    return jax.vmap(lambda image, flipped: jnp.where(flipped, image[:, ::-1], image))(x, flips)


def color_jitter(
    x: Shaped[Array, "b h w c"],
    key: base.RandomKey,
    *,
    brightness: Annotated[float, base.NonNegative] = 0.4,
    contrast: Annotated[float, base.NonNegative] = 0.4,
    saturation: Annotated[float, base.NonNegative] = 0.4,
) -> Shaped[Array, "b h w c"]:
    """Brightness, contrast and saturation of each image change, in a random order (Howard 2013, arXiv 1312.5402).

    As torchvision's ColorJitter, without hue: the distance from black, from the image's mean grey and from its own grey
    is multiplied by a factor each, uniform in [1 − s, 1 + s] and at least 0, for s of these settings. Pixels are
    clipped to 0..255 after each and rounded at the end. Raises UserError for all but uint8 images of 1 or 3 channels.
    """
    if x.dtype != jnp.uint8 or x.shape[-1] not in (1, 3):
        raise base.UserError(
            f"color_jitter takes uint8 images of 1 or 3 channels, given {x.dtype}{list(x.shape)}; leave it out"
        )
    order_key, factor_key = jax.random.split(key)
    strengths = jnp.asarray((brightness, contrast, saturation), jnp.float32)
    drawn = jax.random.uniform(factor_key, (x.shape[0], 3), minval=-1.0)
    factors = jnp.maximum(0.0, 1.0 + strengths[None] * drawn)
    orders = jnp.argsort(jax.random.uniform(order_key, (x.shape[0], 3)), axis=1)

    def one(image: Array, order: Array, factors: Array) -> Array:
        for which in order:
            grey = _grey(image)
            # Of brightness, contrast and saturation, in this order.
            pole = jnp.stack([jnp.zeros_like(grey), jnp.full_like(grey, jnp.mean(grey)), grey])[which]
            image = jnp.clip(pole + factors[which] * (image - pole), 0.0, 255.0)
        return image

    return _as(jax.vmap(one)(x.astype(jnp.float32), orders, factors), x)


def _grey(image: Float[Array, "h w c"]) -> Float[Array, "h w 1"]:
    if image.shape[-1] == 1:
        return image
    return jnp.sum(image * jnp.asarray(_GREY, jnp.float32)[None, None], axis=-1, keepdims=True)


def random_resized_crop(
    x: Shaped[Array, "b h w c"], key: base.RandomKey, *, scale: Annotated[float, base.PositiveFraction] = 0.08
) -> Shaped[Array, "b h w c"]:
    """A random part of the image, bilinearly resized to the size of the whole (Szegedy et al. 2015, arXiv 1409.4842).

    Its area is uniform between `scale` and 1 of the image's, its width 3/4 to 4/3 of its height, log-uniformly. Of ten
    draws the first that fits into the image is taken; where none does, the middle, as large as such a part can be.
    """
    area_key, ratio_key, corner_key = jax.random.split(key, 3)
    count, (height, width) = x.shape[0], x.shape[1:3]
    areas = height * width * jax.random.uniform(area_key, (count, _TRIES), minval=scale)
    limit = math.log(_RATIO)
    ratios = jnp.exp(jax.random.uniform(ratio_key, (count, _TRIES), minval=-limit, maxval=limit))
    drawn = jnp.stack([jnp.sqrt(areas / ratios), jnp.sqrt(areas * ratios)], axis=-1)
    whole = jnp.asarray((height, width), jnp.float32)
    largest = jnp.asarray((min(height, width * _RATIO), min(width, height * _RATIO)), jnp.float32)
    fits = jnp.all(drawn <= whole[None, None], axis=-1)
    corners = jax.random.uniform(corner_key, (count, 2))

    def one(image: Array, drawn: Array, fits: Array, corner: Array) -> Array:
        any_fits = jnp.any(fits)
        size = jnp.where(any_fits, drawn[jnp.argmax(fits)], largest)
        corner = jnp.where(any_fits, corner, 0.5) * (whole - size)
        return _resized(image, corner, size)

    return _as(jax.vmap(one)(x, drawn, fits, corners), x)


def _resized(image: Array, corner: Float[Array, "2"], size: Float[Array, "2"]) -> Float[Array, "h w c"]:
    """The part of this size at this corner, in pixels, as large as the whole."""
    factors = jnp.asarray(image.shape[:2], jnp.float32) / size
    # It is never made smaller, so that nothing needs smoothing first.
    return jax.image.scale_and_translate(
        image.astype(jnp.float32), image.shape, (0, 1), factors, -corner * factors, "linear", antialias=False
    )


def _as(values: Float[Array, "b h w c"], x: Array) -> Array:
    """In the dtype of the images that they were made of."""
    if jnp.issubdtype(x.dtype, jnp.integer):
        values = jnp.clip(jnp.round(values), 0.0, float(jnp.iinfo(x.dtype).max))
    return values.astype(x.dtype)
