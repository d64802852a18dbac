"""mcu-jax unlearn, connect and tune: a configuration, its run, and the table of what came out."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

from mcu_jax import report, runs, sharding, text
from mcu_jax.cli import _devices, _flags, _messages
from mcu_jax.runs import Group


@dataclasses.dataclass(frozen=True)
class Own:
    """What a command is told beside the configuration of its job."""

    config: Annotated[
        str | None,
        Group("output", usual=True),
        "A YAML file of the same settings, as config.yaml in a run directory; the command line wins. A model from a "
        "file, FILE.py:NAME, has to be named on the command line too.",
    ] = None
    quiet: Annotated[
        bool, Group("output", usual=True), "Print nothing but errors: the run directory has the results."
    ] = False
    dry_run: Annotated[
        bool, Group("output", usual=True), "Show the resolved configuration and what would be computed, and stop."
    ] = False
    device: Annotated[str | None, Group("devices", usual=True), "cpu, gpu or tpu (default: what jax finds)."] = None
    mesh: Annotated[
        str | None,
        Group("devices"),
        "Share the work out over devices, as data=4,map=2: data shares every batch, fsdp parameters too, map shares "
        "seeds or the t of a path (default: one device; where training does not fit it, fsdp over all).",
    ] = None
    processes: Annotated[
        str | None,
        Group("devices"),
        "This process is one of several, on one machine or many, which share the run directory: auto, where the "
        "cluster tells, or HOST:PORT,COUNT,NUMBER with the address of number 0.",
    ] = None
    log: Annotated[
        str | None,
        Group("output"),
        "A file to which what happens is appended, as JSON: one object a line.",
    ] = None
    tensorboard: Annotated[
        str | None,
        Group("output"),
        "A folder for event files of TensorBoard: losses as they fall, and at the end metrics along t, in thousandths "
        "(needs tensorboardX).",
    ] = None
    no_compile_cache: Annotated[bool, Group("devices"), "Keep no compiled code for later runs, and use none."] = False


FLAGS = {"unlearn": (runs.Config, Own), "connect": (runs.ConnectConfig, Own), "tune": (runs.TuneConfig, Own)}


def unlearn(arguments: list[str]) -> int:
    return _job(arguments, runs.Config, runs.unlearn)


def connect(arguments: list[str]) -> int:
    return _job(arguments, runs.ConnectConfig, runs.connect)


def tune(arguments: list[str]) -> int:
    return _job(arguments, runs.TuneConfig, runs.tune)


def _job(arguments: list[str], kind: Any, run: Callable[..., runs.Run]) -> int:
    given = _flags.parse(arguments, kind.KIND, kind, Own)
    if isinstance(given, int):
        return given
    own = {setting.name: given.pop(setting.name, None) for setting in dataclasses.fields(Own)}
    values = {}
    if own["config"] is not None:
        # What is wrong in the file is an error, even where the command line wins.
        runs.from_yaml(own["config"], kind, model=given.get("model"))
        values = runs.read_yaml(own["config"])
    config = runs.from_mapping(_flags.over(values, given), kind)
    if own["processes"] is not None:
        sharding.start(own["processes"])
    if own["device"] is not None:
        _devices.use(own["device"])
    with sharding.use(None if own["mesh"] is None else sharding.mesh(own["mesh"])):
        return _carry_out(config, run, own)


def _observers(own: Mapping[str, Any], *, quiet: bool) -> Iterator[Any]:
    yield runs.Progress(quiet=quiet)
    if own["log"] is not None and sharding.is_first():
        yield runs.Log(own["log"])
    if own["tensorboard"] is not None and sharding.is_first():
        yield runs.TensorBoard(own["tensorboard"])


def _carry_out(config: Any, run: Callable[..., runs.Run], own: Mapping[str, Any]) -> int:
    import yaml

    if own["dry_run"]:
        plan = runs.plan(config)
        print(yaml.safe_dump(plan.config, sort_keys=False, allow_unicode=True))
        print(f"run directory: {plan.directory}\nstages, for {text.plural(len(plan.config['seeds']), 'seed')}:")
        for name, finished, missing in plan.stages:
            print(f"  {name}: {missing} to compute, {finished} finished")
        for note in plan.notes:
            print(note)
        return 0
    quiet = bool(own["quiet"]) or not sharding.is_first()
    with contextlib.ExitStack() as entered:
        observers = [entered.enter_context(observer) for observer in _observers(own, quiet=quiet)]
        made = run(config, runs.Observers(*observers))
    if not sharding.is_first():
        return 1 if made.failures else 0
    table = report.write(made.directory, _messages.columns(), shown=made.results)
    if not quiet:
        beside = sorted(
            file.name for file in made.directory.iterdir() if file.name == "details.json" or file.suffix == ".png"
        )
        written = ", ".join(["results.json and results.csv", *beside, "config.yaml, splits and stages"])
        print(f"{table}\n\nWritten to {made.directory}: {written}.")
        print(f"`mcu-jax report {shlex.quote(str(made.directory))}` makes a page of it, to open in a browser.")
        if made.recipe is not None:
            print(f"The recipe: {made.recipe}, for --recipe of unlearn and connect, with other seeds.")
    if made.failures:
        failed = "; ".join(f"{each.label}, seed {each.seed}, at step {each.step}" for each in made.failures)
        return _messages.fail(
            f"not finite: {failed}. Lower its learning rate or its forgetting strength; the others are done", 1
        )
    return 0
