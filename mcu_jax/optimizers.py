"""Optimisers as optax chains: clip by global norm → direction with weight decay → lr → freeze.

The functions of `NAMES` give what stands between clip and freeze, from (lr, weight_decay) and, where they have one,
momentum; their own options are keyword-only. `make` and `masked` put the chain together.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float

from mcu_jax import masks, trees
from mcu_jax.base import Count, Decay, Mask, Params, Positive

NAMES = ("sgd", "adam", "sophia", "sophia_fisher")

Optimizer: TypeAlias = Callable[..., Any] | optax.GradientTransformation
"""A function of the learning rate, and of momentum and weight_decay if it takes them; or a ready transformation."""


def make(
    optimizer: Optimizer, lr: Any = None, momentum: Any = None, weight_decay: Any = None, *, clip: Any = None
) -> Partial:
    """A function without arguments that makes the optax chain; its numbers are leaves: new ones do not recompile.

    optimizer: one of `NAMES`, any function of a learning rate such as `optax.lion`, or a ready transformation such as
    `optax.lion(1e-4)`, which has a learning rate of its own. lr: a number or an optax schedule.
    """
    if isinstance(optimizer, optax.GradientTransformation | optax.GradientTransformationExtraArgs):
        return Partial(_chain, Partial(_ready(optimizer)), clip)
    shared = {"momentum": momentum, "weight_decay": weight_decay}
    taken = {name: value for name, value in shared.items() if value is not None and takes(optimizer, name)}
    direction = trees.as_partial(functools.partial(optimizer, _leaf(lr), **taken))
    return Partial(_chain, direction, clip)


def takes(optimizer: Callable, name: str) -> bool:
    """Whether the optimiser looks at `name`: "momentum" or "weight_decay"."""
    return name in inspect.signature(optimizer).parameters


def _leaf(lr: Any) -> Any:
    return trees.as_partial(lr) if callable(lr) else lr


@functools.cache
def _ready(transformation: optax.GradientTransformation) -> Callable[[], optax.GradientTransformation]:
    """Cached, so that the same transformation is the same function to the compiler."""
    return lambda: transformation


def _chain(direction: Callable[[], optax.GradientTransformation], clip: Any) -> optax.GradientTransformation:
    before = [] if clip is None else [optax.clip_by_global_norm(clip)]
    return optax.chain(*before, _lenient(direction()))


def annealed(chain: Callable[[], optax.GradientTransformation]) -> Partial:
    """The chain with updates that fall to 0 along half a cosine; it needs `progress`, the share of steps done."""
    return Partial(_annealed, trees.as_partial(chain))


def _annealed(chain: Callable[[], optax.GradientTransformation]) -> optax.GradientTransformation:
    def update(updates: Any, state: Any, params: Any = None, *, progress: Any, **extra: Any) -> Any:
        del params, extra
        return optax.tree.scale(0.5 * (1 + jnp.cos(jnp.pi * progress)), updates), state

    return optax.chain(chain(), optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update))


def masked(chain: Callable[[], optax.GradientTransformation], mask: Mask) -> Partial:
    """The chain with a mask as its last link, so that nothing outside the mask moves."""
    return Partial(_masked, trees.as_partial(chain), mask)


def _masked(chain: Callable[[], optax.GradientTransformation], mask: Mask) -> optax.GradientTransformation:
    return optax.chain(chain(), masks.freeze(mask))


def sgd(lr: Any, weight_decay: Any = 0.0, momentum: Any = 0.9) -> optax.GradientTransformation:
    """SGD with heavy-ball momentum and coupled (L2) weight decay."""
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.trace(momentum), optax.scale_by_learning_rate(lr))


def cosine(lr: Any, steps: Any) -> Partial:
    """The schedule of a learning rate that falls to 0 along half a cosine over `steps`; its numbers are leaves."""
    return Partial(_cosine, lr, steps)


def _cosine(lr: Any, steps: Any, count: Any) -> Float[Array, ""]:
    return 0.5 * lr * (1 + jnp.cos(jnp.pi * (count.astype(jnp.float32) / steps)))


def adam(
    lr: Any, weight_decay: Any = 0.0, *, b1: Annotated[Any, Decay] = 0.9, b2: Annotated[Any, Decay] = 0.999
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2017, arXiv 1711.05101)."""
    return optax.chain(
        _lenient(optax.scale_by_adam(b1, b2)), optax.add_decayed_weights(weight_decay), optax.scale_by_learning_rate(lr)
    )


