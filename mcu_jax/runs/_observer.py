"""Who is told how a run goes."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from mcu_jax.runs._stages import Diverged


class InterruptedRunError(RuntimeError):
    """Asked to stop. What was finished stays, and the same command goes on from there."""


class Begun(NamedTuple):
    """A run that begins. digest: of its configuration, without what extends a run and where things are.

    finished, stages: how many of its stages, those of every seed counted, are there, of how many.
    """

    kind: str
    directory: pathlib.Path
    digest: str
    seeds: Sequence[int]
    finished: int
    stages: int


class Expected(NamedTuple):
    """How many seconds are left, from what was measured in this run or before; compilation included.

    stage: of the stage that begins, None where nothing like it was measured. later: of those that follow, as far as
    they are known. unknown: how many of these are not.
    """

    stage: float | None = None
    later: float = 0.0
    unknown: int = 0


@runtime_checkable
class Observer(Protocol):
    """Is told how a run goes, and may ask it to stop. Told of progress from several threads.

    One's own is best derived from `Silent`, which has all of it.
    """

    def begun(self, run: Begun) -> None:
        """The run begins: nothing is computed yet."""

    def stage(self, name: str, seeds: Sequence[int], cached: int, number: int, total: int) -> None:
        """A stage begins, for the seeds that are not there yet; cached: how many are.

        number: from 1 to total, among the stages of which anything was missing when the run began.
        """

    def expect(self, expected: Expected) -> None:
        """How long it will take: told as soon as a stage has begun."""

    def progress(self, name: str, seed: int, step: int, steps: int, loss: float) -> None:
        """A segment of training ended."""

    def finished(self, name: str, seconds: float, compile_seconds: float) -> None:
        """The stage ended."""

    def note(self, text: str) -> None:
        """Something the user should know."""

    def ended(self, results: Mapping[str, Any], failures: Sequence[Diverged]) -> None:
        """The run is done. results: what `results.json` summarises, with the values along every path; as fractions.

        failures: the stages whose numbers were not finite.
        """

    def should_stop(self) -> bool:
        """Whether to stop as soon as nothing is lost by it."""


class Silent:
    """An observer that looks away."""

    def begun(self, run: Begun) -> None: ...

    def stage(self, name: str, seeds: Sequence[int], cached: int, number: int, total: int) -> None: ...

    def expect(self, expected: Expected) -> None: ...

    def progress(self, name: str, seed: int, step: int, steps: int, loss: float) -> None: ...

    def finished(self, name: str, seconds: float, compile_seconds: float) -> None: ...

    def note(self, text: str) -> None: ...

    def ended(self, results: Mapping[str, Any], failures: Sequence[Diverged]) -> None: ...

    def should_stop(self) -> bool:
        return False


class Observers:
    """Several in the place of one: all are told, in this order, and any of them may ask to stop."""

    def __init__(self, *observers: Observer):
        self.observers = observers

    def begun(self, run: Begun) -> None:
        for observer in self.observers:
            observer.begun(run)

    def stage(self, name: str, seeds: Sequence[int], cached: int, number: int, total: int) -> None:
        for observer in self.observers:
            observer.stage(name, seeds, cached, number, total)

    def expect(self, expected: Expected) -> None:
        for observer in self.observers:
            observer.expect(expected)

    def progress(self, name: str, seed: int, step: int, steps: int, loss: float) -> None:
        for observer in self.observers:
            observer.progress(name, seed, step, steps, loss)

    def finished(self, name: str, seconds: float, compile_seconds: float) -> None:
        for observer in self.observers:
            observer.finished(name, seconds, compile_seconds)

    def note(self, text: str) -> None:
        for observer in self.observers:
            observer.note(text)

    def ended(self, results: Mapping[str, Any], failures: Sequence[Diverged]) -> None:
        for observer in self.observers:
            observer.ended(results, failures)

    def should_stop(self) -> bool:
        return any(observer.should_stop() for observer in self.observers)
