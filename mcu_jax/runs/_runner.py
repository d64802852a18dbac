"""Makes the stages of a run that are missing: seeds side by side in one compiled call, or one by one.

On a mesh of devices seeds have an axis to themselves: side by side a part of them is on each of its devices, one by one
each seed has its own. Several processes do the same, in the same order; the first one's clock and files decide.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import queue
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcu_jax import checkpoint, chunks, sharding, training
from mcu_jax.runs import _estimate, _graph, _stages, _timing
from mcu_jax.runs._graph import Graph, Stage
from mcu_jax.runs._observer import InterruptedRunError, Observer
from mcu_jax.runs._stages import Diverged, Made
from mcu_jax.runs._timing import Spent

SAVE_EVERY_SECONDS = 10.0
"""How much work of a stage in progress may be lost to a kill."""

Arguments = dict[str, Any]


class Runner:
    """Finished stages by reading them, others by making them. together: whether seeds are made side by side."""

    def __init__(self, store: _stages.Store, observer: Observer, *, together: bool):
        self.store, self.observer, self.together = store, observer, together
        self.made: dict[str, Made] = {}
        self.causes: dict[str, Diverged | None] = {}
        self.functions: dict[tuple, Callable] = {}

    def run(self, graph: Graph) -> None:
        """Makes what is missing, label by label. A stage that is given what diverged is left out.

        Raises InterruptedRunError when asked to stop.
        """
        unfinished = {label: missing for label, stages in graph.items() if (missing := self._missing(stages))}
        estimates = _estimate.Estimates(graph, unfinished, self.store)
        for number, label in enumerate(unfinished, 1):
            missing = [stage for stage in self._missing(graph[label]) if self.broken(stage) is None]
            if not missing:
                continue
            if _asked_to_stop(self.observer):
                raise InterruptedRunError(f"stopped before {label}")
            cached = len(graph[label]) - len(missing)
            self.observer.stage(label, [stage.seed for stage in missing], cached, number, len(unfinished))
            self.observer.expect(estimates.left(label))
            with _timing.timed() as spent:
                if self.together and not missing[0].on_host:
                    self._side_by_side(missing)
                else:
                    self._one_by_one(missing)
            estimates.made(label, spent)
            self.observer.finished(label, spent.seconds, spent.compile_seconds)

    def _missing(self, stages: Sequence[Stage]) -> list[Stage]:
        return [stage for stage, has in zip(stages, self.store.have(stages), strict=True) if not has]

    def read(self, stage: Stage) -> Any:
        """What a stage came to; `Diverged` where it or anything that it needs has."""
        return self.broken(stage) or self._get(stage).result

    def found(self, stage: Stage) -> Any:
        """The same; None where it, or what it needs, diverged."""
        result = self.read(stage)
        return None if isinstance(result, Diverged) else result

    def spent(self, stage: Stage) -> Spent:
        return Spent() if self._left_out(stage) else self._get(stage).spent

    def broken(self, stage: Stage) -> Diverged | None:
        """Why there is no result: found once, as soon as it cannot change any more."""
        if stage.digest not in self.causes:
            cause = self._left_out(stage)
            if not cause and not self.store.has(stage):
                return None
            result = cause or self._get(stage).result
            self.causes[stage.digest] = result if isinstance(result, Diverged) else None
        return self.causes[stage.digest]

    def _left_out(self, stage: Stage) -> Diverged | None:
        causes = (self.broken(source) for source in _graph.sources(stage))
        return next((cause for cause in causes if cause), None)

    def _get(self, stage: Stage) -> Made:
        """Kept on the host: devices hold what is computed with."""
        if stage.digest not in self.made:
            made = self.store.get(stage)
            self.made[stage.digest] = made._replace(result=jax.device_get(made.result))
        return self.made[stage.digest]

    # How they are made.

    def _arguments(self, stage: Stage, *, whole: bool) -> Arguments:
        """whole: on every device, also where parameters are shared out."""

        def read(given: _graph.Input) -> Any:
            if isinstance(given, _graph.Leaf):
                return given.make()
            value = self.read(given) if isinstance(given, Stage) else self.read(given.stage)[given.name]
            return jax.tree.map(functools.partial(_placed, whole=whole), value)

        return {name: read(given) for name, given in stage.inputs.items()}

    def _function(self, stage: Stage) -> Callable:
        """The same for the same settings, so that it is compiled once."""
        name = (stage.function, json.dumps(dict(stage.settings), sort_keys=True))
        return self.functions.setdefault(name, functools.partial(stage.function, **stage.settings))

    def _one_by_one(self, stages: list[Stage]) -> None:
        meshes: list[Any] = sharding.rows() if len(stages) > 1 else []
        if sharding.current() is None:
            # The first compiles for all. A small network keeps no CPU of several cores busy: there the others share it.
            self._one(stages[0], beside=1)
            stages = stages[1:]
            meshes = [None] * ((os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1)
        self._on_meshes(stages, meshes or [sharding.current()])

    def _on_meshes(self, stages: list[Stage], meshes: list[Any]) -> None:
        """Each by itself, on the next of them that is free."""
        beside, free = min(len(meshes), len(stages)), queue.SimpleQueue[Any]()
        for mesh in meshes:
            free.put(mesh)

        def one(stage: Stage) -> None:
            mesh = free.get()
            try:
                with sharding.use(mesh):  # which a thread does not inherit
                    self._one(stage, beside=beside)
            finally:
                free.put(mesh)

        if beside < 2:
            for stage in stages:
                one(stage)
            return
        with futures.ThreadPoolExecutor(beside) as pool:
            started = [pool.submit(one, stage) for stage in stages]
            futures.wait(started, return_when=futures.FIRST_EXCEPTION)
            pool.shutdown(cancel_futures=True)
        for future in started:
            if not future.cancelled():
                future.result()

    def _one(self, stage: Stage, *, beside: int) -> None:
        """beside: how many run at the same time, and share the seconds."""
        watch = _Watch(self.store, [stage], self.observer)
        with _timing.timed() as spent, training.monitored(watch), chunks.told(watch.note):
            try:
                arguments = self._arguments(stage, whole=stage.on_host)
                result = sharding.fetch(self._function(stage)(**arguments))
            except training.NonFiniteLossError as error:
                result = Diverged(stage.label, stage.seed, error.step)
        earlier = Spent(watch.earlier.seconds * beside, watch.earlier.compile_seconds * beside)
        self._keep(stage, result, spent, earlier, beside)
        self._stop_if_asked(stage)

    def _side_by_side(self, stages: list[Stage]) -> None:
        arguments = [self._arguments(stage, whole=True) for stage in stages]
        with sharding.use(sharding.for_seeds()):
            self._together(stages, arguments)

    def _together(self, stages: list[Stage], arguments: list[Arguments]) -> None:
        # vmap over one seed rounds otherwise than over several: one alone runs twice.
        count = sharding.count_of_seeds(max(2, len(arguments)))
        padded = [arguments[i % len(arguments)] for i in range(count)]
        structure = jax.tree.structure(arguments[0])
        # jax takes the entries of a dict in the order of their names.
        inputs = sorted(stages[0].inputs.items())
        axes = tuple(axis for name, given in inputs for axis in _axes(given, arguments[0][name]))
        # What all seeds share is passed once, not stacked.
        leaves = zip(axes, *map(jax.tree.leaves, padded), strict=True)
        stacked = [values[0] if axis is None else sharding.spread(_stack(*values)) for axis, *values in leaves]
        # Over leaves, because vmap fills the structures of in_axes with place-holders of no type. Not compiled as a
        # whole: between the segments of its loops it can be looked at, saved and stopped.
        function = jax.vmap(_over_leaves(_with_failures(self._function(stages[0])), structure), in_axes=axes)
        watch = _Watch(self.store, stages, self.observer)
        with _timing.timed() as spent, training.monitored(watch):
            results, failed = sharding.fetch(function(*stacked))
        for i, stage in enumerate(stages):
            steps = [int(step) for step in failed[i] if step >= 0]
            diverged = Diverged(stage.label, stage.seed, steps[0]) if steps else None
            result = jax.tree.map(lambda leaf, i=i: leaf[i], results)
            self._keep(stage, diverged or result, spent, watch.earlier, len(stages))
        self.store.remove(watch.place)
        self._stop_if_asked(stages[-1])

    def _keep(self, stage: Stage, result: Any, spent: Spent, earlier: Spent, shared: int) -> None:
        """earlier: what was spent on it before the run was interrupted."""
        if not isinstance(result, Diverged):
            if stage.values:
                result = stage.values(result)
            elif not _stages.is_finite(result):
                result = Diverged(stage.label, stage.seed, 0)
        seconds = (spent.seconds + earlier.seconds) / shared
        compile_seconds = (spent.compile_seconds + earlier.compile_seconds) / shared
        self.store.put(stage, Made(result, Spent(seconds, compile_seconds)))

    def _stop_if_asked(self, stage: Stage) -> None:
        if _asked_to_stop(self.observer):
            raise InterruptedRunError(f"stopped after {stage.label}")


def _asked_to_stop(observer: Observer) -> bool:
    """Of any process."""
    return sharding.anywhere(observer.should_stop())


def _placed(leaf: Any, *, whole: bool) -> Any:
    """On the devices, one leaf at a time: a part of it on each is all that has to fit."""
    if isinstance(leaf, float):
        return jnp.asarray(leaf, jnp.float32)
    if not isinstance(leaf, np.ndarray | np.generic):
        return leaf
    return jnp.asarray(leaf) if whole else sharding.split(jnp.asarray(leaf))


def _axes(given: _graph.Input, value: Any) -> tuple[int | None, ...]:
    axis = given.axes if isinstance(given, _graph.Leaf) else 0
    return axis if isinstance(axis, tuple) else (axis,) * len(jax.tree.leaves(value))


def _stack(*values: Any) -> Any:
    """On the host, where stacking compiles nothing; random keys live on the device only."""
    keys = jax.dtypes.issubdtype(values[0].dtype, jax.dtypes.prng_key)
    return jnp.stack(values) if keys else np.stack(values)


def _over_leaves(function: Callable, structure: Any) -> Callable:
    return lambda *leaves: function(**jax.tree.unflatten(structure, leaves))


def _with_failures(function: Callable) -> Callable:
    """Gives (result, failed steps [loops]): what a loop under vmap cannot raise."""

    def one(**arguments: Any) -> tuple[Any, Any]:
        with training.failures() as failed:
            result = function(**arguments)
        return result, jnp.stack(failed) if failed else jnp.full(1, -1, jnp.int32)

    return one


class _Watch:
    """The monitor of a stage of one seed, or of several side by side: progress, stopping, its loops' state on disk."""

    def __init__(self, store: _stages.Store, stages: Sequence[Stage], observer: Observer):
        self.stages, self.observer = stages, observer
        self.place = store.partial(*stages)
        self.loops = -1
        self.began = time.perf_counter()
        self.saved = time.monotonic()
        self.earlier = Spent()

    def start(self, template: training.Fit, steps: int) -> tuple[training.Fit, int] | None:
        self.loops += 1
        place = self._loop()
        if not sharding.agree(checkpoint.exists(place)):
            return None
        meta, left = _stages.read_loop(place, {"fit": template, "step": np.zeros((), np.int64)})
        self.earlier = Spent(meta["seconds"], meta["compile_seconds"])
        step = int(left["step"])
        if step < steps:
            self.note(f"going on at step {step} of {steps}")
        return jax.tree.map(jnp.asarray, left["fit"]), step

    def segment(self, state: training.Fit, step: int, steps: int, loss: np.ndarray) -> None:
        for stage, last in zip(self.stages, np.atleast_1d(loss), strict=False):  # one alone is there twice
            self.observer.progress(stage.label, stage.seed, step, steps, float(last))
        stop = _asked_to_stop(self.observer)
        # A finished loop is kept too: the stage may have another one to go.
        late = bool(sharding.agree(time.monotonic() - self.saved > SAVE_EVERY_SECONDS))
        if stop or step == steps or late:
            spent = _timing.since(self.began)
            meta = {
                "seconds": self.earlier.seconds + spent.seconds,
                "compile_seconds": self.earlier.compile_seconds + spent.compile_seconds,
            }
            _stages.save_loop(self._loop(), {"fit": state, "step": np.asarray(step, np.int64)}, meta)
            self.saved = time.monotonic()
        if stop:
            raise InterruptedRunError(f"stopped in {self._name()}, at step {step} of {steps}")

    def note(self, text: str) -> None:
        self.observer.note(f"{self._name()}: {text}")

    def _name(self) -> str:
        seeds = ", ".join(str(stage.seed) for stage in self.stages)
        return f"{self.stages[0].label}, seed{'s' * (len(self.stages) > 1)} {seeds}"

    def _loop(self) -> pathlib.Path:
        return self.place / f"loop-{self.loops}"
