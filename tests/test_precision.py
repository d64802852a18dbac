"""Computed in bfloat16, with everything that lasts in float32."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mcu_jax import Model, Problem, UserError, connect, methods, metrics, models, runs, training
from mcu_jax.models import _conv, _swin, _vit

KEY = jax.random.key(0)
IMAGES = np.random.RandomState(0).randint(0, 256, (8, 16, 16, 3)).astype(np.uint8)
TOLERANCE = 0.04
"""Of logits, relative to the largest: eight bits of a product, through a few layers of random weights."""


class Normed(nn.Module):
    """One's own, with everything that has a precision of its own."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.Conv(8, (3, 3), strides=2)(models.as_float(x))
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x)).reshape(x.shape[0], -1, 8)
        x = nn.LayerNorm()(x + nn.MultiHeadDotProductAttention(2, dropout_rate=0.5, deterministic=not train)(x))
        return nn.Dense(7)(nn.Dropout(0.5, deterministic=not train)(x.mean(1)))


class NnxNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.hidden, self.norm = nnx.Linear(16 * 16 * 3, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs)
        self.head = nnx.Linear(8, 7, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = models.as_float(x)
        return self.head(nnx.relu(self.norm(self.hidden(x.reshape(x.shape[0], -1)))))


MODELS: dict[str, Callable[[], Model]] = {
    "mlp": lambda: models.mlp(num_classes=7),
    "cnn": lambda: models.cnn(num_classes=7),
    "preresnet": lambda: models.preresnet(num_classes=7, depth=8),
    "vit": lambda: _vit._made(7, _vit._Size(16, 2, 2), 8),
    "swin": lambda: _swin._made(7, _swin._Size(16, (1, 2), (2, 4))),
    "linen": lambda: models.linen(Normed()),
    "nnx": lambda: models.nnx(NnxNet(nnx.Rngs(0)), init=NnxNet)[0],
}


def pair(name: str) -> tuple[Model, Model, Any]:
    model = MODELS[name]()
    return model, models.in_bfloat16(model), model.init(KEY, IMAGES)


def products(program: str) -> Iterator[str]:
    """The types of what matrix products and convolutions anywhere in a program multiply."""
    for given in re.findall(r"stablehlo\.(?:dot_general|convolution).* : \((.*)\) ->", program):
        yield from re.findall(r"x(b?f\d+)>", given)


@pytest.mark.parametrize("name", ["mlp", "cnn", "preresnet", "vit", "linen"])
def test_the_same_numbers_but_for_rounding_and_all_that_comes_back_is_float32(name: str) -> None:
    whole, cheap, params = pair(name)
    (logits, stats), (found, moments) = (jax.jit(model.apply)(params, IMAGES) for model in (whole, cheap))
    assert {leaf.dtype for leaf in jax.tree.leaves((found, moments))} == {jnp.dtype(jnp.float32)}
    chex.assert_trees_all_equal_shapes(moments, stats)
    largest = float(jnp.abs(logits).max())
    np.testing.assert_allclose(found, logits, atol=TOLERANCE * largest, rtol=0)
    assert not np.allclose(found, logits, rtol=1e-6), "it is float32 after all"
    again, returned = jax.jit(cheap.apply)(params, IMAGES, moments)
    np.testing.assert_allclose(again, found, atol=TOLERANCE * largest, rtol=0)
    chex.assert_trees_all_equal(returned, moments)
    if cheap.features is not None:
        assert jax.eval_shape(cheap.features, params, IMAGES, moments).dtype == jnp.float32


@pytest.mark.parametrize("name", MODELS)
def test_a_step_multiplies_in_bfloat16_alone_on_an_accelerator(name: str) -> None:
    _, cheap, params = pair(name)

    def loss(params: Any) -> jax.Array:
        return jnp.mean(jax.nn.logsumexp(cheap.apply(params, IMAGES, None, KEY)[0], axis=1))

    step = jax.jit(jax.grad(loss)).trace(params)
    assert {leaf.dtype for leaf in jax.tree.leaves(step.out_info)} == {jnp.dtype(jnp.float32)}
    found = list(products(step.lower(lowering_platforms=("cuda",)).as_text()))
    assert len(found) >= 6
    assert set(found) == {"bf16"}


@pytest.mark.parametrize("strides", [1, 2])
def test_on_a_cpu_convolutions_are_computed_in_float32(strides: int) -> None:
    x, kernel = jax.random.normal(KEY, (2, 8, 8, 4)), jax.random.normal(KEY, (3, 3, 4, 5))

    def convolved(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return _conv.conv(x, kernel, (strides, strides), "SAME")

    def all_of(x: jax.Array, kernel: jax.Array) -> Any:
        out, pulled = jax.vjp(convolved, x, kernel)
        return out, pulled(jnp.ones_like(out))

    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (x, kernel))
    program = jax.jit(all_of).trace(*low).lower(lowering_platforms=("cpu",)).as_text()
    assert set(products(program)) == {"f32"}
    found, expected = jax.jit(all_of)(*low), jax.jit(all_of)(*jax.tree.map(lambda leaf: leaf.astype(jnp.float32), low))
    chex.assert_trees_all_equal(found, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), expected))


