"""What the stages of `mcu-jax connect` come to: barriers, the seed floor, controls, clusters, correlations."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mcu_jax import metrics, paths
from mcu_jax.runs import _along, _connect, _graph, _runner
from mcu_jax.runs._connect_config import Endpoint, Pair, Resolved
from mcu_jax.runs._stages import Diverged

Values = dict[str, Any]
Read = Callable[[str, int], Any]
"""(label of a stage, seed) -> what it came to."""


def results(resolved: Resolved, graph: _graph.Graph, runner: _runner.Runner) -> dict[str, Any]:
    """As `results.json` holds it; of the seeds of `resolved`, which may be some of the graph's."""
    config, stages = resolved.config, {label: {each.seed: each for each in graph[label]} for label in graph}

    def read(label: str, seed: int) -> Any:
        return runner.read(stages[label][seed])

    asked = itertools.product(resolved.pairs, resolved.curves, config.seeds)
    pairs = [_pair(resolved, read, *each) for each in asked]
    first = _path_of(resolved, config.curve[0])
    compared = [pair for pair in pairs if pair["curve"] == first and "metrics" in pair]
    yardsticks = itertools.product(_connect.yardsticks(resolved), config.seeds)
    retrained = [made for each in yardsticks if (made := _retrained(resolved, read, *each))]
    order, clusters = _clusters(compared) if config.grid == "methods" else ([], None)
    return {
        "schema": 2,
        "kind": config.KIND,
        "config": resolved.as_dict(),
        "pairs": pairs,
        "floor": _floor([pair for pair in compared if pair["role"] == "floor"]),
        "controls": _controls(resolved, read),
        "retrained": retrained,
        "order": order,
        "clusters": clusters,
        "correlation": _correlation(compared, retrained) if "mia" in config.also else None,
        "seconds": _seconds(graph, runner),
    }


def _seconds(graph: _graph.Graph, runner: _runner.Runner) -> dict[str, float]:
    """That the stages took, compilation included, by what comes before the colon in their labels."""
    parts: dict[str, float] = {}
    for label, stages in graph.items():
        part, spent = label.partition(":")[0], map(runner.spent, stages)
        parts[part] = parts.get(part, 0.0) + sum(each.seconds + each.compile_seconds for each in spent)
    return {part: round(seconds, 1) for part, seconds in parts.items()}


def _path_of(resolved: Resolved, spec: str) -> str:
    """As `results.json` tells it: bends are told where there are several."""
    curve, bends = resolved.curves[spec]
    return f"{curve.__name__}:bends={bends}" if bends > 1 else curve.__name__


# Pairs


def _pair(resolved: Resolved, read: Read, pair: Pair, spec: str, seed: int) -> dict[str, Any]:
    """One pair, one curve, one seed."""
    config, asked, between = resolved.config, resolved.smaller(pair), _connect.both(pair)
    told = {
        "a": pair.a.describe(config.forget),
        "b": pair.b.describe(config.forget),
        "forget": asked.describe(config.forget)["forget"],
        "role": pair.role,
        "seed": seed,
        "curve": _path_of(resolved, spec),
        "objective": config.objective if resolved.curves[spec][1] else None,
    }
    stage, ts = read(f"measures: {spec}, {between}", seed), paths.points(config.points)
    if isinstance(stage, Diverged):
        return {**told, "diverged": stage.step, "diverged_stage": stage.label}
    measures = stage["metrics"]
    barriers = _barriers(ts, measures)
    smoothness = {name: paths.smoothness(values) for name, values in measures.items()}
    yardsticks = [end for end in _connect.yardsticks(resolved) if end.fraction == asked.fraction]
    retrained = [each for end in yardsticks if not isinstance(each := read(f"measures: {end.label}", seed), Diverged)]
    original = read("measures: original", seed)
    told |= {
        "t": [round(float(t), 6) for t in ts],
        "metrics": measures,
        "barriers": barriers,
        "connected": barriers["accuracy"] <= 2,
        "total_variation": {name: float(each.total_variation) for name, each in smoothness.items()},
        "max_second_difference": {name: float(each.max_second_difference) for name, each in smoothness.items()},
        "arc_length": stage["arc_length"],
        "interior": _interior(ts, measures, original, class_wise=resolved.forgotten is not None),
        "within_retrain": {
            name: float(paths.share_within(np.asarray(values), np.asarray([each[name] for each in retrained])))
            for name, values in measures.items()
        }
        if len(retrained) > 1
        else None,
        **{name: stage[name] for name in ("distance", "disagreement", "cka", "task_cosine", "ensemble")},
    }
    if "continued" in config.also:
        lines = read(f"barriers continued: {between}", seed)
        if not isinstance(lines, Diverged):
            before, after = (_line(lines, i)["barriers"] for i in (0, 1))
            told["continued"] = {"before": before, "barriers": after}
    if "relearning" in config.also and spec == config.curve[0]:
        steps = read(f"relearning: {between}", seed)
        told["relearning"] = {"t": list(_along.RELEARNED), "steps": steps, "limit": _along.LIMIT}
    return told


