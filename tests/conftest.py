"""Strict numerics for every test, and small shared problems, built once."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

# Tests compile much and run little: without fusions and most optimisations they take less than half the time. Set both
# variables, to "--xla_force_host_platform_device_count=4" and 0, to test what users run.
# jaxlib aborts on a flag it does not know, and 0.11 dropped this one.
_JAXLIB = tuple(map(int, metadata.version("jaxlib").split(".")[:2]))
_NO_FUSIONS = " --xla_cpu_use_fusion_emitters=false" if _JAXLIB < (0, 11) else ""
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count=4{_NO_FUSIONS}")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import jaxtyping
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jaxtyping.install_import_hook("mcu_jax", "beartype.beartype")

import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from mcu_jax import datasets, methods, models, runs, splits, training
from mcu_jax.base import Problem, Split


@pytest.fixture(scope="session")
def digits() -> datasets.Data:
    return datasets.load("digits")


@pytest.fixture(scope="session")
def problem(digits: datasets.Data) -> Problem:
    """Random forgetting of 20 % of 120 digits by a trained mlp."""
    train, validation = splits.carve(len(digits.train.y), 120, 60, 0)
    forget, retain = splits.random_forget(train, 0.2, 0)
    model = models.mlp(num_classes=10, hidden=(16,))
    arrays = {
        "forget": splits.take(digits.train, forget),
        "retain": splits.take(digits.train, retain),
        "validation": splits.take(digits.train, validation),
        "test": Split(digits.test.x[:100], digits.test.y[:100]),
    }
    arrays = {name: Split(jnp.asarray(split.x), jnp.asarray(split.y)) for name, split in arrays.items()}
    blank = model.init(jax.random.key(0), arrays["retain"].x[:1])
    untrained = Problem(model=model, params=blank, num_classes=10, **arrays)
    whole = Split(*(jnp.concatenate(both) for both in zip(untrained.forget, untrained.retain, strict=True)))
    params = training.from_scratch(
        model, whole, jax.random.key(1), augment=None, epochs=30, lr=0.1, momentum=0.9, weight_decay=0.0, batch_size=32
    )
    return Problem(model=model, params=params, num_classes=10, **arrays)


@pytest.fixture(scope="session")
def unlearned(problem: Problem) -> object:
    """A pre-unlearned model of `problem`."""
    return methods.random_label(problem, jax.random.key(2), epochs=5, lr=0.05, batch_size=32)


def normed_apply(params: dict, x: jax.Array, stats: dict | None = None) -> tuple[jax.Array, dict]:
    """A network of two matrices with a normalisation layer between them."""
    hidden = x @ params["v"]
    used = {"norm": {"mean": hidden.mean(0), "var": hidden.var(0)}} if stats is None else stats
    mean, var = used["norm"]["mean"][None], used["norm"]["var"][None]
    return ((hidden - mean) / jnp.sqrt(var + 1e-3)) @ params["w"], used


@pytest.fixture(scope="session")
def normed() -> Callable[..., Problem]:
    """A problem of a model with BatchNorm, by the number of its retain examples.

    These drift: one batch's mean says little about the next one's. All other data is far away. `v` is the identity.
    """

    def make(n: int, **changes: object) -> Problem:
        drift = jnp.linspace(-5, 5, n)[:, None] + jax.random.normal(jax.random.key(3), (n, 4))
        far = Split(1e6 + drift[:8], jnp.arange(min(n, 8)) % 3)
        given = {
            "model": models.adapt(normed_apply),
            "params": {"v": jnp.eye(4), "w": jax.random.normal(jax.random.key(5), (4, 3))},
            **dict.fromkeys(("forget", "validation", "test"), far),
            "retain": Split(drift, jnp.arange(n) % 3),
            "num_classes": 3,
        }
        return Problem(**{**given, **changes})

    return make


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


SMALL = {
    "train_size": 60,
    "validation_size": 40,
    "train": {"epochs": 3},
    "epochs": 3,
    "points": 5,
    "seeds": [0, 1],
}
"""Settings of a run of a few seconds."""


@pytest.fixture(scope="session")
def compilations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Compiled code is kept between the runs of a test session; gives the environment that tells another process."""
    directory = str(tmp_path_factory.mktemp("compiled"))
    settings = {
        "jax_compilation_cache_dir": directory,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield {name.upper(): str(value) for name, value in settings.items()}
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def once(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str, compilations: dict[str, str]
) -> Callable[[str, dict], runs.Run]:
    """Makes a run by its name and settings, or finds the one that another worker of this test session has made."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent

    def make(name: str, settings: dict) -> runs.Run:
        place: pathlib.Path = shared / name / "run"
        place.parent.mkdir(exist_ok=True)
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (place / "results.json").exists():
                config = runs.from_mapping({**settings, "out": str(place)})
                (runs.connect if settings.get("kind") == "connect" else runs.unlearn)(config)
            return runs.Run(place, json.loads((place / "results.json").read_text()))

    return make


@pytest.fixture(scope="session")
def finished(once: Callable) -> runs.Run:
    """A finished run of `SMALL`. Tests read it; a test that writes copies it first."""
    return once("finished", SMALL)


ENDS = ("neggrad_plus", "npo")
CONNECTED = {
    "kind": "connect",
    "train_size": 60,
    "validation_size": 40,
    "train": {"epochs": 3},
    "a": ENDS[0],
    "b": ENDS[1],
    "curve": ["linear", "bezier"],
    "also": ["mia", "continued", "relearning"],
    "epochs": 2,
    "points": 5,
    "retrains": 2,
    "seeds": [0, 1],
}
"""Settings of a small run of `mcu-jax connect`, with everything in it."""


@pytest.fixture(scope="session")
def connected(once: Callable) -> runs.Run:
    """A finished run of `CONNECTED`. Tests read it; a test that writes copies it first."""
    return once("connected", CONNECTED)


def of_pair(results: dict[str, Any], a: str = ENDS[0], b: str = ENDS[1], curve: str = "linear") -> list[dict[str, Any]]:
    """The entries of one pair of that run, by seed."""
    found = [p for p in results["pairs"] if (p["a"]["label"], p["b"]["label"], p["curve"]) == (a, b, curve)]
    assert [p["seed"] for p in found] == [0, 1]
    return found


def problem_of(connected: runs.Run, resolved: Any, seed: int) -> Problem:
    """What the run's models of one seed were unlearned from, and are evaluated on."""
    split = json.loads((connected.directory / "splits" / f"seed-{seed}.json").read_text())
    train = resolved.data.train
    parts = {name: splits.take(train, np.array(split[name])) for name in ("forget", "retain", "validation")}
    original = runs.load(connected.directory, seed=seed, stage="original")
    return Problem(model=resolved.model, params=original, test=resolved.data.test, num_classes=10, **parts)
