from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from mcu_jax import losses, masks, training
from mcu_jax.base import Mask, Params, Problem, RandomKey


def sfron(
    problem: Problem,
    key: RandomKey,
    *,
    steps: int = 1500,
    lr: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    alpha: float = 25.0,
    decay: float = 0.5,
    gamma: float = 1.0,
    forget_every: int = 5,
    clip: float = 7.0,
    batch_size: int = 128,
) -> Params:
    """SFRon: masked, loss-weighted ascent on D_f between descents on D_r (Huang et al. 2024, arXiv 2409.19732).

    Every step descends L_r; every `forget_every` steps, before it, one ascent on D_f with its own optimiser state:
    per-example weights ∝ ℓ^−decay (mean 1, detached), factor α·½(1 + cos πs/S), only where the diagonal Fisher
    information has F_f ≥ γ F_r, clipped by global norm.
    """
    stats = training.evaluation_stats(problem)
    fisher_forget, fisher_retain = (
        training.squared_gradient(problem, problem.params, split, stats) for split in (problem.forget, problem.retain)
    )
    mask = jax.tree.map(lambda f, r: f >= gamma * r, fisher_forget, fisher_retain)
    ascend = Partial(_masked_then_clipped, lr, momentum, clip, mask)
    descend = Partial(training.sgd, lr, momentum, weight_decay)
    update = Partial(
        _update,
        training.descend(Partial(_ascent_loss, problem, alpha, decay), ascend),
        training.descend(Partial(_descent_loss, problem), descend),
        forget_every,
    )
    state = (problem.params, ascend().init(problem.params), descend().init(problem.params))
    streams = (problem.retain, problem.forget)
    return training.loop(update, state, streams, key, steps=steps, batch_size=batch_size).state[0]


def _masked_then_clipped(lr: Any, momentum: Any, clip: Any, mask: Mask) -> optax.GradientTransformation:
    return optax.chain(masks.freeze(mask), training.sgd(lr, momentum, clip=clip, mask=mask))


def _update(ascend: Any, descend: Any, every: Any, state: tuple, batches: tuple, now: training.Now) -> tuple:
    params, ascent_state, descent_state = state
    retain, forget = batches
    ascent_key, descent_key = jax.random.split(now.key)
    (params, ascent_state), _ = jax.lax.cond(
        now.step % every == 0,
        lambda: ascend((params, ascent_state), forget, now._replace(key=ascent_key)),
        lambda: ((params, ascent_state), jnp.zeros(())),
    )
    (params, descent_state), loss = descend((params, descent_state), retain, now._replace(key=descent_key))
    return (params, ascent_state, descent_state), loss


def _ascent_loss(problem: Problem, alpha: Any, decay: Any, params: Params, batch: Any, now: training.Now) -> Any:
    nll = losses.nll(training.logits(problem, params, batch.x, now.key), batch.y)
    # A loss of exactly 0 would have infinite weight, for no gradient.
    weights = jax.lax.stop_gradient(jnp.maximum(nll, 1e-6) ** -decay)
    factor = alpha * 0.5 * (1 + jnp.cos(jnp.pi * now.progress))
    return -factor * jnp.mean(weights / jnp.mean(weights) * nll)


def _descent_loss(problem: Problem, params: Params, batch: Any, now: training.Now) -> Any:
    return training.cross_entropy(problem, params, batch, now.key)
