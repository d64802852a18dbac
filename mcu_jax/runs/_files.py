"""Small files of a run directory: written all or nothing, with a digest that is checked when they are read."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from typing import Any

from mcu_jax import base

SEAL = "# sha256: "


class DamagedFileError(base.UserError):
    """A file that is not what was written."""


def new(file: pathlib.Path) -> pathlib.Path:
    """Where it is written first."""
    return file.with_name(f".{file.name}.new")


def write(file: pathlib.Path, text: str) -> None:
    with new(file).open("w", encoding="utf-8") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    new(file).replace(file)


def write_json(file: pathlib.Path, values: dict[str, Any]) -> None:
    """With a digest as the last entry. Raises ValueError for a number that JSON does not have."""
    write(file, json.dumps({**values, "sha256": digest(values)}, indent=1, allow_nan=False) + "\n")


def read_json(file: pathlib.Path) -> dict[str, Any]:
    """What `write_json` was given. Raises DamagedFileError."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        told = values.pop("sha256")
        intact = told == digest(values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedFileError(f"{file} cannot be read ({type(error).__name__})") from error
    if not intact:
        raise DamagedFileError(f"{file} is not as it was written")
    return values


def digest(values: dict[str, Any]) -> str:
    """sha256 of JSON values, however their text is laid out."""
    return sha256(json.dumps(values, sort_keys=True))


def write_sealed(file: pathlib.Path, text: str) -> None:
    """Text with its digest in a comment at its end."""
    write(file, f"{text}{SEAL}{sha256(text)}\n")


def check_sealed(file: pathlib.Path) -> None:
    """Raises DamagedFileError where the text does not go with its digest, or has none."""
    try:
        text, seal, told = file.read_text(encoding="utf-8").rpartition(SEAL)
    except ValueError as error:
        raise DamagedFileError(f"{file} is not text ({error})") from error
    if not seal or told != f"{sha256(text)}\n":
        raise DamagedFileError(f"{file} is not as it was written")


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
