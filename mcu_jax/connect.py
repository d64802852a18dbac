"""Train a path between two models. Only the path's inner points are ever differentiated."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float

from mcu_jax import curves, losses, masks, metrics, optimizers, outputs, rules, training, trees
from mcu_jax.base import Batch, Curve, Mask, NonNegative, Params, Path, Problem, RandomKey, UserError

ADAPTIVE = "adaptive"
SWITCHED = -1.0
"""In the place of a fixed forgetting penalty, where penalties are numbers: the adaptive one."""
MASKS = ("mcu", "gradients", "random", "none")
STEPS = 2000
"""Ten epochs of MCU's paper on CIFAR-10: of D_f and half of D_r, in batches of 128."""
BETAS = (0.0, 0.01, 0.5)
"""The values the adaptive forgetting penalty switches between."""


class MaskInfo(NamedTuple):
    """A mask, and the shares of all weights it realises: kept in the end, dropped by the retain filter."""

    mask: Mask
    keep: Float[Any, ""]
    retain_filter: Float[Any, ""]


class PathInfo(NamedTuple):
    """losses: of every step, in nats. targets: accuracies to reach. mask: None where all weights move.

    notes: of every step, "beta", the forgetting penalty, and "t", as drawn.
    """

    losses: Float[Array, "steps"]
    targets: rules.Targets
    mask: MaskInfo | None
    notes: Mapping[str, Float[Array, "steps"]]


def mcu_mask(
    problem: Problem, key: RandomKey, *, kind: str = "mcu", keep: float = 0.5, retain_filter: float = 0.1
) -> MaskInfo | None:
    """MCU's two-stage mask at θ_o (`masks.mcu`), or a random one of exactly its realised size, or None for all weights.

    kind: mcu, gradients (the two stages with shares that the gradients give, `masks.by_gradients`), random or none;
    else UserError.
    """
    if kind == "none":
        return None
    if kind not in MASKS:
        raise UserError(f"a mask is one of {', '.join(MASKS)}; given {kind!r}")
    stats = training.evaluation_stats(problem, problem.params)
    grads = [training.gradient(problem, problem.params, rows, stats) for rows in (problem.retain, problem.forget)]
    if kind == "gradients":
        mask, dropped = _by_gradients(*grads)
    else:
        mask, dropped = _two_stages(*grads, keep=keep, retain_filter=retain_filter)
    if kind == "random":
        mask = masks.random(key, problem.params, masks.count(mask, problem.params))
    return MaskInfo(mask, masks.realised(mask, problem.params), masks.realised(dropped, problem.params))


_by_gradients = jax.jit(masks.by_gradients)
_two_stages = jax.jit(masks.mcu, static_argnames=("keep", "retain_filter"))


def adaptive_beta(
    forget_accuracy: Float[Any, ""], retain_accuracy: Float[Any, ""], targets: rules.Targets
) -> Float[Array, ""]:
    """MCU's adaptive forgetting penalty for one batch, one of `BETAS` (Shi & Wang 2025, arXiv 2505.10859).

    0 once the batch's forget accuracy is down at its target; weak while the forget accuracy exceeds its target by less,
    in proportion, than the retain accuracy does; else strong. Cross-multiplied: a target of 0 is no division.
    """
    forget_excess = (forget_accuracy - targets.forget) * targets.retain
    retain_excess = (retain_accuracy - targets.retain) * targets.forget
    none, weak, strong = BETAS
    moderate = jnp.where(forget_excess < retain_excess, weak, strong)
    return jax.lax.stop_gradient(jnp.where(forget_accuracy <= targets.forget, none, moderate))


