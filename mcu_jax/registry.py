"""Names on a command line or in a file to functions: a module's `NAMES` are the registry, a signature is the schema.

Text is read here, where it enters; inside the library there are functions and numbers. `bind` gives the options of a
function as plain values, to be written to a file, `arguments` makes of them what the function takes.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from mcu_jax import text
from mcu_jax.base import Named, OneOf, Range, Real, Search, Switch, UserError


class UnknownNameError(UserError):
    """A name, or a hyper-parameter, that nothing has."""


def get(module: ModuleType, name: str, what: str) -> Any:
    """The member `name` of a module, one of its `NAMES`. Raises UnknownNameError: the nearest name, and all of them."""
    check(name, module.NAMES, what)
    return getattr(module, name)


def check(name: str, names: Iterable[str], what: str) -> None:
    """Raises UnknownNameError, with the nearest name and the whole list, unless the name is one of them."""
    names = list(names)
    if name not in names:
        listed = f"There are: {', '.join(names)}" if names else "There are none"
        raise UnknownNameError(f"there is no {what} {text.show(name)}{_nearest(name, names)} {listed}")


def parse(spec: str) -> tuple[str, dict[str, Any]]:
    """`NAME:key=value,key=value` to (name, options); values as `text.read` takes them, `hidden=[64, 64]` included.

    Raises UserError for a part that is not key=value, a key given twice, or a value that cannot be read.
    """
    name, colon, rest = spec.partition(":")
    if colon and not _split(rest):
        raise UserError(f"options are written NAME:key=value,key=value; given none in {text.show(spec)}")
    options: dict[str, Any] = {}
    for part in _split(rest):
        key, equals, value = part.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise UserError(
                f"options are written NAME:key=value,key=value; given {text.show(part)} in {text.show(spec)}"
            )
        if key.strip() in options:
            raise UserError(f"option {text.show(key.strip())} is given twice in {text.show(spec)}")
        try:
            options[key.strip()] = text.read(value)
        except text.TextError as error:
            raise UserError(f"{text.plain(spec)}: {text.plain(key.strip())} cannot be read: {error}") from error
    return name.strip(), options


def spec(given: str, options: Mapping[str, Any]) -> str:
    """The inverse of `parse`: a name, or a text with options, with further ones added or set anew."""
    if not options:
        return given
    name, earlier = parse(given)
    return f"{name}:" + ",".join(f"{key}={_written(value)}" for key, value in {**earlier, **options}.items())


def _written(value: Any) -> str:
    """As `parse` reads it back, which takes every number for a float."""
    whole = isinstance(value, float) and value.is_integer() and abs(value) < _LARGEST_WHOLE
    return str(int(value)) if whole else str(value)


_LARGEST_WHOLE = 1e16
"""From here on Python writes a float by its exponent, and so do we."""


class _Option(NamedTuple):
    """One hyper-parameter. group: the parameter of the function that it is a field of, None for the function itself."""

    default: Any
    range: Range
    words: OneOf | None
    named: Named | None
    search: Search | None
    group: str | None


def schema(function: Callable) -> dict[str, Any]:
    """The hyper-parameters of a function that a line of text can set, with their defaults as text would give them.

    A group of settings (a NamedTuple default, such as `train`) stands here as its fields.
    """
    return {name: _as_text(option.default, option.named) for name, option in _options(function).items()}


def search_space(function: Callable) -> dict[str, Search]:
    """The hyper-parameters of a function that a search draws, by name; a group's fields among them."""
    return {name: option.search for name, option in _options(function).items() if option.search}


@functools.cache
def _options(function: Callable) -> dict[str, _Option]:
    hints = typing.get_type_hints(function, include_extras=True)
    options = {}
    for parameter in inspect.signature(function).parameters.values():
        default = parameter.default
        hint = hints.get(parameter.name)
        is_inner = isinstance(default, bool) and Switch not in getattr(hint, "__metadata__", ())
        if parameter.kind != parameter.KEYWORD_ONLY or is_inner or default is parameter.empty:
            continue
        if hasattr(default, "_fields"):
            inner = typing.get_type_hints(type(default), include_extras=True)
            for field, value in default._asdict().items():
                options[field] = _option(value, inner[field], parameter.name)
        else:
            options[parameter.name] = _option(default, hint, None)
    return options


