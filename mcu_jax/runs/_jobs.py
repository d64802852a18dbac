"""The jobs there are, run from a configuration or only planned."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mcu_jax import base, datasets, disk, registry, sharding, text
from mcu_jax.runs import (
    _config,
    _connect,
    _connect_config,
    _connect_results,
    _details,
    _directory,
    _graph,
    _images,
    _observer,
    _placing,
    _recipe_file,
    _runner,
    _settings,
    _stages,
    _tasks,
    _tidy,
    _tune,
    _tune_config,
    _unlearn,
    _unlearn_config,
)
from mcu_jax.runs._connect_config import ConnectConfig
from mcu_jax.runs._tune_config import TuneConfig
from mcu_jax.runs._unlearn_config import Config


class _Job(NamedTuple):
    """Of a kind of configuration: its resolution, the graph of its stages, what these come to, and details of that."""

    resolve: Callable[..., Any]
    graph: Callable[..., _graph.Graph]
    results: Callable[..., dict[str, Any]]
    details: Callable[..., dict[str, Any]] | None = None


_JOBS: dict[type[_settings.Settings], _Job] = {
    Config: _Job(_unlearn_config.resolve, _unlearn.graph, _unlearn.results, _details.details),
    ConnectConfig: _Job(_connect_config.resolve, _connect.graph, _connect_results.results),
    TuneConfig: _Job(_tune_config.resolve, _tune.graph, _tune.results),
}


def from_mapping(values: Mapping[str, Any], kind: type[Any] | None = None) -> Any:
    """A configuration from nested mappings, as in a YAML file, of the job that `kind` there names: else a Config.

    kind: the one that is wanted. Raises ConfigError for an unknown key, a wrong type, or another job's configuration.
    """
    if kind is None:
        kinds = {job.KIND: job for job in _JOBS}
        name = values.get("kind", Config.KIND)
        with _settings.checking():
            registry.check(name, kinds, "job")
        kind = kinds[name]
    return _settings.from_mapping(values, kind)


def from_yaml(file: str | pathlib.Path, kind: type[Any] | None = None, *, model: str | None = None) -> Any:
    """The same from a YAML file. model: in place of the file's, and needed where that is code, as FILE.py:NAME: a file
    is data, and does not say what is run.

    Raises ConfigError where it cannot be read, holds something else, or names code that `model` does not.
    """
    config = from_mapping(_settings.read_yaml(file), kind)
    if model is None:
        _config.check_names_no_code(config, file)
    return config if model is None else dataclasses.replace(config, model=model)


class Run(NamedTuple):
    """A finished run: its directory, and what came out (fractions), or of a larger run the part that was asked for.

    failures: the stages of the run whose numbers are no longer finite. recipe: the file that `tune` wrote.
    """

    directory: pathlib.Path
    results: dict[str, Any]
    failures: tuple[_stages.Diverged, ...] = ()
    recipe: pathlib.Path | None = None

    def __repr__(self) -> str:
        diverged = f", {text.plural(len(self.failures), 'failure')}" if self.failures else ""
        return f"Run({text.show(self.results.get('kind'))}, {text.plain(self.directory)!r}{diverged})"

    def _repr_html_(self) -> str:
        """For notebooks: its table."""
        # Reports read runs, which import none of them: this one is asked for by name, where somebody looks.
        return importlib.import_module("mcu_jax.report._notebook").of_run(self.directory, self.results)


def unlearn(
    config: Config | None = None,
    observer: _observer.Observer | None = None,
    *,
    model: base.Model | None = None,
    data: datasets.Data | None = None,
) -> Run:
    """Runs the main job, or what of it is not finished.

    model, data: one's own; stages are known by the data's hash and by the name that `config.model` gives the model.
    What is damaged on disk is set aside and made again, and the observer is told. A method that diverges has rows that
    say so, and is among the `Run.failures`. Raises ConfigError before any work for a configuration that cannot be, and
    where another process is at work on the directory; InterruptedRunError when the observer asks to stop: what was
    finished stays.
    """
    return _run(config or Config(), observer or _observer.Silent(), model, data)


def connect(
    config: ConnectConfig,
    observer: _observer.Observer | None = None,
    *,
    model: base.Model | None = None,
    data: datasets.Data | None = None,
) -> Run:
    """Connects models unlearned in different ways, or does what of it is not finished. As `unlearn`."""
    return _run(config, observer or _observer.Silent(), model, data)


def tune(
    config: TuneConfig | None = None,
    observer: _observer.Observer | None = None,
    *,
    model: base.Model | None = None,
    data: datasets.Data | None = None,
) -> Run:
    """Tunes methods alike and writes the best of each to a recipe file. As `unlearn`; tries may diverge."""
    config, observer = config or TuneConfig(), observer or _observer.Silent()
    made = _run(config, observer, model, data)
    whole = _tidy.read_results(made.directory)
    file = _tune_config.place(config, made.directory)
    if sharding.is_first():
        _recipe_file.write(file, whole["recipe"])
    for name in whole["config"]["methods"]:
        if name not in whole["recipe"]["methods"]:
            observer.note(f"{name}: every try diverged for some seed, so that the recipe is without it")
    tried = {_tune.label(row["method"], row["try"]) for row in whole["rows"]}
    return made._replace(failures=tuple(each for each in made.failures if each.label not in tried), recipe=file)


def run(config: _settings.Settings) -> Run:
    """The job of a configuration, whichever it is."""
    if isinstance(config, TuneConfig):
        return tune(config)
    if isinstance(config, ConnectConfig):
        return connect(config)
    assert isinstance(config, Config)
    return unlearn(config)


def resolver(config: _settings.Settings) -> Callable[..., Any]:
    """What resolves a configuration of its kind."""
    return _JOBS[type(config)].resolve


class Plan(NamedTuple):
    """What a run would do.

    config: the resolved configuration. stages: (name, seeds finished, seeds to compute). directory: of the run.
    notes: what it would say of itself when it begins.
    """

    config: dict[str, Any]
    stages: list[tuple[str, int, int]]
    directory: str
    notes: tuple[str, ...]


def plan(config: _settings.Settings) -> Plan:
    """What a run of this configuration would do: nothing is computed. Raises ConfigError as the run would."""
    opened, graph, placing = _open(config, None, None)
    store = _stages.Store(opened.directory.stages)
    stages = []
    for label, of_label in graph.items():
        finished = sum(map(store.has, of_label))
        stages.append((label, finished, len(of_label) - finished))
    resolved = opened.directory.resolved
    return Plan(resolved.as_dict(), stages, str(opened.directory.path), _notes(resolved, placing))


def _notes(resolved: _config.Resolved, placing: _placing.Placing) -> tuple[str, ...]:
    """What somebody who did not ask for it should know before the run."""
    of_others = _images.OF_OTHERS if _images.may_be_of_others(resolved.config) else None
    return tuple(note for note in (of_others, placing.note) if note is not None)


def _open(
    config: _settings.Settings, model: base.Model | None, data: datasets.Data | None
) -> tuple[_directory.Opened, _graph.Graph, _placing.Placing]:
    if type(config) not in _JOBS:
        raise _settings.ConfigError(
            f"a job takes a Config, a ConnectConfig or a TuneConfig, given a {type(config).__name__}"
        )
    _config.check_brought(model, data)
    job = _JOBS[type(config)]
    with _settings.checking():
        resolved = job.resolve(config, model, data)
        _config.check_size(resolved)
        placing = _placing.place(resolved)
        _check_batches(resolved, placing)
        opened = _directory.open_run(resolved)
    try:
        return opened, job.graph(opened.directory.resolved, opened.directory), placing
    except base.UserError as error:
        raise _settings.ConfigError(str(error)) from error


def _check_batches(resolved: _config.Resolved, placing: _placing.Placing) -> None:
    """Raises UserError where the devices of the mesh do not divide a batch: some would wait for the others."""
    with sharding.use(placing.mesh):
        for name, size in _placing.batch_sizes(resolved).items():
            sharding.check_batch(text.plain(name), size)


def _run(
    config: _settings.Settings,
    observer: _observer.Observer,
    model: base.Model | None,
    data: datasets.Data | None,
) -> Run:
    sharding.wait("begun")  # connected with each other they notice at once that one is gone
    opened, graph, placing = _open(config, model, data)
    held = opened.directory.held(observer) if sharding.is_first() else contextlib.nullcontext()
    with held, sharding.use(placing.mesh):
        return _carry_out(config, observer, opened, graph, placing)


def _carry_out(
    config: _settings.Settings,
    observer: _observer.Observer,
    opened: _directory.Opened,
    graph: _graph.Graph,
    placing: _placing.Placing,
) -> Run:
    directory = opened.directory
    store = _stages.Store(directory.stages, directory.path / "stages")
    sharding.wait("opened")  # by all, before the first one changes what they read
    if sharding.is_first():
        directory.prepare(observer)
        store.sweep()
        _set_aside(graph, store, observer)
        directory.write_index(graph)
    sharding.wait("prepared")
    for note in _notes(directory.resolved, placing):
        observer.note(note)
    # Where one seed does not fit a device, several side by side fit them no better.
    together = placing.note is None and _tasks.seeds_fit_together(directory.resolved)
    runner = _runner.Runner(store, observer, together=together)
    job = _JOBS[type(config)]
    every = [stage for stages in graph.values() for stage in stages]
    observer.begun(_begun(directory, store, every))
    try:
        runner.run(graph)
    except _observer.InterruptedRunError as error:
        finished = f"{sum(map(store.has, every))} of {text.plural(len(every), 'stage')}"
        kept = f"{finished} are finished and kept in {directory.path}"
        raise _observer.InterruptedRunError(f"{error}; {kept}") from error
    results = job.results(directory.resolved, graph, runner)
    details = job.details and job.details(directory.resolved, graph, runner)
    if details and sharding.is_first():
        _details.write(directory.path, details)
    whole = _tidy.write(directory.path, results) if sharding.is_first() else _tidy.summary(results)
    for name in opened.less:
        has = getattr(directory.resolved.config, name)
        observer.note(f"{directory.path} has {name} {_list(has)} and keeps them all; fewer were asked for")
    is_whole = opened.asked is directory.resolved
    shown = whole if is_whole else _tidy.summary(job.results(opened.asked, graph, runner))
    broken = dict.fromkeys(diverged for stage in every if (diverged := runner.broken(stage)))
    observer.ended(results, tuple(broken))
    return Run(directory.path, shown, tuple(broken))


def _begun(directory: _directory.RunDirectory, store: _stages.Store, every: Sequence[_graph.Stage]) -> _observer.Begun:
    config = directory.resolved.config
    digest = _config.digest(directory.resolved.identity())
    return _observer.Begun(config.KIND, directory.path, digest, config.seeds, sum(map(store.has, every)), len(every))


def _set_aside(graph: _graph.Graph, store: _stages.Store, observer: _observer.Observer) -> None:
    """What of the stages is damaged, before any work: it will be made again."""
    for stage in (stage for stages in graph.values() for stage in stages):
        for place, error in store.damaged(stage):
            observer.note(f"{str(error).partition(';')[0]}; it is now {disk.aside(place)}, and made again")


def _list(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
