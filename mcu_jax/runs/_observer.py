"""Who is told how a run goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


class InterruptedRunError(RuntimeError):
    """Asked to stop. What was finished stays, and the same command goes on from there."""


@runtime_checkable
class Observer(Protocol):
    """Is told how a run goes, and may ask it to stop. Told of progress from several threads."""

    def stage(self, name: str, seeds: Sequence[int], cached: int, number: int, total: int) -> None:
        """A stage begins, for the seeds that are not there yet; cached: how many are.

        number: from 1 to total, among the stages of which anything was missing when the run began.
        """

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

    def stage(self, name: str, seeds: Sequence[int], cached: int, number: int, total: int) -> None: ...

    def progress(self, name: str, seed: int, step: int, steps: int, loss: float) -> None: ...

    def finished(self, name: str, seconds: float, compile_seconds: float) -> None: ...

    def note(self, text: str) -> None: ...

    def should_stop(self) -> bool:
        return False
