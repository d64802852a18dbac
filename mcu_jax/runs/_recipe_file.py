"""A recipe file: hyper-parameters that `mcu-jax tune` found, to take the place of the recipe that the library has."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Collection, Mapping
from typing import Annotated, Any

from mcu_jax import base, methods, registry, text
from mcu_jax.base import Count, Positive
from mcu_jax.runs import _files, _settings

KIND, SCHEMA = "recipe", 1
LARGEST = 10_000_000
"""Bytes of a recipe."""


@dataclasses.dataclass(frozen=True)
class _Train:
    epochs: Annotated[int, Count]
    lr: Annotated[float, Positive]
    batch_size: Annotated[int, Count]


@dataclasses.dataclass(frozen=True)
class _Told:
    """What a recipe tells beside its methods, read as settings are."""

    dataset: str
    data_hash: str
    model: str
    forget: str
    pre: str
    train_size: Annotated[int | None, Count]
    validation_size: Annotated[int | None, Count]
    train: _Train
    seeds: Annotated[tuple[int, ...], _settings.SEEDS]


def write(file: pathlib.Path, values: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    _files.write_json(file, dict(values))


def read(file: str) -> dict[str, Any]:
    """What was written. Raises UserError for a file that is not there, damaged, or no recipe."""
    shown = f"the recipe {text.plain(file)}"
    try:
        place = _files.place(file, "recipe")
        if not place.is_file() or place.stat().st_size > LARGEST:
            place.open("rb").close()  # where it is not there, that is told
            raise base.UserError(f"{shown} is no recipe: expected a file of at most {LARGEST} bytes")
        values = _files.read_json(place)
    except OSError as error:
        raise base.UserError(f"{shown} cannot be read: {error.strerror}") from error
    except _files.DamagedFileError as error:
        raise base.UserError(
            f"{shown} is not as `mcu-jax tune` writes one: {text.plain(error)}. Give a whole copy of it, or tune "
            "again; values of one's own are asked for as NAME:key=value"
        ) from error
    if (values.get("kind"), values.get("schema")) != (KIND, SCHEMA):
        raise base.UserError(f"{shown} is not one of schema {SCHEMA}, as `mcu-jax tune` writes it; tune again")
    try:
        told = _settings.build(_Told, {name: value for name, value in values.items() if name in _NAMES})
        found = values.get("methods")
        if not isinstance(found, Mapping) or not all(isinstance(each, Mapping) for each in found.values()):
            raise base.UserError(f"methods holds values by the names of methods, given {text.show(found)}")
        bound = {name: {**each, "values": _bound(name, each.get("values"))} for name, each in found.items()}
    except base.UserError as error:
        raise base.UserError(f"{shown} holds what no recipe does: {error}") from error
    return {**values, **dataclasses.asdict(told), "seeds": list(told.seeds), "methods": bound}


_NAMES = {field.name for field in dataclasses.fields(_Told)}


def _bound(name: str, values: Any) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise base.UserError(f"values of {text.plain(name)} are hyper-parameters by name, given {text.show(values)}")
    return registry.bind(registry.get(methods, name, "method"), values, f"method {name}")


def over(recipe: Mapping[str, Any], file: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with what is in the file, and the file, in place of its own. MCU's values are those of the path."""
    found = {name: method["values"] for name, method in file["methods"].items()}
    mcu = found.pop("mcu", {})
    of_path = {part: {k: mcu.get(k, own) for k, own in recipe[part].items()} for part in ("path", "mask")}
    tuned = {name: {**recipe["methods"].get(name, {}), **values} for name, values in found.items()}
    same = {name: file[name] for name in ("train_size", "validation_size", "forget", "train", "pre")}
    return {**recipe, **same, **of_path, "methods": {**recipe["methods"], **tuned}, "file": file}


def check(name: str, file: Mapping[str, Any], data_hash: str, model: str, reported: Collection[int]) -> str:
    """The digest of a file, the recipe `name`. reported: seeds that it may not have been tuned on.

    Raises UserError where data, model or seeds are not those that it is for.
    """
    shown = f"the recipe {text.plain(name)}"
    if file["data_hash"] != data_hash:
        raise base.UserError(
            f"{shown} was tuned on {text.plain(file['dataset'])}, data of hash {file['data_hash'][:12]}…; this data "
            f"has {data_hash[:12]}…: give its own data, or tune on this"
        )
    if file["model"] != model:
        raise base.UserError(
            f"{shown} was tuned for model {text.plain(file['model'])}, given {text.plain(model)}: give its own by "
            "--model, or tune this one"
        )
    refuse_seeds(shown, file, reported)
    return _files.digest(dict(file))


def refuse_seeds(shown: str, file: Mapping[str, Any], reported: Collection[int]) -> None:
    """Raises UserError for seeds that a recipe was tuned on."""
    if shared := [seed for seed in file["seeds"] if seed in reported]:
        raise base.UserError(
            f"{shown} was tuned on seed {' '.join(map(str, shared))}, which would be reported too: choose --seeds "
            f"without {' '.join(map(str, file['seeds']))}"
        )
