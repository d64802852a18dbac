"""A run directory: one command's configuration, splits, stages and results."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from mcu_jax import checkpoint, disk, splits, text
from mcu_jax.base import Params, Path
from mcu_jax.runs import _config, _environment, _files, _graph, _observer, _settings, _stages

TRIES = 5
"""To take the lock of a run directory, in half a second."""
CONFIG, INDEX, LOCK = "config.yaml", "stages.json", ".lock"
FILES = (CONFIG, LOCK, "*.json", "*.csv", "*.png", "splits/*.json")
"""What is a file in a run directory, and never a folder."""


@dataclasses.dataclass
class RunDirectory:
    """Where one run keeps everything. resolved: of the whole run. indices: by the name of their file.

    found: the text of the configuration that was there when it was opened. damaged: by the name of its file, what is
    wrong with it.
    """

    path: pathlib.Path
    stages: pathlib.Path
    resolved: Any
    found: str | None = None
    indices: dict[str, splits.Indices] = dataclasses.field(default_factory=dict)
    damaged: dict[str, splits.DamagedIndicesError] = dataclasses.field(default_factory=dict)

    @contextlib.contextmanager
    def held(self, observer: _observer.Observer) -> Iterator[None]:
        """By this process alone. Raises ConfigError where another has it, or was at work on it since it was opened."""
        with _telling():
            # A place that cannot be is not made: the next command would go on with it.
            if not self.stages.is_relative_to(self.path):
                self.stages.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(parents=True, exist_ok=True)
            handle = _lock(self.path, observer)
        try:
            if _text(self.path) != self.found:
                raise _settings.ConfigError(
                    f"another command has begun or changed {self.path} just now; give this one again"
                )
            yield
        finally:
            if handle is not None:
                os.close(handle)

    def prepare(self, observer: _observer.Observer) -> None:
        """Writes what is known before any work: configuration, splits, environment. Raises ConfigError."""
        for folder in (self.path / "splits", self.path / "stages"):
            if folder.is_symlink():
                raise _settings.ConfigError(
                    f"{folder} is a link, and nothing is written through links: put the folder itself there, or choose "
                    "another place with --out, or with --stages for stages"
                )
        with _telling():
            # First of all in it: a directory with a configuration can be gone on with.
            _files.write_sealed(self.path / CONFIG, self._config_text())
            (self.path / "splits").mkdir(exist_ok=True)
            self.stages.mkdir(parents=True, exist_ok=True)
        for name, indices in self.indices.items():
            file = self._split_file(name)
            if name in self.damaged:
                observer.note(f"{self.damaged[name]}; it is now {disk.aside(file)}, and drawn again")
            if not file.exists():
                splits.save(indices, file)
        environment = self.path / "environment.json"
        if not environment.exists():  # of whoever began the run: every stage has its own
            disk.write(environment, json.dumps(_environment.environment(), indent=1) + "\n")

    def _config_text(self) -> str:
        values = self.resolved.as_dict()
        # Places too, so that going on needs no flag again; results do not depend on them.
        places = {name: getattr(self.resolved.config, name, None) for name in _settings.PLACES}
        values |= {name: os.path.abspath(place) for name, place in places.items() if place}
        methods = {"resolved": values.pop("resolved")}
        return (
            f"{_dump(values)}# What every method's hyper-parameters come to, for the record: set them as "
            f"NAME:key=value above.\n{_dump(methods)}"
        )

    def saved_indices(self, name: str, data_hash: str) -> splits.Indices | None:
        """The indices that an earlier command drew, if they are as they were. Raises SplitError for other data's."""
        file = self._split_file(name)
        if not file.exists():
            return None
        try:
            return splits.load(file, data_hash)
        except splits.DamagedIndicesError as error:
            self.damaged[name] = error
            return None

    def write_index(self, graph: _graph.Graph) -> None:
        """Which folder holds which stage of which seed."""
        places = {label: {str(s.seed): self._relative(self.stages / s.folder) for s in graph[label]} for label in graph}
        _files.write_json(self.path / INDEX, places)

    def _relative(self, place: pathlib.Path) -> str:
        # A run directory can be moved, with the stages that lie in it.
        return str(place.relative_to(self.path) if place.is_relative_to(self.path) else place.absolute())

    def _split_file(self, name: str) -> pathlib.Path:
        return self.path / "splits" / f"{name}.json"