def test_a_model_is_made_once_and_keeps_what_it_is_known_by() -> None:
    model = models.cnn(num_classes=7)
    cheap = models.in_bfloat16(model)
    assert cheap is models.in_bfloat16(model)
    assert (cheap.name, cheap.head, cheap.permutations) == (model.name, model.head, model.permutations)
    chex.assert_trees_all_equal(cheap.init(KEY, IMAGES), model.init(KEY, IMAGES))
    models.check(cheap, model.init(KEY, IMAGES), IMAGES)


def test_bytes_that_mean_something_else_are_refused() -> None:
    model = models.adapt(lambda params, x: x.reshape(x.shape[0], -1).astype(jnp.float32) @ params["w"], name="raw")
    with pytest.raises(UserError, match="raw takes uint8 images for something else"):
        models.in_bfloat16(model).apply({"w": jnp.ones((768, 2))}, IMAGES)


def test_methods_paths_and_metrics_take_such_a_model(problem: Problem) -> None:
    """Parameters stay float32 and move, to where float32 goes."""
    cheap = Problem(**{**vars(problem), "model": models.in_bfloat16(problem.model)})
    train = training.Training(steps=20, lr=0.05, batch_size=32)
    found, expected = (methods.neggrad_plus(each, KEY, beta=0.5, train=train) for each in (cheap, problem))
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}
    moved = jax.tree.map(jnp.subtract, expected, problem.params)
    chex.assert_trees_all_close(
        jax.tree.map(jnp.subtract, found, problem.params), moved, atol=0.1 * max(map(_largest, jax.tree.leaves(moved)))
    )
    assert metrics.evaluate(cheap, found).test.loss.dtype == jnp.float32
    path, _ = connect.train(
        connect.neutral(cheap), cheap.params, found, cheap.data, KEY, steps=2, lr=0.01, batch_size=16
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(path.inner)} == {jnp.dtype(jnp.float32)}


def _largest(x: jax.Array) -> float:
    return float(jnp.abs(x).max())


def test_a_run_computes_in_it_where_it_is_asked_to() -> None:
    asked = {"train_size": 60, "validation_size": 40, "precision": "bfloat16"}
    resolved = runs.resolve(runs.from_mapping(asked))
    assert resolved.model is models.in_bfloat16(models.mlp(num_classes=10))
    assert resolved.as_dict()["precision"] == "bfloat16"
    plain, named = (
        runs.resolve(runs.from_mapping({**asked, "precision": given})).as_dict() for given in (None, "float32")
    )
    assert plain == named
    assert "precision" not in plain
    with pytest.raises(runs.ConfigError, match="precision takes float32 or bfloat16, given 'float16'"):
        runs.from_mapping({"precision": "float16"})
