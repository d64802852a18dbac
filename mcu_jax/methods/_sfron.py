from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from mcu_jax import curricula, losses, masks, optimizers, training
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
    optimizer: str = "sgd",
    curriculum: str = "none",
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
    weigh = curricula.make(curriculum)
    parts = (
        training.Objective(Partial(_ascent, problem, alpha, decay), (problem.forget,)),
        training.Objective(Partial(_descent, problem), (problem.retain,)),
    )
    optimisers = (
        Partial(_masked, mask, optimizers.make(optimizer, lr, momentum, 0.0, clip, mask)),
        optimizers.make(optimizer, lr, momentum, weight_decay),
    )
    starts = [training.begin(part, problem.params, make, weigh) for part, make in zip(parts, optimisers, strict=True)]
    descents = [training.descend(part.terms, make, weigh) for part, make in zip(parts, optimisers, strict=True)]
    state = (problem.params, *(start[1:] for start in starts))
    update, streams = Partial(_update, *descents, forget_every), (problem.retain, problem.forget)
    return training.loop(update, state, streams, key, steps=steps, batch_size=batch_size).state[0]


def objective(problem: Problem, key: RandomKey, *, alpha: Any, decay: Any, forget_every: Any) -> training.Objective:
    """Both parts at once, an ascent at its share of the steps."""
    del key
    terms = Partial(_both, problem, alpha / forget_every, decay)
    return training.Objective(terms, (problem.retain, problem.forget))


def _masked(mask: Mask, make: Any) -> optax.GradientTransformation:
    """Before all else, so that the norm that is clipped is that of what moves."""
    return optax.chain(masks.freeze(mask), make())


def _update(ascend: Any, descend: Any, every: Any, state: tuple, batches: tuple, now: training.Now) -> tuple:
    params, ascent, descent = state
    retain, forget = batches
    ascent_key, descent_key = jax.random.split(now.key)
    start = training.Descent(params, *ascent)
    (params, *ascent), _ = jax.lax.cond(
        now.step % every == 0,
        lambda: ascend(start, (forget,), now._replace(key=ascent_key)),
        lambda: (start, jnp.zeros(())),
    )
    state = training.Descent(params, *descent)
    (params, *descent), loss = descend(state, (retain,), now._replace(key=descent_key))
    return (params, tuple(ascent), tuple(descent)), loss


def _both(problem: Problem, alpha: Any, decay: Any, params: Params, batches: tuple, now: training.Now) -> Any:
    retain, forget = batches
    retain_key, forget_key = jax.random.split(now.key)
    descent = _descent(problem, params, (retain,), now._replace(key=retain_key))
    return *descent, *_ascent(problem, alpha, decay, params, (forget,), now._replace(key=forget_key))


def _ascent(problem: Problem, alpha: Any, decay: Any, params: Params, batches: tuple, now: training.Now) -> Any:
    (forget,) = batches
    nll = losses.nll(training.logits(problem, params, forget.x, now.key), forget.y)
    # A loss of exactly 0 would have infinite weight, for no gradient.
    weights = jax.lax.stop_gradient(jnp.maximum(nll, 1e-6) ** -decay)
    factor = alpha * 0.5 * (1 + jnp.cos(jnp.pi * now.progress))
    return (training.Term(weights / jnp.mean(weights) * nll, -factor),)


def _descent(problem: Problem, params: Params, batches: tuple, now: training.Now) -> Any:
    return (training.Term(training.nll(problem, params, batches[0], now.key)),)
