"""A run directory: one command's configuration, splits, stages and results."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import yaml

from mcu_jax import checkpoint, splits
from mcu_jax.base import Params, Path
from mcu_jax.runs import _config

PACKAGES = ("mcu-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "scikit-learn")


@dataclasses.dataclass
class RunDirectory:
    """Where one run keeps everything. indices: by seed, set before `prepare`."""

    path: pathlib.Path
    stages: pathlib.Path
    resolved: _config.Resolved
    indices: Mapping[int, splits.Indices] = dataclasses.field(default_factory=dict)

    def prepare(self) -> None:
        """Writes what is known before any work: configuration, splits, environment."""
        try:
            (self.path / "splits").mkdir(parents=True, exist_ok=True)
            self.stages.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _config.ConfigError(f"the run directory {self.path} cannot be made: {error}") from error
        for seed, indices in self.indices.items():
            if not self._split_file(seed).exists():
                splits.save(indices, self._split_file(seed))
        _write(self.path / "config.yaml", yaml.safe_dump(self.resolved.as_dict(), sort_keys=False))
        _write(self.path / "environment.json", json.dumps(environment(), indent=1) + "\n")

    def saved_indices(self, seed: int, data_hash: str) -> splits.Indices | None:
        """The indices of a seed that an earlier command drew. Raises SplitError where they belong to other data."""
        file = self._split_file(seed)
        return splits.load(file, data_hash) if file.exists() else None

    def write_index(self, stages: Mapping[str, Mapping[int, pathlib.Path]]) -> None:
        """Which folder holds which stage of which seed."""
        found = {name: {str(seed): self._relative(at) for seed, at in each.items()} for name, each in stages.items()}
        _write(self.path / "stages.json", json.dumps(found, indent=1) + "\n")

    def write_results(self, results: dict[str, Any]) -> dict[str, Any]:
        _write(self.path / "results.json", json.dumps(results, indent=1) + "\n")
        return results

    def _relative(self, place: pathlib.Path) -> str:
        # A run directory can be moved, with the stages that lie in it.
        return str(place.relative_to(self.path) if place.is_relative_to(self.path) else place.absolute())

    def _split_file(self, seed: int) -> pathlib.Path:
        return self.path / "splits" / f"seed-{seed}.json"


def open_run(resolved: _config.Resolved) -> RunDirectory:
    """The directory of a configuration, new or gone on with: then its seeds are those it has and those asked for.

    Raises ConfigError where the directory holds another configuration, or something else.
    """
    config = resolved.config
    name = (config.model or "").partition(":")[0]
    default = f"runs/unlearn-{config.dataset}-{name}-{_config.digest(resolved.identity())[:8]}"
    path = pathlib.Path(config.out or default)
    file = path / "config.yaml"
    if path.exists() and not path.is_dir():
        raise _config.ConfigError(f"the run directory {path} is a file; choose another with --out")
    if file.exists():
        earlier = _config.from_yaml(file)
        _refuse_other(path, resolved.identity(), yaml.safe_load(file.read_text()))
        seeds = tuple(dict.fromkeys((*earlier.seeds, *config.seeds)))
        resolved = dataclasses.replace(resolved, config=dataclasses.replace(config, seeds=seeds))
    elif path.is_dir() and any(path.iterdir()):
        raise _config.ConfigError(f"{path} is not empty and not a run directory; choose another with --out")
    stages = pathlib.Path(config.stages) if config.stages else path / "stages"
    return RunDirectory(path, stages, resolved)


def _refuse_other(path: pathlib.Path, asked: Mapping[str, Any], there: Mapping[str, Any]) -> None:
    different = [
        f"{name}: {there.get(name)!r} there, {value!r} asked for"
        for name, value in asked.items()
        if there.get(name) != value
    ]
    if different:
        raise _config.ConfigError(
            f"{path} is a run of another configuration ({'; '.join(different)}); only more seeds or points "
            "extend a run: choose another directory with --out, or leave it out"
        )


def environment() -> dict[str, Any]:
    """Versions, device and commit of this process."""
    import jax

    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": versions,
        "backend": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The commit of this library, with + for changes on top of it; None where it is installed without its history."""
    here = pathlib.Path(__file__).parent
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        tracked = subprocess.run(["git", "ls-files", __file__], cwd=here, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip() if tracked.stdout.strip() else None


def load(directory: str | os.PathLike[str], *, seed: int | None = None, stage: str = "path") -> Path | Params:
    """The path of a run, or the parameters of one of its models.

    seed: default the run's first. stage: "path" gives the `Path`; "original", "retrain", or a method as the run names
    it, gives parameters. The model at any t is `curves.bezier(path, t)`; `checkpoint.save` exports it. Raises
    ValueError for a directory without a run, an unknown stage or seed, and DamagedCheckpointError.
    """
    directory = pathlib.Path(directory)
    file = directory / "stages.json"
    if not file.exists():
        raise ValueError(f"{directory} is not a run directory, or its run has not begun: there is no {file.name} in it")
    index = json.loads(file.read_text())
    pre = yaml.safe_load((directory / "config.yaml").read_text())["pre"]

    def read(name: str) -> Any:
        if name not in index:
            raise ValueError(f"there is no stage {name!r}; there are: {', '.join(index)}")
        chosen = str(seed) if seed is not None else next(iter(index[name]))
        if chosen not in index[name]:
            raise ValueError(f"there is no seed {chosen}; there are: {', '.join(index[name])}")
        place = directory / index[name][chosen]
        if not checkpoint.exists(place):
            raise ValueError(f"stage {name!r} of seed {chosen} is not finished; run the same command again")
        return checkpoint.load(place)

    if stage != "path":
        return read(stage)
    return Path(read("original"), read("path")["inner"], read(pre))


def _write(file: pathlib.Path, text: str) -> None:
    """All or nothing."""
    new = file.with_name(f".{file.name}.new")
    new.write_text(text)
    new.replace(file)
