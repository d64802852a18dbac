"""Memory of evaluating 61 points of a path on 50,000 images of 1,000 classes.

Shows: a sweep keeps a few numbers of every example, not its logits, which alone would take 12.2 GB.
Run: python experiments/benchmarks/many_points.py
Time: a minute on 2 x86-64 CPU cores, jax 0.10.2, other work running beside it: memory holds, seconds do not.
Result: the process takes 786 MB at its peak, 580 MB of them before the sweep; the result has 50 MB.
    All figures: experiments/results/many_points.json.
"""

from __future__ import annotations

import json
import os
import pathlib
import platform
import resource
import time
from typing import Any

import jax
import numpy as np

from mcu_jax import curves, metrics, models, paths
from mcu_jax.base import Problem

RESULT = pathlib.Path(__file__).parents[1] / "results" / "many_points.json"
POINTS, CLASSES, LIMIT = 61, 1000, 2 * 10**9
SIZES = {"forget": 5_000, "retain": 35_000, "validation": 5_000, "test": 5_000}
SHAPE = (32, 32, 3)


def problem() -> Problem:
    """Images and labels drawn at random, and a dense network: memory does not depend on what is in them."""
    rng, count = np.random.default_rng(0), sum(SIZES.values())
    images = rng.integers(0, 256, (count, *SHAPE), np.uint8)
    data = {"x": jax.device_put(images), "y": jax.device_put(rng.integers(0, CLASSES, count, np.int32))}
    ends = np.cumsum(list(SIZES.values()))
    rows: dict[str, Any] = dict(zip(SIZES, np.split(np.arange(count), ends[:-1]), strict=True))
    model = models.mlp(num_classes=CLASSES, hidden=(64,))
    params = model.init(jax.random.key(0), images[:1])
    return Problem(model=model, params=params, data=data, num_classes=CLASSES, **rows)


def peak_bytes() -> int:
    """The most memory this process has had."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    given = problem()
    end = given.model.init(jax.random.key(1), np.zeros((1, *SHAPE), np.uint8))
    reference = metrics.logits(given, end, given.forget)
    before = peak_bytes()
    began = time.perf_counter()
    along = jax.block_until_ready(
        paths.evaluate(
            given,
            curves.straight(given.params, end),
            paths.points(POINTS),
            references={"retrained": reference},
        )
    )
    seconds, peak = time.perf_counter() - began, peak_bytes()
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(along))
    document = {
        "command": "python experiments/benchmarks/many_points.py",
        "points": POINTS,
        "images": sum(SIZES.values()),
        "classes": CLASSES,
        "bytes": {
            "peak_of_the_process": peak,
            "peak_before_the_sweep": before,
            "result": kept,
            "logits_would_be": 4 * POINTS * sum(SIZES.values()) * CLASSES,
        },
        "seconds": seconds,
        "within_2_GB": peak <= LIMIT,
        "versions": {"jax": jax.__version__, "python": platform.python_version()},
        "device": {
            "kind": jax.devices()[0].device_kind,
            "cores": os.cpu_count(),
            "machine": platform.machine(),
        },
    }
    print(json.dumps(document, indent=1))
    RESULT.write_text(json.dumps(document, indent=1) + "\n")
    if peak > LIMIT:
        raise SystemExit("more than 2 GB")


if __name__ == "__main__":
    main()
