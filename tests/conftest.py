"""Strict numerics for every test, and small shared problems, built once."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import gc
import os
import pathlib
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

# Tests compile much and run little: without fusions and most optimisations they take less than half the time. Set these
# two variables, to "--xla_force_host_platform_device_count=8" and 0, to test what users run.
# jaxlib aborts on a flag it does not know, and 0.11 dropped this one.
_JAXLIB = tuple(map(int, metadata.version("jaxlib").split(".")[:2]))
_NO_FUSIONS = " --xla_cpu_use_fusion_emitters=false" if _JAXLIB < (0, 11) else ""
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count=8{_NO_FUSIONS}")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Threads of XLA, twice its devices: with jaxlib before 0.12 what waits to be started may hold one for each of them, and
# nothing is left to run what it waits for.
os.environ.setdefault("NPROC", "16")

import jax
import jaxtyping
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jaxtyping.install_import_hook("mcu_jax", "beartype.beartype")
# A worker holds millions of objects in jax's caches: looking through all of them for garbage, as often as Python does
# by itself, takes longer and longer.
gc.set_threshold(50_000, 20, 50)

import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from mcu_jax import datasets, methods, models, runs, splits, training
from mcu_jax.base import Problem


@pytest.fixture(scope="module", autouse=True)
def few_compiled_programs() -> Iterator[None]:
    """Each holds memory, and memory maps, of which Linux gives a process 65,530; where they run out the compiler
    crashes.
    """
    yield
    maps, pages = pathlib.Path("/proc/self/maps"), pathlib.Path("/proc/self/statm")
    if not maps.exists():
        return
    resident = int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if maps.read_bytes().count(b"\n") > 20_000 or resident > 3 * 2**30:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def digits() -> datasets.Data:
    return datasets.load("digits")


@pytest.fixture(scope="session")
def problem(digits: datasets.Data) -> Problem:
    """Random forgetting of 20 % of 120 digits by a trained mlp."""
    train, validation = splits.carve(digits.train_size, 120, 60, 0)
    forget, retain = splits.random_forget(train, 0.2, 0)
    model = models.mlp(num_classes=10, hidden=(16,))
    data = jax.tree.map(jnp.asarray, digits.examples)
    params = training.train(
        model,
        data,
        jax.random.key(1),
        rows=np.concatenate([forget, retain]),
        epochs=30,
        lr=0.1,
        weight_decay=0.0,
        batch_size=32,
    )
    return Problem(
        model=model,
        params=params,
        data=data,
        forget=forget,
        retain=retain,
        validation=validation,
        test=digits.train_size + np.arange(100),
        num_classes=10,
    )


@pytest.fixture(scope="session")
def unlearned(problem: Problem) -> object:
    """A pre-unlearned model of `problem`."""
    return methods.random_label(problem, jax.random.key(2), train=training.Training(5, 0.05, batch_size=32))


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
        count = min(n, 8)
        far = 1e6 + drift[:count]
        given = {
            "model": models.adapt(normed_apply),
            "params": {"v": jnp.eye(4), "w": jax.random.normal(jax.random.key(5), (4, 3))},
            "data": {
                "x": jnp.concatenate([drift, far]),
                "y": jnp.concatenate([jnp.arange(n) % 3, jnp.arange(count) % 3]),
            },
            "retain": np.arange(n),
            **dict.fromkeys(("forget", "validation", "test"), n + np.arange(count)),
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
    "steps": 6,
    "points": 5,
    "seeds": [0, 1],
    "baselines": [],
}
"""Settings of a run of a few seconds."""


@pytest.fixture(scope="session")
def compilations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where compiled code is kept between the runs of a test session: the environment that tells another process."""
    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    return {name.upper(): str(value) for name, value in settings.items()}


