"""What a run directory holds, as far as it can be read, and in words what it lacks."""

from __future__ import annotations

import json
import os
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

from mcu_jax import checkpoint, runs, splits, text
from mcu_jax.report import _results
from mcu_jax.report._page import _details
from mcu_jax.runs import _files

DETAILS = "details.json"


class Run(NamedTuple):
    """One run directory. What could not be read is None, and `missing` says so.

    kind: unlearn, connect or tune. config: the settings, from `config.yaml` or else from the results. config_text:
    that file as it stands. splits: of every forget set its file's name and sizes. details: the page's sections from
    `details.json`.
    """

    directory: pathlib.Path
    kind: str
    config: Mapping[str, Any]
    config_text: str | None
    results: _results.Results | None
    environment: Mapping[str, Any] | None
    splits: list[dict[str, Any]]
    details: dict[str, Any]
    missing: list[str]

    @property
    def name(self) -> str:
        return self.directory.absolute().name

    @property
    def command(self) -> str:
        """What finishes the run, or adds what it lacks."""
        return f"mcu-jax {self.kind} --config {shlex.quote(str(self.directory / 'config.yaml'))}"


def read_run(directory: str | os.PathLike[str]) -> Run:
    """Raises ConfigError for what is no run directory; of a damaged or unfinished one gives what is there."""
    directory = _files.place(directory, "run")
    if not any((directory / name).is_file() for name in ("config.yaml", "results.json")):
        raise runs.ConfigError(
            f"{text.plain(directory)} is not a run directory: it holds neither config.yaml nor results.json. Give a "
            "folder that `mcu-jax unlearn`, connect or tune has written"
        )
    missing: list[str] = []
    config, config_text = _config(directory, missing)
    results = _read_results(directory, missing)
    if results is not None:
        config = config or results.summary["config"]
    kind = str(results.summary["kind"] if results is not None else config.get("kind", "unlearn"))
    run = Run(
        directory,
        kind,
        config,
        config_text,
        results,
        _environment(directory, missing),
        _splits(directory),
        _read_details(directory, missing) if kind == "unlearn" else {},
        missing,
    )
    if results is None:
        finished = _finished(directory)
        told = "" if finished is None else f" ({finished[0]} of {text.plural(finished[1], 'stage')} finished)"
        missing.append(f"Without results{told} there are no numbers to show: `{run.command}` goes on with the run.")
    return run


def _config(directory: pathlib.Path, missing: list[str]) -> tuple[Mapping[str, Any], str | None]:
    file = directory / "config.yaml"
    try:
        return runs.read_yaml(file), file.read_text(encoding="utf-8")
    except runs.ConfigError as error:
        missing.append(
            f"config.yaml: {error}"
            if file.exists()
            else "There is no config.yaml: the configuration is told as the results have it."
        )
        return {}, None


def _read_results(directory: pathlib.Path, missing: list[str]) -> _results.Results | None:
    try:
        results = _results.read(directory)
        _check_shape(results.summary)
        return results
    except FileNotFoundError as error:
        missing.append(f"There is no {pathlib.Path(error.filename or 'results.json').name}.")
    except (ValueError, OSError, EOFError) as error:
        missing.append(f"The results cannot be read: {error}.")
    return None


_LISTS = {"unlearn": ("rows", "paths"), "connect": ("pairs",), "tune": ("rows",)}


def _check_shape(summary: Mapping[str, Any]) -> None:
    """Raises ValueError for a summary whose digest is right and which no run has written all the same."""
    if not isinstance(summary.get("config"), Mapping):
        raise ValueError("results.json has no configuration")
    for name in _LISTS[summary["kind"]]:
        if not isinstance(summary.get(name), list):
            raise ValueError(f"results.json has no {name}")


def _environment(directory: pathlib.Path, missing: list[str]) -> Mapping[str, Any] | None:
    try:
        read = json.loads((directory / "environment.json").read_text(encoding="utf-8"))
        if isinstance(read, dict):
            return read
    except (OSError, ValueError):
        pass
    missing.append("environment.json is missing or damaged: with which versions the run was made is not known.")
    return None


def _splits(directory: pathlib.Path) -> list[dict[str, Any]]:
    """Of every file of indices what it says; a damaged one says so."""
    told = []
    for file in sorted(directory.glob("splits/*.json"), key=lambda file: (len(file.name), file.name)):
        try:
            claimed = json.loads(file.read_text(encoding="utf-8"))["data_hash"]
            indices = splits.load(file, claimed)
        except (OSError, ValueError, KeyError, TypeError, splits.SplitError):
            told.append({"name": file.stem, "data_hash": None})
            continue
        sizes: dict[str, Any] = {
            name: len(getattr(indices, name)) for name in ("forget", "retain", "train", "validation")
        }
        told.append({"name": file.stem, "data_hash": indices.data_hash, **sizes})
    return told


def _finished(directory: pathlib.Path) -> tuple[int, int] | None:
    """(stages finished, stages)."""
    try:
        places = json.loads((directory / "stages.json").read_text(encoding="utf-8"))
        places.pop("sha256", None)
        stages = [directory / place for of_label in places.values() for place in of_label.values()]
        return sum(map(checkpoint.exists, stages)), len(stages)
    except (OSError, ValueError, AttributeError, TypeError):
        return None


def _read_details(directory: pathlib.Path, missing: list[str]) -> dict[str, Any]:
    try:
        return _details.sections(runs.read_details(directory))
    except OSError:
        why = f"There is no {DETAILS}, which older versions did not write"
    except ValueError as error:
        why = str(error)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        why = f"{DETAILS} is not as a run writes it ({type(error).__name__}: {error})"
    missing.append(f"{why}: distributions, pictures, mask and history are left out; the run's command writes it.")
    return _details.sections(None)
