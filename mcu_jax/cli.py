"""The command line, mcu-jax."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import os
import signal
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mcu_jax import curricula, curves, datasets, methods, metrics, models, optimizers, registry, report, runs
from mcu_jax.checkpoint import DamagedCheckpointError

USAGE = """mcu-jax: machine unlearning through mode connectivity

  mcu-jax unlearn [--flags]   unlearn along a path and compare; without a flag, on scikit-learn's digits
  mcu-jax connect --a finetune --b npo [--flags], or --grid methods
                              connect models unlearned in different ways: barriers, metrics on the way, similarity
  mcu-jax COMMAND --help      every flag
  mcu-jax list                the methods, curves, models, metrics and data sets there are, and their hyper-parameters

The same from Python, in mcu_jax.runs: `unlearn(Config(...))` and `connect(ConnectConfig(...))`.
"""

HELP = ("-h", "--help", "help")


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: exits with 0, 1 (a stage failed), 2 (bad input) or 130 (interrupted)."""
    try:
        status = run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)


def run(arguments: list[str]) -> int:
    """Runs one command and gives its exit status."""
    commands: dict[str, Callable[[list[str]], int]] = {"unlearn": _unlearn, "connect": _connect, "list": _list}
    if not arguments or arguments[0] in HELP:
        print(USAGE, end="")
        return 0
    name, rest = arguments[0], arguments[1:]
    try:
        registry.check(name, commands, "command")
        return commands[name](rest)
    except (runs.ConfigError, registry.UnknownNameError, DamagedCheckpointError) as error:
        return _fail(str(error), 2)
    except runs.StageFailedError as error:
        return _fail(str(error), 1)
    except BrokenPipeError:
        raise
    except OSError as error:  # a full disk, a directory that went away
        return _fail(f"{error}; what was finished is kept: give the same command again to go on", 1)
    except runs.InterruptedRunError as error:
        return _fail(f"{error}; what was finished is kept: give the same command again to go on", 130)
    except KeyboardInterrupt:
        return _fail("interrupted; finished stages are kept: give the same command again to go on", 130)


def _fail(message: str, status: int) -> int:
    print(f"mcu-jax: {message}", file=sys.stderr)
    return status


def _unlearn(arguments: list[str]) -> int:
    return _job(arguments, runs.Config, lambda config, observer: runs.unlearn(config, observer))


def _connect(arguments: list[str]) -> int:
    return _job(arguments, runs.ConnectConfig, lambda config, observer: runs.connect(config, observer))


