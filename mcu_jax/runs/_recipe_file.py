"""A recipe file: hyper-parameters that `mcu-jax tune` found, to take the place of the recipe that the library has."""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from mcu_jax import base, methods, registry, text
from mcu_jax.runs import _files

KIND, SCHEMA = "recipe", 1


def write(file: pathlib.Path, values: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    _files.write_json(file, dict(values))


def read(file: str) -> dict[str, Any]:
    """What was written. Raises UserError for a file that is not there, damaged, or no recipe."""
    shown = f"the recipe {text.plain(file)}"
    try:
        values = _files.read_json(_files.place(file, "recipe"))
    except OSError as error:
        raise base.UserError(f"{shown} cannot be read: {error.strerror}") from error
    except _files.DamagedFileError as error:
        raise base.UserError(
            f"{shown} is not as `mcu-jax tune` writes one: {text.plain(error)}. Give a whole copy of it, or tune "
            "again; values of one's own are asked for as NAME:key=value"
        ) from error
    if (values.get("kind"), values.get("schema")) != (KIND, SCHEMA):
        raise base.UserError(f"{shown} is not one of schema {SCHEMA}, as `mcu-jax tune` writes it; tune again")
    for name, found in values["methods"].items():
        method = registry.get(methods, name, f"method in {shown}:")
        registry.bind(method, found["values"], f"{shown}: method {name}")
    return values


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
