"""All text a user gives, read by one reader: YAML of plain scalars, lists and mappings, within limits.

Aliases, anchors and tags are refused: 300 bytes of aliases unfold to gigabytes.
"""

from __future__ import annotations

import os
import pathlib
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

import yaml

LONGEST = 300_000
"""Bytes of a text: two seconds of reading."""
DEEPEST = 20
"""Lists and mappings inside each other."""
DIGITS = 20
"""Of a whole number; a longer one is written as 1e30."""
SHOWN = 80
"""Characters of a value in a message."""

_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}
_WHOLE = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.?(inf|Inf|INF)|\.?(nan|NaN|NAN)")


class TextError(ValueError):
    """A text that cannot be read."""


def read(text: str) -> Any:
    """The value of a text: None, a boolean, a number (1e-4 too), a word, a list, or a mapping with words as keys.

    Raises TextError, in one short message, for a text that is no such YAML or is beyond the limits.
    """
    if len(text) > LONGEST:
        raise TextError(f"it has {len(text)} characters, at most {LONGEST} are read")
    try:
        events = (event for event in yaml.parse(text) if not isinstance(event, _MARKS))
        event = next(events, None)
        value = None if event is None else _value(event, events, 0)
        if next(events, None) is not None:
            raise TextError("it holds a second document")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise TextError(f"{plain(error.problem or error.context or 'it cannot be parsed')}{place}") from None
    except yaml.reader.ReaderError as error:
        raise TextError(f"character {error.position + 1} cannot be in a text") from None
    return value


def read_file(file: str | os.PathLike[str]) -> Any:
    """The same from a file. Raises TextError, naming the file, also where it cannot be read."""
    try:
        with pathlib.Path(file).open("rb") as opened:
            content = opened.read(LONGEST + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        raise TextError(f"{plain(file)} cannot be read: {getattr(error, 'strerror', error)}") from error
    if len(content) > LONGEST:
        raise TextError(f"{plain(file)} has more than {LONGEST} bytes")
    try:
        return read(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise TextError(f"{plain(file)} is not YAML: it is not UTF-8 text (byte {error.start})") from error
    except TextError as error:
        raise TextError(f"{plain(file)} is not YAML as it is read here: {error}") from error


def show(value: Any) -> str:
    """A value as a message quotes it: its repr, cut to 80 characters."""
    try:
        return plain(repr(value))
    except (ValueError, RecursionError):  # an integer of more digits than Python writes, or a list in itself
        return f"a very large {type(value).__name__}"


def plural(n: int, word: str, words: str | None = None) -> str:
    """`1 example`, `2 examples`. words: the plural of another form."""
    return f"{n} {word if n == 1 else words or word + 's'}"


def plain(text: object) -> str:
    """A text in a message, without quotes: cut to 80 characters, control characters escaped."""
    text = printable(str(text))
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def printable(text: str) -> str:
    """Control characters escaped, those that turn the direction of writing and lone surrogates too."""
    return "".join(c if _is_harmless(c) else c.encode("unicode_escape").decode() for c in text)


def _is_harmless(character: str) -> bool:
    """Spaces of other widths are: names of files hold them."""
    return character.isprintable() or unicodedata.category(character) == "Zs"


_MARKS = (yaml.StreamStartEvent, yaml.StreamEndEvent, yaml.DocumentStartEvent, yaml.DocumentEndEvent)


def _value(event: Any, events: Iterator[Any], depth: int) -> Any:
    if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
        raise TextError(f"anchors and aliases (&{plain(event.anchor)}) are not read: write the value itself")
    if event.tag not in (None, "!"):
        raise TextError(f"tags ({plain(event.tag)}) are not read: write the value itself")
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event.value) if event.implicit[0] else event.value
    if depth == DEEPEST:
        raise TextError(f"lists and mappings lie more than {DEEPEST} deep in each other")
    if isinstance(event, yaml.SequenceStartEvent):
        return [_value(item, events, depth + 1) for item in _until(yaml.SequenceEndEvent, events)]
    mapping: dict[str, Any] = {}
    for item in _until(yaml.MappingEndEvent, events):
        if not isinstance(item, yaml.ScalarEvent):
            raise TextError("a list or a mapping cannot be a key")
        if item.value in mapping:
            raise TextError(f"key {show(item.value)} is given twice")
        mapping[item.value] = _value(next(events), events, depth + 1)
    return mapping


def _until(end: type, events: Iterator[Any]) -> Iterator[Any]:
    """Events up to the end of the list or mapping they belong to."""
    while not isinstance(event := next(events), end):
        yield event


def _scalar(word: str) -> Any:
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    if _WHOLE.fullmatch(word):
        if len(word) > DIGITS:
            raise TextError(f"a whole number of {len(word)} digits is not read, at most {DIGITS}; write it as 1e30")
        return int(word)
    return float(word.replace(".inf", "inf").replace(".nan", "nan")) if _NUMBER.fullmatch(word) else word
