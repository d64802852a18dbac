"""How a run directory stands, seen from outside: nothing is computed, and nothing written."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mcu_jax import checkpoint, disk, text
from mcu_jax.runs import _directory, _files, _settings, _stages, _tidy


class State(NamedTuple):
    """kind: the job, None where the configuration is damaged. stages, finished: how many there are, each seed's by
    itself, by the index of the run, and are made. diverged: of the finished. holder: who works on it now, if anybody.
    complete: its results are of all that it was last asked for. damaged: by file or folder, what is wrong there.
    """

    kind: str | None
    stages: int
    finished: int
    diverged: int
    holder: str | None
    complete: bool
    damaged: Mapping[str, str]

    @property
    def word(self) -> str:
        """running, damaged, finished or unfinished."""
        if self.holder is not None:
            return "running"
        if self.damaged:
            return "damaged"
        return "finished" if self.complete else "unfinished"


def state(directory: str | os.PathLike[str]) -> State:
    """How the run in `directory` stands. Of stages the manifests are read, and not the arrays, which may be large.

    Raises ConfigError for a directory without a run, OSError where it may not be read.
    """
    directory = pathlib.Path(directory)
    if not (directory / _directory.CONFIG).is_file():
        raise _settings.ConfigError(f"{text.plain(directory)} is not a run directory")
    damaged: dict[str, str] = {}
    values = _read(directory / _directory.CONFIG, damaged, _configuration)
    index = _read(directory / _directory.INDEX, damaged, _files.read_json)
    results = _read(directory / _tidy.SUMMARY, damaged, lambda file: _tidy.read_results(file.parent))
    for file in sorted((directory / "splits").glob("*.json")):
        _read(file, damaged, _files.read_json)
    finished = list(_finished(directory, index or {}, damaged))
    stages, diverged = sum(map(len, (index or {}).values())), sum(finished)
    told = results is not None and values is not None and _is_of(results["config"], values)
    return State(
        kind=None if values is None else str(values.get("kind")),
        stages=stages,
        finished=len(finished),
        diverged=diverged,
        holder=disk.holder(directory / _directory.LOCK),
        # What needs a model that diverged is left out.
        complete=told and not damaged and (len(finished) == stages or diverged > 0),
        damaged=damaged,
    )


def _read(file: pathlib.Path, damaged: dict[str, str], read: Any) -> Any:
    """None where it is not there, or damaged."""
    try:
        return read(file)
    except FileNotFoundError:
        return None
    except ValueError as error:
        damaged[file.name] = str(error)
        return None


def _configuration(file: pathlib.Path) -> dict[str, Any]:
    _files.check_sealed(file)
    return _settings.read_yaml(file)


def _finished(
    directory: pathlib.Path, index: Mapping[str, Mapping[str, str]], damaged: dict[str, str]
) -> Iterator[bool]:
    """Of every stage that is made, whether it diverged."""
    for place in (directory / place for seeds in index.values() for place in seeds.values()):
        if checkpoint.exists(place):
            try:
                yield _stages.read_meta(place)["diverged"] is not None
            except checkpoint.DamagedCheckpointError as error:
                damaged[place.name] = str(error).partition(";")[0]


def _is_of(config: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Whether results are of this configuration."""
    return all(values.get(name) == value for name, value in config.items())
