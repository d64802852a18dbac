"""Help as plain text: settings in groups, the usual ones on one screen."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from mcu_jax import runs
from mcu_jax.cli import _messages

HELP, ALL = ("-h", "--help"), "--help-all"
NARROWEST, WIDEST = 60, 100
COLUMN = 24
"""Where the words beside the flags begin."""
MOST_LINES = 2
"""Of a flag, on the first screen."""
OTHER = "options"
"""The group of what is in none."""
_KINDS = {str: "TEXT", int: "INT", float: "NUMBER", bool: ""}
_FIRST = re.compile(r"[;.] | \(default")
"""Where the first thing that is said of a setting ends."""


def asked(arguments: Sequence[str]) -> bool:
    return any(argument in (*HELP, ALL) for argument in arguments)


def screen(command: str, kinds: Sequence[type], *, whole: bool) -> str:
    """Help of a command, for the terminal's width. whole: every flag, with all there is to say of it."""
    width, every = max(NARROWEST, _messages.columns(WIDEST)), list(flags(kinds))
    whole = whole or all(group.usual for *_, group in every)
    told = inspect.cleandoc(kinds[0].__doc__ or "").split("\n\n")
    lines = [f"mcu-jax {command} [--flags]", ""]
    lines += [line for part in told[: None if whole else 1] for line in (*_wrapped(part, width), "")]
    grouped: dict[str, list[str]] = {}
    for flag, setting, group in every:
        if whole or group.usual:
            grouped.setdefault(group.title, []).extend(_entry(flag, setting, width, whole=whole))
    for title in sorted(grouped, key=(*runs.GROUPS, OTHER).index):
        lines += [f"{title}:", *grouped[title]]
    if not whole:
        lines.append(f"Every flag, in full: mcu-jax {command} {ALL}. Every NAME: mcu-jax list.")
    return "\n".join(line.rstrip() for line in lines)


def flags(kinds: Sequence[type]) -> Iterator[tuple[str, runs.Setting, runs.Group]]:
    """(flag without its dashes, setting, group), those of groups of settings by their dotted names."""
    for kind in kinds:
        for name, setting in runs.settings(kind).items():
            group, flag = setting.group or runs.Group(OTHER, usual=True), name.replace("_", "-")
            if dataclasses.is_dataclass(setting.kind) and isinstance(setting.kind, type):
                yield from ((f"{flag}.{inner}", one, group) for inner, one, _ in flags([setting.kind]))
            else:
                yield flag, setting, group


def default(value: Any) -> str:
    if value is None or value is False or value == ():
        return ""
    return f"(default: {' '.join(map(str, value)) if isinstance(value, tuple) else value})"


def _entry(flag: str, setting: runs.Setting, width: int, *, whole: bool) -> list[str]:
    words = setting.help if whole else _FIRST.split(setting.help, maxsplit=1)[0].rstrip(".")
    head = f"  --{flag} {_kind(setting.kind)}".rstrip()
    told = textwrap.wrap(f"{words} {default(setting.default)}", width - COLUMN, break_on_hyphens=False,
                         max_lines=None if whole else MOST_LINES, placeholder=" …")  # fmt: skip
    beside, rest = ("", told) if len(head) > COLUMN - 2 else (told[0], told[1:])
    return [f"{head:<{COLUMN}}{beside}", *(" " * COLUMN + line for line in rest)]


def _kind(kind: Any) -> str:
    (one, *several) = typing.get_args(kind) or (kind,)
    return _KINDS[one] + " …" * bool(several)


def _wrapped(words: str, width: int) -> list[str]:
    return textwrap.wrap(" ".join(words.split()), width, break_on_hyphens=False)
