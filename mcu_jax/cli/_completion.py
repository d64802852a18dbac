"""Completion of the whole command line in a shell."""

from __future__ import annotations

import dataclasses
import typing
from typing import Annotated, Any

from mcu_jax import registry, runs, text
from mcu_jax.cli import _export, _figure, _flags, _jobs, _messages, _report

SHELLS = ("bash", "zsh", "tcsh", "fish")


@dataclasses.dataclass(frozen=True)
class _Plain:
    """A command without flags."""


@dataclasses.dataclass(frozen=True)
class _Runs:
    json: Annotated[bool, "All that is known of them, as a JSON list."] = False


FLAGS: dict[str, tuple[type, ...]] = {
    "unlearn": (runs.Config, _jobs.Own),
    "connect": (runs.ConnectConfig, _jobs.Own),
    "tune": (runs.TuneConfig, _jobs.Own),
    "report": (_report.Report,),
    "figure": (_figure.Figure,),
    "export": (_export.Export,),
    "list": (_Plain,),
    "runs": (_Runs,),
    "diff": (_Plain,),
}


def complete(arguments: list[str]) -> int:
    """The script of a shell that completes the whole command line."""
    import tyro

    if len(arguments) > 1:
        registry.check(arguments[1], SHELLS, "shell")
    commands: list[Any] = [
        Annotated[_flags.flags_of(*kinds), tyro.conf.subcommand(name, default=_flags.switched_off(*kinds))]
        for name, kinds in FLAGS.items()
    ]
    one_of_them: Any = typing.Union[tuple(commands)]  # noqa: UP007, of a list
    try:
        tyro.cli(one_of_them, prog="mcu-jax", args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
    except SystemExit as ended:
        return int(ended.code or 0)
    except OSError as error:
        return _messages.fail(f"the completion cannot be written to {text.plain(arguments[2])}: {error.strerror}", 2)
    return 0
