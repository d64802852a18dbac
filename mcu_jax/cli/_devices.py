"""Where a command computes, and the compiled code that is kept for the next one."""

from __future__ import annotations

import hashlib
import pathlib
import platform

import jax

from mcu_jax import datasets, registry, runs, text

COMPILED_BYTES = 2 * 1024**3
"""Of compiled code that is kept for later runs; what was not used for longest goes first."""
SHORTEST_COMPILATION = 0.2
"""In seconds: what compiles faster is not kept."""

DEVICES = {"cpu": ("cpu",), "gpu": ("cuda,cpu", "rocm,cpu"), "tpu": ("tpu,cpu",)}
"""What jax calls them. Its own name for both kinds of GPU asks for both at once."""


def use(device: str) -> None:
    """All that follows runs there. Raises ConfigError where there is none, or jax has begun elsewhere."""
    registry.check(device, DEVICES, "device")
    before, found, why = getattr(jax.config, "jax_platforms"), "nothing", ""  # noqa: B009, unknown to mypy
    for platforms in DEVICES[device]:
        jax.config.update("jax_platforms", platforms)
        try:
            found = jax.default_backend()
        except (RuntimeError, AssertionError) as error:
            why = text.plain(" ".join(str(error).split()))
        if found == device:
            return
    jax.config.update("jax_platforms", before)
    raise runs.ConfigError(
        f"jax has no {device} in this process, it runs on {found}: install the build of jax that knows it, or leave "
        f"--device out. {why}".strip()
    )


def keep_compilations() -> None:
    """In the user's cache directory, unless jax is told another place; by processor, as machines share a home."""
    if getattr(jax.config, "jax_compilation_cache_dir") is not None:  # noqa: B009, unknown to mypy
        return
    place = datasets.cache_directory() / "compiled" / _processor()
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError:  # a home that cannot be written to
        return
    jax.config.update("jax_compilation_cache_dir", str(place))
    jax.config.update("jax_compilation_cache_max_size", COMPILED_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST_COMPILATION)


def _processor() -> str:
    """A short name of what code is compiled for: the kind of machine, and what its processor can do."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    able = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()}-{hashlib.sha256(able.encode()).hexdigest()[:8]}"