def _retrained(resolved: Resolved, read: Read, end: Endpoint, seed: int) -> dict[str, Any] | None:
    """One retrained model of one seed; None where it diverged."""
    measures = read(f"measures: {end.label}", seed)
    if isinstance(measures, Diverged):
        return None
    forget = end.describe(resolved.config.forget)["forget"]
    told = {"seed": seed, "forget": forget, "run": end.run, **measures}
    if "relearning" in resolved.config.also:
        told["relearning_steps"] = read(f"relearning: {end.label}", seed)
    return told


def _barriers(ts: np.ndarray, measures: Mapping[str, list[float]]) -> dict[str, float]:
    """Losses and JS in nats, the rest in points."""
    found = _all_barriers(ts, {name: np.asarray(values, np.float32) for name, values in measures.items()})
    told = {}
    for name, value in found.items():
        nats = name == "js" or name.endswith("_loss")
        told[f"{name.removesuffix('_loss')}_nats" if nats else name] = float(value) * (1 if nats else 100)
    return {**told, "accuracy": max(told["retain_accuracy"], told["forget_accuracy"])}


_all_barriers = jax.jit(paths.barriers)


def _interior(
    ts: np.ndarray, measures: Mapping[str, list[float]], original: Mapping[str, float], *, class_wise: bool
) -> dict[str, Any]:
    """Points between the ends against both: t chosen on D_v, reported on D_t.

    The score: ½ (|Acc − Acc(θ_o)| + |Acc_f − Cal_f|), Cal_f the accuracy of θ_o on D_v, or 0 for a class.
    """
    unseen = 0.0 if class_wise else original["validation_accuracy"]

    def score(split: str) -> np.ndarray:
        targets = paths.Targets(np.float32(original[f"{split}_accuracy"]), np.float32(unseen))
        seen, forgotten = (np.asarray(measures[f"{name}_accuracy"], np.float32) for name in (split, "forget"))
        return np.asarray(paths.gap(seen, forgotten, targets))

    chosen, reported = score("validation"), score("test")
    inside = paths.interior(chosen)
    best = int(inside.best)
    return {
        "share": float(inside.share),
        "t": round(float(ts[best]), 6),
        "score": float(reported[best]),
        "ends": [float(reported[0]), float(reported[-1])],
    }


# Over pairs


def _by_seed(pairs: Iterable[Mapping[str, Any]], barrier: str) -> list[float]:
    """The mean over pairs, of every seed."""
    found: dict[int, list[float]] = {}
    for pair in pairs:
        found.setdefault(pair["seed"], []).append(pair["barriers"][barrier])
    return [float(np.mean(values)) for values in found.values()]


def _interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean and 95 % interval over seeds, None for a single one."""
    mean, half = metrics.mean_interval(values)
    return {"mean": mean, "interval": None if half is None else [mean - half, mean + half]}


def _floor(pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Barriers between two runs that differ in the seed alone: over seeds of the mean over methods."""
    names = pairs[0]["barriers"] if pairs else ()
    return {name: {**_interval(_by_seed(pairs, name)), "pairs": len(pairs)} for name in names}


