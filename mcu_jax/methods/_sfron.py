from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from mcu_jax import curricula, masks, optimizers, outputs, training, trees
from mcu_jax.base import Count, Decay, Mask, Named, NonNegative, OneOf, Params, Positive, Problem, RandomKey, UserError

COUPLINGS = ("shared", "separate")


class Steps(NamedTuple):
    """`training.Training` counted in steps: one descent on D_r each."""

    steps: Annotated[int, Count] = 1500
    lr: Annotated[Any, Positive] = 0.01
    momentum: Annotated[Any, Decay] = 0.9
    weight_decay: Annotated[Any, NonNegative] = 5e-4
    batch_size: Annotated[int, Count] = 128
    optimizer: Annotated[optimizers.Optimizer, Named("optimizers", "optimizer")] = optimizers.sgd
    curriculum: Annotated[curricula.Curriculum | None, Named("curricula", "curriculum", none="none")] = None


def sfron(
    problem: Problem,
    key: RandomKey,
    *,
    alpha: Annotated[float, NonNegative] = 25.0,
    decay: Annotated[float, NonNegative] = 0.5,
    gamma: Annotated[float, NonNegative] = 1.0,
    forget_every: Annotated[int, Count] = 5,
    clip: Annotated[float, Positive] = 7.0,
    coupling: Annotated[str, OneOf(COUPLINGS)] = "shared",
    train: Steps = Steps(),
) -> Params:
    """SFRon: masked, loss-weighted ascent on D_f between descents on D_r (Huang et al. 2024, arXiv 2409.19732).

    Every step descends L_r; every `forget_every` steps, before it, one ascent on D_f: per-example weights ∝ ℓ^−decay
    (mean 1, detached), factor α·½(1 + cos πs/S), gradients only where the diagonal Fisher information has F_f ≥ γ F_r,
    clipped by global norm. coupling: "shared" as the authors' code, one optimiser for both, so that momentum and weight
    decay act everywhere in an ascent too, its learning rate falling to 0 along half a cosine; "separate": a constant
    learning rate, and an ascent with an optimiser of its own, without decay, that moves nothing outside the mask.
    """
    if coupling not in COUPLINGS:
        raise UserError(f"coupling is one of {', '.join(COUPLINGS)}; given {coupling!r}")
    stats = training.evaluation_stats(problem, problem.params)
    fisher_forget, fisher_retain = (
        training.squared_gradient(problem, problem.params, rows, stats) for rows in (problem.forget, problem.retain)
    )
    mask = jax.tree.map(lambda f, r: f >= gamma * r, fisher_forget, fisher_retain)
    weigh = None if train.curriculum is None else trees.as_partial(train.curriculum)
    shared = coupling == "shared"
    descent = optimizers.make(train.optimizer, train.lr, train.momentum, train.weight_decay)
    ascent = optimizers.masked(optimizers.make(train.optimizer, train.lr, train.momentum, 0.0), mask)
    if shared:
        descent = ascent = optimizers.annealed(descent)
    parts = (
        training.Objective(Partial(_ascent, problem, alpha, decay), (training.forget(problem),)),
        training.Objective(Partial(_descent, problem), (training.retain(problem),)),
    )
    starts = [
        training.begin(part, problem.params, problem.data, make, weigh)
        for part, make in zip(parts, (ascent, descent), strict=True)
    ]
    ascend = training.descend(parts[0].terms, ascent, weigh, prepare=Partial(_mask_and_clip, mask, clip))
    descend = training.descend(parts[1].terms, descent, weigh)
    # Of a shared optimiser there is one state, the descent's.
    state = (problem.params, () if shared else starts[0].optimizer, starts[1].optimizer, *(s.running for s in starts))
    update = Partial(_update, ascend, descend, forget_every)
    streams = (training.retain(problem), training.forget(problem))
    return training.loop(
        update, state, streams, problem.data, key, steps=train.steps, batch_size=train.batch_size
    ).state[0]


def objective(problem: Problem, key: RandomKey, *, alpha: Any, decay: Any, forget_every: Any) -> training.Objective:
    """Both parts at once, an ascent at its share of the steps."""
    del key
    terms = Partial(_both, problem, alpha / forget_every, decay)
    return training.Objective(terms, (training.retain(problem), training.forget(problem)))


def _mask_and_clip(mask: Mask, clip: Any, grads: Params) -> Params:
    """The norm that is clipped is that of what the mask lets through."""
    chain = optax.chain(masks.freeze(mask), optax.clip_by_global_norm(clip))
    return chain.update(grads, chain.init(grads))[0]


def _update(ascend: Any, descend: Any, every: Any, state: tuple, batches: tuple, now: training.Now) -> tuple:
    params, ascent, descent, away, towards = state
    shared = ascent == ()
    retain, forget = batches
    ascent_key, descent_key = jax.random.split(now.key)
    ascents = (now.step + every - 1) // every
    start = training.Descent(params, descent if shared else ascent, away)
    count = ascents + now.step if shared else ascents
    (params, optimizer, away), _ = jax.lax.cond(
        now.step % every == 0,
        lambda: ascend(start, (forget,), now._replace(key=ascent_key, updates=count)),
        lambda: (start, jnp.zeros(())),
    )
    ascent, descent = ((), optimizer) if shared else (optimizer, descent)
    count = now.step + now.step // every + 1 if shared else now.step
    (params, descent, towards), loss = descend(
        training.Descent(params, descent, towards), (retain,), now._replace(key=descent_key, updates=count)
    )
    return (params, ascent, descent, away, towards), loss


def _both(problem: Problem, alpha: Any, decay: Any, params: Params, batches: tuple, now: training.Now) -> Any:
    retain, forget = batches
    retain_key, forget_key = jax.random.split(now.key)
    descent = _descent(problem, params, (retain,), now._replace(key=retain_key))
    return *descent, *_ascent(problem, alpha, decay, params, (forget,), now._replace(key=forget_key))


def _ascent(problem: Problem, alpha: Any, decay: Any, params: Params, batches: tuple, now: training.Now) -> Any:
    (forget,) = batches
    nll = outputs.nll(training.logits(problem, params, forget, now.key), outputs.labels(forget))
    # A loss of exactly 0 would have infinite weight, for no gradient.
    weights = jax.lax.stop_gradient(jnp.maximum(nll, 1e-6) ** -decay)
    factor = alpha * 0.5 * (1 + jnp.cos(jnp.pi * now.progress))
    return (training.Term(weights / jnp.mean(weights) * nll, -factor),)


def _descent(problem: Problem, params: Params, batches: tuple, now: training.Now) -> Any:
    return (training.Term(training.nll(problem, params, batches[0], now.key)),)
