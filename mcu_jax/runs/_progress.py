"""What a run says on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from mcu_jax import interrupts, text
from mcu_jax.runs._observer import Begun, Expected, Silent

UNKNOWN = "time left unknown"


class Progress(Silent):
    """An observer that shows bars on a terminal and one line a stage elsewhere, on standard error.

    `with Progress() as observer: runs.unlearn(config, observer)`. Inside, the first Ctrl-C or SIGTERM asks the run to
    stop as soon as nothing is lost by it, and the second ends the process. quiet: shows nothing.
    """

    def __init__(self, *, quiet: bool = False):
        self.quiet, self.stopping = quiet, False
        self.bar: Any = None
        self.whole: Any = None
        """The bar of all stages."""
        self.tasks: dict[int | None, Any] = {}
        """Of the seeds that are trained just now, None for all of them together."""
        self.loops: dict[int, _Loop] = {}
        """How fast each of them goes."""
        self.number, self.total = 0, 0
        self.expected = Expected()
        self.kept = ""
        """Where what was finished is."""

    def __enter__(self) -> Progress:
        self.heeded = interrupts.heeded(self._interrupted)
        self.heeded.__enter__()
        if not self.quiet and sys.stderr.isatty():
            from rich import console, progress

            self.bar = progress.Progress(
                progress.SpinnerColumn(),
                progress.TextColumn("{task.description}"),
                progress.BarColumn(bar_width=20),
                progress.TextColumn("{task.fields[loss]}"),
                progress.TimeElapsedColumn(),
                progress.TextColumn("{task.fields[left]}"),
                console=console.Console(stderr=True),
                transient=True,
            )
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()
        self.heeded.__exit__(None, None, None)

    def _interrupted(self) -> None:
        if self.stopping:
            if self.bar:
                self.bar.stop()  # gives the cursor back
            interrupts.end(f"stopped; what was finished is kept{self.kept}: give the same command again to go on")
        self.stopping = True
        self.note("stopping as soon as nothing is lost by it; Ctrl-C again stops at once")

    def begun(self, run: Begun) -> None:
        self.kept = f" in {text.printable(str(run.directory))}"

    def stage(self, name: str, seeds: Sequence[int], cached: int, number: int = 0, total: int = 0) -> None:
        self.number, self.total, self.expected = number, total, Expected()
        if self.bar:
            if total:
                if self.whole is None:
                    self.whole = self.bar.add_task("", total=total, loss="", left="")
                self.bar.update(self.whole, description=self._counted(), completed=number - 1, total=total)
            told = f"{name} · {count(seeds)}"
            self.tasks[None] = self.bar.add_task(told, total=None, loss="", left=_Left(None))

    def expect(self, expected: Expected) -> None:
        self.expected = expected
        if self.bar and self.tasks:
            self.bar.update(self.tasks[None], left=_Left(expected.stage))
            if self.whole is not None:
                stages = (expected.stage or 0.0) + expected.later
                self.bar.update(self.whole, left=_Left(stages, unknown=expected.unknown + (expected.stage is None)))

    def progress(self, name: str, seed: int, step: int, steps: int, loss: float) -> None:
        if self.bar:
            if seed not in self.tasks:
                self.tasks[seed] = self.bar.add_task(f"{name} · seed {seed}", total=steps, loss="", left="")
            if seed not in self.loops or step <= self.loops[seed].step:  # a stage may have several
                self.loops[seed] = _Loop(step)
            left = self.loops[seed].left(step, steps)
            self.bar.update(self.tasks[seed], completed=step, total=steps, loss=f"loss {loss:.3f}", left=left)

    def finished(self, name: str, seconds: float, compile_seconds: float) -> None:
        if self.bar:
            for task in self.tasks.values():
                self.bar.remove_task(task)
        self.tasks, self.loops = {}, {}
        told = [self._counted()] if self.total else []
        if self.number < self.total:
            told.append(str(_Left(self.expected.later, unknown=self.expected.unknown)))
        counted = f" ({', '.join(told)})" if told else ""
        self.note(f"{name}: {seconds:.1f} s, and {compile_seconds:.1f} s compiling{counted}")

    def _counted(self) -> str:
        return f"stage {self.number} of {self.total}" if self.total else ""

    def note(self, text: str) -> None:
        if self.quiet:
            return
        if self.bar:
            self.bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def should_stop(self) -> bool:
        return self.stopping


class _Left:
    """What is left of so many seconds, in words, whenever it is shown. unknown: of so many parts nothing is known."""

    def __init__(self, seconds: float | None, *, unknown: int = 0):
        self.ends = None if seconds is None or (unknown and not seconds) else time.monotonic() + seconds
        self.unknown = unknown

    def __str__(self) -> str:
        if self.ends is None:
            return UNKNOWN
        left = self.ends - time.monotonic()
        if left < 0 and not self.unknown:
            return "longer than expected"
        if self.unknown and left < 0.5:
            return UNKNOWN
        return f"{'more than' if self.unknown else 'about'} {duration(max(left, 0.0))} left"


class _Loop:
    """How fast a loop of training goes, from its second segment on: the first one is compiled."""

    def __init__(self, step: int):
        self.first, self.step, self.began = step, step, time.monotonic()

    def left(self, step: int, steps: int) -> _Left:
        self.step = step
        done = step - self.first
        return _Left((time.monotonic() - self.began) * (steps - step) / done if done else None)


def duration(seconds: float) -> str:
    """`40 s`, `3 min`, `2 h 05 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def count(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"
