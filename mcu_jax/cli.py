"""The command line, mcu-jax."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import pathlib
import platform
import shutil
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Annotated, Any

import jax

from mcu_jax import (
    augmentations,
    base,
    curricula,
    curves,
    datasets,
    methods,
    metrics,
    models,
    optimizers,
    registry,
    report,
    rules,
    runs,
    sharding,
    text,
)
from mcu_jax.checkpoint import DamagedCheckpointError

USAGE = """mcu-jax: machine unlearning through mode connectivity

  mcu-jax unlearn [--flags]   unlearn along a path and compare; without a flag, on scikit-learn's digits
  mcu-jax connect --a finetune --b npo [--flags], or --grid methods
                              connect models unlearned in different ways: barriers, metrics on the way, similarity
  mcu-jax tune [--methods finetune mcu] [--tries 16] [--flags]
                              tune methods alike, on seeds of their own, and write a recipe file for --recipe
  mcu-jax export RUN --to DIR [--seed 0] [--t best | --method npo]
                              a model of a run as a checkpoint that plain orbax reads
  mcu-jax COMMAND --help      every flag
  mcu-jax list                the methods, curves, models, metrics and data sets there are, and their hyper-parameters
  mcu-jax --version
  mcu-jax --tyro-print-completion bash, or zsh, or fish
                              completion of commands and flags, as `source <(mcu-jax --tyro-print-completion bash)`

The same from Python, in mcu_jax.runs: `unlearn(Config(...))`, `connect(ConnectConfig(...))`, `tune(TuneConfig(...))`.
"""

HELP = ("-h", "--help", "help")
LONGEST_MESSAGE = 1500
LONGEST_CAUSE = 200
LONGEST_ARGUMENT = 4096
SHELLS = ("bash", "zsh", "tcsh", "fish")


COMPILED_BYTES = 2 * 1024**3
"""Of compiled code that is kept for later runs; what was not used for longest goes first."""
SHORTEST_COMPILATION = 0.2
"""In seconds: what compiles faster is not kept."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: exits with 0, 1 (a stage failed), 2 (bad input) or 130 (interrupted)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if "--no-compile-cache" not in given:
            _keep_compilations()  # of a whole process, which therefore `run` does not do
        status = run(given)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)


def _keep_compilations() -> None:
    """In the user's cache directory, unless jax is told another place; by processor, as machines share a home."""
    if getattr(jax.config, "jax_compilation_cache_dir") is not None:  # noqa: B009, unknown to mypy
        return
    place = datasets.cache_directory() / "compiled" / _processor()
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError:  # a home that cannot be written to
        return
    jax.config.update("jax_compilation_cache_dir", str(place))
    jax.config.update("jax_compilation_cache_max_size", COMPILED_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST_COMPILATION)


