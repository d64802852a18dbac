"""The results of `mcu-jax connect` from its stages: barriers, the seed floor, controls, clusters, correlations."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mcu_jax import metrics, paths
from mcu_jax.runs import _along, _connect, _runner
from mcu_jax.runs._connect import Asked
from mcu_jax.runs._connect_config import Endpoint, Pair, Resolved
from mcu_jax.runs._graph import Stage
from mcu_jax.runs._stages import Diverged

Read = Callable[[Stage], Any]
"""The JSON values of a stage, or `Diverged`."""


def results(resolved: Resolved, graph: _connect.Graph, runner: _runner.Runner) -> dict[str, Any]:
    """What `results.json` holds. resolved: its seeds may be a part of the graph's."""
    config, read = resolved.config, runner.read
    asked = [graph.asked[seed] for seed in config.seeds]
    every_path = itertools.product(resolved.pairs, resolved.curves, asked)
    pairs = [_pair(resolved, read, *path) for path in every_path]
    first = _path_name(resolved, config.curve[0])
    compared = [pair for pair in pairs if pair["curve"] == first and "metrics" in pair]
    models = itertools.product(_connect.retrained(resolved), asked)
    retrained = [entry for model in models if (entry := _retrained(resolved, read, *model))]
    order, clusters = _clusters(compared) if config.grid == "methods" else ([], None)
    return {
        "kind": config.KIND,
        "config": resolved.as_dict(),
        "pairs": pairs,
        "floor": _floor([pair for pair in compared if pair["role"] == "floor"]),
        "controls": _controls(resolved, read, asked),
        "retrained": retrained,
        "order": order,
        "clusters": clusters,
        "correlation": _correlation(compared, retrained) if "mia" in config.also else None,
        "seconds": _seconds(graph, runner),
    }


def _seconds(graph: _connect.Graph, runner: _runner.Runner) -> dict[str, float]:
    """What the stages took, compilation included, by part."""
    seconds: dict[str, float] = collections.defaultdict(float)
    for label, stages in graph.items():
        seconds[graph.parts[label]] += sum(spent.seconds + spent.compile_seconds for spent in map(runner.spent, stages))
    return {part: round(value, 1) for part, value in seconds.items()}


def _path_name(resolved: Resolved, spec: str) -> str:
    """A curve with its number of bends where it has several."""
    curve, bends = resolved.curves[spec]
    return f"{curve.__name__}:bends={bends}" if bends > 1 else curve.__name__


# Pairs


def _pair(resolved: Resolved, read: Read, pair: Pair, spec: str, asked: Asked) -> dict[str, Any]:
    """One pair, one curve, one seed."""
    config, smaller = resolved.config, resolved.smaller(pair)
    entry = {
        "a": pair.a.describe(config.forget),
        "b": pair.b.describe(config.forget),
        "forget": smaller.describe(config.forget)["forget"],
        "role": pair.role,
        "seed": asked.seed,
        "curve": _path_name(resolved, spec),
        "objective": config.objective if resolved.curves[spec][1] else None,
    }
    values, ts = read(asked.paths[pair.label, spec]), paths.points(config.points)
    if isinstance(values, Diverged):
        return {**entry, "diverged": values.step, "diverged_stage": values.label}
    measures = values["metrics"]
    barriers = _barriers(ts, measures)
    smoothness = {name: paths.smoothness(along) for name, along in measures.items()}
    ends = [end for end in _connect.retrained(resolved) if end.fraction == smaller.fraction]
    models = [model for end in ends if not isinstance(model := read(asked.measures[end.label]), Diverged)]
    original = read(asked.measures[_connect.ORIGINAL.label])
    entry |= {
        "t": [round(float(t), 6) for t in ts],
        "metrics": measures,
        "barriers": barriers,
        "connected": barriers["accuracy"] <= 2,
        "total_variation": {name: float(each.total_variation) for name, each in smoothness.items()},
        "max_second_difference": {name: float(each.max_second_difference) for name, each in smoothness.items()},
        "arc_length": values["arc_length"],
        "interior": _interior(ts, measures, original, class_wise=resolved.forgotten is not None),
        "within_retrain": {
            name: float(paths.share_within(np.asarray(along), np.asarray([model[name] for model in models])))
            for name, along in measures.items()
        }
        if len(models) > 1
        else None,
        **{name: values[name] for name in ("distance", "disagreement", "task_cosine", "ensemble")},
        "cka": values.get("cka", float("nan")),  # a model need not give its features
    }
    if "continued" in config.also:
        lines = read(asked.continued[pair.label])
        if not isinstance(lines, Diverged):
            before, after = (_line(lines, i)["barriers"] for i in (0, 1))
            entry["continued"] = {"before": before, "barriers": after}
    if "relearning" in config.also and spec == config.curve[0]:
        steps = read(asked.relearning[pair.label])
        entry["relearning"] = {"t": list(_along.RELEARNED), "steps": steps, "limit": _along.LIMIT}
    return entry


def _retrained(resolved: Resolved, read: Read, end: Endpoint, asked: Asked) -> dict[str, Any] | None:
    """One retrained model of one seed; None where it diverged."""
    measures = read(asked.measures[end.label])
    if isinstance(measures, Diverged):
        return None
    forget = end.describe(resolved.config.forget)["forget"]
    entry = {"seed": asked.seed, "forget": forget, "run": end.run, **measures}
    if "relearning" in resolved.config.also:
        entry["relearning_steps"] = read(asked.relearning[end.label])
    return entry


