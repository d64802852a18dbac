"""What is computed of a path to be looked at, beside its metrics: functions of stages, of one seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array

from mcu_jax import curves, metrics, outputs, paths, planes, training
from mcu_jax.base import Curve, Params, Path, Problem
from mcu_jax.runs import _along, _tasks

BINS = 20
"""Of a histogram of confidences."""
EXAMPLES = 12
"""Of D_f that are shown one by one."""

# Predictions along a path


def explore(
    task: Problem, original: Params, end: Params, inner: Params, t: Any, *, curve: str, points: int
) -> dict[str, Any]:
    """What the models at every t say of D_f and D_v, leaves [T, n]. near: which of the points is nearest to t."""
    problem, ts = _tasks.given(task, original), paths.points(points)
    seen = paths.sweep(Partial(_seen, problem), Path(original, inner, end), ts, getattr(curves, curve))
    return {**seen, "rows": jnp.asarray(problem.forget), "near": jnp.argmin(jnp.abs(ts - t))}


def _seen(problem: Problem, params: Params) -> dict[str, Array]:
    stats = training.evaluation_stats(problem, params)
    return {
        **metrics.over_rows(_said, problem, params, problem.forget, stats),
        "validation": metrics.scores(problem, params, problem.validation, stats).confidence,
    }


def _said(logits: Array, labels: Array) -> dict[str, Array]:
    scores = outputs.scores(logits, labels)
    predicted = outputs.scores(logits, scores.prediction)
    return {"forget": scores.confidence, "prediction": scores.prediction, "predicted": predicted.confidence}


def explore_values(seen: Mapping[str, Any], *, seed: int, points: int) -> dict[str, Any]:
    """Histograms of the confidence of the true label, and the examples: half drawn at random, half those of the rest
    whose true label loses most between θ_o and the point that was chosen.
    """
    seen = {name: np.asarray(values) for name, values in seen.items()}
    n = len(seen["rows"])
    order = np.random.default_rng([seed, 3]).permutation(n)
    drawn, rest = np.split(order, [min(EXAMPLES // 2, n)])
    lost = seen["forget"][0] - seen["forget"][seen["near"]]
    fallen = rest[np.argsort(-lost[rest], kind="stable")][: EXAMPLES - len(drawn)]
    picked = [(i, "random") for i in drawn] + [(i, "fallen") for i in fallen]
    return {
        "t": [round(float(t), 6) for t in paths.points(points)],
        "bins": [round(float(edge), 6) for edge in np.linspace(0, 1, BINS + 1)],
        "confidence": {split: [_shares(values) for values in seen[split]] for split in ("forget", "validation")},
        "examples": [
            {
                "index": int(seen["rows"][i]),
                "picked": how,
                "prediction": seen["prediction"][:, i].tolist(),
                "confidence": _along.as_json(seen["predicted"][:, i]),
                "true_confidence": _along.as_json(seen["forget"][:, i]),
            }
            for i, how in picked
        ],
    }


def _shares(confidences: np.ndarray) -> list[float]:
    """Of the examples in each bin; what is no number is in none."""
    counts, _ = np.histogram(np.clip(confidences, 0, 1), BINS, (0, 1))  # rounding gives more than 1
    return _along.as_json(counts / len(confidences))


# The plane of a path


def plane(
    task: Problem, original: Params, end: Params, inner: Params, retrained: Params, *, size: int
) -> dict[str, Any]:
    """Losses on a grid of the plane through θ_o, the middle inner point and θ_p: [size, size], rows follow v.

    controls: the coordinates of all control points, [n, 2]; off: the scalar products of what each two are off the plane
    by, [n, n]. Where the three are on one line there is no plane, and no v of a control point is other than 0.
    """
    problem, path = _tasks.given(task, original), Path(original, inner, end)
    middle = curves.bends(path) // 2
    found = planes.through(original, end, jax.tree.map(lambda leaf: leaf[middle], inner))
    stacked = jax.tree.map(lambda a, mid, b: jnp.concatenate([a[None], mid, b[None]]), *path)
    controls = jax.vmap(planes.project, (None, 0))(found, stacked)
    rest = jnp.concatenate([leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(controls.rest)], axis=1)
    off = jnp.matmul(rest, rest.T, precision=jax.lax.Precision.HIGHEST)
    away = planes.project(found, retrained)
    us, vs = planes.grid(controls.at, size, near=away.at)
    return {
        "u": us,
        "v": vs,
        **planes.sweep(Partial(_losses, problem), found, us, vs),
        "controls": controls.at,
        "off": off,
        "at": away.at,
        "distance": away.distance,
        "norm": optax.tree.norm(optax.tree.sub(retrained, original)),
    }


def _losses(problem: Problem, params: Params) -> dict[str, Array]:
    stats = training.evaluation_stats(problem, params)
    sets = {"retain_loss": problem.retain, "forget_loss": problem.forget}
    return {name: jnp.mean(metrics.scores(problem, params, rows, stats).loss) for name, rows in sets.items()}


def along_plane(found: Mapping[str, Any], ts: np.ndarray, curve: Curve) -> dict[str, np.ndarray]:
    """Where a path lies on its plane, and where it has several inner points, how far off it."""
    n = len(found["controls"])
    basis = jnp.eye(n, dtype=jnp.float32)
    weights = np.asarray(jax.vmap(lambda t: curve(Path(basis[0], basis[1:-1], basis[-1]), t))(jnp.asarray(ts)))
    u, v = np.transpose(weights @ np.asarray(found["controls"]))
    off = np.sqrt(np.maximum(np.einsum("ti,ij,tj->t", weights, np.asarray(found["off"]), weights), 0))
    return {"t": ts, "u": u, "v": v, **({"off": off} if n > 3 else {})}