def mcu(
    problem: Problem,
    end: Params,
    key: RandomKey,
    *,
    beta: float | Float[Any, ""] | str = ADAPTIVE,
    mask: MaskInfo | str | None = "mcu",
    keep: float = 0.5,
    retain_filter: float = 0.1,
    curve: Curve = curves.bezier,
    bends: int = 1,
    steps: int = STEPS,
    lr: Any = 0.01,
    momentum: Any = 0.9,
    batch_size: int = 128,
    retain_fraction: float = 0.5,
) -> tuple[Path, PathInfo]:
    """Trains a path from θ_o (`problem.params`) to a pre-unlearned model (Shi & Wang 2025, arXiv 2505.10859).

    min over the inner points of E_{t~U(0,1)} [CE(D_r; φ(t)) − β CE(D_f; φ(t))]: one t a mini-batch, the two means taken
    separately, the exact gradient through φ. Batches are of D_f and a once-drawn `retain_fraction` of D_r. steps: of
    training; `STEPS` are the paper's.

    end: the pre-unlearned model. beta: a number, or "adaptive" (`adaptive_beta`). mask: "mcu", "random", "none", None,
    or one made by `mcu_mask`; weights outside it never leave the straight line.
    Raises TreeMismatchError where the models differ, UserError for a fraction outside its range.
    """
    trees.check_alike(problem.params, end, "the original and the pre-unlearned model")
    if not 0 < retain_fraction <= 1:
        raise UserError(f"retain_fraction lies in (0, 1], given {retain_fraction}")
    if (isinstance(beta, str) and beta != ADAPTIVE) or (isinstance(beta, int | float) and not NonNegative.holds(beta)):
        raise UserError(f"beta is {ADAPTIVE!r} or {NonNegative.words}, given {beta!r}")
    mask_key, half_key, fit_key = jax.random.split(key, 3)
    if isinstance(mask, str):
        mask = mcu_mask(problem, mask_key, kind=mask, keep=keep, retain_filter=retain_filter)
    goal = rules.targets(problem)
    path, fit = _train(
        objective(problem, goal, half_key, beta=beta, retain_fraction=retain_fraction),
        curves.straight(problem.params, end, bends),
        problem.data,
        fit_key,
        mask=None if mask is None else mask.mask,
        curve=curve,
        steps=steps,
        lr=lr,
        momentum=momentum,
        batch_size=batch_size,
        notes=("beta", "t"),
    )
    return path, PathInfo(fit.losses, goal, mask, fit.notes)


def objective(
    problem: Problem,
    goal: rules.Targets,
    key: RandomKey,
    *,
    beta: float | Float[Any, ""] | str = ADAPTIVE,
    retain_fraction: float = 0.5,
) -> training.Objective:
    """What `mcu` minimises at a point of the path. beta: `SWITCHED`, a number among others, is "adaptive" too."""
    half_size = max(1, round(retain_fraction * len(problem.retain)))
    half = jax.random.permutation(key, len(problem.retain))[:half_size]
    mixed = training.mix(problem.forget, jnp.asarray(problem.retain)[half])
    fixed = jnp.asarray(SWITCHED if isinstance(beta, str) else beta, jnp.float32)
    return training.Objective(Partial(_penalised, problem, goal, fixed), (mixed,))


def _penalised(
    problem: Problem,
    goal: rules.Targets,
    beta: Float[Array, ""],
    params: Params,
    batches: tuple[tuple[Batch, Bool[Array, "n"]]],
    now: training.Now,
) -> tuple[training.Term, ...]:
    ((batch, is_forget),) = batches
    scores = outputs.scores(training.logits(problem, params, batch, now.key), outputs.labels(batch))
    # A batch without forget examples has a forget mean and accuracy of 0, and so no penalty.
    accuracies = (losses.masked_mean(scores.correct, is_forget), losses.masked_mean(scores.correct, ~is_forget))
    penalty = jnp.where(beta == SWITCHED, adaptive_beta(*accuracies, goal), beta)
    retained = training.Term(scores.loss, where=~is_forget, notes={"beta": penalty})
    return retained, training.Term(scores.loss, -penalty, is_forget)


def neutral(problem: Problem, *, weight: float = 0.2) -> training.Objective:
    """Of no method: L_r − λ min(L_f, cap), λ = `weight`: what is forgotten shall be lost as unseen examples are.

    cap: the mean loss of θ_o on D_v; where a class is forgotten, which D_v has none of, that of a guess, the logarithm
    of the number of classes.
    """
    terms = Partial(_neutral, problem, weight, _cap(problem))
    return training.Objective(terms, (training.retain(problem), training.forget(problem)))


@jax.jit
def _cap(problem: Problem) -> Float[Array, ""]:
    if problem.forget_test is not None:
        return jnp.log(jnp.asarray(problem.num_classes, jnp.float32))
    stats = training.evaluation_stats(problem, problem.params)
    return jnp.mean(metrics.scores(problem, problem.params, problem.validation, stats).loss)


def _neutral(
    problem: Problem, weight: Any, cap: Float[Array, ""], params: Params, batches: tuple, now: training.Now
) -> tuple[training.Term, ...]:
    retain, forget = batches
    retain_key, forget_key = jax.random.split(now.key)
    lost = jnp.mean(training.nll(problem, params, forget, forget_key))
    return (
        training.Term(training.nll(problem, params, retain, retain_key)),
        training.Term(jnp.minimum(lost, cap), -weight),
    )


