"""What makes a run again: its command, configuration, versions and data."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from mcu_jax import runs
from mcu_jax.report._page import _read
from mcu_jax.runs import _settings

_KINDS = {"unlearn": runs.Config, "connect": runs.ConnectConfig, "tune": runs.TuneConfig}
_PLACES = tuple(name for name in _settings.PLACES if name != "data_dir")


def reproduce(run: _read.Run) -> dict[str, Any]:
    """command: every setting that has a value, so that no default matters. hashes: of the data, one as a rule."""
    hashes = dict.fromkeys(split["data_hash"] for split in run.splits if split["data_hash"] is not None)
    environment = dict(run.environment or {})
    packages = environment.pop("packages", None)
    told = [(name, "unknown" if value is None else str(value)) for name, value in environment.items()]
    versions = list(packages.items()) if isinstance(packages, Mapping) else []
    return {
        "command": command(run.kind, run.config) if run.kind in _KINDS and run.config else None,
        "config": run.config_text,
        "environment": told,
        "packages": [(name, version or "not installed") for name, version in versions],
        "hashes": list(hashes),
        "digests": list(dict(run.config.get("digests") or {}).items()),
        "splits": run.splits,
    }


def command(kind: str, config: Mapping[str, Any]) -> str:
    """`mcu-jax unlearn --dataset digits …`, as a shell reads it; where things are is left out, but for the data."""
    return shlex.join(["mcu-jax", kind, *_flags(_KINDS[kind], config, "")])


def _flags(kind: Any, values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, setting in runs.settings(kind).items():
        value = values.get(name)
        if value is None or name in _PLACES:
            continue
        if isinstance(value, Mapping):
            yield from _flags(setting.kind, value, f"{prefix}{name}.")
            continue
        yield f"--{prefix}{name}".replace("_", "-")
        if isinstance(value, list | tuple):
            yield from map(str, value)
        else:
            yield str(value)
