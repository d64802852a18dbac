"""Batches a second of images of 224 pixels out of a memory-mapped file, with and without reading ahead by grain.

Shows: what is read while a step computes costs it little. A step is a wait of 30 ms, as of a CPU for its accelerator.
The file is read out of the system's cache, from the disk (its pages are dropped before each time), and out of the cache
20 ms late, as from a disk elsewhere. Beside grain a plain pool of threads reads the same, without jax. Linux only.
Run: python experiments/benchmarks/reading_ahead.py
Time: 3 minutes on 2 x86-64 CPU cores, jax 0.10.2, grain 0.2.18, other work running beside it: ratios hold at best.
Result: with two batches of 64 read ahead 27.7 batches a second in place of 17.2 from a disk elsewhere, 27.0 in place of
    25.7 from a fast disk, 26.5 in place of 25.2 out of the cache; 33.3 would be the steps alone. grain reads as fast as
    the pool where reading is waiting, and up to a third slower where it is copying: it adds no speed of its own.
    All figures: experiments/results/reading_ahead.json.
"""

from __future__ import annotations

import collections
import functools
import json
import os
import pathlib
import platform
import tempfile
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np

from mcu_jax import sources, training
from mcu_jax.sources import _ahead

RESULT = pathlib.Path(__file__).parents[1] / "results" / "reading_ahead.json"
COUNT, SHAPE, BATCH = 3_200, (224, 224, 3), 64
STEP_SECONDS = 0.03
LATENCY_SECONDS = 0.02
REPEATS, THREADS = 4, (1, 2, 4)


def write(directory: pathlib.Path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    images = np.lib.format.open_memmap(directory / "x.npy", mode="w+", dtype=np.uint8, shape=(COUNT, *SHAPE))
    for i in range(COUNT):
        images[i] = rng.integers(0, 256, SHAPE, np.uint8)
    images.flush()
    del images
    return {"x": np.load(directory / "x.npy", mmap_mode="r"), "y": np.zeros(COUNT, np.int32)}


def drop(directory: pathlib.Path) -> None:
    """The file's pages from the system's cache."""
    with (directory / "x.npy").open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def wait(state: jax.Array) -> jax.Array:
    def sleep(state: Any) -> np.ndarray:
        time.sleep(STEP_SECONDS)
        return np.asarray(state)

    return jax.pure_callback(sleep, jax.ShapeDtypeStruct((), jnp.float32), state)


def update(state: jax.Array, batches: tuple, now: training.Now) -> tuple[jax.Array, jax.Array]:
    ((batch),) = batches
    seen = jnp.mean(batch["x"][:, 0, 0, 0].astype(jnp.float32))
    return wait(state + 0.0 * seen), seen


def trained(data: sources.Host) -> None:
    """One epoch of steps that wait."""
    stream = training.Stream(np.arange(COUNT))
    steps = COUNT // BATCH
    training.loop(update, jnp.zeros(()), (stream,), data, jax.random.key(0), steps=steps, batch_size=BATCH)


def by_itself(batches: np.ndarray, read: Callable) -> None:
    for rows in batches:
        read(rows)


def by_pool(batches: np.ndarray, read: Callable, threads: int) -> None:
    """At most so many at a time, as grain does it."""
    with futures.ThreadPoolExecutor(threads) as pool:
        waiting = collections.deque(pool.submit(read, rows) for rows in batches[:threads])
        for rows in batches[threads:]:
            waiting.popleft().result()
            waiting.append(pool.submit(read, rows))
        futures.wait(waiting)


def by_grain(batches: np.ndarray, read: Callable, threads: int) -> None:
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    for _ in grain.MapDataset.source(_ahead.Batches(read, batches)).to_iter_dataset(options):
        pass


def rates(runs: dict[str, Callable[[], Any]], prepare: Callable[[], Any]) -> dict[str, float]:
    """Batches a second of each, the best of several times that alternate: other work runs on the machine."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(REPEATS + 1):
        for name, run in runs.items():
            prepare()
            began = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - began)
    return {name: round(COUNT // BATCH / seconds, 1) for name, seconds in best.items()}


def main() -> None:
    found: dict[str, dict[str, float]] = {}
    order = np.random.default_rng(1).permutation(COUNT)[: COUNT // BATCH * BATCH].reshape(-1, BATCH).astype(np.int32)
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        arrays = write(directory)
        plain = sources.memory_mapped(arrays, ahead=0)

        def late(rows: np.ndarray) -> Any:
            time.sleep(LATENCY_SECONDS)
            return plain.read(rows)

        for place, read in (("network", late), ("disk", plain.read), ("cache", plain.read)):
            hosts = {n: sources.Host(read, plain.example, COUNT, ahead=n) for n in (0, *THREADS)}
            runs: dict[str, Callable[[], Any]] = {
                f"training, {n} ahead": functools.partial(trained, host) for n, host in hosts.items()
            }
            for threads in THREADS:
                runs[f"reading alone, grain of {threads}"] = functools.partial(by_grain, order, read, threads)
                runs[f"reading alone, pool of {threads}"] = functools.partial(by_pool, order, read, threads)
            runs["reading alone, no threads"] = functools.partial(by_itself, order, read)
            found[place] = rates(runs, functools.partial(drop, directory) if place == "disk" else dict)
    document = {
        "command": "python experiments/benchmarks/reading_ahead.py",
        "batches_per_second": found,
        "batch": [BATCH, *SHAPE],
        "step_seconds": STEP_SECONDS,
        "latency_seconds": LATENCY_SECONDS,
        "without_reading": round(1 / STEP_SECONDS, 1),
        "versions": {"jax": jax.__version__, "grain": grain.__version__, "python": platform.python_version()},
        "device": {"kind": jax.devices()[0].device_kind, "cores": os.cpu_count(), "machine": platform.machine()},
    }
    print(json.dumps(document, indent=1))
    RESULT.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
