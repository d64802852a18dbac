from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from mcu_jax import curricula, masks, optimizers, outputs, training
from mcu_jax.base import (
    Count,
    Decay,
    Mask,
    Named,
    NonNegative,
    OneOf,
    Params,
    Positive,
    Problem,
    RandomKey,
    Search,
    UserError,
)
from mcu_jax.methods import _alternate, _finetune

COUPLINGS = ("shared", "separate")


class Steps(NamedTuple):
    """`training.Training` counted in steps: one descent on D_r each."""

    steps: Annotated[int, Count, Search(50, 1500)] = 1500
    lr: Annotated[Any, Positive, Search(5e-4, 0.5)] = 0.01
    momentum: Annotated[Any, Decay] = 0.9
    weight_decay: Annotated[Any, NonNegative] = 5e-4
    batch_size: Annotated[int, Count] = 128
    optimizer: Annotated[optimizers.Optimizer, Named("optimizers", "optimizer")] = optimizers.sgd
    curriculum: Annotated[curricula.Curriculum | None, Named("curricula", "curriculum", none="none")] = None


def sfron(
    problem: Problem,
    key: RandomKey,
    *,
    alpha: Annotated[float, NonNegative, Search(1.0, 50.0)] = 25.0,
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
    decay act on all weights in an ascent too, its learning rate falling to 0 along half a cosine; "separate": constant
    learning rate, and a second optimiser for ascents, without decay, that moves nothing outside the mask.
    """
    if coupling not in COUPLINGS:
        raise UserError(f"coupling is one of {', '.join(COUPLINGS)}; given {coupling!r}")
    stats = training.evaluation_stats(problem, problem.params)
    fisher_forget, fisher_retain = (
        training.squared_gradient(problem, problem.params, rows, stats) for rows in (problem.forget, problem.retain)
    )
    mask = jax.tree.map(lambda f, r: f >= gamma * r, fisher_forget, fisher_retain)
    descent = optimizers.make(train.optimizer, train.lr, train.momentum, train.weight_decay)
    ascent = optimizers.masked(optimizers.make(train.optimizer, train.lr, train.momentum, 0.0), mask)
    return _alternate.alternate(
        problem,
        key,
        Partial(_ascent, problem, alpha, decay),
        _finetune.objective(problem, key).terms,
        Partial(_ascents, forget_every),
        optimizers=(optimizers.annealed(descent),) if coupling == "shared" else (ascent, descent),
        steps=train.steps,
        train=train,
        prepare=Partial(_mask_and_clip, mask, clip),
    )


def objective(problem: Problem, key: RandomKey, *, alpha: Any, decay: Any, forget_every: Any) -> training.Objective:
    """Ascent and descent at once, the ascent at its share of the steps."""
    ascent = Partial(_ascent, problem, alpha / forget_every, decay)
    return _alternate.both(problem, ascent, _finetune.objective(problem, key).terms)


def _ascents(every: Any, step: Any) -> Any:
    return (step + every - 1) // every


def _mask_and_clip(mask: Mask, clip: Any, grads: Params) -> Params:
    """Masks the gradients, then clips their global norm."""
    chain = optax.chain(masks.freeze(mask), optax.clip_by_global_norm(clip))
    return chain.update(grads, chain.init(grads))[0]


def _ascent(problem: Problem, alpha: Any, decay: Any, params: Params, batches: tuple, now: training.Now) -> Any:
    (forget,) = batches
    nll = outputs.nll(training.logits(problem, params, forget, now.key), outputs.labels(forget))
    # The floor keeps the weight of a loss of 0 finite.
    weights = jax.lax.stop_gradient(jnp.maximum(nll, 1e-6) ** -decay)
    factor = alpha * 0.5 * (1 + jnp.cos(jnp.pi * now.progress))
    return (training.Term(weights / jnp.mean(weights) * nll, -factor),)