def _processor() -> str:
    """A short name of what code is compiled for: the kind of machine, and what its processor can do."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    able = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()}-{hashlib.sha256(able.encode()).hexdigest()[:8]}"


def run(arguments: list[str]) -> int:
    """Runs one command and gives its exit status."""
    commands: dict[str, Callable[[list[str]], int]] = {
        "unlearn": _unlearn,
        "connect": _connect,
        "tune": _tune,
        "export": _export,
        "list": _list,
    }
    if not arguments or arguments[0] in HELP:
        print(USAGE, end="")
        return 0
    if arguments == ["--version"]:
        print(f"mcu-jax {metadata.version('mcu-jax')}")
        return 0
    name, rest = arguments[0], arguments[1:]
    try:
        _check_arguments(arguments)
        if arguments[0] in ("--tyro-print-completion", "--tyro-write-completion"):
            return _complete(arguments)
        registry.check(name, commands, "command")
        return commands[name](rest)
    except (base.UserError, text.TextError, DamagedCheckpointError) as error:
        return _fail(str(error), 2)
    except BrokenPipeError:
        raise
    except OSError as error:  # a full disk, a directory that went away
        return _fail(f"{error}; what was finished is kept: give the same command again to go on", 1)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            if sharding.are_several():
                return _lost(error)
            raise
        why = " ".join(str(error).split())[:LONGEST_CAUSE] or "MemoryError"
        return _fail(
            f"the memory is too small ({why}). Ask for a smaller model, fewer seeds at a time or smaller batches; on a "
            "GPU or TPU also for --precision bfloat16, or a deep network with remat=true; what was finished is kept",
            1,
        )
    except runs.InterruptedRunError as error:
        return _fail(f"{error}; what was finished is kept: give the same command again to go on", 130)
    except KeyboardInterrupt:
        return _fail("interrupted; finished stages are kept: give the same command again to go on", 130)


def _lost(error: Exception) -> int:
    """What computes with a process that is gone fails; so would an orderly end, which waits for it."""
    _fail(
        f"another process of this run is gone ({' '.join(str(error).split())[:LONGEST_CAUSE]}). What was finished is "
        "kept, and the state of training of the last seconds: give the same command again to every process to go on",
        1,
    )
    os._exit(1)


def _fail(message: str, status: int) -> int:
    """The last look at every message: one paragraph, no control characters."""
    message = text.printable(" ".join(message.split()))
    shown = message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}…"
    print(f"mcu-jax: {shown}", file=sys.stderr)
    return status


def _check_arguments(arguments: Sequence[str]) -> None:
    """Raises TextError for what no option is: tyro would print it as it is."""
    for argument in arguments:
        if len(argument) > LONGEST_ARGUMENT:
            length = f"{len(argument)} characters, at most {LONGEST_ARGUMENT} are read"
            raise text.TextError(f"an argument has {length}: {text.show(argument)}")
        if not argument.isprintable():
            raise text.TextError(f"an argument holds a control character: {text.show(argument)}")


def _unlearn(arguments: list[str]) -> int:
    return _job(arguments, runs.Config, runs.unlearn)


def _connect(arguments: list[str]) -> int:
    return _job(arguments, runs.ConnectConfig, runs.connect)


def _tune(arguments: list[str]) -> int:
    return _job(arguments, runs.TuneConfig, runs.tune)


def _job(arguments: list[str], kind: Any, run: Callable[..., runs.Run]) -> int:
    given = _parse(arguments, kind.KIND, kind, _Own)
    if isinstance(given, int):
        return given
    own = {setting.name: given.pop(setting.name, None) for setting in dataclasses.fields(_Own)}
    values = runs.read_yaml(own["config"]) if own["config"] is not None else {}
    runs.from_mapping(values, kind)  # what is wrong in the file is an error, even where the command line wins
    config = runs.from_mapping(_over(values, given), kind)
    if own["processes"] is not None:
        sharding.start(own["processes"])
    if own["device"] is not None:
        _use(own["device"])
    with sharding.use(_mesh(own["mesh"])):
        return _carry_out(config, run, own)


def _mesh(spec: str | None) -> Any:
    """Of several processes all devices have a part, asked for or not."""
    if spec is None and jax.process_count() == 1:
        return None
    return sharding.mesh(spec or f"{sharding.DATA}={jax.device_count()}")


def _carry_out(config: Any, run: Callable[..., runs.Run], own: Mapping[str, Any]) -> int:
    import yaml

    if own["dry_run"]:
        resolved, stages, directory = runs.plan(config)
        print(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
        print(f"run directory: {directory}\nstages, for {text.plural(len(resolved['seeds']), 'seed')}:")
        for name, finished, missing in stages:
            print(f"  {name}: {missing} to compute, {finished} finished")
        return 0
    quiet = bool(own["quiet"]) or not sharding.is_first()
    with runs.Progress(quiet=quiet) as progress:
        made = run(config, progress)
    if not sharding.is_first():
        return 1 if made.failures else 0
    width = min(shutil.get_terminal_size().columns, 120)
    table = report.write(made.directory, width, shown=made.results)
    if not quiet:
        figures = sorted(file.name for file in made.directory.glob("*.png"))
        written = ", ".join(["results.json and results.csv", *figures, "config.yaml, splits and stages"])
        print(f"{table}\n\nWritten to {made.directory}: {written}.")
        if made.recipe is not None:
            print(f"The recipe: {made.recipe}, for --recipe of unlearn and connect, with other seeds.")
    if made.failures:
        failed = "; ".join(f"{each.label}, seed {each.seed}, at step {each.step}" for each in made.failures)
        return _fail(
            f"not finite: {failed}. Lower its learning rate or its forgetting strength; the others are done", 1
        )
    return 0


def _parse(arguments: list[str], command: str, *kinds: type) -> dict[str, Any] | int:
    """What is given, or the exit status where tyro has shown the help or what is wrong."""
    import tyro

    wrong = io.StringIO()
    try:
        with contextlib.redirect_stderr(wrong):
            return tyro.cli(
                _flags(*kinds),
                args=arguments,
                prog=f"mcu-jax {command}",
                default=dict.fromkeys(("quiet", "dry_run", "no_compile_cache"), False) if _Own in kinds else {},
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as ended:
        if wrong.getvalue():
            print(wrong.getvalue()[:LONGEST_MESSAGE].rstrip(), file=sys.stderr)
        return int(ended.code or 0)


def _complete(arguments: list[str]) -> int:
    """The script of a shell that completes the whole command line."""
    import tyro

    if len(arguments) > 1:
        registry.check(arguments[1], SHELLS, "shell")
    jobs = {"unlearn": runs.Config, "connect": runs.ConnectConfig, "tune": runs.TuneConfig}
    kinds: dict[str, tuple[type, ...]] = {name: (kind, _Own) for name, kind in jobs.items()} | {"export": (_Export,)}
    flags = {command: _flags(*kind) for command, kind in kinds.items()}
    try:
        tyro.extras.subcommand_cli_from_dict({**flags, "list": dict}, prog="mcu-jax", args=arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    except OSError as error:
        return _fail(f"the completion cannot be written to {text.plain(arguments[2])}: {error.strerror}", 2)
    return 0


DEVICES = {"cpu": ("cpu",), "gpu": ("cuda,cpu", "rocm,cpu"), "tpu": ("tpu,cpu",)}
"""What jax calls them. Its own name for both kinds of GPU asks for both at once."""


def _use(device: str) -> None:
    """All that follows runs there. Raises ConfigError where there is none, or jax has begun elsewhere."""
    registry.check(device, DEVICES, "device")
    before, found, why = getattr(jax.config, "jax_platforms"), "nothing", ""  # noqa: B009, unknown to mypy
    for platforms in DEVICES[device]:
        jax.config.update("jax_platforms", platforms)
        try:
            found = jax.default_backend()
        except (RuntimeError, AssertionError) as error:
            why = text.plain(" ".join(str(error).split()))
        if found == device:
            return
    jax.config.update("jax_platforms", before)
    raise runs.ConfigError(
        f"jax has no {device} in this process, it runs on {found}: install the build of jax that knows it, or leave "
        f"--device out. {why}".strip()
    )


@dataclasses.dataclass(frozen=True)
class _Export:
    """Write one model of a run, with its BatchNorm statistics, as a checkpoint, of which plain orbax reads `arrays`, or
    for PyTorch.
    """

    run: Annotated[str | None, "Run directory."] = None
    to: Annotated[
        str | None,
        "Where to write it: a new or empty folder or a checkpoint to replace, or FILE.safetensors, by PyTorch's names.",
    ] = None
    seed: Annotated[int | None, "Replicate (default: the run's first)."] = None
    t: Annotated[
        str | None, "Point of the path: best, as the run chose it, or a number from 0 to 1 (default: best)."
    ] = None
    method: Annotated[
        str | None, "A model in place of the path's: original, retrain, or a method as the run names it."
    ] = None


def _export(arguments: list[str]) -> int:
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--run", *arguments]
    given = _parse(arguments, "export", _Export)
    if isinstance(given, int):
        return given
    if "run" not in given or "to" not in given:
        return _fail("export which run, and where? As in `mcu-jax export RUN --to DIR`", 2)
    exported = runs.export(given.pop("run"), given["to"], **{k: v for k, v in given.items() if k != "to"})
    at = "" if exported["t"] is None else f" at t = {exported['t']:g}"
    print(f"{exported['method']} of seed {exported['seed']}{at}, written to {given['to']}")
    return 0


@dataclasses.dataclass(frozen=True)
class _Own:
    """What a command is told beside the configuration of its job."""

    config: Annotated[
        str | None, "A YAML file of the same settings, as config.yaml in a run directory; the command line wins."
    ] = None
    quiet: Annotated[bool, "Print nothing but errors: the run directory has the results."] = False
    dry_run: Annotated[bool, "Show the resolved configuration and what would be computed, and stop."] = False
    device: Annotated[str | None, "cpu, gpu or tpu (default: what jax finds)."] = None
    mesh: Annotated[
        str | None,
        "Share the work out over devices, as data=4,map=2: data shares every batch, fsdp parameters too, map shares "
        "seeds or the t of a path (default: one device).",
    ] = None
    processes: Annotated[
        str | None,
        "This process is one of several, on one machine or many, which share the run directory: auto, where the "
        "cluster tells, or HOST:PORT,COUNT,NUMBER with the address of number 0.",
    ] = None
    no_compile_cache: Annotated[bool, "Keep no compiled code for later runs, and use none (see the README)."] = False


def _flags(*kinds: type) -> Any:
    """Dataclasses of settings as tyro shall take them: only what is given, a default shown only where there is one."""
    import tyro

    flags: dict[str, Any] = {}
    for kind in kinds:
        for name, setting in runs.settings(kind).items():
            if dataclasses.is_dataclass(setting.kind) and isinstance(setting.kind, type):
                flags[name] = _flags(setting.kind)
            else:
                arg = tyro.conf.arg(help=setting.help, help_behavior_hint=_default(setting.default))
                flags[name] = Annotated[setting.kind, arg]
    typed = typing.TypedDict(kinds[0].__name__, flags, total=False)  # type: ignore[misc]
    typed.__doc__ = kinds[0].__doc__
    return typed


def _default(value: Any) -> str:
    if value is None or value is False or value == ():
        return ""
    return f"(default: {' '.join(map(str, value)) if isinstance(value, tuple) else value})"


def _over(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a file with those given on the command line in their place, group by group."""
    merged = {str(name).replace("-", "_"): value for name, value in values.items()}
    for name, value in given.items():
        merged[name] = _over(merged.get(name, {}), value) if isinstance(value, dict) else value
    return merged


_LISTED = {
    "methods": methods,
    "optimizers": optimizers,
    "curricula": curricula,
    "curves": curves,
    "rules": rules,
    "models": models,
    "augmentations": augmentations,
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
            print(f"  {name:<20}{_first_line(function)}{_options(function, title)}")
    print("datasets:")
    for name in datasets.NAMES:
        print(f"  {name:<20}{_first_line(getattr(datasets, name))}")
    print("  NAME                any image-classification set prepared by tensorflow-datasets, with --data-dir")
    print("  folder:DIR          pictures in DIR/train/CLASS/… and DIR/test/CLASS/…; folder:DIR:size=64,classes=FILE")
    print("  FILE.npz            one's own arrays, with --data")
    print("completion in the shell: source <(mcu-jax --tyro-print-completion bash), or zsh, or fish.")
    return 0


def _first_line(function: Any) -> str:
    return (function.__doc__ or "").strip().partition("\n")[0]


def _options(function: Any, title: str) -> str:
    if title in ("curves", "rules", "metrics"):
        return ""
    options = [f"{name}={value}" for name, value in registry.schema(function).items()]
    return f" [{', '.join(options)}]" if options else ""
