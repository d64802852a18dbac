"""Completion of the whole command line in a shell."""

from __future__ import annotations

import dataclasses
import importlib
import typing
from typing import Annotated, Any

from mcu_jax import registry, text
from mcu_jax.cli import _flags, _main, _messages

SHELLS = ("bash", "zsh", "tcsh", "fish")


@dataclasses.dataclass(frozen=True)
class _Plain:
    """A command without flags."""


def complete(arguments: list[str]) -> int:
    """The script of a shell that completes the whole command line."""
    import tyro

    if len(arguments) > 1:
        registry.check(arguments[1], SHELLS, "shell")
    commands: list[Any] = [
        Annotated[_flags.flags_of(*kinds), tyro.conf.subcommand(name, default=_flags.switched_off(*kinds))]
        for name, kinds in ((name, _kinds(name, home)) for name, home in _main.COMMANDS.items())
    ]
    one_of_them: Any = typing.Union[tuple(commands)]  # noqa: UP007, of a list
    try:
        tyro.cli(one_of_them, prog="mcu-jax", args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
    except SystemExit as ended:
        return int(ended.code or 0)
    except OSError as error:
        return _messages.fail(f"the completion cannot be written to {text.plain(arguments[2])}: {error.strerror}", 2)
    return 0


def _kinds(command: str, home: str) -> tuple[type, ...]:
    """The dataclasses of a command's flags."""
    module = importlib.import_module(f"mcu_jax.cli.{home.partition('.')[0]}")
    return getattr(module, "FLAGS", {}).get(command, (_Plain,))
