"""Convolutions take the form that is fast where they run, and nothing of the other is left in the program."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from mcu_jax import chunks, models
from mcu_jax.models import _conv

KEY = jax.random.key(0)
OTHERS = ("cuda", "rocm", "tpu")
CONVOLUTIONS = {"stride 1": (8, 1), "stride 2": (8, 2), "images": (3, 1)}


def scalar(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    return jnp.sum(jnp.tanh(_conv.conv(x, kernel, (stride, stride), ((1, 1), (1, 1)))))


def lowered(platform: str, channels: int, stride: int, order: int) -> str:
    """The program of a descent in a loop; order 2: of a Hessian product, of two kernels side by side."""
    x, kernel = jnp.ones((2, 8, 8, channels)), jnp.ones((3, 3, channels, 4))

    def gradient(kernel: jax.Array) -> jax.Array:
        def one(kernel: jax.Array) -> jax.Array:
            dx, dk = jax.grad(scalar, argnums=(0, 1))(x, kernel, stride)
            return dk + jnp.sum(dx)

        return one(kernel) if order == 1 else jax.vmap(lambda k: jax.jvp(one, (k,), (k,))[1])(kernel)

    given = kernel if order == 1 else jnp.stack([kernel, 2.0 * kernel])
    steps = jax.jit(lambda start: lax.fori_loop(0, 3, lambda _, k: k - gradient(k), start))
    return steps.trace(given).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_accelerators_get_xla_s_own_convolutions_and_their_gradients(kind: str, order: int) -> None:
    for platform in OTHERS[: 1 if order == 2 else None]:
        program = lowered(platform, *CONVOLUTIONS[kind], order)
        assert program.count("stablehlo.convolution") >= 3, "the value and both gradients"
        assert not re.search(r"stablehlo\.(concatenate|slice|dot_general)", program)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_cpu_gets_no_gradient_of_xla_s(kind: str, order: int) -> None:
    """Inside a loop these are tens of times slower. What is left are plain convolutions of stride 1."""
    program = lowered("cpu", *CONVOLUTIONS[kind], order)
    left = re.findall(r"stablehlo\.convolution.*", program)
    assert bool(left) == (kind == "stride 1")
    assert not [line for line in left if "->[b, 0, 1, f]" not in line and "->[0, 1, b, f]" in line]
    assert not [line for line in left if re.search(r"dilate = \[[^]]*[2-9]", line)]
    assert "stablehlo.dot_general" in program


def test_no_branch_is_left_in_what_a_cpu_runs() -> None:
    model = models.preresnet(num_classes=3, depth=8)
    params = model.init(KEY, jnp.zeros((1, 8, 8, 3)))
    x = jnp.ones((2, 8, 8, 3))

    def step(params: dict, _: None) -> tuple[dict, None]:
        grads = jax.grad(lambda p: jnp.sum(model.apply(p, x)[0]))(params)
        return jax.tree.map(jnp.subtract, params, grads), None

    compiled = jax.jit(lambda p: lax.scan(step, p, length=2)[0]).lower(params).compile().as_text()
    assert " while(" in compiled
    assert " conditional(" not in compiled


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_convolution_is_found_in_whatever_form(kind: str) -> None:
    channels, stride = CONVOLUTIONS[kind]
    assert chunks.convolves(
        lambda x, k: scalar(x, k, stride), jnp.ones((2, 8, 8, channels)), jnp.ones((3, 3, channels, 4))
    )
