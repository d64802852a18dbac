"""Evaluating the cnn on a CPU: its own strided convolutions and GroupNorm or XLA's and flax's; batches of 100 or 500.

Shows: why `models/_conv.py` writes strided convolutions as a matmul, why there is `models/_norm.py`, and why
`metrics.evaluate` takes small batches on a CPU.
Run: python experiments/benchmarks/evaluation.py
Time: two minutes on 2 x86-64 CPU cores, jax 0.10.2.
Result: XLA's convolutions make it 1.2 times slower, flax's GroupNorm 1.5 times; batches of 500 make no difference.
    (Elsewhere 1.9, 2.0 and 1.4 times.)
"""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import platform
import time
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp

from mcu_jax import curves, metrics, models, paths
from mcu_jax.base import Path, Problem
from mcu_jax.models import _conv, _norm

FILE = pathlib.Path(__file__).parents[1] / "results" / "evaluation.json"
SIZES = (1200, 2000, 2000, 2000)  # of D_f, D_r, D_v, D_t
POINTS, REPEATS = 8, 5


def problem() -> tuple[Problem, Path]:
    model = models.cnn(num_classes=10)
    n = sum(SIZES)
    images = jax.random.randint(jax.random.key(0), (n, 28, 28, 1), 0, 256).astype(jnp.uint8)
    start, end = (model.init(jax.random.key(i), images[:1]) for i in (0, 1))
    forget, retain, validation, test = jnp.split(jnp.arange(n), list(itertools.accumulate(SIZES))[:-1])
    data = {"x": images, "y": jnp.arange(n) % 10}
    return Problem(model, start, data, forget, retain, validation, test, 10), curves.straight(start, end)


def best_seconds(given: Problem, path: Path, batch_size: int) -> float:
    """Of one sweep: the quickest of several, which other work on the machine disturbs least."""
    jax.clear_caches()
    ts = jnp.asarray(paths.points(POINTS))

    @jax.jit
    def sweep(path: Path) -> jax.Array:
        def at(t: jax.Array) -> jax.Array:
            return jax.tree.map(jnp.sum, metrics.evaluate(given, curves.bezier(path, t), batch_size=batch_size))

        return jax.lax.map(at, ts)

    jax.block_until_ready(sweep(path))
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(sweep(path))
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def main() -> None:
    given, path = problem()
    images = POINTS * sum(SIZES)
    figures = {}
    for batch_size in (100, 500):
        figures[f"ours_{batch_size}"] = images / best_seconds(given, path, batch_size)
        with mock.patch.object(_conv, "_matmul", _conv.plain):
            figures[f"xla_convolution_{batch_size}"] = images / best_seconds(given, path, batch_size)
        with mock.patch.object(_norm, "GroupNorm", nn.GroupNorm):
            figures[f"flax_norm_{batch_size}"] = images / best_seconds(given, path, batch_size)
    ratios = {name: figures["ours_100"] / rate for name, rate in figures.items()}
    print({name: round(rate) for name, rate in figures.items()}, {name: round(r, 2) for name, r in ratios.items()})
    device = {"kind": jax.devices()[0].device_kind, "cores": os.cpu_count(), "machine": platform.machine()}
    document = {
        "command": "python experiments/benchmarks/evaluation.py",
        "images_per_second": figures,
        "ours_100_over": ratios,
        "versions": {"jax": jax.__version__, "python": platform.python_version()},
        "device": device,
    }
    FILE.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