def _option(default: Any, hint: Any, group: str | None) -> _Option:
    marks = getattr(hint, "__metadata__", ())

    def marked(kind: Any, otherwise: Any = None) -> Any:
        return next((mark for mark in marks if isinstance(mark, kind)), otherwise)

    return _Option(default, marked(Range, Real), marked(OneOf), marked(Named), marked(Search), group)


def bind(function: Callable, options: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The options as plain values, each of its default's type and in its range.

    Raises UnknownNameError for an option the function does not have, UserError for a value of another type, out of its
    range, or without effect.
    """
    accepted = _options(function)
    bound = {}
    for name, value in options.items():
        if name not in accepted:
            listed = ", ".join(f"{k}={v}" for k, v in schema(function).items()) or "none"
            near = _nearest(name, accepted)
            raise UnknownNameError(f"{what} has no hyper-parameter {text.show(name)}{near} It has: {listed}")
        option = accepted[name]
        if option.words:
            check(str(value), option.words.words, name)
        if option.named:
            bound[name] = _bind_named(value, option.named, f"{what}: {name}")
        else:
            bound[name] = _as(value, option.default, option.range, f"{what}: {name}")
    for name, chosen in without_effect(function, bound):
        raise UserError(f"{what}: {name} has no effect with {chosen}, which has none; leave it out")
    return bound


def without_effect(function: Callable, options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(option, why) of those that the chosen optimiser does not look at."""
    accepted = _options(function)
    if "optimizer" not in accepted:
        return []
    chosen = options.get("optimizer", _as_text(accepted["optimizer"].default, accepted["optimizer"].named))
    optimizers = importlib.import_module("mcu_jax.optimizers")
    optimizer = getattr(optimizers, parse(chosen)[0])
    shared = ("momentum", "weight_decay")
    return [
        (name, f"optimizer {chosen}") for name in shared if name in options and not optimizers.takes(optimizer, name)
    ]


def arguments(function: Callable, options: Mapping[str, Any]) -> dict[str, Any]:
    """What the function takes for bound options: names as functions, a group's fields as the group."""
    accepted = _options(function)
    taken: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        option = accepted[name]
        if option.named and isinstance(value, str):
            value = _resolve(value, option.named)
        if option.group:
            groups.setdefault(option.group, {})[name] = value
        else:
            taken[name] = value
    signature = inspect.signature(function).parameters
    return {**taken, **{name: signature[name].default._replace(**fields) for name, fields in groups.items()}}


def _module(named: Named) -> Any:
    return importlib.import_module(f"mcu_jax.{named.module}")


def _bind_named(value: Any, named: Named, where: str) -> str:
    """Checked, and as it was written."""
    if not isinstance(value, str):
        raise UserError(f"{where} takes NAME or NAME:key=value, given {text.show(value)}")
    if value != named.none:
        name, options = parse(value)
        names = _module(named).NAMES if named.none is None else (named.none, *_module(named).NAMES)
        check(name, names, named.what)
        bind(getattr(_module(named), name), options, f"{named.what} {name}")
    return value


def _resolve(value: str, named: Named) -> Any:
    if value == named.none:
        return None
    name, options = parse(value)
    function = getattr(_module(named), name)
    taken = arguments(function, bind(function, options, f"{named.what} {name}"))
    return functools.partial(function, **taken) if taken else function


def _as_text(value: Any, named: Named | None) -> Any:
    if named is None:
        return value
    return named.none if value is None else getattr(value, "__name__", value)


def _as(value: Any, default: Any, bounds: Range, where: str) -> Any:
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        raise UserError(f"{where} takes {Switch.words}, given {text.show(value)}")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, int | float) and number:
        if not bounds.holds(value):
            raise UserError(f"{where} must be {bounds.words}, given {text.show(value)}")
        if isinstance(default, float):
            return float(value)
        if float(value).is_integer():
            return int(value)
    if isinstance(default, str) and (isinstance(value, str) or number):
        return value
    if isinstance(default, tuple):
        items = list(value) if isinstance(value, list | tuple) else [value]
        return tuple(_as(item, default[0], bounds, where) for item in items)
    if isinstance(default, int | float | str):
        kind = {float: "a number", int: "a whole number", str: "a word"}[type(default)]
        raise UserError(f"{where} takes {kind} (default {default}), given {text.show(value)}")
    return value


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
