"""How long a piece of work took, compilation by itself."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax.monitoring


@dataclasses.dataclass
class Spent:
    """Seconds of a piece of work by a monotonic clock, compilation by itself."""

    seconds: float = 0.0
    compile_seconds: float = 0.0


_compilations: list[tuple[float, float]] = []
_listening = threading.Lock()


@contextlib.contextmanager
def timed() -> Iterator[Spent]:
    """Times what is inside: filled in when it ends."""
    _listen()
    spent, began = Spent(), time.perf_counter()
    try:
        yield spent
    finally:
        passed = since(began)
        spent.seconds, spent.compile_seconds = passed.seconds, passed.compile_seconds


def since(began: float) -> Spent:
    """began: by `time.perf_counter`."""
    ended = time.perf_counter()
    # Tracing reports inner functions and outer ones alike: the union counts each moment once.
    compiling, covered = 0.0, began
    for first, last in sorted(_compilations):
        if last > covered:
            compiling += last - max(first, covered)
            covered = last
    return Spent(ended - began - compiling, compiling)


def _listen() -> None:
    if _listening.acquire(blocking=False):  # once in a process, for there is no way to stop
        jax.monitoring.register_event_duration_secs_listener(_compiled)


def _compiled(event: str, duration_secs: float, **_: Any) -> None:
    if event.startswith("/jax/core/compile/"):
        now = time.perf_counter()
        # jax takes the time from the wall clock, which may be set back meanwhile.
        _compilations.append((now - max(duration_secs, 0.0), now))
