"""What a BatchNorm refresh on part of the retain data does to the numbers of a path.

Shows: the largest error, over t and over draws of the part, of accuracies and losses against a refresh on all of D_r,
    at several sizes of the part; from it follows `training.refresh`'s default `limit`.
Rule, written before the first run: the default is the smallest size at which no accuracy, at no t, by no draw, is off
    by more than 0.25 points or by one example, whichever is more; where none is, it stays as it is.
Run: python experiments/benchmarks/refresh_part.py --data-dir DIR
Time: 28 minutes on 2 x86-64 CPU cores that had other work too, jax 0.10.2.
Result: none of the sizes is enough. On 2,000 of 4,500 images an accuracy is still off by up to 0.8 points, on 500 by
    1.2, on 100 by 3.6: the default stays at 5,000 examples, which here is all of them.
Writes experiments/results/refresh_part.json.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcu_jax import connect, curves, datasets, methods, metrics, models, training
from mcu_jax.base import Params, Problem, Stats

RESULT = pathlib.Path(__file__).parents[1] / "results" / "refresh_part.json"
SIZES = (100, 250, 500, 1000, 2000)
DRAWS = 3
TS = (0.0, 0.5, 1.0)
FORGET, RETAIN, UNSEEN = 500, 4500, 2000
BATCH = 500
SPLITS = ("forget", "retain", "test")
ALLOWED = 0.25


def problem(data_dir: str) -> Problem:
    """CIFAR-10, PreResNet-20, a tenth of 5,000 training images to forget; the original is trained on all of them."""
    whole = datasets.load("cifar10", data_dir)
    model = models.preresnet(num_classes=10)
    data = jax.tree.map(jnp.asarray, whole.examples)
    rng, n = np.random.default_rng(0), whole.train_size
    chosen = rng.permutation(n)[: FORGET + RETAIN + UNSEEN]
    forget, retain, validation = np.split(chosen, [FORGET, FORGET + RETAIN])
    seen, key = np.concatenate([forget, retain]), jax.random.key(0)
    params = training.train(model, data, key, rows=seen, epochs=15, lr=0.1, batch_size=128, augment=whole.augment)
    test = n + rng.permutation(len(whole.test["y"]))[:UNSEEN]
    return Problem(model, params, data, forget, retain, validation, test, 10, augment=whole.augment)


def measured(given: Problem, params: Params, stats: Stats) -> dict[str, float]:
    """Accuracies in points of per cent, losses in nats. Of D_r at most so many images as of D_t."""
    values = {}
    for name in SPLITS:
        scores = metrics.scores(given, params, jnp.asarray(getattr(given, name))[:UNSEEN], stats)
        values[f"{name}_accuracy"] = 100 * float(metrics.accuracy(scores))
        values[f"{name}_loss"] = float(jnp.mean(scores.loss))
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    asked, began = parser.parse_args(), time.perf_counter()
    given = problem(asked.data_dir)
    end = methods.random_label(given, jax.random.key(1), train=training.Training(epochs=5, lr=0.02, batch_size=128))
    path, _ = connect.mcu(given, end, jax.random.key(2), steps=200, lr=0.02)

    rows: list[dict[str, Any]] = []
    for t in TS:
        params = curves.bezier(path, t)
        full = measured(given, params, training.refresh(given, params, batch_size=BATCH, limit=RETAIN))
        rows.append({"t": t, "size": RETAIN, "draw": None, **full})
        for size in SIZES:
            for draw in range(DRAWS):
                part = np.random.default_rng([draw, size]).permutation(np.asarray(given.retain))[:size]
                small = Problem(**{**vars(given), "retain": part})
                stats = training.refresh(small, params, batch_size=min(BATCH, size), limit=size)
                rows.append({"t": t, "size": size, "draw": draw, **measured(given, params, stats)})
        print(f"t = {t}: {time.perf_counter() - began:.0f} s", flush=True)

    full_at = {row["t"]: row for row in rows if row["draw"] is None}
    metrics_of = [name for name in full_at[0.0] if name.endswith(("_accuracy", "_loss"))]
    errors = {
        size: {
            name: max(abs(row[name] - full_at[row["t"]][name]) for row in rows if row["size"] == size)
            for name in metrics_of
        }
        for size in SIZES
    }
    counted = {"forget": FORGET, "retain": UNSEEN, "test": UNSEEN}
    allowed = {f"{name}_accuracy": max(ALLOWED, 100 / n) + 1e-6 for name, n in counted.items()}
    enough = [size for size in SIZES if all(errors[size][name] <= most for name, most in allowed.items())]
    document = {
        "command": "python experiments/benchmarks/refresh_part.py --data-dir DIR",
        "largest_error": errors,
        "default": min(enough, default=None),
        "rows": rows,
        "seconds": time.perf_counter() - began,
        "versions": {"jax": jax.__version__, "python": platform.python_version()},
        "device": {"kind": jax.devices()[0].device_kind, "cores": os.cpu_count(), "machine": platform.machine()},
    }
    RESULT.write_text(json.dumps(document, indent=1) + "\n")
    for size, error in errors.items():
        print(size, {name: round(value, 4) for name, value in error.items()})
    print("default:", document["default"])


if __name__ == "__main__":
    main()