def _job(arguments: list[str], kind: Any, run: Callable[[Any, runs.Observer], runs.Run]) -> int:
    import tyro
    import yaml

    try:
        given = tyro.cli(
            _flags(kind, _Own),
            args=arguments,
            prog=f"mcu-jax {kind.KIND}",
            default={"quiet": False, "dry_run": False},
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except SystemExit as ended:  # tyro has shown the help, or what is wrong
        return int(ended.code or 0)
    own = {name: given.pop(name, None) for name in ("config", "quiet", "dry_run")}
    values = runs.read_yaml(own["config"]) if own["config"] else {}
    runs.from_mapping(values, kind)  # what is wrong in the file is an error, even where the command line wins
    config = runs.from_mapping(_over(values, given), kind)
    if own["dry_run"]:
        resolved, stages, directory = runs.plan(config)
        print(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
        print(f"run directory: {directory}\nstages, for {_seeds(resolved['seeds'])}:")
        for name, finished, missing in stages:
            print(f"  {name}: {missing} to compute, {finished} finished")
        return 0
    with _Progress(quiet=bool(own["quiet"])) as progress:
        made = run(config, progress)
    table = report.write(made.directory)
    if not own["quiet"]:
        figures = ", ".join(sorted(file.name for file in made.directory.glob("*.png")))
        print(f"{table}\n\nWritten to {made.directory}: results.json, {figures}, config.yaml, splits and stages.")
    return 0


@dataclasses.dataclass(frozen=True)
class _Own:
    """What a command is told beside the configuration of its job."""

    config: str | None = None
    """A YAML file of the same settings, as config.yaml in a run directory; the command line wins."""
    quiet: bool = False
    """Print nothing but errors: the run directory has the results."""
    dry_run: bool = False
    """Show the resolved configuration and what would be computed, and stop."""


def _flags(*kinds: type) -> Any:
    """Dataclasses of settings as tyro shall take them: only what is given, a default shown only where there is one."""
    import tyro

    found: dict[str, Any] = {}
    for kind in kinds:
        told, hints = _texts(kind), typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            hint = hints[field.name]
            if dataclasses.is_dataclass(hint):
                found[field.name] = _flags(hint)  # type: ignore[arg-type]
            else:
                arg = tyro.conf.arg(help=told[field.name], help_behavior_hint=_default(field.default))
                known = [part for part in typing.get_args(hint) if part is not types.NoneType]
                optional = types.NoneType in typing.get_args(hint)
                found[field.name] = typing.Annotated[known[0] if optional else hint, arg]
    flags = typing.TypedDict(kinds[0].__name__, found, total=False)  # type: ignore[misc]
    flags.__doc__ = kinds[0].__doc__
    return flags


def _default(value: Any) -> str:
    if value is None or value is False or value == ():
        return ""
    return f"(default: {' '.join(map(str, value)) if isinstance(value, tuple) else value})"


def _texts(kind: type) -> dict[str, str]:
    """The string under every field of a dataclass, those of its base first."""
    told = _texts(kind.__base__) if dataclasses.is_dataclass(kind.__base__) else {}
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    for field, text in itertools.pairwise(definition.body):  # type: ignore[attr-defined]
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            told[field.target.id] = text.value.value  # type: ignore[attr-defined,union-attr]
    return told


def _over(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a file with those given on the command line in their place, group by group."""
    merged = {str(name).replace("-", "_"): value for name, value in values.items()}
    for name, value in given.items():
        merged[name] = _over(merged.get(name, {}), value) if isinstance(value, dict) else value
    return merged


class _Progress:
    """An observer that shows a bar on a terminal and lines elsewhere, and turns Ctrl-C into a request to stop."""

    def __init__(self, *, quiet: bool):
        self.quiet, self.stopping = quiet, False
        self.bar: Any = None
        self.tasks: dict[int | None, Any] = {}
        """Of the seeds that are trained just now, None for all of them together."""

    def __enter__(self) -> _Progress:
        self.before = signal.signal(signal.SIGINT, self._interrupted)
        if not self.quiet and sys.stderr.isatty():
            from rich import console, progress

            self.bar = progress.Progress(
                progress.SpinnerColumn(),
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.TextColumn("{task.fields[loss]}"),
                progress.TimeElapsedColumn(),
                progress.TimeRemainingColumn(),
                console=console.Console(stderr=True),
                transient=True,
            )
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self.before)
        if self.bar:
            self.bar.stop()

    def _interrupted(self, _signal: int, _frame: types.FrameType | None) -> None:
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True
        self.note("stopping as soon as nothing is lost by it; Ctrl-C again stops at once")

    def stage(self, name: str, seeds: Sequence[int], cached: int) -> None:
        if self.bar:
            self.tasks[None] = self.bar.add_task(f"{name} · {_seeds(seeds)}", total=None, loss="")

    def progress(self, name: str, seed: int, step: int, steps: int, loss: float) -> None:
        if self.bar:
            if seed not in self.tasks:  # the time left is that of one seed's training
                self.tasks[seed] = self.bar.add_task(f"{name} · seed {seed}", total=steps, loss="")
            self.bar.update(self.tasks[seed], completed=step, total=steps, loss=f"loss {loss:.3f}")

    def finished(self, name: str, seconds: float, compile_seconds: float) -> None:
        if self.bar:
            for task in self.tasks.values():
                self.bar.remove_task(task)
            self.tasks = {}
        self.note(f"{name}: {seconds:.1f} s, and {compile_seconds:.1f} s compiling")

    def note(self, text: str) -> None:
        if self.quiet:
            return
        if self.bar:
            self.bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def should_stop(self) -> bool:
        return self.stopping


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"


_LISTED = {
    "methods": methods,
    "optimizers": optimizers,
    "curricula": curricula,
    "curves": curves,
    "models": models,
    "metrics": metrics,
}


def _list(arguments: list[str]) -> int:
    """Plain lines, name first."""
    if arguments and arguments[0] in HELP:
        print(USAGE, end="")
        return 0
    if arguments:
        return _fail(f"list takes no arguments, given {' '.join(arguments)}", 2)
    for title, module in _LISTED.items():
        print(f"{title}:")
        for name in module.NAMES:
            function = getattr(module, name)
            print(f"  {name:<16}{_first_line(function)}{_options(function, title)}")
    print("datasets:")
    for name in datasets.NAMES:
        print(f"  {name:<16}{_first_line(getattr(datasets, name))}")
    print("  NAME            any image-classification set prepared by tensorflow-datasets, with --data-dir")
    return 0


def _first_line(function: Any) -> str:
    return (function.__doc__ or "").strip().partition("\n")[0]


def _options(function: Any, title: str) -> str:
    if title in ("curves", "metrics"):
        return ""
    options = [f"{name}={value}" for name, value in registry.schema(function).items()]
    return f" [{', '.join(options)}]" if options else ""


if __name__ == "__main__":
    main()
