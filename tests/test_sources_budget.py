"""Examples on disk through the functions that take arrays."""

from __future__ import annotations

import dataclasses
import pathlib

import chex
import jax
import numpy as np
import pytest

from mcu_jax import base, methods, metrics, outputs, sources, training
from mcu_jax.base import Problem

FEW = training.Training(epochs=1, batch_size=32)


@pytest.fixture(scope="module")
def on_disk(problem: Problem, tmp_path_factory: pytest.TempPathFactory) -> Problem:
    """`problem` with its data in files, of which no more than 40 examples may be in memory at once."""
    directory: pathlib.Path = tmp_path_factory.mktemp("examples")
    arrays = {}
    for name, leaf in problem.data.items():
        np.save(directory / f"{name}.npy", leaf)
        arrays[name] = np.load(directory / f"{name}.npy", mmap_mode="r")
    return dataclasses.replace(problem, data=sources.memory_mapped(arrays, budget=40 * example_bytes(problem)))


def example_bytes(problem: Problem) -> int:
    return sum(leaf[0].nbytes for leaf in jax.tree.leaves(problem.data))


def test_a_source_on_disk_trains_and_evaluates_as_arrays_do(problem: Problem, on_disk: Problem) -> None:
    assert on_disk.data.budget < 0.1 * sum(leaf.nbytes for leaf in jax.tree.leaves(problem.data))
    outputs.check(on_disk)
    rows = np.concatenate([problem.forget, problem.retain])
    key = jax.random.key(3)
    for make in (
        lambda p: training.train(p.model, p.data, key, rows=rows, epochs=1, batch_size=32),
        lambda p: methods.npo(p, key, train=FEW),
        lambda p: metrics.evaluate(p, p.params),
    ):
        chex.assert_trees_all_close(make(problem), make(on_disk), rtol=1e-3, atol=1e-4)


def test_a_batch_beyond_the_budget_is_refused_before_it_is_read(problem: Problem, on_disk: Problem) -> None:
    message = rf"96 examples .* budget of {on_disk.data.budget} bytes holds 40: take smaller batches, or give"
    with pytest.raises(base.UserError, match=message):
        methods.finetune(on_disk, jax.random.key(0), train=training.Training(epochs=1, batch_size=128))
