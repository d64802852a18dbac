"""What a run makes of its images: augmentation and normalisation as they are asked for, and how it is known by them."""

from __future__ import annotations

import pathlib
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SMALL

from mcu_jax import augmentations, datasets, models, runs
from mcu_jax.base import UserError
from mcu_jax.runs import _config, _directory, _images, _tasks

KEY = jax.random.key(3)


def resolve(**settings: Any) -> Any:
    return runs.resolve(runs.from_mapping({**SMALL, **settings}))


def task(resolved: Any) -> dict[str, Any]:
    """What tells the task of the first seed from others."""
    directory = _directory.RunDirectory(pathlib.Path("nowhere"), pathlib.Path("nowhere"), resolved)
    return _tasks.replicates(directory, resolved)[0].unseen().identity


def test_a_run_is_known_by_what_it_makes_of_images() -> None:
    usual, tasks = resolve(), []
    for settings in ({}, {"augment": "none"}, {"normalize": "half"}, {"normalize": "own:mean=0.5,std=[0.5]"}):
        asked = resolve(**settings)
        assert asked.as_dict() == usual.as_dict()
        assert asked.model is usual.model
        assert task(asked) == task(usual)
    assert not {"augment", "normalize"} & usual.as_dict().keys()
    assert task(usual)["augment"] is None
    assert "normalize" not in task(usual)
    for settings in (
        {"augment": "crop+flip"},
        {"augment": "flip"},
        {"normalize": "unit"},
        {"normalize": "own:mean=0.1,std=0.3"},
    ):
        asked = resolve(**settings)
        assert runs.resolve(runs.from_mapping(asked.as_dict())).identity() == asked.identity() != usual.identity()
        tasks.append(task(asked))
    assert [found["augment"] for found in tasks] == ["crop_and_flip", "flip", None, None]
    assert [found.get("normalize") for found in tasks] == [None, None, "unit", "own:mean=[0.1],std=[0.3]"]


def test_images_are_normalised_for_the_model(digits: datasets.Data) -> None:
    x = digits.examples["x"][:5]
    for spec, mean, std in (("unit", 0.0, 1.0), ("own:mean=[0.1],std=0.3", 0.1, 0.3)):
        base, model = resolve().model, resolve(normalize=spec).model
        assert model is resolve(normalize=spec).model
        params = model.init(KEY, x)
        chex.assert_trees_all_equal(params, base.init(KEY, x))
        floats = jnp.asarray((x / 255 - mean) / std, jnp.float32)
        for run in (lambda m, x, p=params: m.apply(p, x)[0], lambda m, x, p=params: m.features(p, x)):
            np.testing.assert_allclose(run(model, x), run(base, floats), rtol=1e-5, atol=1e-5)
            chex.assert_trees_all_equal(run(model, models.as_float(x)), run(model, x))
    models.check_floats(model, params, x)
    model, by_channel = (models.normalized(base, *models.NORMALIZATIONS[name]) for name in ("unit", "imagenet"))
    colours = np.random.default_rng(0).integers(0, 256, (4, 3, 3, 3), np.uint8)
    params = base.init(KEY, colours)
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
    expected = base.apply(params, jnp.asarray((colours / np.float32(255) - mean) / std))[0]
    np.testing.assert_allclose(by_channel.apply(params, colours)[0], expected, rtol=1e-4, atol=1e-4)


def test_a_model_of_ones_own_is_normalised_only_if_asked(digits: datasets.Data) -> None:
    def apply(params: Any, x: Any) -> Any:
        return x.reshape(len(x), -1)[:, :10].astype(jnp.float32) + params["w"]

    own = models.adapt(apply, init=lambda key, inputs: {"w": jnp.zeros((1, 10))})
    x = digits.examples["x"][:2]
    for spec, expected in ((None, x), ("half", x / 127.5 - 1), ("unit", x / 255)):
        config = runs.from_mapping({**SMALL, "model": "own", "normalize": spec})
        found = runs.resolve(config, model=own)
        assert found.config.normalize == spec
        logits = found.model.apply({"w": jnp.zeros((1, 10))}, x)[0]
        np.testing.assert_allclose(logits, expected.reshape(2, -1)[:, :10], atol=1e-6)


def test_the_data_sets_own_augmentation_gives_way(digits: datasets.Data) -> None:
    data = digits._replace(augment=augmentations.flip)
    for spec, expected in ((None, "flip"), ("flip", "flip"), ("none", None), ("crop", "crop")):
        config = runs.from_mapping({**SMALL, "model": "mlp", "augment": spec})
        found = runs.resolve(config, data=data)
        assert (found.data.augment and found.data.augment.__name__) == expected
        assert found.config.augment == (None if expected == "flip" else spec)
        assert found.data.hash == data.hash


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"augment": "mixup"}, "no augmentation 'mixup'.* There are: crop, flip, color_jitter"),
        ({"augment": "crop:padding=9"}, "images of 8 × 8 by at most their side, given 9"),
        ({"normalize": "imagenet"}, r"of 3 channels takes one array of images of as many, given \[1, 8, 8, 1\]"),
        ({"normalize": "image"}, "no normalisation 'image'; did you mean 'imagenet'.* cifar100, own"),
        ({"normalize": "unit:mean=3"}, "unit has no options: for others, own:mean="),
        ({"normalize": "own:mean=0.5"}, "a normalisation of one's own is own:mean="),
        ({"normalize": "own:mean=0.5,std=0"}, "std must be a number above 0, given 0"),
        ({"normalize": "own:mean=0.5,std=[1,2]"}, r"a mean and a std above 0 for every channel, given \[0.5\] and"),
    ],
)
def test_what_does_not_suit_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _config.check_size(resolve(**settings))


def test_floats_are_neither_normalised_nor_jittered(digits: datasets.Data) -> None:
    parts = ({**part, "x": part["x"] / np.float32(255)} for part in (digits.train, digits.test))
    data = datasets.arrays(*parts)
    for settings, message in (
        ({"normalize": "half"}, "images as uint8; this data has other inputs"),
        ({"augment": "color_jitter"}, "uint8 images of 1 or 3 channels, given float32"),
    ):
        with pytest.raises(runs.ConfigError, match=message):
            runs.resolve(runs.from_mapping({**SMALL, **settings}), data=data)


def test_weights_of_others_are_asked_about() -> None:
    for original, normalize, expected in (
        ("net.safetensors", None, True),
        ("net.npz", None, True),
        ("net.safetensors", "imagenet", False),
        ("folder", None, False),
        (None, None, False),
    ):
        assert _images.may_be_of_others(runs.Config(original=original, normalize=normalize)) is expected
