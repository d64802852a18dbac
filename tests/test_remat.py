"""Deep networks that keep less for the gradient: another memory, the same network."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcu_jax import Model, UserError, models, registry
from mcu_jax.models import _resnet, _swin, _vgg, _vit

KEY = jax.random.key(0)
IMAGES = np.random.RandomState(0).randint(0, 256, (4, 32, 32, 3)).astype(np.uint8)
MODELS: dict[str, Callable[[bool], Model]] = {
    "preresnet": lambda remat: models.preresnet(num_classes=7, depth=8, remat=remat),
    "vgg16_bn": lambda remat: _vgg._made(7, ((4, 4), (8,)), 16, remat),
    "vit": lambda remat: _vit._made(7, _vit._Size(16, 2, 2), 8, remat),
    "swin": lambda remat: _swin._made(7, _swin._Size(16, (2, 2), (2, 4)), remat),
    "resnet": lambda remat: _resnet._resnet("r", 7, (1, 2), bottleneck=True, stem="cifar", remat=remat),
}
COMPILED = ("preresnet", "vgg16_bn", "vit")
"""With blocks that have BatchNorm, a function for a block, and attention."""


def loss(model: Model, params: Any) -> tuple[jax.Array, Any]:
    logits, stats = model.apply(params, IMAGES, None, KEY)
    return jnp.mean(jax.nn.logsumexp(logits, axis=1)), stats


def kept(model: Model, params: Any) -> int:
    """Numbers that the forward pass keeps for the gradient."""
    back = jax.eval_shape(lambda params: jax.vjp(lambda p: loss(model, p)[0], params)[1], params)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(back))


@pytest.mark.parametrize("name", MODELS)
def test_less_is_kept_by_the_same_parameters(name: str) -> None:
    whole, less = map(MODELS[name], (False, True))
    shapes, others = (jax.eval_shape(model.init, KEY, IMAGES) for model in (whole, less))
    assert shapes == others
    weights = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    assert kept(less, shapes) - weights < 0.6 * (kept(whole, shapes) - weights)
    step = jax.jit(jax.grad(lambda params: loss(less, params)[0])).trace(shapes)
    assert "optimization_barrier" in step.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("name", COMPILED)
def test_the_gradients_are_the_same(name: str) -> None:
    whole, less = map(MODELS[name], (False, True))
    params = whole.init(KEY, IMAGES)
    expected, found = (
        jax.jit(jax.grad(lambda params, model=model: loss(model, params), has_aux=True))(params)
        for model in (whole, less)
    )
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected[0]))
    chex.assert_trees_all_close(found, expected, atol=1e-5 * largest, rtol=1e-4)


def test_it_is_asked_for_by_a_word() -> None:
    name, options = registry.parse("resnet18:remat=true,stem=imagenet")
    assert registry.bind(models.resnet18, options, name) == {"remat": True, "stem": "imagenet"}
    assert registry.schema(models.vit) == {"size": "Ti", "patch": 16, "remat": False}
    assert registry.parse(registry.spec("vit", {"remat": True})) == ("vit", {"remat": True})
    for wrong in ("1", "yes"):
        with pytest.raises(UserError, match="remat takes true or false, given"):
            registry.bind(models.vit, registry.parse(f"vit:remat={wrong}")[1], "model vit")