def train(
    objective: training.Objective,
    start: Params,
    end: Params,
    data: Any,
    key: RandomKey,
    *,
    mask: Mask | None = None,
    curve: Curve = curves.bezier,
    bends: int = 1,
    sampling: str = "uniform",
    origin: Params | None = None,
    steps: int = STEPS,
    lr: Any = 0.01,
    momentum: Any = 0.9,
    batch_size: int = 128,
) -> tuple[Path, Float[Array, "steps"]]:
    """Trains a path between two models, min over its inner points of E_t [objective at φ(t)]; gives the losses too.

    One t a mini-batch, the exact gradient through φ; the ends are not differentiated. Garipov et al. 2018, arXiv
    1802.10026. objective: of a method (`methods.objective`), or `neutral`; data: `Problem.data`. mask: weights outside
    it never leave where they began. sampling: of t, one of `SAMPLING`. origin: where every inner point begins; None: on
    the straight line. Raises TreeMismatchError where the models differ, UserError for another sampling.
    """
    trees.check_alike(start, end, "the two ends of a path")
    if sampling not in SAMPLING:
        raise UserError(f"t is drawn one of these ways: {', '.join(SAMPLING)}; given {sampling!r}")
    path = curves.straight(start, end, bends)
    if origin is not None:
        trees.check_alike(start, origin, "the ends of a path and where its inner points begin")
        path = path._replace(inner=trees.stack([origin] * bends))
    settings = {"mask": mask, "curve": curve, "sampling": sampling, "lr": lr, "momentum": momentum}
    return train_on(objective, path, data, key, **settings, steps=steps, batch_size=batch_size)


def train_on(
    objective: training.Objective,
    path: Path,
    data: Any,
    key: RandomKey,
    *,
    mask: Mask | None = None,
    curve: Curve = curves.bezier,
    sampling: str = "uniform",
    steps: int = STEPS,
    lr: Any = 0.01,
    momentum: Any = 0.9,
    batch_size: int = 128,
) -> tuple[Path, Float[Array, "steps"]]:
    """`train` from the inner points that a path has."""
    path, fit = _train(
        objective,
        path,
        data,
        key,
        mask=mask,
        curve=curve,
        sampling=sampling,
        steps=steps,
        lr=lr,
        momentum=momentum,
        batch_size=batch_size,
    )
    return path, fit.losses


def _train(
    objective: training.Objective,
    path: Path,
    data: Any,
    key: RandomKey,
    *,
    mask: Mask | None,
    curve: Curve,
    sampling: str = "uniform",
    lr: Any,
    momentum: Any,
    **loop: Any,
) -> tuple[Path, training.Fit]:
    """loop: what `training.fit` is told of it."""
    terms = Partial(_along(curve, SAMPLING[sampling]), trees.as_partial(objective.terms), path.start, path.end)
    optimizer = optimizers.make(optimizers.sgd, lr, momentum)
    fit = training.fit(objective._replace(terms=terms), path.inner, data, key, optimizer=optimizer, mask=mask, **loop)
    return path._replace(inner=fit.state), fit


def _uniform(key: RandomKey) -> Float[Array, ""]:
    return jax.random.uniform(key)


def _centred(key: RandomKey) -> Float[Array, ""]:
    return jnp.clip(0.5 + 0.1 * jax.random.normal(key), 0, 1)


SAMPLING = {"uniform": _uniform, "centred": _centred}
"""How t is drawn: from U(0, 1), or from N(0.5, 0.1²) clipped to [0, 1] (Cheng & Amiri 2025, arXiv 2504.06407)."""


@functools.cache
def _along(curve: Curve, draw: Callable) -> Callable[..., tuple[training.Term, ...]]:
    """An objective along one kind of curve; cached, so that the same curve is the same function to the compiler."""

    def terms(
        objective: Callable, start: Params, end: Params, inner: Params, batches: tuple, now: training.Now
    ) -> tuple[training.Term, ...]:
        t_key, model_key = jax.random.split(now.key)
        t = draw(t_key)
        first, *others = objective(curve(Path(start, inner, end), t), batches, now._replace(key=model_key))
        return first._replace(notes={**(first.notes or {}), "t": t}), *others

    return terms
