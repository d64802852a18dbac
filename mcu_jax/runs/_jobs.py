"""The jobs there are, run from a configuration or only planned."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from mcu_jax import registry
from mcu_jax.runs import _config, _connect, _stages, _unlearn
from mcu_jax.runs._connect_config import ConnectConfig
from mcu_jax.runs._unlearn_config import Config

_JOBS: dict[type[_config.Settings], Any] = {Config: _unlearn.Job, ConnectConfig: _connect.Job}


def from_mapping(values: Mapping[str, Any], kind: type[Any] | None = None) -> Any:
    """A configuration from nested mappings, as in a YAML file: a ConnectConfig where `kind` is connect, else a Config.

    kind: the one that is wanted. Raises ConfigError for an unknown key, a wrong type, or another job's configuration.
    """
    if kind is None:
        kinds = {each.KIND: each for each in _JOBS}
        name = values.get("kind", Config.KIND)
        with _config.checking():
            registry.check(name, kinds, "job")
        kind = kinds[name]
    return _config.from_mapping(values, kind)


def from_yaml(file: str | pathlib.Path, kind: type[Any] | None = None) -> Any:
    """The same from a YAML file. Raises ConfigError where it cannot be read, or holds something else."""
    return from_mapping(_config.read_yaml(file), kind)


class Run(NamedTuple):
    """A finished run: its directory, and what `results.json` there holds (fractions)."""

    directory: pathlib.Path
    results: dict[str, Any]


def unlearn(config: Config | None = None, observer: _stages.Observer | None = None) -> Run:
    """Runs the main job, or what of it is not finished.

    Raises ConfigError for a configuration that cannot be and DamagedCheckpointError, both before any work;
    StageFailedError and InterruptedRunError as their names say: what was finished stays.
    """
    return _run(config or Config(), observer)


def connect(config: ConnectConfig, observer: _stages.Observer | None = None) -> Run:
    """Connects models unlearned in different ways, or does what of it is not finished. Raises as `unlearn` does."""
    return _run(config, observer)


def _run(config: _config.Settings, observer: _stages.Observer | None) -> Run:
    with _config.checking():
        job = _JOBS[type(config)](config, observer or _stages.Silent())
    job.replicates.check(job.addresses())
    job.directory.prepare()
    return Run(job.directory.path, job.directory.write_results(job.run()))


def plan(config: Config | ConnectConfig) -> tuple[dict[str, Any], list[tuple[str, int, int]], str]:
    """(resolved configuration, [(stage, seeds finished, seeds to compute)], run directory): nothing is computed."""
    with _config.checking():
        job = _JOBS[type(config)](config, _stages.Silent())
    found = []
    for name, addresses in job.addresses().items():
        finished = sum(job.replicates.store.has(address) for address in addresses)
        found.append((name, finished, len(addresses) - finished))
    return job.resolved.as_dict(), found, str(job.directory.path)
