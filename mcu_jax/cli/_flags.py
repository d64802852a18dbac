"""Dataclasses of settings as flags."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
import typing
from collections.abc import Mapping
from typing import Annotated, Any

from mcu_jax import runs
from mcu_jax.cli import _help, _messages


def parse(arguments: list[str], command: str, *kinds: type) -> dict[str, Any] | int:
    """What is given, or the exit status where the help is shown, or what is wrong."""
    if _help.asked(arguments):
        print(_help.screen(command, kinds, whole=_help.ALL in arguments))
        return 0
    import tyro

    wrong = io.StringIO()
    try:
        with contextlib.redirect_stderr(wrong):
            return tyro.cli(
                flags_of(*kinds),
                args=arguments,
                prog=f"mcu-jax {command}",
                default=switched_off(*kinds),
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as ended:
        if wrong.getvalue():
            print(wrong.getvalue()[: _messages.LONGEST].rstrip(), file=sys.stderr)
        return int(ended.code or 0)


def switched_off(*kinds: type) -> dict[str, bool]:
    """Every switch as it is by default: where there is none tyro has a --no-quiet beside --quiet."""
    settings = (entry for kind in kinds for entry in runs.settings(kind).items())
    return {name: False for name, setting in settings if setting.kind is bool}


def flags_of(*kinds: type) -> Any:
    """Dataclasses of settings as tyro shall take them: only what is given, a default shown only where there is one."""
    import tyro

    flags: dict[str, Any] = {}
    for kind in kinds:
        for name, setting in runs.settings(kind).items():
            if dataclasses.is_dataclass(setting.kind) and isinstance(setting.kind, type):
                flags[name] = flags_of(setting.kind)
            else:
                arg = tyro.conf.arg(help=setting.help, help_behavior_hint=_help.default(setting.default))
                flags[name] = Annotated[setting.kind, arg]
    typed = typing.TypedDict(kinds[0].__name__, flags, total=False)  # type: ignore[misc]
    typed.__doc__ = kinds[0].__doc__
    return typed


def over(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a file with those given on the command line in their place, group by group."""
    merged = {str(name).replace("-", "_"): value for name, value in values.items()}
    for name, value in given.items():
        merged[name] = over(merged.get(name, {}), value) if isinstance(value, dict) else value
    return merged
