"""Memory of training and evaluating on a file of images three times as large as the memory allowed for it.

Shows: of examples on disk a batch at a time is in memory: `training.train`, a method and an evaluation grow the process
by less than the budget. Counted is anonymous memory, /proc/self/status RssAnon: pages of the file that the system keeps
cached are given back when it needs them. Compilation is part of it. Linux only.
Run: python experiments/benchmarks/on_disk.py
Time: 40 seconds on 2 x86-64 CPU cores, jax 0.10.2, other work running beside it: memory holds, seconds do not.
Result: 1,077 MB on disk, a budget of 336 MB; the process grows by 329 MB (229 MB of them by the end of training), in
    other runs by 283 to 321 MB, and by 245 MB where nothing is read ahead: grain and its threads take the rest.
    All figures: experiments/results/on_disk.json.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import platform
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from mcu_jax import methods, metrics, models, sources, training
from mcu_jax.base import Problem

RESULT = pathlib.Path(__file__).parents[1] / "results" / "on_disk.json"
BUDGET = 320 * 2**20
COUNT, SHAPE, CLASSES = 350_000, (32, 32, 3), 100
SIZES = {"forget": 20_000, "retain": 310_000, "validation": 10_000, "test": 10_000}
CHUNK = 10_000


def write(directory: pathlib.Path) -> sources.Host:
    """Generated images and labels, written piece by piece."""
    rng = np.random.default_rng(0)
    images = np.lib.format.open_memmap(directory / "x.npy", mode="w+", dtype=np.uint8, shape=(COUNT, *SHAPE))
    for start in range(0, COUNT, CHUNK):
        images[start : start + CHUNK] = rng.integers(0, 256, (CHUNK, *SHAPE), np.uint8)
    images.flush()
    np.save(directory / "y.npy", rng.integers(0, CLASSES, COUNT, np.int32))
    arrays = {name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in ("x", "y")}
    return sources.memory_mapped(arrays, budget=BUDGET)


def anonymous_bytes() -> int:
    """Memory of this process that is no page of a file."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("this system does not say how much anonymous memory a process has: Linux does")


@contextlib.contextmanager
def peak_growth() -> Iterator[list[int]]:
    """Afterwards one number: by how much anonymous memory grew at its peak, looked at every 10 ms."""
    first, peaks, done = anonymous_bytes(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            peaks[0] = max(peaks[0], anonymous_bytes() - first)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peaks
    finally:
        done.set()
        watcher.join()


def main() -> None:
    ends = np.cumsum(list(SIZES.values()))
    rows: dict[str, Any] = dict(zip(SIZES, np.split(np.arange(COUNT, dtype=np.int32), ends[:-1]), strict=True))
    model = models.mlp(num_classes=CLASSES, hidden=(32,))
    growth, seconds = {}, {}
    jax.block_until_ready(jax.jit(lambda x: x + 1)(1))
    with tempfile.TemporaryDirectory() as directory:
        data = write(pathlib.Path(directory))
        with peak_growth() as peaks:
            began = time.perf_counter()
            seen = np.concatenate([rows["forget"], rows["retain"]])
            params = training.train(model, data, jax.random.key(0), rows=seen, epochs=1, lr=0.01)
            problem = Problem(model=model, params=params, data=data, num_classes=CLASSES, **rows)
            growth["train"], seconds["train"] = peaks[0], time.perf_counter() - began
            began = time.perf_counter()
            settings = training.Training(epochs=1, lr=1e-3)
            unlearned = methods.npo(problem, jax.random.key(1), train=settings)
            growth["and_npo"], seconds["npo"] = peaks[0], time.perf_counter() - began
            began = time.perf_counter()
            jax.block_until_ready(metrics.evaluate(problem, unlearned))
            seconds["evaluate"] = time.perf_counter() - began
        growth["and_evaluate"] = peaks[0]
        on_disk = sum(path.stat().st_size for path in pathlib.Path(directory).iterdir())
    document = {
        "command": "python experiments/benchmarks/on_disk.py",
        "bytes": {"on_disk": on_disk, "budget": BUDGET, "peak_anonymous_growth": growth},
        "within_the_budget": growth["and_evaluate"] <= BUDGET,
        "seconds": seconds,
        "versions": {"jax": jax.__version__, "python": platform.python_version()},
        "device": {"kind": jax.devices()[0].device_kind, "cores": os.cpu_count(), "machine": platform.machine()},
    }
    print(json.dumps(document, indent=1))
    RESULT.write_text(json.dumps(document, indent=1) + "\n")
    if not document["within_the_budget"]:
        raise SystemExit("more than the budget")


if __name__ == "__main__":
    main()