def _clusters(pairs: Sequence[Mapping[str, Any]]) -> tuple[list[str], dict[str, Any] | None]:
    """Methods in clustered order, and what they are clustered by: mean accuracy barriers in points.

    labels, matrix and linkage are in the order of the results, as scipy's `dendrogram` wants them.
    """
    labels = list(dict.fromkeys(pair[end]["label"] for pair in pairs if pair["role"] == "pair" for end in "ab"))
    if len(labels) < 3:
        return [], None
    number = {label: i for i, label in enumerate(labels)}
    matrix = np.full((len(labels), len(labels)), np.nan)
    ends = dict.fromkeys((pair["a"]["label"], pair["b"]["label"]) for pair in pairs)
    for a, b in ends:
        own = [pair for pair in pairs if (pair["a"]["label"], pair["b"]["label"]) == (a, b)]
        mean = float(np.mean(_by_seed(own, "accuracy")))
        # Of a floor the second end is a run that the methods do not count.
        i, j = number[a], number.get(b, number[a])
        matrix[i, j] = matrix[j, i] = mean
    apart = np.where(np.eye(len(labels), dtype=bool), 0.0, matrix)
    if not np.isfinite(apart).all():  # a pair diverged for every seed
        return [], None
    order, linkage = metrics.cluster(apart)
    told = [[None if np.isnan(value) else float(value) for value in row] for row in matrix]
    return [labels[i] for i in order], {"labels": labels, "matrix": told, "linkage": linkage.tolist()}


def _correlation(pairs: Sequence[Mapping[str, Any]], retrained: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Spearman's ρ over pairs between a barrier and how far membership attacks are from the retrained model's.

    The pairs of one seed share models: ρ is taken within each seed, its interval over seeds.
    """
    best = {(each["seed"], each["forget"]): each["MIA"] for each in retrained if each["run"] == 0}

    def attacked(pair: Mapping[str, Any]) -> dict[str, float]:
        gaps = 100 * np.abs(np.asarray(pair["metrics"]["MIA"]) - best[pair["seed"], pair["forget"]])
        return {"at the ends": float((gaps[0] + gaps[-1]) / 2), "between them": float(gaps[1:-1].mean())}

    told = []
    for barrier in ("retain_nats", "forget_nats", "accuracy"):
        for where in ("at the ends", "between them"):
            each = []
            for seed in dict.fromkeys(pair["seed"] for pair in pairs):
                own = [pair for pair in pairs if pair["seed"] == seed and pair["role"] == "pair"]
                rho = _spearman([pair["barriers"][barrier] for pair in own], [attacked(pair)[where] for pair in own])
                each += [] if rho is None else [rho]
            if each:
                told.append({"barrier": barrier, "attack": where, **_interval(each), "seeds": len(each)})
    return told


def _spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """None for fewer than 3 pairs, or where one side is constant: then there is no correlation to speak of."""
    from scipy import stats

    if len(x) < 3 or min(np.ptp(x), np.ptp(y)) == 0:
        return None
    return float(stats.spearmanr(x, y).statistic)


# Controls


def _line(values: Mapping[str, Any], i: int) -> dict[str, Any]:
    """The i-th line of a stage: barriers in nats and points, and distances."""
    return {
        "barriers": {
            "retain_nats": values["retain_loss"][i],
            "forget_nats": values["forget_loss"][i],
            "accuracy": 100 * values["accuracy"][i],
        },
        "distance": {name: each[i] for name, each in values["distance"].items()},
    }


def _controls(resolved: Resolved, read: Read) -> dict[str, list[dict[str, Any]]]:
    told: dict[str, list[dict[str, Any]]] = {"perturbation": [], "original": [], "retrain": [], "stopping": []}
    for end, seed in itertools.product(_connect.unlearned(resolved), resolved.config.seeds):
        values = read(f"controls: {end.label}", seed)
        if isinstance(values, Diverged):
            continue
        lines = dict(zip(_along.CONTROLS, (_line(values, i) for i in range(len(_along.CONTROLS))), strict=True))
        unaligned = lines.pop("unaligned")["barriers"]
        for kind, line in lines.items():
            more = {"unaligned": unaligned} if kind == "retrain" else {}
            told[kind].append({"method": end.label, "seed": seed, **line, **more})
    rival = _connect.rival(resolved)
    for end, seed in itertools.product(resolved.stops, resolved.config.seeds):
        values = read(f"stopping: {end.label}", seed)
        if isinstance(values, Diverged):
            continue
        accuracies = {name: values[name][0] for name in ("UA", "RA")}
        ends = {"epochs": end.options["epochs"], "method": rival.label, "seed": seed}
        told["stopping"].append({**ends, **accuracies, **_line(values, 0)})
    return told
