"""What `--precision bfloat16` does to the numbers of a path, and to its time.

Shows: of a PreResNet-20 and a ViT-Ti on CIFAR-10, trained in float32: the largest difference, over t, between a sweep
    in bfloat16 and the same in float32, of accuracies in points of per cent and of losses in nats; what either sweep,
    and a training step of the path, takes, compilation by itself.
Run: python experiments/benchmarks/precision.py --data-dir DIR
Time: 21 minutes on 2 cores of an x86-64 CPU with AVX-512 and AMX, jax 0.10.2.
Result: there bfloat16 gains nothing: 20.4 s for a sweep of PreResNet-20 and 19.9 in float32, 22.7 and 20.6 of ViT-Ti;
    a step 0.44 and 0.41, 0.67 and 0.53. Accuracies are off by up to 0.3 and 0.6 points (three of 500 images), losses
    by less than 0.001. Convolutions are computed in float32 there; when they were matmuls of bfloat16, a training step
    of PreResNet-20 took 0.91 s in place of 0.40, with jax 0.12 0.96 in place of 0.42.
Writes experiments/results/precision.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import platform
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcu_jax import base, connect, datasets, methods, models, paths, rules, training

RESULT = pathlib.Path(__file__).parents[1] / "results" / "precision.json"
MODELS: dict[str, Callable[[], base.Model]] = {
    "preresnet, depth 20": lambda: models.preresnet(num_classes=10),
    "vit, Ti, patch 8": lambda: models.vit(num_classes=10, size="Ti", patch=8),
}
FORGET, RETAIN, UNSEEN = 500, 2000, 1000
POINTS = 5
SPLITS = ("forget", "retain", "validation", "test")


def problem(model: base.Model, whole: datasets.Data) -> base.Problem:
    """500 of 2,500 training images to forget; the original is trained on all of them."""
    data = jax.tree.map(jnp.asarray, whole.examples)
    rng, n = np.random.default_rng(0), whole.train_size
    chosen = rng.permutation(n)[: FORGET + RETAIN + UNSEEN]
    forget, retain, validation = np.split(chosen, [FORGET, FORGET + RETAIN])
    seen, key = np.concatenate([forget, retain]), jax.random.key(0)
    params = training.train(model, data, key, rows=seen, epochs=15, lr=0.05, batch_size=128, augment=whole.augment)
    test = n + rng.permutation(len(whole.test["y"]))[:UNSEEN]
    return base.Problem(model, params, data, forget, retain, validation, test, 10, augment=whole.augment)


def seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def taken(given: base.Problem, path: base.Path, ts: Any) -> tuple[dict[str, float], base.Evaluation]:
    """Seconds of a sweep and of a step, and what the sweep says."""
    sweep = functools.partial(paths.evaluate, given, path, ts)
    compiling = seconds(sweep)
    times = {"sweep_compiling": compiling, "sweep": min(seconds(sweep) for _ in range(3))}
    key = jax.random.key(2)
    objective = connect.objective(given, rules.targets(given), key, beta=0.2)

    def steps(count: int) -> Any:
        return connect.train_on(objective, path, given.data, key, steps=count, lr=0.01, batch_size=128)[0]

    few, many = (2, 10)
    steps(few)
    short, long = (min(seconds(functools.partial(steps, count)) for _ in range(3)) for count in (few, many))
    return {**times, "step": (long - short) / (many - few)}, sweep()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    whole, found = datasets.load("cifar10", parser.parse_args().data_dir), {}
    for name, make in MODELS.items():
        given = problem(make(), whole)
        end = methods.random_label(given, jax.random.key(1), train=training.Training(epochs=5, lr=0.02, batch_size=128))
        path, _ = connect.mcu(given, end, jax.random.key(2), steps=100, lr=0.02)
        ts = paths.points(POINTS)
        cheap = dataclasses.replace(given, model=models.in_bfloat16(given.model))
        (times, exact), (cheap_times, rounded) = (taken(each, path, ts) for each in (given, cheap))
        errors = {
            f"{split}_{metric}": scale * largest(*(getattr(getattr(each, split), of) for each in (exact, rounded)))
            for split in SPLITS
            for metric, of, scale in (("accuracy", "correct", 100.0), ("loss", "loss", 1.0))
        }
        found[name] = {"float32": times, "bfloat16": cheap_times, "largest_difference": errors}
        print(name, json.dumps(found[name], indent=1), flush=True)
    document = {
        "command": "python experiments/benchmarks/precision.py --data-dir DIR",
        **found,
        "versions": {"jax": jax.__version__, "python": platform.python_version()},
        "device": {"kind": jax.devices()[0].device_kind, "cores": os.cpu_count(), "machine": platform.machine()},
    }
    RESULT.write_text(json.dumps(document, indent=1) + "\n")


def largest(exact: Any, rounded: Any) -> float:
    """Difference, over t, of means over examples."""
    return float(jnp.abs(exact.mean(1) - rounded.mean(1)).max())


if __name__ == "__main__":
    main()
