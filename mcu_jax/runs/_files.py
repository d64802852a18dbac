"""Small files of a run directory: written all or nothing, with a digest that is checked when they are read."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from typing import Any

from mcu_jax import base, disk, text

SEAL = "# sha256: "


LONGEST_NAME = 255
"""Bytes of one name in a path, as file systems have it."""
DEEPEST = 200
"""Folders in each other."""


class DamagedFileError(base.UserError):
    """A file that is not what was written."""


def place(path: str | os.PathLike[str], setting: str) -> pathlib.Path:
    """As a path, relative ones from here on. Raises UserError for one that no file system has, naming the setting."""
    if "\0" in str(path):
        raise base.UserError(f"{setting} has a NUL character in its name; choose another")
    parts = pathlib.Path(path).absolute().parts
    longest = max(len(os.fsencode(part)) for part in parts)
    if len(parts) > DEEPEST:
        raise base.UserError(f"{setting} lies {len(parts)} folders deep, at most {DEEPEST} are made; choose another")
    if longest > LONGEST_NAME:
        raise base.UserError(
            f"{setting} has a name of {longest} bytes, at most {LONGEST_NAME} can be, in {text.plain(path)}; "
            "choose another"
        )
    try:
        pathlib.Path(path).exists()
    except OSError as error:
        raise base.UserError(f"{setting} cannot be {text.plain(path)}: {error.strerror}; choose another") from error
    return pathlib.Path(path)


def write_json(file: pathlib.Path, values: dict[str, Any]) -> None:
    """With a digest as the last entry. Raises ValueError for a number that JSON does not have."""
    disk.write(file, json.dumps({**values, "sha256": digest(values)}, indent=1, allow_nan=False) + "\n")


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


def write_sealed(file: pathlib.Path, content: str) -> None:
    """Text with its digest in a comment at its end."""
    disk.write(file, f"{content}{SEAL}{sha256(content)}\n")


def check_sealed(file: pathlib.Path) -> None:
    """Raises DamagedFileError where the text does not go with its digest, or has none."""
    try:
        content, seal, told = file.read_text(encoding="utf-8").rpartition(SEAL)
    except ValueError as error:
        raise DamagedFileError(f"{file} is not text ({error})") from error
    if not seal or told != f"{sha256(content)}\n":
        raise DamagedFileError(f"{file} is not as it was written")


def sha256(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()
