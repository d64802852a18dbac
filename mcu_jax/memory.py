"""How much memory there is, of the machine and of a device: asked here and nowhere else. Imports nothing of ours."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

import jax


def host() -> int:
    """Bytes of the whole machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def device() -> int:
    """Bytes that jax may use of the first device, or where it does not say, as on a CPU, of the whole machine."""
    return _told().get("bytes_limit") or host()


def free() -> int | None:
    """Bytes of the first device that nothing uses, on a CPU of the host; None where nothing tells."""
    if jax.default_backend() != "cpu":
        told = _told()
        return told["bytes_limit"] - told.get("bytes_in_use", 0) if "bytes_limit" in told else None
    limits = [*_numbers("/proc/meminfo", "MemAvailable:", 1024), *_numbers("/sys/fs/cgroup/memory.max", "", 1)]
    return min(limits, default=None)


def shown(count: int) -> str:
    """`3.1 GiB`."""
    return f"{count / 2**30:.2g} GiB"


def _told() -> dict[str, int]:
    return jax.local_devices()[0].memory_stats() or {}


def _numbers(file: str, name: str, unit: int) -> Iterator[int]:
    """What a line of a system file that begins with a name says, in bytes."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path(file).read_text().splitlines():
            value = line.removeprefix(name).split()[:1]
            if line.startswith(name) and value and value[0].isdigit():
                yield int(value[0]) * unit
