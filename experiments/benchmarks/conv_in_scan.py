"""Gradients of convolutions inside `lax.scan` on a CPU: XLA's own against those of `mcu_jax.models`.

Shows: why models/_conv.py exists. Inside a while loop XLA's CPU backend takes a naive path for the gradients of a
convolution; a custom_vjp of matmuls and plain convolutions does not meet it.
Run: python experiments/benchmarks/conv_in_scan.py
Time: 40 seconds on 2 x86-64 CPU cores, jax 0.10.2.
Result: in scan, XLA's gradients took 46 times as long as ours for the weights (0.93 against 0.020 s), 9 times for
    the input (0.089 against 0.010 s), 18 times for a PreResNet-20 training step on 32 images (2.0 against 0.11 s).
    All figures: experiments/results/conv_in_scan.json.
"""

from __future__ import annotations

import json
import os
import pathlib
import platform
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mcu_jax import models
from mcu_jax.models import _conv

RESULT = pathlib.Path(__file__).parents[1] / "results" / "conv_in_scan.json"
IMAGES, SIZE, CHANNELS = 128, 32, 16
STEPS = 3


ours = _conv._conv


def xla(x: jax.Array, kernel: jax.Array, strides: tuple, pads: tuple) -> jax.Array:
    """Gradients of stride 1 alone are compared."""
    return (ours if _conv._is_matmul(x, strides) else _conv.plain)(x, kernel, strides, pads)


def seconds_per_step(step: Callable[[Any], Any], start: Any, in_scan: bool, repeats: int) -> float:
    """The least of some repeats, without compilation. Outside scan a step is one jitted call."""

    def scan(carry: Any) -> Any:
        return lax.scan(lambda carry, _: (step(carry), None), carry, length=STEPS)[0]

    run = jax.jit(scan if in_scan else step).lower(start).compile()
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(run(start))
        taken.append(time.perf_counter() - begin)
    return min(taken) / (STEPS if in_scan else 1)


def gradient_step(argument: int) -> tuple[Callable[[Any], Any], Any]:
    """One step of descent in the input (argument 0) or in the kernel (1), so that no step can be left out."""
    x = jax.random.normal(jax.random.key(0), (IMAGES, SIZE, SIZE, CHANNELS))
    w = 0.1 * jax.random.normal(jax.random.key(1), (3, 3, CHANNELS, CHANNELS))

    def step(moving: jax.Array) -> jax.Array:
        def loss(moving: jax.Array) -> jax.Array:
            operands = (moving, w) if argument == 0 else (x, moving)
            return jnp.mean(jnp.square(_conv.conv(*operands, (1, 1), "SAME")))

        return moving - 0.1 * jax.grad(loss)(moving)

    return step, (x, w)[argument]


def training_step() -> tuple[Callable[[Any], Any], Any]:
    random = np.random.RandomState(0)
    x = jnp.asarray(random.randint(0, 256, (32, SIZE, SIZE, 3)).astype(np.uint8))
    y = jnp.asarray(random.randint(0, 10, 32))
    model = models.preresnet(num_classes=10)
    params = model.init(jax.random.key(0), x)

    def step(params: Any) -> Any:
        def loss(params: Any) -> jax.Array:
            logp = jax.nn.log_softmax(model.apply(params, x)[0])
            return -jnp.mean(jnp.take_along_axis(logp, y[:, None], axis=1))

        return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params))

    return step, params


def main() -> None:
    begin = time.perf_counter()
    cases = {
        "weight_gradient": gradient_step(1),
        "input_gradient": gradient_step(0),
        "preresnet20_step": training_step(),
    }
    figures: dict[str, Any] = {}
    for name, (step, start) in cases.items():
        seconds = {}
        for label, conv in {"xla": xla, "ours": ours}.items():
            repeats = 1 if (name, label) == ("preresnet20_step", "xla") else 5
            with mock.patch.object(_conv, "_conv", conv):
                for place in ("alone", "scan"):
                    taken = seconds_per_step(step, start, place == "scan", repeats)
                    seconds[f"{label}_{place}_seconds"] = taken
        ratio = seconds["xla_scan_seconds"] / seconds["ours_scan_seconds"]
        figures[name] = {**seconds, "xla_over_ours_in_scan": ratio}
        print(
            f"{name}: in scan XLA / ours = {ratio:.1f}",
            {k: round(v, 4) for k, v in seconds.items()},
            flush=True,
        )
    config = {"images": IMAGES, "size": SIZE, "channels": CHANNELS, "steps": STEPS, "preresnet20_images": 32}
    versions = {"jax": jax.__version__, "python": platform.python_version()}
    device = {"kind": jax.devices()[0].device_kind, "cores": os.cpu_count(), "machine": platform.machine()}
    took = time.perf_counter() - begin
    document = {
        "config": config,
        "versions": versions,
        "device": device,
        "took_seconds": took,
        "figures": figures,
    }
    RESULT.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
