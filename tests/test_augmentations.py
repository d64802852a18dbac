"""Training augmentations: what holds for each of them, by name and in a chain, and what each does to pixels."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mcu_jax import augmentations, datasets, registry
from mcu_jax.base import UserError

KEY = jax.random.key(3)
SPECS = (*augmentations.NAMES, "crop+flip", "random_resized_crop:scale=0.3+flip+color_jitter:contrast=0.2")


def images(count: int = 6, height: int = 9, width: int = 12, channels: int = 3) -> Any:
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (count, height, width, channels), np.uint8))


@pytest.mark.parametrize("spec", SPECS)
def test_laws(spec: str) -> None:
    augment, x = jax.jit(augmentations.make(spec)), images(12)
    out = augment(x, KEY)
    chex.assert_trees_all_equal_shapes_and_dtypes(out, x)
    chex.assert_trees_all_equal(out, augment(x, KEY))
    assert not np.array_equal(out, x)
    assert not np.array_equal(out, augment(x, jax.random.key(4)))
    # Every image by itself, and in a way of its own.
    same = augment(jnp.repeat(x[:1], 12, 0), KEY)
    chex.assert_trees_all_equal(same[0], out[0])
    assert len({np.asarray(image).tobytes() for image in same}) > 1


def test_one_request_is_one_function() -> None:
    make = augmentations.make
    assert make("none") is None
    assert make("crop+flip") is make("crop:padding=4+flip") is datasets.crop_and_flip
    assert make("flip") is augmentations.flip
    assert make("crop:padding=2") is make("crop: padding = 2.0") is not make("crop:padding=3")
    assert make("flip+color_jitter:saturation=0,brightness=0.5").__name__ == (
        "flip+color_jitter:brightness=0.5,saturation=0"
    )
    assert make(make("flip+crop:padding=3").__name__) is make("flip+crop:padding=3")
    with pytest.raises(
        registry.UnknownNameError, match=r"no augmentation 'flop'; did you mean 'flip'\? There are: crop"
    ):
        make("crop+flop")
    with pytest.raises(UserError, match="augmentation crop has no hyper-parameter 'pading'; did you mean 'padding'"):
        make("crop:pading=2")
    with pytest.raises(UserError, match=r"scale must be a fraction in \(0, 1\], given 2"):
        make("random_resized_crop:scale=2")
    with pytest.raises(UserError, match="There are: crop, flip"):
        make("")


def test_a_chain_is_one_after_the_other() -> None:
    x, (first, second) = images(), jax.random.split(KEY)
    expected = augmentations.crop(augmentations.flip(x, first), second, padding=2)
    chex.assert_trees_all_equal(augmentations.make("flip+crop:padding=2")(x, KEY), expected)


def test_colours_change_by_factors() -> None:
    x = images(64, 4, 4)
    off = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
    jitter = jax.jit(augmentations.color_jitter, static_argnames=off)
    chex.assert_trees_all_equal(jitter(x, KEY, **off), x)
    # Of grey images the saturation is none, and one channel is as good as three.
    grey = jnp.repeat(x[..., :1], 3, -1)
    chex.assert_trees_all_close(jitter(grey, KEY, **{**off, "saturation": 0.9}), grey)
    np.testing.assert_allclose(
        jitter(grey, KEY)[..., :1].astype(jnp.int32),
        jitter(x[..., :1], KEY).astype(jnp.int32),
        atol=1,
    )
    low = (x // 4 + 20).astype(jnp.float32)  # so that nothing is clipped
    weights = jnp.asarray([0.299, 0.587, 0.114])[None, None, None]
    own = jnp.sum(low * weights, -1, keepdims=True)
    poles = {"brightness": 0.0 * own, "contrast": own.mean((1, 2, 3), keepdims=True) + 0.0 * own, "saturation": own}
    for name, pole in poles.items():
        out = jitter(low.astype(jnp.uint8), KEY, **{**off, name: 0.5}).astype(jnp.float32)
        factors = jnp.sum((out - pole) * (low - pole), (1, 2, 3)) / jnp.sum((low - pole) ** 2, (1, 2, 3))
        assert 0.49 < float(factors.min()) < 0.6, name
        assert 1.4 < float(factors.max()) < 1.51, name
        np.testing.assert_allclose(out, pole + factors[:, None, None, None] * (low - pole), atol=1.0)


def test_random_crops_are_parts_of_the_image() -> None:
    height, width, scale = 60, 80, 0.2
    y, x = jnp.meshgrid(jnp.arange(float(height)), jnp.arange(float(width)), indexing="ij")
    positions = jnp.repeat(jnp.stack([y, x], -1)[None], 400, 0)
    out = np.asarray(jax.jit(lambda x: augmentations.random_resized_crop(x, KEY, scale=scale))(positions))
    # Pixels in the middle say where they are; a step between them, how large the part is.
    step_y, step_x = (np.median(np.diff(out[..., i], axis=1 + i), axis=(1, 2)) for i in (0, 1))
    heights, widths = step_y * height, step_x * width
    shares = heights * widths / (height * width)
    assert scale - 0.01 < shares.min() < scale + 0.05
    assert 0.9 < shares.max() <= 1.001
    assert 3 / 4 - 0.01 < (widths / heights).min() < 0.78
    assert 1.28 < (widths / heights).max() < 4 / 3 + 0.01
    middle = out[:, height // 2, width // 2] + np.stack([0.5 - step_y / 2, 0.5 - step_x / 2], -1)
    low, high = (middle + sign * np.stack([heights, widths], -1) / 2 for sign in (-1, 1))
    assert low.min() > -0.01
    assert low.min(0).max() < 1
    assert (high <= np.array([height, width]) + 0.01).all()
    assert (high.max(0) > np.array([height, width]) - 1).all()


def test_a_random_crop_is_resized_as_pillow_does() -> None:
    (image,) = images(1, 20, 24)
    corner, size = jnp.asarray([4.0, 6.0]), jnp.asarray([8.0, 10.0])
    out = np.asarray(augmentations._resized(image, corner, size))
    box = (6, 4, 16, 12)
    expected = np.asarray(Image.fromarray(np.asarray(image)).resize((24, 20), Image.Resampling.BILINEAR, box=box))
    # Pillow rounds twice; and beyond the box it repeats the border, where there are pixels of the image.
    np.testing.assert_allclose(out[2:-2, 2:-2], expected[2:-2, 2:-2].astype(np.float32), atol=1.01)
    whole = augmentations.random_resized_crop(images(4, 16, 16), KEY, scale=1.0)
    chex.assert_trees_all_equal(whole, images(4, 16, 16))  # nothing else fits


def test_what_cannot_be_augmented_is_refused() -> None:
    def check(spec: str, x: Any) -> None:
        augmentations.check(augmentations.make(spec), x)

    check("color_jitter", images())
    check("random_resized_crop+flip", jnp.zeros((2, 4, 5, 7)))
    with pytest.raises(UserError, match=r"take one array of images .* given \[4, 6\]; ask for none"):
        check("flip", jnp.zeros((4, 6)))
    with pytest.raises(UserError, match=r"given {'a': \[4, 6\]}"):
        check("flip", {"a": jnp.zeros((4, 6))})
    with pytest.raises(UserError, match=r"uint8 images of 1 or 3 channels, given float32\[2, 4, 4, 3\]"):
        check("flip+color_jitter", jnp.zeros((2, 4, 4, 3)))
    with pytest.raises(UserError, match="images of 4 × 5 by at most their side, given 6"):
        check("crop:padding=6", jnp.zeros((2, 4, 5, 3)))
