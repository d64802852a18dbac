"""C11: unlearned models that are linearly connected to the original get what they forgot back sooner."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import verdicts
from jax.tree_util import Partial
from reading import Claim, Reading
from scipy import stats
from settings import DEFAULTS, STARTS, Runs, measured

from mcu_jax import curves, methods, metrics, paths, training
from mcu_jax.base import Params, Problem

CLAIM = Claim(
    name="C11",
    source="arXiv 2505.22310",
    hypothesis="over methods, the higher the accuracy barrier of the straight line between the original and the "
    "unlearned model, the less of D_f's accuracy comes back by fine-tuning on retain data alone",
    statistic="Spearman's ρ, over the methods of a seed, between the barrier (of RA and of the accuracy on D_f, the "
    "larger) and the rise of the accuracy on D_f after five epochs on D_r at lr 0.01; mean over seeds",
    rule="holds: the negated interval above 0; fails: below the smallest effect; else undecided",
    smallest=0.2,
)
METHODS = (STARTS[0], *DEFAULTS, "neg_tv")


def measure(
    problem: Problem, models: dict[str, Params], retrained: dict[str, float], batch_size: int
) -> dict[str, Any]:
    """Of one seed: of every method its barrier, and what comes back, as fractions."""
    del retrained
    found: dict[str, Any] = {}
    for name in METHODS:
        barrier, before = _line(problem, models[name])
        revived = methods.finetune(
            dataclasses.replace(problem, params=models[name]),
            jax.random.key(0),
            train=training.Training(epochs=5, lr=0.01, batch_size=batch_size, weight_decay=5e-4),
        )
        after = metrics.accuracy(metrics.evaluate(problem, revived).forget)
        found[name] = {"barrier": float(barrier), "revival": float(after - before)}
    return found


@jax.jit
def _line(problem: Problem, params: Params) -> tuple[Any, Any]:
    ts = paths.points(11)
    line = curves.straight(problem.params, params, 0)
    values = paths.sweep(Partial(_accuracies, problem), line, ts, curves.linear, chunk=1)
    worst = jnp.maximum(paths.barrier(ts, values["retain"], lower_is_better=False), paths.barrier(ts, values["forget"]))
    return worst, values["forget"][-1]


def _accuracies(problem: Problem, params: Params) -> dict[str, Any]:
    stats = training.evaluation_stats(problem, params)
    return {
        name: metrics.accuracy(metrics.scores(problem, params, getattr(problem, name), stats))
        for name in ("retain", "forget")
    }


def read(runs: Runs) -> list[Reading]:
    rhos = []
    for seed in measured("c11", runs):
        pairs = [(one["barrier"], one["revival"]) for one in seed.values()]
        rho = stats.spearmanr(*zip(*pairs, strict=True)).statistic
        rhos += [] if rho != rho else [-rho]  # where all barriers, or all revivals, are equal there is no order
    effect = verdicts.over_seeds(rhos)
    return [Reading("−ρ", effect, verdicts.larger(effect, CLAIM.smallest))]
