"""What `mcu-jax tune` does: of every method as many tries, judged alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from mcu_jax import metrics, rules
from mcu_jax.runs import (
    _directory,
    _graph,
    _recipe_file,
    _runner,
    _tasks,
    _tune_config,
    _unlearn,
)
from mcu_jax.runs._graph import Stage
from mcu_jax.runs._tune_config import ORACLE, Resolved

METRICS = ("UA", "RA", "TA", "MIA", "VA", "unseen_distance")


def graph(resolved: Resolved, directory: _directory.RunDirectory) -> dict[str, list[Stage]]:
    """Every stage of a run. Raises SplitError."""
    return _graph.by_label([_stages_of(resolved, replicate) for replicate in _tasks.replicates(directory, resolved)])


def label(method: str, number: int) -> str:
    return f"{method} try {number}"


def _stages_of(resolved: Resolved, replicate: _tasks.Replicate) -> _graph.Labelled:
    config, seed, made = resolved.config, replicate.seed, _graph.Labelled()
    given: dict[str, _graph.Input] = {"task": replicate.unseen(), "original": made.add(replicate.original)}
    made.add(Stage("targets", seed, _tasks.targets, given, {}, _tasks.target_values))
    if config.criterion == ORACLE:
        _add(resolved, replicate, made, "retrain", made.add(replicate.retrained("retrain")))
    to_start: dict[str, _graph.Input] = {}
    if "mcu" in config.methods:
        to_start = {"end": made.add(replicate.unlearned(config.pre, *resolved.methods[_tune_config.START]))}
    for name in config.methods:
        for number, options in enumerate(resolved.tries(name)):
            tried = label(name, number)
            if name == "mcu":
                inputs = {**replicate.begin(name), **to_start}
                settings = {name: value for name, value in options.items() if name != "pre"}
                path = Stage(tried, seed, _unlearn.another_path, inputs, settings)
                _add(resolved, replicate, made, tried, made.add(path)["params"])
            else:
                _add(resolved, replicate, made, tried, made.add(replicate.unlearned(tried, name, options)))
    return made


def _add(
    resolved: Resolved, replicate: _tasks.Replicate, made: _graph.Labelled, name: str, params: _graph.Input
) -> None:
    """The evaluation of a model. Only the oracle looks at test examples."""
    rows, values = replicate.rows(), _tasks.metric_values
    if resolved.config.criterion != ORACLE:
        rows, values = rows.unseen(), _tasks.seen_values
    inputs = {"task": replicate.task(rows), "params": params}
    made.add(Stage(f"metrics of {name}", replicate.seed, _tasks.evaluate, inputs, {}, values))


class _Read(NamedTuple):
    """What the stages of a run came to, by label and seed."""

    graph: _graph.Graph
    runner: _runner.Runner

    def __call__(self, label: str, seed: int) -> Any:
        return self.runner.found(self.stage(label, seed))

    def stage(self, label: str, seed: int) -> Stage:
        return next(stage for stage in self.graph[label] if stage.seed == seed)


# What they come to


def _measured(resolved: Resolved, read: _Read, name: str, seed: int) -> dict[str, float | None]:
    """Metrics, scores and criterion of a try; None where there is none, or the number is not finite."""
    config, values, targets = resolved.config, read(f"metrics of {name}", seed), read("targets", seed)
    found = dict.fromkeys((*METRICS, "avg_gap", *(f"score_{rule}" for rule in rules.NAMES)))
    if values and targets:
        found |= values | _tasks.scores(values, targets)
    criterion = f"score_{config.rule}"
    if config.criterion == ORACLE:
        criterion, retrained = ORACLE, read("metrics of retrain", seed)
        found["avg_gap"] = metrics.avg_gap(values, retrained) if values and retrained else None
    judged = found[criterion]
    return {"criterion": judged if judged is not None and math.isfinite(judged) else None, **found}


def _criteria(resolved: Resolved, read: _Read, method: str) -> list[list[float | None]]:
    """Of every try, for every seed."""
    numbers, seeds = range(resolved.config.tries), resolved.config.seeds
    return [[_measured(resolved, read, label(method, n), seed)["criterion"] for seed in seeds] for n in numbers]


def _best(criteria: Sequence[Sequence[float | None]]) -> int | None:
    """The try of the lowest mean over the seeds, of equals the first; None where each diverged for some seed."""
    means = {number: _mean(values) for number, values in enumerate(criteria) if None not in values}
    return min(means, key=lambda number: means[number], default=None)


def _mean(values: Sequence[Any]) -> float:
    return float(np.mean(values))


def results(resolved: Resolved, graph: _graph.Graph, runner: _runner.Runner) -> dict[str, Any]:
    """As `results.json` holds it, what the recipe file holds among it."""
    config, read = resolved.config, _Read(graph, runner)
    rows = [row for name in config.methods for row in _rows(resolved, read, name)]
    return {"kind": config.KIND, "config": resolved.as_dict(), "rows": rows, "recipe": _recipe(resolved, read)}


def _rows(resolved: Resolved, read: _Read, method: str) -> Iterator[dict[str, Any]]:
    for number, options in enumerate(resolved.tries(method)):
        for seed in resolved.config.seeds:
            stage = read.stage(label(method, number), seed)
            spent = read.runner.spent(stage)
            diverged = read.runner.broken(stage)
            yield {
                "method": method,
                "try": number,
                "seed": seed,
                "values": _tune_config.searched(method, options),
                **_measured(resolved, read, stage.label, seed),
                "seconds": {"unlearning": spent.seconds, "compile": spent.compile_seconds},
                "diverged": diverged and diverged.step,
            }


def _recipe(resolved: Resolved, read: _Read) -> dict[str, Any]:
    """A method of which every try diverged is left out."""
    config, settings = resolved.config, resolved.as_dict()
    found: dict[str, Mapping[str, Any]] = {}
    for name in config.methods:
        criteria = _criteria(resolved, read, name)
        best = _best(criteria)
        if best is not None:
            found[name] = {
                "values": _tune_config.searched(name, resolved.tries(name)[best]),
                "criterion": _mean(criteria[best]),
                "try": best,
                "tries": config.tries,
                "diverged": sum(None in values for values in criteria),
            }
    shared = ("forget", "train_size", "validation_size", "train", "pre", "seeds", "tries", "criterion", "rule")
    return {
        "kind": _recipe_file.KIND,
        "schema": _recipe_file.SCHEMA,
        "version": metadata.version("mcu-jax"),
        "dataset": config.dataset,
        "data_hash": resolved.data.hash,
        "model": resolved.model_id,
        **{name: settings[name] for name in shared},
        "oracle": config.criterion == ORACLE,
        "methods": found,
    }
