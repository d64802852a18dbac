"""What happens in a run, as lines of JSON, and as events of TensorBoard."""

from __future__ import annotations

import datetime
import json
import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from mcu_jax.runs import _files
from mcu_jax.runs._observer import Begun, InterruptedRunError, Silent
from mcu_jax.runs._settings import ConfigError
from mcu_jax.runs._stages import Diverged

EVERY_SECONDS = 1.0
"""No more losses of one seed than that are logged."""


class Log(Silent):
    """An observer that appends what it is told to a file: a JSON object a line, flushed, with `time` (UTC) and `event`.

    `with Log("run.jsonl") as observer: runs.unlearn(config, observer)`. The events: begun (a run, with the digest of
    its configuration), stage, progress (loss, at most once a second for each seed, and of the last step), finished,
    note, ended (with the stages that failed), stopped (by who asked), failed (by an error). What is not finite is
    null. Raises ConfigError for a file that cannot be written to.
    """

    def __init__(self, file: str | os.PathLike[str]):
        self.file = _files.place(file, "log")
        self.lock = threading.Lock()
        self.told: dict[int, float] = {}
        """When the last loss of a seed was."""

    def __enter__(self) -> Log:
        try:
            self.out: TextIO = self.file.open("a", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"log: {error.strerror}: {self.file}; choose another with --log") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is not None:
            event = "stopped" if isinstance(error, InterruptedRunError | KeyboardInterrupt) else "failed"
            self._write(event, error=type(error).__name__, text=str(error))
        self.out.close()

    def begun(self, run: Begun) -> None:
        self._write("begun", **run._asdict() | {"directory": str(run.directory), "seeds": list(run.seeds)})

    def stage(self, name: str, seeds: Sequence[int], cached: int, number: int, total: int) -> None:
        self.told = {}
        self._write("stage", name=name, seeds=list(seeds), cached=cached, number=number, total=total)

    def progress(self, name: str, seed: int, step: int, steps: int, loss: float) -> None:
        now = time.monotonic()
        if step == steps or now - self.told.get(seed, -math.inf) >= EVERY_SECONDS:
            self.told[seed] = now
            self._write("progress", name=name, seed=seed, step=step, steps=steps, loss=loss)

    def finished(self, name: str, seconds: float, compile_seconds: float) -> None:
        self._write("finished", name=name, seconds=seconds, compile_seconds=compile_seconds)

    def note(self, text: str) -> None:
        self._write("note", text=text)

    def ended(self, results: Mapping[str, Any], failures: Sequence[Diverged]) -> None:
        self._write("ended", failures=[failure._asdict() for failure in failures])

    def _write(self, event: str, **values: Any) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        with self.lock:
            self.out.write(json.dumps({"time": now, "event": event, **finite}) + "\n")
            self.out.flush()


class TensorBoard(Silent):
    """An observer that writes event files of TensorBoard to a folder: losses of every stage and seed by step, and at
    the end of a run the values along every path, by t in thousandths.

    Raises ConfigError where tensorboardX is not installed, or the folder cannot be written to.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = _files.place(folder, "tensorboard")

    def __enter__(self) -> TensorBoard:
        try:
            import tensorboardX
        except ImportError as error:
            raise ConfigError("events of TensorBoard need tensorboardX: pip install tensorboardX") from error
        try:
            self.writer = tensorboardX.SummaryWriter(str(self.folder))
        except OSError as error:
            why = f"{error.strerror}: {self.folder}"
            raise ConfigError(f"tensorboard: {why}; choose another folder with --tensorboard") from error
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()

    def progress(self, name: str, seed: int, step: int, steps: int, loss: float) -> None:
        self._add(f"loss/{name}/seed {seed}", loss, step)

    def ended(self, results: Mapping[str, Any], failures: Sequence[Diverged]) -> None:
        for path in results.get("paths", ()):
            known = {name: values for name, values in path.items() if isinstance(values, list)}
            self._along("along the path", path["curve"], path["seed"], path["t"], known)
        for pair in results.get("pairs", ()):
            ends = f"{pair['a']['label']} – {pair['b']['label']}, {pair['curve']}"
            self._along("between", ends, pair["seed"], pair["t"], pair["metrics"])

    def _along(self, title: str, line: str, seed: int, ts: Sequence[float], values: Mapping[str, Any]) -> None:
        for name, along in values.items():
            if name != "t" and len(along) == len(ts) and not isinstance(along[0], list | str):
                for t, value in zip(ts, along, strict=True):
                    self._add(f"{title}/{name}/{line}/seed {seed}", float(value), round(1000 * t))

    def _add(self, name: str, value: float, step: int) -> None:
        if math.isfinite(value):
            self.writer.add_scalar(name, value, step)
