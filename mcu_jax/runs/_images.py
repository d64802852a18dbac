"""What a run makes of its images: how they are augmented in training, and normalised for the model."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from mcu_jax import augmentations, base, datasets, models, outputs, registry, sources, text, weights
from mcu_jax.runs._settings import ConfigError, Settings


def augmented(data: datasets.Data, spec: str | None) -> tuple[datasets.Data, str | None]:
    """The data set with the augmentation that is asked for, and this request as it is kept: None for the set's own.

    Raises UserError for one that there is not, and for examples that cannot be augmented so.
    """
    if spec is None:
        return data, None
    augment = augmentations.make(spec)
    if augment is data.augment:
        return data, None
    if augment is not None:
        augmentations.check(augment, _one(data))
    return data._replace(augment=augment), augmentations.canonical(spec)


def normalized(
    model: base.Model, data: datasets.Data, spec: str | None, *, scales: bool
) -> tuple[base.Model, str | None]:
    """The model with the normalisation that is asked for, and this request as it is kept: None for the model's own.

    scales: whether it has one by itself, as the built-in ones, and is not given images as they are. Raises UserError
    for one that there is not, and ConfigError for examples that are not uint8 images.
    """
    if spec is None:
        return model, None
    name, (mean, std) = _parse(spec)
    example = _one(data)
    if getattr(example, "dtype", None) != np.uint8:
        raise ConfigError(
            f"normalize is for images as uint8; this data has other inputs, which a model is given as they are: leave "
            f"out {text.show(spec)}"
        )
    if scales and name == "half":
        return model, None
    return models.normalized(model, mean, std), name


def _parse(spec: str) -> tuple[str, tuple[Any, Any]]:
    """(the request as it is kept, (mean, std)). Raises UserError."""
    name, options = registry.parse(spec)
    registry.check(name, (*models.NORMALIZATIONS, "own"), "normalisation")
    if name != "own":
        if options:
            raise ConfigError(f"normalisation {name} has no options: for others, {_FORM}; given {text.show(spec)}")
        return name, models.NORMALIZATIONS[name]
    if options.keys() != {"mean", "std"}:
        raise ConfigError(f"a normalisation of one's own is {_FORM}; given {text.show(spec)}")
    given = registry.bind(_own, options, "normalisation own")
    found = given["mean"], given["std"]
    same = (name for name, known in models.NORMALIZATIONS.items() if known == found)
    return next(same, registry.spec("own", {key: list(value) for key, value in given.items()})), found


_FORM = "own:mean=[0.5,0.5,0.5],std=[0.2,0.2,0.2], or one number each"


def _own(
    *,
    mean: Annotated[tuple[float, ...], base.Real] = (0.5,),
    std: Annotated[tuple[float, ...], base.Positive] = (0.5,),
) -> None:
    """What can be said of one's own normalisation."""


OF_OTHERS = (
    "the weights of --original are given images from −1 to 1, as Google's vision transformers take them; those of "
    "torchvision, and most of timm, want --normalize imagenet"
)


def may_be_of_others(config: Settings) -> bool:
    """Whether weights were trained by others, on images that may have been normalised in another way."""
    return config.original is not None and config.original.endswith(weights.FORMATS) and config.normalize is None


def _one(data: datasets.Data) -> Any:
    return outputs.inputs(sources.first(data.examples))
