"""What a result was made with."""

from __future__ import annotations

import functools
import os
import pathlib
import platform
import subprocess
from importlib import metadata
from typing import Any

import jax

PACKAGES = ("mcu-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "scikit-learn")


@functools.cache
def environment() -> dict[str, Any]:
    """Versions, device and commit of this process."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "packages": versions,
        "backend": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "commit": _commit(),
    }


def _cpu() -> str:
    """The model of the processor, as far as this system tells it."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor()


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
