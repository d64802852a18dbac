from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from mcu_jax import auto, connect, curves, paths, rules
from mcu_jax.base import (
    Count,
    Curve,
    Decay,
    Fraction,
    Method,
    Named,
    NonNegative,
    OneOf,
    Params,
    Path,
    Positive,
    PositiveFraction,
    Problem,
    RandomKey,
    Range,
    Search,
    UserError,
)
from mcu_jax.methods._random_label import random_label

Penalty = Range(
    f"{connect.ADAPTIVE!r} or {NonNegative.words}",
    lambda beta: beta == connect.ADAPTIVE if isinstance(beta, str) else NonNegative.holds(beta),
)
Budget = Range("0, or a number from 1 to 1000", lambda budget: budget == 0 or 1 <= budget <= 1000)


class Unlearned(NamedTuple):
    """The model at t*, the path it lies on, how the path was trained, and how t* was chosen."""

    params: Params
    path: Path
    info: connect.PathInfo
    choice: paths.Choice


def mcu(
    problem: Problem,
    key: RandomKey,
    *,
    pre: Annotated[Method | Params, Named("methods", "method")] = random_label,
    beta: Annotated[float | Float[Any, ""] | str, Penalty, Search(0.01, 1.0, (connect.ADAPTIVE,))] = connect.ADAPTIVE,
    mask: Annotated[str | connect.MaskInfo, OneOf(connect.MASKS), Search(words=("none", "mcu"))] = "mcu",
    keep: Annotated[float, Fraction, Search(0.1, 1.0)] = 0.5,
    retain_filter: Annotated[float, Fraction, Search(0.01, 0.3)] = 0.1,
    curve: Annotated[Curve, Named("curves", "curve")] = curves.bezier,
    bends: Annotated[int, Count] = 1,
    steps: Annotated[int, Count, Search(200, 4000)] = connect.STEPS,
    lr: Annotated[Any, Positive, Search(0.003, 0.3)] = 0.01,
    momentum: Annotated[Any, Decay] = 0.9,
    batch_size: Annotated[int, Count] = 128,
    retain_fraction: Annotated[float, PositiveFraction] = 0.5,
    points: Annotated[int, Count] = 21,
    rule: Annotated[rules.Rule, Named("rules", "rule")] = rules.accuracy,
    budget: Annotated[float, Budget] = 0.0,
    full: bool = False,
) -> Any:
    """MCU: the best point of a path to a pre-unlearned model (Shi & Wang 2025, arXiv 2505.10859).

    pre: the pre-unlearning method, (problem, key) -> params, or ready parameters. points: how many t are evaluated to
    choose t* by the rule, which needs no retrained model. budget: 0 for a path of just these settings; else one that
    chooses lr, beta, length and mask itself, near these, for at most so many times their cost (`auto.mcu`). full: give
    an `Unlearned` with the whole path, not only its params. The rest: `connect.mcu`. Raises as these do.
    """
    pre_key, path_key = jax.random.split(key)
    end = pre(problem, pre_key) if callable(pre) else pre
    shared: dict[str, Any] = {"curve": curve, "bends": bends, "steps": steps, "lr": lr}
    shared |= {"momentum": momentum, "batch_size": batch_size, "retain_fraction": retain_fraction}
    shares: dict[str, Any] = {"keep": keep, "retain_filter": retain_filter}
    if budget:
        if beta != connect.ADAPTIVE:
            raise UserError(f"a path with a budget chooses beta itself, given {beta!r}: leave out one of them")
        given = connect.mcu_mask(problem, path_key, kind=mask, **shares) if isinstance(mask, str) else mask
        path, found = auto.mcu(problem, end, path_key, given, auto.Tuning(budget=budget, **shared))
        taken = connect.MaskInfo(found.settings.mask, found.settings.keep, found.settings.retain_filter)
        info = connect.PathInfo(jnp.zeros(0), rules.targets(problem), taken, {})
    else:
        path, info = connect.mcu(problem, end, path_key, beta=beta, mask=mask, **shares, **shared)
    ts = paths.points(points)
    standings = paths.standings(paths.evaluate(problem, path, ts, curve))
    choice = paths.choose(problem, path, ts, standings, info.targets, curve, rule)
    params = curve(path, choice.t)
    return Unlearned(params, path, info, choice) if full else params
