"""Stages: what a run has finished, stored under the part of the configuration that made it, and how one is made."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.monitoring
import numpy as np

from mcu_jax import checkpoint, training
from mcu_jax.runs import _config, _environment

SAVE_EVERY_SECONDS = 10.0
"""How much work of a stage in progress may be lost to a kill."""


class StageFailedError(RuntimeError):
    """A stage could not be finished. What was finished before it stays."""


class InterruptedRunError(RuntimeError):
    """Asked to stop. What was finished stays, and the same command goes on from there."""


@runtime_checkable
class Observer(Protocol):
    """Is told how a run goes, and may ask it to stop. Told of progress from several threads."""

    def stage(self, name: str, seeds: Sequence[int], cached: int) -> None:
        """A stage begins, for the seeds that are not there yet."""

    def progress(self, name: str, seed: int, step: int, steps: int, loss: float) -> None:
        """A segment of training ended."""

    def finished(self, name: str, seconds: float, compile_seconds: float) -> None:
        """The stage ended."""

    def note(self, text: str) -> None:
        """Something the user should know."""

    def should_stop(self) -> bool:
        """Whether to stop as soon as nothing is lost by it."""


class Silent:
    """An observer that looks away."""

    def stage(self, name: str, seeds: Sequence[int], cached: int) -> None: ...

    def progress(self, name: str, seed: int, step: int, steps: int, loss: float) -> None: ...

    def finished(self, name: str, seconds: float, compile_seconds: float) -> None: ...

    def note(self, text: str) -> None: ...

    def should_stop(self) -> bool:
        return False


class Stage(NamedTuple):
    """A finished stage of one seed: arrays, or JSON values. Its share of the seconds, compilation by itself."""

    result: Any
    seconds: float
    compile_seconds: float


class Address(NamedTuple):
    """Where a stage of one seed belongs. key: all that its result depends on, plain JSON."""

    name: str
    seed: int
    key: Mapping[str, Any]

    @property
    def folder(self) -> str:
        return f"{self.name.partition(':')[0].replace(' ', '-')}-{_config.digest(self.key)}"


class Store:
    """Finished stages as checkpoints in one directory, found again by content."""

    def __init__(self, directory: pathlib.Path):
        self.directory = directory

    def place(self, address: Address) -> pathlib.Path:
        return self.directory / address.folder

    def has(self, address: Address) -> bool:
        return checkpoint.exists(self.place(address))

    def get(self, address: Address) -> Stage:
        """Raises DamagedCheckpointError, naming the stage, where it is not as it was saved."""
        place = self.place(address)
        meta = checkpoint.read_meta(place)
        result = meta["values"]
        if result is None:
            result = jax.tree.map(jax.numpy.asarray, checkpoint.load(place))
        return Stage(result, meta["seconds"], meta["compile_seconds"])

    def seconds(self, address: Address) -> float:
        """That a finished stage took, compilation included."""
        meta = checkpoint.read_meta(self.place(address))
        return float(meta["seconds"] + meta["compile_seconds"])

    def check(self, address: Address) -> None:
        """Reads what there is, finished or in progress. Raises DamagedCheckpointError."""
        if self.has(address):
            self.get(address)
        else:
            for loop in self.partial(address).glob("loop-*"):
                checkpoint.load(loop)

    def put(self, address: Address, stage: Stage, *, values: bool) -> None:
        """values: the result is JSON, not arrays."""
        meta = {
            "name": address.name,
            "seed": address.seed,
            "key": address.key,
            "seconds": stage.seconds,
            "compile_seconds": stage.compile_seconds,
            "values": stage.result if values else None,
            "environment": _environment.environment(),
        }
        checkpoint.save(self.place(address), {} if values else stage.result, meta)
        shutil.rmtree(self.partial(address), ignore_errors=True)

    def partial(self, address: Address) -> pathlib.Path:
        """Where a stage in progress keeps the state of its loops."""
        return self.directory / f"{address.folder}.partial"


class _Watch:
    """The monitor of one stage of one seed: progress, stopping, and the state of its loops on disk."""

    def __init__(self, store: Store, address: Address, observer: Observer):
        self.store, self.address, self.observer = store, address, observer
        self.loops = -1
        self.began = time.perf_counter()
        self.saved = time.monotonic()
        self.earlier = Spent()

    def start(self, template: training.Fit, steps: int) -> tuple[training.Fit, int] | None:
        self.loops += 1
        place = self._place()
        if not checkpoint.exists(place):
            return None
        left = checkpoint.load(place, {"fit": template, "step": np.zeros((), np.int64)})
        meta = checkpoint.read_meta(place)
        self.earlier = Spent(meta["seconds"], meta["compile_seconds"])
        step = int(left["step"])
        if step < steps:
            self.observer.note(f"{self.address.name}, seed {self.address.seed}: going on at step {step} of {steps}")
        return jax.tree.map(jax.numpy.asarray, left["fit"]), step

    def segment(self, state: training.Fit, step: int, steps: int, loss: float) -> None:
        self.observer.progress(self.address.name, self.address.seed, step, steps, loss)
        stop = self.observer.should_stop()
        # A finished loop is kept too: the stage may have another one to go.
        if stop or step == steps or time.monotonic() - self.saved > SAVE_EVERY_SECONDS:
            spent = _since(self.began)
            meta = {
                "seconds": self.earlier.seconds + spent.seconds,
                "compile_seconds": self.earlier.compile_seconds + spent.compile_seconds,
            }
            checkpoint.save(self._place(), {"fit": state, "step": np.asarray(step, np.int64)}, meta)
            self.saved = time.monotonic()
        if stop:
            raise InterruptedRunError(
                f"stopped in {self.address.name}, seed {self.address.seed}, at step {step} of {steps}"
            )

    def _place(self) -> pathlib.Path:
        return self.store.partial(self.address) / f"loop-{self.loops}"


class Maker:
    """Makes the stages that are missing: seeds side by side in one compiled call, or one by one, as many as cores."""

    def __init__(self, store: Store, observer: Observer, *, together: bool):
        self.store, self.observer, self.together = store, observer, together
        self.compiled: dict[tuple, Callable] = {}

    def make(
        self,
        addresses: Sequence[Address],
        function: Callable[..., Any],
        arguments: Sequence[tuple],
        axes: tuple,
        values: Callable[[Any], Any] | None = None,
    ) -> list[Stage]:
        """The stage of every seed, function(*arguments of the seed), read back where it is finished.

        axes: for seeds side by side, 0 for an argument every seed has its own of, None for one they share, or a tuple
        of these, one for each of its leaves. values: from the function's result to JSON values, where the stage keeps
        those instead. Raises StageFailedError for a non-finite loss, naming stage, seed and step; InterruptedRunError
        when asked to stop.
        """
        missing = [i for i, address in enumerate(addresses) if not self.store.has(address)]
        if missing:
            name = addresses[0].name
            if self.observer.should_stop():
                raise InterruptedRunError(f"stopped before {name}")
            self.observer.stage(name, [addresses[i].seed for i in missing], len(addresses) - len(missing))
            work = self._side_by_side if self.together else self._one_by_one
            with timed() as spent:
                work([addresses[i] for i in missing], function, [arguments[i] for i in missing], axes, values)
            self.observer.finished(name, spent.seconds, spent.compile_seconds)
        return [self.store.get(address) for address in addresses]

    def _one_by_one(
        self,
        addresses: list[Address],
        function: Callable,
        arguments: list[tuple],
        axes: tuple,
        values: Callable | None,
    ) -> None:
        work = [(address, function, own, values) for address, own in zip(addresses, arguments, strict=True)]
        # The first compiles for all. A small network keeps no CPU of several cores busy: there the others share it.
        self._one(*work[0], beside=1)
        count = min(len(work) - 1, os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1
        if len(work) > 1:
            with futures.ThreadPoolExecutor(count) as pool:
                started = [pool.submit(self._one, *each, beside=count) for each in work[1:]]
                futures.wait(started, return_when=futures.FIRST_EXCEPTION)
                pool.shutdown(cancel_futures=True)
            for each in started:
                if not each.cancelled():
                    each.result()

    def _one(self, address: Address, function: Callable, own: tuple, values: Callable | None, *, beside: int) -> None:
        """beside: how many run at the same time, and share the seconds."""
        watch = _Watch(self.store, address, self.observer)
        with timed() as spent, training.monitored(watch):
            try:
                result = jax.device_get(function(*own))
            except training.NonFiniteLossError as error:
                raise StageFailedError(_not_finite(address, error.step)) from error
        spent.seconds += watch.earlier.seconds
        spent.compile_seconds += watch.earlier.compile_seconds
        self._keep(address, result, spent, beside, values)
        self._stop_if_asked(address)

    def _side_by_side(
        self,
        addresses: list[Address],
        function: Callable,
        arguments: list[tuple],
        axes: tuple,
        values: Callable | None,
    ) -> None:
        structure = jax.tree.structure(arguments[0])
        each = zip(axes, arguments[0], strict=True)
        flat = tuple(x for axis, own in each for x in (axis if isinstance(axis, tuple) else _alike(axis, own)))
        # What all seeds share is passed once, not stacked.
        leaves = zip(flat, *map(jax.tree.leaves, arguments), strict=True)
        stacked = [own[0] if axis is None else _stack(*own) for axis, *own in leaves]
        if (function, structure, flat) not in self.compiled:
            # Over leaves, because vmap fills the structures of in_axes with place-holders of no type.
            over_leaves = _over_leaves(_with_failures(function), structure)
            self.compiled[function, structure, flat] = jax.jit(jax.vmap(over_leaves, in_axes=flat))
        with timed() as spent:
            results, failed = jax.device_get(self.compiled[function, structure, flat](*stacked))
        failures = [[int(step) for step in steps if step >= 0] for steps in failed]
        for i, address in enumerate(addresses):
            if not failures[i]:
                result = jax.tree.map(lambda leaf, i=i: leaf[i], results)
                self._keep(address, result, spent, len(addresses), values)
        for address, steps in zip(addresses, failures, strict=True):
            if steps:
                raise StageFailedError(_not_finite(address, steps[0]))
        self._stop_if_asked(addresses[-1])

    def _keep(self, address: Address, result: Any, spent: Spent, shared: int, values: Callable | None) -> None:
        stage = Stage(values(result) if values else result, spent.seconds / shared, spent.compile_seconds / shared)
        self.store.put(address, stage, values=values is not None)

    def _stop_if_asked(self, address: Address) -> None:
        if self.observer.should_stop():
            raise InterruptedRunError(f"stopped after {address.name}")


def _not_finite(address: Address, step: int) -> str:
    return (
        f"{address.name}: the loss of seed {address.seed} is not finite at step {step}; "
        "lower its learning rate, or its forgetting strength, and run again: what was finished is kept"
    )


def _stack(*own: Any) -> Any:
    """On the host, where stacking compiles nothing; random keys live on the device only."""
    keys = jax.dtypes.issubdtype(own[0].dtype, jax.dtypes.prng_key)
    return jax.numpy.stack(own) if keys else np.stack(own)


def _alike(axis: int | None, tree: Any) -> tuple[int | None, ...]:
    return (axis,) * len(jax.tree.leaves(tree))


def _over_leaves(function: Callable, structure: Any) -> Callable:
    return lambda *leaves: function(*jax.tree.unflatten(structure, leaves))


def _with_failures(function: Callable) -> Callable:
    """Gives (result, failed steps [loops]): what a loop under vmap cannot raise."""

    def one(*arguments: Any) -> tuple[Any, Any]:
        with training.failures() as failed:
            result = function(*arguments)
        return result, jax.numpy.stack(failed) if failed else jax.numpy.full(1, -1, jax.numpy.int32)

    return one


@dataclasses.dataclass
class Spent:
    """Wall-clock seconds of a piece of work, compilation by itself."""

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
        passed = _since(began)
        spent.seconds, spent.compile_seconds = passed.seconds, passed.compile_seconds


def _since(began: float) -> Spent:
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
        jax.monitoring.register_event_duration_secs_listener(_heard)


def _heard(event: str, duration_secs: float, **_: Any) -> None:
    if event.startswith("/jax/core/compile/"):
        now = time.perf_counter()
        _compilations.append((now - duration_secs, now))