def _barriers(ts: np.ndarray, measures: Mapping[str, list[float]]) -> dict[str, float]:
    """Of losses and JS in nats, of the rest in points."""
    barriers = {}
    for name, value in _all_barriers(ts, {k: np.asarray(v, np.float32) for k, v in measures.items()}).items():
        nats = name == "js" or name.endswith("_loss")
        barriers[f"{name.removesuffix('_loss')}_nats" if nats else name] = float(value) * (1 if nats else 100)
    return {**barriers, "accuracy": max(barriers["retain_accuracy"], barriers["forget_accuracy"])}


_all_barriers = jax.jit(paths.barriers)


def _interior(
    ts: np.ndarray, measures: Mapping[str, list[float]], original: Mapping[str, float], *, class_wise: bool
) -> dict[str, Any]:
    """Points between the ends against both: t chosen on D_v, reported on D_t.

    The score: ½ (|Acc − Acc(θ_o)| + |Acc_f − Cal_f|), Cal_f the accuracy of θ_o on D_v, or 0 for a class.
    """
    unseen = 0.0 if class_wise else original["validation_accuracy"]

    def score(split: str) -> np.ndarray:
        seen, forgotten = (np.asarray(measures[f"{name}_accuracy"], np.float32) for name in (split, "forget"))
        return (np.abs(seen - original[f"{split}_accuracy"]) + np.abs(forgotten - unseen)) / 2

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
    """Of every seed the mean over pairs."""
    by_seed = collections.defaultdict(list)
    for pair in pairs:
        by_seed[pair["seed"]].append(pair["barriers"][barrier])
    return [float(np.mean(values)) for values in by_seed.values()]


def _interval(values: Sequence[float], of: int = 1) -> dict[str, Any]:
    """Mean and 95 % interval over seeds, None for a single one. of: so many hold together."""
    mean, half = metrics.mean_interval(values, of)
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
        same_pair = [pair for pair in pairs if (pair["a"]["label"], pair["b"]["label"]) == (a, b)]
        mean = float(np.mean(_by_seed(same_pair, "accuracy")))
        # The second end of a floor is another run of the first's method, and no method of its own.
        i, j = number[a], number.get(b, number[a])
        matrix[i, j] = matrix[j, i] = mean
    apart = np.where(np.eye(len(labels), dtype=bool), 0.0, matrix)
    if not np.isfinite(apart).all():  # a pair diverged for every seed
        return [], None
    order, linkage = metrics.cluster(apart)
    rows = [[None if np.isnan(value) else float(value) for value in row] for row in matrix]
    return [labels[i] for i in order], {"labels": labels, "matrix": rows, "linkage": linkage.tolist()}


def _correlation(pairs: Sequence[Mapping[str, Any]], retrained: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Spearman's ρ over pairs between a barrier and how far membership attacks are from the retrained model's.

    The pairs of one seed share models: ρ is taken within each seed, its interval over seeds; all intervals together.
    """
    best = {(model["seed"], model["forget"]): model["MIA"] for model in retrained if model["run"] == 0}

    def attacked(pair: Mapping[str, Any]) -> dict[str, float]:
        gaps = 100 * np.abs(np.asarray(pair["metrics"]["MIA"]) - best[pair["seed"], pair["forget"]])
        means = {"at the ends": (gaps[0] + gaps[-1]) / 2, "between them": gaps[1:-1].mean()}
        return {where: round(float(mean), 6) for where, mean in means.items()}  # rounded, equal ones are ties

    by_seed = collections.defaultdict(list)
    for pair in pairs:
        if pair["role"] == "pair":
            by_seed[pair["seed"]].append((pair["barriers"], attacked(pair)))
    correlations = []
    kinds = list(itertools.product(("retain_nats", "forget_nats", "accuracy"), ("at the ends", "between them")))
    for barrier, where in kinds:
        values = ([(barriers[barrier], gaps[where]) for barriers, gaps in same_seed] for same_seed in by_seed.values())
        rhos = [rho for pairs_of_values in values if (rho := _spearman(pairs_of_values)) is not None]
        if rhos:
            entry = {"barrier": barrier, "attack": where, **_interval(rhos, of=len(kinds))}
            correlations.append({**entry, "seeds": len(rhos)})
    return correlations


def _spearman(values: Sequence[tuple[float, float]]) -> float | None:
    """None for fewer than 3 pairs of values, or where one side is constant."""
    from scipy import stats

    if len(values) < 3 or np.ptp(values, axis=0).min() == 0:
        return None
    return float(stats.spearmanr(*zip(*values, strict=True)).statistic)


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


def _controls(resolved: Resolved, read: Read, seeds: Sequence[Asked]) -> dict[str, list[dict[str, Any]]]:
    """By kind. `retrain` is the aligned line, with the barriers of the other one; a model that cannot be aligned has
    `unaligned` lines instead.
    """
    controls: dict[str, list[dict[str, Any]]] = {"perturbation": [], "original": [], "retrain": [], "stopping": []}
    names = _along.controls_of(aligned=resolved.model.permutations is not None)
    for end, asked in itertools.product(_connect.unlearned(resolved), seeds):
        values = read(asked.controls[end.label])
        if isinstance(values, Diverged):
            continue
        lines = {name: {"method": end.label, "seed": asked.seed, **_line(values, i)} for i, name in enumerate(names)}
        if "retrain" in lines:
            lines["retrain"]["unaligned"] = lines.pop("unaligned")["barriers"]
        for kind, line in lines.items():
            controls.setdefault(kind, []).append(line)
    method = _connect.stopping_end(resolved).label
    for end, asked in itertools.product(resolved.stops, seeds):
        values = read(asked.stopping[end.label])
        if not isinstance(values, Diverged):
            entry = {"epochs": end.options["epochs"], "method": method, "seed": asked.seed}
            accuracies = {name: values[name][0] for name in ("UA", "RA")}
            controls["stopping"].append({**entry, **accuracies, **_line(values, 0)})
    return controls
