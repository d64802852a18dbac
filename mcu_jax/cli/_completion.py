"""Completion of the whole command line in a shell."""

from __future__ import annotations

import typing

from mcu_jax import registry, runs, text
from mcu_jax.cli import _export, _flags, _jobs, _messages, _report


class _Runs(typing.TypedDict, total=False):
    json: bool


SHELLS = ("bash", "zsh", "tcsh", "fish")


def complete(arguments: list[str]) -> int:
    """The script of a shell that completes the whole command line."""
    import tyro

    if len(arguments) > 1:
        registry.check(arguments[1], SHELLS, "shell")
    jobs = {"unlearn": runs.Config, "connect": runs.ConnectConfig, "tune": runs.TuneConfig}
    kinds: dict[str, tuple[type, ...]] = {name: (kind, _jobs.Own) for name, kind in jobs.items()} | {
        "report": (_report.Report,),
        "export": (_export.Export,),
    }
    flags = {command: _flags.flags_of(*kind) for command, kind in kinds.items()}
    try:
        tyro.extras.subcommand_cli_from_dict(
            {**flags, "list": dict, "runs": _Runs, "diff": dict}, prog="mcu-jax", args=arguments
        )
    except SystemExit as ended:
        return int(ended.code or 0)
    except OSError as error:
        return _messages.fail(f"the completion cannot be written to {text.plain(arguments[2])}: {error.strerror}", 2)
    return 0
