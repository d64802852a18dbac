"""Evaluating 21 points of a path: a loop over t, a full vmap over t, and what `paths.sweep` picks.

Shows: on a CPU a convolutional network wants a loop over t and a dense one all t side by side, which is what chunk=None
does.
Run: python experiments/benchmarks/sweep_chunks.py
Time: 20 seconds on 2 x86-64 CPU cores, jax 0.10.2.
Result: cnn: the loop takes 0.31 times as long as the vmap. mlp: 0.71 times (elsewhere 1.28), so that what chunk=None
    takes, the vmap, is 1.30 times slower there than the loop: it depends on the processor.
    All figures: experiments/results/sweep_chunks.json.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import platform
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from mcu_jax import curves, models, paths
from mcu_jax.base import Model, Params

RESULT = pathlib.Path(__file__).parents[1] / "results" / "sweep_chunks.json"
POINTS, IMAGES, REPEATS = 21, 500, 10


def seconds(model: Model, size: int, chunk: int | None) -> float:
    """The least of some repeats, without compilation."""
    x = jax.random.randint(jax.random.key(0), (IMAGES, size, size, 1), 0, 256, jnp.int32).astype(jnp.uint8)
    ends = [model.init(jax.random.key(seed), x[:1]) for seed in (1, 2)]
    path = curves.straight(*ends)

    def sweep() -> float:
        began = time.perf_counter()
        jax.block_until_ready(paths.sweep(Partial(_logits(model), x), path, paths.points(POINTS), chunk=chunk))
        return time.perf_counter() - began

    sweep()
    return min(sweep() for _ in range(REPEATS))


@functools.cache
def _logits(model: Model) -> Callable[[jax.Array, Params], jax.Array]:
    """Cached, so that every sweep of a model is one function to the compiler."""
    return lambda x, params: model.apply(params, x)[0]


def main() -> None:
    figures = {}
    for name, model, size in (("mlp", models.mlp(num_classes=10), 8), ("cnn", models.cnn(num_classes=10), 28)):
        loop, vmap, chosen = (seconds(model, size, chunk) for chunk in (1, POINTS, None))
        figures[name] = {"loop_over_vmap": loop / vmap, "chosen_over_better": chosen / min(loop, vmap)}
    device = {"kind": jax.default_backend(), "cores": os.cpu_count(), "machine": platform.machine()}
    versions = {"jax": jax.__version__, "python": platform.python_version()}
    RESULT.write_text(json.dumps({"versions": versions, "device": device, "figures": figures}, indent=2) + "\n")
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
