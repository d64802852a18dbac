"""Strict numerics for every test, and small shared problems, built once."""

from __future__ import annotations

import os

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")

import jax
import jaxtyping
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jaxtyping.install_import_hook("mcu_jax", "beartype.beartype")

import jax.numpy as jnp
import numpy as np

from mcu_jax import datasets, methods, models, splits, training
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


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