@contextlib.contextmanager
def keeping(compilations: dict[str, str]) -> Iterator[None]:
    """This process keeps them too. Not all the time: what writes them has crashed a long process with jaxlib 0.12."""
    before = {name.lower(): getattr(jax.config, name.lower()) for name in compilations}
    for name, value in before.items():
        kind = str if value is None else type(value)
        jax.config.update(name, kind(compilations[name.upper()]))
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def kept_compilations(compilations: dict[str, str]) -> Iterator[None]:
    """For files of tests that make many runs."""
    with keeping(compilations):
        yield


@pytest.fixture(scope="session")
def once(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str, compilations: dict[str, str]
) -> Callable[[str, dict], Any]:
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
                with keeping(compilations):
                    {"connect": runs.connect, "tune": runs.tune}.get(settings.get("kind", ""), runs.unlearn)(config)
            return runs.Run(place, runs.read_results(place))

    return make


@pytest.fixture(scope="session")
def finished(once: Callable) -> Any:
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
    "steps": 4,
    "points": 5,
    "retrains": 2,
    "seeds": [0, 1],
}
"""Settings of a small run of `mcu-jax connect`, with everything in it."""


@pytest.fixture(scope="session")
def connected(once: Callable) -> Any:
    """A finished run of `CONNECTED`. Tests read it; a test that writes copies it first."""
    return once("connected", CONNECTED)


TUNED = {
    "kind": "tune",
    "train_size": 60,
    "validation_size": 40,
    "train": {"epochs": 3},
    "methods": ["influence", "ssd", "mcu"],
    "pre": "influence",
    "tries": 2,
    "seeds": [100, 101],
}
"""Settings of a small run of `mcu-jax tune`."""


@pytest.fixture(scope="session")
def tuned(once: Callable) -> Any:
    """A finished run of `TUNED`. Tests read it; a test that writes copies it first."""
    return once("tuned", TUNED)


def with_values(run: runs.Run) -> dict[str, Any]:
    """Its results, with the values along paths put back from the long table."""
    table, results = runs.read_table(run.directory), copy.deepcopy(run.results)
    along = table[table.t.notna() & (table.role != "model")]
    named = along.metric.where(~along.metric.isin(["loss", "accuracy"]), along.split + "_" + along.metric)
    along = along.assign(name=named)
    for path in results.get("paths", ()):
        subject = "linear" if path["curve"] == "linear" else "mcu"
        here = along[(along.replicate == path["seed"]) & (along.subject == subject)]
        path |= {metric: rows.value.tolist() for metric, rows in here.groupby("name")}
        path["t"] = here.t[here.metric == "RA"].tolist()
    for pair in results.get("pairs", ()):
        here = along[(along.replicate == pair["seed"]) & (along.curve == pair["curve"]) & (along.role == pair["role"])]
        here = here[(here.a == pair["a"]["label"]) & (here.b == pair["b"]["label"])]
        pair["metrics"] = {name: rows.value.tolist() for name, rows in here.groupby("name")}
        pair["t"] = here.t[here.metric == "js"].tolist()
    return results


def of_pair(results: dict[str, Any], a: str = ENDS[0], b: str = ENDS[1], curve: str = "linear") -> list[dict[str, Any]]:
    """The entries of one pair of that run, by seed."""
    found = [p for p in results["pairs"] if (p["a"]["label"], p["b"]["label"], p["curve"]) == (a, b, curve)]
    assert [p["seed"] for p in found] == [0, 1]
    return found


def problem_of(run: Any, data: datasets.Data, seed: int) -> Problem:
    """What the models of one seed of a run on digits were unlearned from, and are evaluated on."""
    indices = splits.load(run.directory / "splits" / f"seed-{seed}.json", data.hash)
    return Problem(
        model=models.mlp(num_classes=10),
        params=runs.load(run.directory, seed=seed, stage="original"),
        data=jax.tree.map(jnp.asarray, data.examples),
        forget=indices.forget,
        retain=indices.retain,
        validation=indices.validation,
        test=np.arange(data.train_size, len(data.examples["y"])),
        num_classes=10,
    )
