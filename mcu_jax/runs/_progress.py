"""What a run says on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from mcu_jax import interrupts


class Progress:
    """An observer that shows bars on a terminal and lines elsewhere, on standard error.

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
        self.counted = ""

    def __enter__(self) -> Progress:
        self.heeded = interrupts.heeded(self._interrupted)
        self.heeded.__enter__()
        if not self.quiet and sys.stderr.isatty():
            from rich import console, progress

            self.bar = progress.Progress(
                progress.SpinnerColumn(),
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.TextColumn("{task.fields[loss]}"),
                progress.TimeElapsedColumn(),
                progress.TimeRemainingColumn(),
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
            interrupts.end("stopped; what was finished is kept: give the same command again to go on")
        self.stopping = True
        self.note("stopping as soon as nothing is lost by it; Ctrl-C again stops at once")

    def stage(self, name: str, seeds: Sequence[int], cached: int, number: int = 0, total: int = 0) -> None:
        self.counted = f"stage {number} of {total}" if total else ""
        if self.bar:
            if total:
                # The time left, were the stages to come as long as those that are done.
                if self.whole is None:
                    self.whole = self.bar.add_task("", total=total, loss="")
                self.bar.update(self.whole, description=self.counted, completed=number - 1, total=total)
            self.tasks[None] = self.bar.add_task(f"{name} · {count(seeds)}", total=None, loss="")

    def progress(self, name: str, seed: int, step: int, steps: int, loss: float) -> None:
        if self.bar:
            if seed not in self.tasks:  # the time left is that of one seed's training
                self.tasks[seed] = self.bar.add_task(f"{name} · seed {seed}", total=steps, loss="")
            self.bar.update(self.tasks[seed], completed=step, total=steps, loss=f"loss {loss:.3f}")

    def finished(self, name: str, seconds: float, compile_seconds: float) -> None:
        if self.bar:
            for task in self.tasks.values():
                self.bar.remove_task(task)
            self.tasks = {}
        counted = f" ({self.counted})" if self.counted else ""
        self.note(f"{name}: {seconds:.1f} s, and {compile_seconds:.1f} s compiling{counted}")

    def note(self, text: str) -> None:
        if self.quiet:
            return
        if self.bar:
            self.bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def should_stop(self) -> bool:
        return self.stopping


def count(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"
