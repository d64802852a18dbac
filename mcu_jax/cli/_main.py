"""Which command is asked for, and how it ends."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from importlib import metadata

from mcu_jax import text
from mcu_jax.cli import _messages

USAGE = """mcu-jax: machine unlearning through mode connectivity

  mcu-jax unlearn [--flags]   unlearn along a path and compare; without a flag, on scikit-learn's digits
  mcu-jax connect --a finetune --b npo [--flags], or --grid methods
                              connect models unlearned in different ways: barriers, metrics on the way, similarity
  mcu-jax tune [--methods finetune mcu] [--tries 16] [--flags]
                              tune methods alike, on seeds of their own, and write a recipe file for --recipe
  mcu-jax report RUN… [--to FILE.html]
                              a page of a run, or of several side by side, to open in a browser
  mcu-jax figure NAME RUN [--to FILE.pdf] [--width page]
                              one chart of that page as PDF, SVG or PNG for a paper, and its data; without NAME which
                              there are
  mcu-jax export RUN --to DIR [--seed 0] [--t best | --method npo]
                              a model of a run as a checkpoint that plain orbax reads
  mcu-jax runs [DIR …] [--json]
                              the runs in runs/, or in other folders: state, age, size, what came out
  mcu-jax diff A B            two runs side by side: settings, versions, data, and what came out
  mcu-jax COMMAND --help      the usual flags; --help-all every flag
  mcu-jax list                the methods, curves, models, metrics and data sets there are, and their hyper-parameters
  mcu-jax --version
  mcu-jax --tyro-print-completion bash, or zsh, or fish
                              completion of commands and flags, as `source <(mcu-jax --tyro-print-completion bash)`

The same from Python, in mcu_jax.runs: `unlearn(Config(...))`, `connect(ConnectConfig(...))`, `tune(TuneConfig(...))`;
the page: `mcu_jax.report.page(RUN)`.
"""

HELP = ("-h", "--help", "help")
COMMANDS = {
    "unlearn": "_jobs.unlearn",
    "connect": "_jobs.connect",
    "tune": "_jobs.tune",
    "report": "_report.report",
    "figure": "_figure.figure",
    "export": "_export.export",
    "list": "_list.names",
    "runs": "_runs.table",
    "diff": "_diff.compare",
}
"""The function of each, which is given the arguments after the command and gives the exit status. What flags it has its
module says in `FLAGS`, for completion in a shell."""
COMPUTING = ("unlearn", "connect", "tune", "export")
COMPLETION = ("--tyro-print-completion", "--tyro-write-completion")
LONGEST_ARGUMENT = 4096


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: exits with 0, 1 (a stage failed), 2 (bad input) or 130 (interrupted)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given and given[0] in COMPUTING and "--no-compile-cache" not in given:
            from mcu_jax.cli import _devices

            _devices.keep_compilations()  # of a whole process, which therefore `run` does not do
        status = run(given)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)


def run(arguments: list[str]) -> int:
    """Runs one command and gives its exit status."""
    if not arguments or arguments[0] in HELP:
        print(USAGE, end="")
        return 0
    if arguments == ["--version"]:
        print(f"mcu-jax {metadata.version('mcu-jax')}")
        return 0
    try:
        _check_arguments(arguments)
        return _command(*arguments)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        return _messages.fail("interrupted; finished stages are kept: give the same command again to go on", 130)
    except Exception as error:
        from mcu_jax.cli import _errors

        status = _errors.told(error)
        if status is None:
            raise
        return status


def _command(name: str, *rest: str) -> int:
    if name in COMPLETION:
        from mcu_jax.cli import _completion

        return _completion.complete([name, *rest])
    if name not in COMMANDS:
        from mcu_jax import registry

        registry.check(name, COMMANDS, "command")
    if name == "list" and rest and rest[0] in HELP:
        print(USAGE, end="")
        return 0
    module, function = COMMANDS[name].split(".")
    return getattr(importlib.import_module(f"mcu_jax.cli.{module}"), function)([*rest])


def _check_arguments(arguments: Sequence[str]) -> None:
    """Raises TextError for what no option is: tyro would print it as it is."""
    for argument in arguments:
        if len(argument) > LONGEST_ARGUMENT:
            length = f"{len(argument)} characters, at most {LONGEST_ARGUMENT} are read"
            raise text.TextError(f"an argument has {length}: {text.show(argument)}")
        if not argument.isprintable():
            raise text.TextError(f"an argument holds a control character: {text.show(argument)}")