class Opened(NamedTuple):
    """A run's directory, and what is to be shown, which may be a part of the run: what was asked for, if it is nothing
    new. less: what was asked for less of."""

    directory: RunDirectory
    asked: _config.Resolved
    less: tuple[str, ...]


def open_run(resolved: _config.Resolved) -> Opened:
    """The directory of a configuration, new or gone on with. A run only grows: it keeps what it has.

    Raises ConfigError where the directory holds another configuration, or something else.
    """
    config = resolved.config
    name = f"{config.dataset}-{(config.model or '').partition(':')[0]}".replace("/", "-")
    path = pathlib.Path(config.out or f"runs/{config.KIND}-{name}-{_config.digest(resolved.identity())[:8]}")
    check_writable(_files.place(path, "out"))
    for place in (place for pattern in FILES for place in path.glob(pattern)):
        if place.is_dir() and not place.is_symlink():
            raise _settings.ConfigError(f"{place} is a folder, where a run has a file: move it away")
    whole, asked, less = resolved, resolved, ()
    found = _text(path)
    if (path / CONFIG).exists():
        earlier, there = _earlier(path, type(config))
        _refuse_other(path, resolved.identity(), there, config.EXTENDABLE)
        grown = {name: _grown(getattr(earlier, name), getattr(config, name)) for name in config.EXTENDABLE}
        whole = resolved.changed(**grown, stages=config.stages or earlier.stages)
        less = tuple(name for name in grown if _is_less(getattr(config, name), grown[name]))
        is_part = all(value == getattr(earlier, name) for name, value in grown.items())
        # What was made with more points, or tries, is not thinned out.
        counts = {name: value for name, value in grown.items() if not isinstance(value, tuple)}
        asked = resolved.changed(**counts) if less and is_part else whole
    elif path.is_dir() and any(file.name != LOCK and not disk.is_workplace(file) for file in path.iterdir()):
        raise _settings.ConfigError(f"{path} is not empty and not a run directory; choose another with --out")
    stages = pathlib.Path(whole.config.stages) if whole.config.stages else path / "stages"
    check_writable(_files.place(stages, "stages"))
    return Opened(RunDirectory(path, stages, whole, found), asked, less)


def _text(path: pathlib.Path) -> str | None:
    """The configuration of a run as it is written there, to be compared."""
    try:
        return (path / CONFIG).read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextlib.contextmanager
