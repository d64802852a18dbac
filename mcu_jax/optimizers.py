"""Optimisers as optax chains: clip by global norm → direction with weight decay → lr → freeze.

The functions of `NAMES` share (lr, momentum, weight_decay, clip, mask); their own options are keyword-only. `mask` is
the last link, so that nothing outside it moves; `momentum` is sgd's, the others have betas of their own.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from mcu_jax import masks, registry, trees
from mcu_jax.base import Mask, Params

NAMES = ("sgd", "adam", "sophia", "sophia_fisher")


def make(
    spec: str, lr: Any, momentum: Any = 0.9, weight_decay: Any = 0.0, clip: Any = None, mask: Mask | None = None
) -> Partial:
    """NAME or NAME:key=value to a function of no argument that gives the optax chain; its numbers are leaves.

    Raises UnknownNameError for an optimiser or option there is not.
    """
    name, options = registry.parse(spec)
    function = registry.get(sys.modules[__name__], name, "optimizer")
    options = registry.bind(function, options, f"optimizer {name}")
    return Partial(function, lr, momentum, weight_decay, clip, mask, **options)


def sgd(
    lr: Any, momentum: Any = 0.9, weight_decay: Any = 0.0, clip: Any = None, mask: Mask | None = None
) -> optax.GradientTransformation:
    """SGD with heavy-ball momentum and coupled (L2) weight decay."""
    return _chain(clip, [optax.add_decayed_weights(weight_decay), optax.trace(momentum)], lr, mask)


def cosine_sgd(lr: Any, steps: Any, momentum: Any = 0.9, weight_decay: Any = 0.0) -> optax.GradientTransformation:
    """`sgd` with lr falling to 0 along half a cosine over `steps`."""
    return sgd(
        lambda count: 0.5 * lr * (1 + jnp.cos(jnp.pi * (count.astype(jnp.float32) / steps))), momentum, weight_decay
    )


def adam(
    lr: Any,
    momentum: Any = None,
    weight_decay: Any = 0.0,
    clip: Any = None,
    mask: Mask | None = None,
    *,
    b1: Any = 0.9,
    b2: Any = 0.999,
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2017, arXiv 1711.05101)."""
    del momentum
    return _chain(clip, [_lenient(optax.scale_by_adam(b1, b2)), optax.add_decayed_weights(weight_decay)], lr, mask)


def sophia(
    lr: Any,
    momentum: Any = None,
    weight_decay: Any = 0.0,
    clip: Any = None,
    mask: Mask | None = None,
    *,
    b1: Any = 0.965,
    b2: Any = 0.99,
    gamma: Any = 0.01,
    interval: Any = 10,
) -> optax.GradientTransformation:
    """Sophia-H, with a Hutchinson estimate of the Hessian's diagonal (Liu et al. 2023, arXiv 2305.14342).

    optax's, which looks at the Hessian every `interval` steps. Its update needs `obj_fn`, the loss as a function of the
    parameters, and `step`.
    """
    del momentum
    whole = optax.contrib.sophia(1.0, b1=b1, b2=b2, weight_decay=0.0, gamma=gamma, update_interval=interval)
    direction = [_at_step(_lenient(whole)), optax.scale(-1.0), optax.add_decayed_weights(weight_decay)]
    return _chain(clip, direction, lr, mask)


def _lenient(direction: Any) -> optax.GradientTransformationExtraArgs:
    """Raises a float to a whole number where the user's settings forbid to mix them."""
    direction = optax.with_extra_args_support(direction)

    def update(*arguments: Any, **extra: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return direction.update(*arguments, **extra)

    return optax.GradientTransformationExtraArgs(direction.init, update)


def _at_step(sophia: Any) -> optax.GradientTransformationExtraArgs:
    """Counts by the loop's step: one for all that vmap maps over, so that `cond` skips Hessian products there too."""

    def update(updates: Any, state: Any, params: Any = None, *, step: Any, **extra: Any) -> Any:
        counted = (state[0]._replace(count=step), *state[1:])
        return sophia.update(updates, counted, params, **extra)

    return optax.GradientTransformationExtraArgs(sophia.init, update)


def sophia_fisher(
    lr: Any,
    momentum: Any = None,
    weight_decay: Any = 0.0,
    clip: Any = None,
    mask: Mask | None = None,
    *,
    b1: Any = 0.9,
    b2: Any = 0.95,
    rho: Any = 0.04,
    scale: Any = 5120.0,
) -> optax.GradientTransformation:
    """Sophia with the empirical Fisher information of batch gradients: θ ← θ − lr clip(m / max(ρ B h, ε), 1).

    h: running mean of squared batch gradients; B: `scale` (Cheng & Amiri 2025, arXiv 2504.06407; β₁ applied once).
    """
    del momentum
    direction = scale_by_fisher(b1, b2, rho * scale)
    return _chain(clip, [direction, optax.add_decayed_weights(weight_decay)], lr, mask)


class FisherState(NamedTuple):
    """Running means of gradients and of their squares."""

    m: Params
    h: Params


def scale_by_fisher(b1: Any, b2: Any, gamma: Any, eps: float = 1e-15) -> optax.GradientTransformation:
    """clip(m / max(γ h, ε), 1), element by element."""

    def init(params: Params) -> FisherState:
        return FisherState(trees.zeros_like(params), trees.zeros_like(params))

    def update(updates: Any, state: FisherState, params: Any = None) -> tuple[Any, FisherState]:
        del params
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.m, updates)
        h = jax.tree.map(lambda h, g: b2 * h + (1 - b2) * g * g, state.h, updates)
        return jax.tree.map(lambda m, h: jnp.clip(m / jnp.maximum(gamma * h, eps), -1, 1), m, h), FisherState(m, h)

    return optax.GradientTransformation(init, update)


def _chain(
    clip: Any, direction: list[optax.GradientTransformation], lr: Any, mask: Mask | None
) -> optax.GradientTransformation:
    links = [] if clip is None else [optax.clip_by_global_norm(clip)]
    links += [*direction, optax.scale_by_learning_rate(lr)]
    return optax.chain(*links, *([] if mask is None else [masks.freeze(mask)]))
