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
    """The commit of this library, with + for changes of its code; None where it is installed without its history."""
    package = pathlib.Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        run = subprocess.run(command, cwd=package, capture_output=True, text=True, timeout=10, check=True)
        return run.stdout.strip()

    try:
        if not git("ls-files", __file__):
            return None
        return git("rev-parse", "HEAD") + "+" * bool(git("status", "--porcelain", "."))
    except (OSError, subprocess.SubprocessError):
        return None