def _telling() -> Iterator[None]:
    """Raises ConfigError for a place that cannot be made or written to; a full disk is none."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f"{text.plain(error.filename)}: {error.strerror}"
        raise _settings.ConfigError(f"{where}; choose another place with --out or --stages") from error


def _lock(path: pathlib.Path, observer: _observer.Observer) -> int | None:
    """A lock of the directory, until its descriptor is closed. Raises ConfigError where another process has it."""
    for _ in range(TRIES):
        try:
            handle = disk.lock(path / LOCK, f"process {os.getpid()} on {socket.gethostname()}")
        except OSError as error:
            if not disk.has_no_locks(error):
                raise
            observer.note(f"the file system of {path} has no locks: see to it that no other process works on it")
            return None
        if handle is not None:
            return handle
        time.sleep(0.1)  # whoever only looks whether it is held, holds it for a moment
    holder = text.plain(disk.holder(path / LOCK) or "another process")
    raise _settings.ConfigError(f"{path} is being worked on by {holder}: wait for it, or choose another with --out")


def _grown(there: Any, asked: Any) -> Any:
    """Both: a union of lists, the larger of numbers, None for none."""
    if there is None or asked is None:
        return asked if there is None else there
    if isinstance(there, tuple):
        return tuple(dict.fromkeys((*there, *asked)))
    return max(there, asked)


def _is_less(asked: Any, grown: Any) -> bool:
    if asked is None:
        return False
    return set(asked) != set(grown) if isinstance(grown, tuple) else asked < grown


def _earlier(path: pathlib.Path, kind: type[_settings.Settings]) -> tuple[_settings.Settings, dict[str, Any]]:
    """What a run directory was made with: the configuration, and what makes it another run."""
    try:
        _files.check_sealed(path / CONFIG)
        values = _settings.read_yaml(path / CONFIG)
        job = values.get("kind", kind.KIND)
        with _settings.checking():
            found = _settings.from_mapping({**values, "kind": kind.KIND}, kind) if job == kind.KIND else None
            there = _config.identity(values, kind)
    except (_settings.ConfigError, _files.DamagedFileError, KeyError, OSError) as error:
        raise _settings.ConfigError(
            f"{path} cannot be gone on with, its {CONFIG} is damaged ({error}): choose another directory with --out; "
            f"with --stages {path / 'stages'} nothing finished is computed again"
        ) from error
    if found is None:
        raise _settings.ConfigError(f"{path} is a run of `mcu-jax {job}`; choose another directory with --out")
    return found, there


def _refuse_other(
    path: pathlib.Path, asked: Mapping[str, Any], there: Mapping[str, Any], extendable: Sequence[str]
) -> None:
    old, new = _flat(there), _flat(asked)
    different = [name for name in (*new, *(name for name in old if name not in new)) if old.get(name) != new.get(name)]
    # A setting that changes what it comes to for the methods is told once.
    own = [name for name in different if not name.startswith("resolved.")] or different
    if own:
        told = "; ".join(f"{name} is {old.get(name)} there, {new.get(name)} asked for" for name in own)
        raise _settings.ConfigError(
            f"{path} is a run of another configuration: {told}. Only its {' and '.join(extendable)} may change: "
            "choose another directory with --out"
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def check_writable(place: pathlib.Path, flags: str = "--out or --stages") -> None:
    """Raises ConfigError for a place that nothing can be written to."""
    there = next(part for part in (place.absolute(), *place.absolute().parents) if part.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = "cannot be written to" if there.is_dir() else "is a file"
        raise _settings.ConfigError(f"{place} cannot be used: {there} {what}; choose another with {flags}")


def index(directory: pathlib.Path) -> dict[str, dict[str, str]]:
    """Where the stages of a run lie in its directory, by label and seed. Raises ConfigError where there is no run."""
    file = directory / INDEX
    if not file.exists():
        raise _settings.ConfigError(
            f"{directory} is not a run directory, or its run has not begun: there is no {file.name} in it"
        )
    try:
        return _files.read_json(file)
    except _files.DamagedFileError as error:
        raise _settings.ConfigError(f"{file} is damaged; the same command again writes it anew") from error


def load(directory: str | os.PathLike[str], *, seed: int | None = None, stage: str = "path") -> Path | Params:
    """The path of a run, or the parameters of one of its models.

    seed: default the run's first. stage: "path" gives the `Path` of `unlearn`; "original", "retrain", or a method as
    the run names it, gives parameters. The model at any t is `curves.bezier(path, t)`; `checkpoint.save` exports it.
    Raises ConfigError for a directory without a run, an unknown stage or seed, UserError for a damaged file of it, and
    DamagedCheckpointError.
    """
    directory = pathlib.Path(directory)
    stages = index(directory)

    def read(name: str) -> Any:
        if name not in stages:
            raise _settings.ConfigError(f"there is no stage {name!r}; there are: {', '.join(stages)}")
        chosen = str(seed) if seed is not None else next(iter(stages[name]))
        if chosen not in stages[name]:
            raise _settings.ConfigError(f"there is no seed {chosen}; there are: {', '.join(stages[name])}")
        place = directory / stages[name][chosen]
        if not checkpoint.exists(place):
            raise _settings.ConfigError(f"stage {name!r} of seed {chosen} is not finished; run the same command again")
        meta, tree = _stages.read(place)
        if meta["diverged"] is not None:
            raise _settings.ConfigError(
                f"stage {name!r} of seed {chosen} diverged at step {meta['diverged']}: it has no model"
            )
        # The stage of MCU as a baseline holds its t* beside the parameters.
        return tree["params"] if set(tree) == {"params", "t", "keep"} else tree

    if stage != "path":
        return read(stage)
    inner = read("path")["inner"]
    _files.check_sealed(directory / CONFIG)
    return Path(read("original"), inner, read(_settings.read_yaml(directory / CONFIG)["pre"]))


def _dump(values: Mapping[str, Any]) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
