"""Where examples are: off the device or shared by seeds, everything computes the same bits as from arrays."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcu_jax import methods, metrics, models, sources, training, trees
from mcu_jax.base import Problem, UserError

KEY = jax.random.key(5)
SHORT = training.Training(epochs=1, lr=0.05, batch_size=32)


@pytest.fixture(scope="module")
def mapped(problem: Problem, tmp_path_factory: pytest.TempPathFactory) -> Problem:
    """`problem` with its data in files."""
    folder: pathlib.Path = tmp_path_factory.mktemp("arrays")
    for name, leaf in problem.data.items():
        np.save(folder / f"{name}.npy", np.asarray(leaf))
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in problem.data}
    return dataclasses.replace(problem, data=sources.memory_mapped(arrays))


def test_examples_come_in_the_order_asked_for(problem: Problem, mapped: Problem) -> None:
    rows = np.array([5, 1700, 5, 0])
    for taken in (sources.take(mapped.data, rows), jax.jit(lambda r: sources.take(mapped.data, r))(rows)):
        chex.assert_trees_all_equal(taken, sources.take(problem.data, rows))
    many = jnp.arange(12).reshape(3, 4)
    chex.assert_trees_all_equal(
        *(jax.vmap(lambda r, d=data: sources.take(d, r))(many) for data in (mapped.data, problem.data))
    )
    assert sources.length(mapped.data) == sources.length(problem.data) == 1797


def test_training_and_evaluation_give_the_same_bits(problem: Problem, mapped: Problem) -> None:
    def fresh(given: Problem, key: Any) -> Any:
        return training.train(given.model, given.data, key, rows=given.retain, epochs=1, lr=0.1, batch_size=32)

    chex.assert_trees_all_equal(*(fresh(given, KEY) for given in (problem, mapped)))
    keys = jax.random.split(KEY, 2)
    chex.assert_trees_all_equal(*(jax.vmap(lambda key, g=g: fresh(g, key))(keys) for g in (problem, mapped)))
    # Batches of a size that the whole set does not fill, and one larger than it.
    for batch_size in (77, 4000):
        found = [metrics.evaluate(given, problem.params, batch_size=batch_size) for given in (problem, mapped)]
        chex.assert_trees_all_equal(*found)


def test_methods_and_paths_give_the_same_bits(problem: Problem, mapped: Problem) -> None:
    unlearned = [methods.random_label(given, KEY, train=SHORT) for given in (problem, mapped)]
    chex.assert_trees_all_equal(*unlearned)
    options = {"pre": unlearned[0], "steps": 3, "batch_size": 32, "points": 4, "full": True}
    chex.assert_trees_all_equal(*(methods.mcu(given, KEY, **options) for given in (problem, mapped)))


def test_calls_to_the_host_stay_small() -> None:
    """jax waits for ever for a large argument of a callback where its threads are few: none may be as large as that."""
    sizes = []

    def read(rows: np.ndarray) -> dict:
        sizes.append(rows.nbytes)
        return {"x": rows.astype(np.float32), "y": rows % 3}

    host = sources.Host(read, {"x": np.zeros((), np.float32), "y": np.zeros((), np.int32)}, 100_000)
    rows = np.random.default_rng(0).integers(0, 100_000, (2, 30_001)).astype(np.int32)
    for taken, expected in (
        (sources.take(host, rows[0]), rows[0]),
        (jax.jit(jax.vmap(lambda r: sources.take(host, r)))(rows), rows),
        (jax.jit(jax.vmap(lambda r: sources.take(host, r)))(np.resize(rows, (500, 90))), np.resize(rows, (500, 90))),
    ):
        np.testing.assert_array_equal(taken["x"], expected.astype(np.float32))
        np.testing.assert_array_equal(taken["y"], expected % 3)
    assert max(sizes) < 50_000


def test_lengths_that_differ_are_named() -> None:
    for make in (sources.memory_mapped, sources.length):
        with pytest.raises(UserError, match=r"'labels' has 4, 'tokens/ids' has 5, 'tokens/kind' has 5"):
            make({"tokens": {"ids": np.zeros((5, 2)), "kind": np.zeros(5)}, "labels": np.zeros((4, 2))})
        with pytest.raises(UserError, match="leading axis of examples"):
            make({})


def test_seeds_trained_together_share_the_images() -> None:
    """Bytes of the compiled program: the images come in once for five seeds, and no seed copies them."""
    n, seeds = 20_000, 5
    images = np.random.default_rng(0).integers(0, 256, (n, 16, 16, 1)).astype(np.uint8)
    data = {"x": jnp.asarray(images), "y": jnp.arange(n, dtype=jnp.int32) % 3}
    model = models.mlp(num_classes=3, hidden=(2,))
    rows = jnp.stack([jax.random.permutation(key, n) for key in jax.random.split(KEY, seeds)])

    def run(data: Any, rows: Any, key: Any) -> Any:
        forget, retain, validation, test = jnp.split(rows, [100, 15_000, 15_100])
        params = training.train(model, data, key, rows=rows[:15_000], epochs=1, batch_size=100)
        problem = Problem(model, params, data, forget, retain, validation, test, num_classes=3)
        params = methods.finetune(problem, key, train=SHORT._replace(batch_size=100))
        return params, metrics.evaluate(problem, params)

    several = jax.jit(jax.vmap(run, in_axes=(None, 0, 0)))
    compiled = several.lower(data, rows, jax.random.split(KEY, seeds)).compile()
    used = compiled.memory_analysis()
    assert images.nbytes < used.argument_size_in_bytes < 1.2 * images.nbytes
    assert used.temp_size_in_bytes < images.nbytes
    together = compiled(data, rows, jax.random.split(KEY, seeds))
    alone = jax.jit(run)(data, rows[1], jax.random.split(KEY, seeds)[1])
    chex.assert_trees_all_close(trees.unstack(together)[1], alone, rtol=1e-3, atol=1e-5)