def sophia(
    lr: Any,
    weight_decay: Any = 0.0,
    *,
    b1: Annotated[Any, Decay] = 0.965,
    b2: Annotated[Any, Decay] = 0.99,
    gamma: Annotated[Any, Positive] = 0.01,
    interval: Annotated[Any, Count] = 10,
) -> optax.GradientTransformation:
    """Sophia-H, with a Hutchinson estimate of the Hessian's diagonal (Liu et al. 2023, arXiv 2305.14342).

    optax's, which looks at the Hessian every `interval` updates. Its update needs `obj_fn`, the loss as a function of
    the parameters, and `count`, how many updates there were before.
    """
    whole = optax.contrib.sophia(1.0, b1=b1, b2=b2, weight_decay=0.0, gamma=gamma, update_interval=interval)
    return optax.chain(
        _counted(_lenient(whole)),
        optax.scale(-1.0),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(lr),
    )


def _lenient(direction: Any) -> optax.GradientTransformationExtraArgs:
    """Updates under standard dtype promotion: optax raises floats to integer powers, which strict promotion refuses."""
    direction = optax.with_extra_args_support(direction)

    def update(*arguments: Any, **extra: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return direction.update(*arguments, **extra)

    return optax.GradientTransformationExtraArgs(direction.init, update)


def _counted(sophia: Any) -> optax.GradientTransformationExtraArgs:
    """Takes the number of updates from the loop, where vmap leaves it unbatched, so `cond` skips Hessian products."""

    def update(updates: Any, state: Any, params: Any = None, *, count: Any, **extra: Any) -> Any:
        return sophia.update(updates, (state[0]._replace(count=count), *state[1:]), params, **extra)

    return optax.GradientTransformationExtraArgs(sophia.init, update)


def sophia_fisher(
    lr: Any,
    weight_decay: Any = 0.0,
    *,
    b1: Annotated[Any, Decay] = 0.9,
    b2: Annotated[Any, Decay] = 0.95,
    rho: Annotated[Any, Positive] = 0.04,
    scale: Annotated[Any, Positive] = 5120.0,
) -> optax.GradientTransformation:
    """Sophia with the empirical Fisher information of batch gradients: θ ← θ − lr clip(m / max(ρ B h, ε), 1).

    h: running mean of squared batch gradients; B: `scale` (Cheng & Amiri 2025, arXiv 2504.06407; β₁ applied once).
    """
    return optax.chain(
        scale_by_fisher(b1, b2, rho * scale), optax.add_decayed_weights(weight_decay), optax.scale_by_learning_rate(lr)
    )


class FisherState(NamedTuple):
    """Running means of gradients and of their squares."""

    m: Params
    h: Params


def scale_by_fisher(b1: Any, b2: Any, gamma: Any, eps: float = 1e-15) -> optax.GradientTransformation:
    """clip(m / max(γ h, ε), 1), element by element."""

    def init(params: Params) -> FisherState:
        return FisherState(optax.tree.zeros_like(params), optax.tree.zeros_like(params))

    def update(updates: Any, state: FisherState, params: Any = None) -> tuple[Any, FisherState]:
        del params
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.m, updates)
        h = jax.tree.map(lambda h, g: b2 * h + (1 - b2) * g * g, state.h, updates)
        return jax.tree.map(lambda m, h: jnp.clip(m / jnp.maximum(gamma * h, eps), -1, 1), m, h), FisherState(m, h)

    return optax.GradientTransformation(init, update)
