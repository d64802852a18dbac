"""Names on a command line or in a file to functions: a module's `NAMES` are the registry, a signature is the schema."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

import yaml


class UnknownNameError(ValueError):
    """A name, or a hyper-parameter, that nothing has."""


def get(module: ModuleType, name: str, what: str) -> Any:
    """The member `name` of a module, one of its `NAMES`. Raises UnknownNameError: the nearest name, and all of them."""
    check(name, module.NAMES, what)
    return getattr(module, name)


def check(name: str, names: Iterable[str], what: str) -> None:
    """Raises UnknownNameError, with the nearest name and the whole list, unless the name is one of them."""
    names = list(names)
    if name not in names:
        raise UnknownNameError(f"there is no {what} {name!r}{_nearest(name, names)} There are: {', '.join(names)}")


def parse(spec: str) -> tuple[str, dict[str, Any]]:
    """`NAME:key=value,key=value` to (name, options); values are read as YAML, `hidden=[64, 64]` included.

    Raises ValueError for a part that is not key=value, or a key given twice.
    """
    name, _, rest = spec.partition(":")
    options: dict[str, Any] = {}
    for part in _split(rest):
        key, equals, value = part.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise ValueError(f"options are written NAME:key=value,key=value; given {part!r} in {spec!r}")
        if key.strip() in options:
            raise ValueError(f"option {key.strip()!r} is given twice in {spec!r}")
        options[key.strip()] = _value(value)
    return name.strip(), options


def schema(function: Callable) -> dict[str, Any]:
    """The keyword-only hyper-parameters of a function that a line of text can set, with their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {
        p.name: p.default
        for p in parameters
        if p.kind == p.KEYWORD_ONLY and not isinstance(p.default, bool) and p.default is not p.empty
    }


def bind(function: Callable, options: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The options as keyword arguments of the function, each of its default's type.

    Raises UnknownNameError for an option it does not have, ValueError for a value of another type.
    """
    accepted = schema(function)
    bound = {}
    for name, value in options.items():
        if name not in accepted:
            listed = ", ".join(f"{k}={v}" for k, v in accepted.items()) or "none"
            near = _nearest(name, accepted)
            raise UnknownNameError(f"{what} has no hyper-parameter {name!r}{near} It has: {listed}")
        bound[name] = _as(value, accepted[name], f"{what}: {name}")
    return bound


def _as(value: Any, default: Any, where: str) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, float) and number:
        return float(value)
    if isinstance(default, int) and number and float(value).is_integer():
        return int(value)
    if isinstance(default, str) and (isinstance(value, str) or number):
        return value
    if isinstance(default, tuple):
        items = list(value) if isinstance(value, list | tuple) else [value]
        return tuple(_as(item, default[0], where) for item in items)
    if isinstance(default, int | float | str):
        kind = {float: "a number", int: "a whole number", str: "a word"}[type(default)]
        raise ValueError(f"{where} takes {kind} (default {default}), given {value!r}")
    return value


def _value(text: str) -> Any:
    try:
        return float(text)  # YAML reads 1e-4 as a word
    except ValueError:
        return yaml.safe_load(text)


def _split(text: str) -> list[str]:
    """At commas outside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part for part in parts if part.strip()]


def _nearest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else "."
