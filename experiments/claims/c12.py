"""C12: a path between an over-forgetting and an under-forgetting model is better than their merged weights."""

from __future__ import annotations

from typing import Any

import jax
import merging
import numpy as np
import verdicts
from reading import Claim, Reading
from settings import STARTS, Runs, measured

from mcu_jax import connect, curves, metrics, paths, rules
from mcu_jax.base import Params, Problem

CLAIM = Claim(
    name="C12",
    source="this project; TIES: Yadav et al. 2023, arXiv 2306.01708",
    hypothesis="the best point of a path between a model that forgot too little (fine-tuning) and one that forgot too "
    "much (random labels), trained by MCU's objective and chosen by accuracies, is closer to the retrained model than "
    "their average, their TIES merge, and the best point of the straight line between them",
    statistic="avg_gap of each minus that of the path, paired by seed; simultaneous intervals",
    rule="holds: every interval above 0; fails: one below the smallest effect; else undecided",
    smallest=0.25,
)
LITTLE, MUCH = "finetune", STARTS[0]
RIVALS = ("average", "ties", "line")


def measure(
    problem: Problem, models: dict[str, Params], retrained: dict[str, float], batch_size: int
) -> dict[str, Any]:
    """Of one seed: avg_gap of the path and of its rivals, as fractions."""
    little, much, goal = models[LITTLE], models[MUCH], rules.targets(problem)
    objective_key, train_key = jax.random.split(jax.random.key(0))
    objective = connect.objective(problem, goal, objective_key)
    bent, _ = connect.train(
        objective, little, much, problem.data, train_key, steps=2000, lr=0.01, batch_size=batch_size
    )
    merged = {"average": merging.average(little, much), "ties": merging.ties(little, much, problem.params)}
    for name, path in (("line", curves.straight(little, much)), ("path", bent)):
        ts = paths.points(21)
        standings = paths.standings(paths.evaluate(problem, path, ts))
        merged[name] = curves.bezier(path, paths.choose(problem, path, ts, standings, goal).t)
    return {name: metrics.avg_gap(_values(problem, params), retrained) for name, params in merged.items()}


def _values(problem: Problem, params: Params) -> dict[str, float]:
    found = metrics.evaluate(problem, params)
    accuracies = {"UA": metrics.ua(found), "RA": metrics.ra(found), "TA": metrics.ta(found)}
    return {**{name: float(value) for name, value in accuracies.items()}, "MIA": metrics.mia(found)}


def read(runs: Runs) -> list[Reading]:
    seeds, made = measured("c12", runs), []
    for rival in RIVALS:
        gains = 100 * np.array([seed[rival] - seed["path"] for seed in seeds])
        effect = verdicts.over_seeds(gains, of=len(RIVALS))
        made.append(Reading(f"{rival} − path", effect, verdicts.larger(effect, CLAIM.smallest)))
    return made
