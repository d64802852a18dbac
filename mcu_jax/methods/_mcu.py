from __future__ import annotations

import sys
from typing import Any, NamedTuple

import jax
from jaxtyping import Float

from mcu_jax import connect, curves, paths, registry
from mcu_jax.base import Curve, Params, Path, Problem, RandomKey


class Unlearned(NamedTuple):
    """All that MCU gives: the model at t*, the path it lies on with how it was trained, and the choice of t*."""

    params: Params
    path: Path
    info: connect.PathInfo
    choice: paths.Choice


def mcu(
    problem: Problem,
    key: RandomKey,
    *,
    pre: str | Params = "random_label",
    beta: float | Float[Any, ""] | str = connect.ADAPTIVE,
    mask: str | connect.MaskInfo = "mcu",
    keep: float = 0.5,
    retain_filter: float = 0.1,
    curve: str | Curve = "bezier",
    bends: int = 1,
    epochs: int = 10,
    lr: float = 0.01,
    momentum: float = 0.9,
    batch_size: int = 128,
    retain_fraction: float = 0.5,
    points: int = 21,
    full: bool = False,
) -> Any:
    """MCU: the best point of a path to a pre-unlearned model (Shi & Wang 2025, arXiv 2505.10859).

    pre: the pre-unlearning method, NAME or NAME:key=value, or ready parameters. curve: a name or a curve. points: how
    many t are evaluated to choose t*, which needs no retrained model. full: give an `Unlearned` with the whole path,
    not only its params. The rest: `connect.mcu`. Raises as it does, and ValueError for an unknown method or curve.
    """
    pre_key, path_key = jax.random.split(key)
    curve = registry.get(curves, curve, "curve") if isinstance(curve, str) else curve
    if isinstance(pre, str):
        # The registry that this function is itself an entry of.
        name, options = registry.parse(pre)
        method = registry.get(sys.modules[__package__], name, "method")
        pre = method(problem, pre_key, **registry.bind(method, options, f"method {name}"))
    path, info = connect.mcu(
        problem,
        pre,
        path_key,
        beta=beta,
        mask=mask,
        keep=keep,
        retain_filter=retain_filter,
        curve=curve,
        bends=bends,
        epochs=epochs,
        lr=lr,
        momentum=momentum,
        batch_size=batch_size,
        retain_fraction=retain_fraction,
    )
    ts = paths.points(points)
    retain, forget = paths.accuracies(paths.predictions(problem, path, ts, curve))
    choice = paths.best_t(ts, retain, forget, info.targets, len(problem.forget.y))
    params = curve(path, choice.t)
    return Unlearned(params, path, info, choice) if full else params
