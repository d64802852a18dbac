"""What `mcu-jax unlearn` does: original → retrain → pre-unlearned → path → sweep → choice of t, for several seeds."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcu_jax import connect, curves, methods, metrics, paths, registry
from mcu_jax.base import Curve, Evaluation, Params, Path, Problem
from mcu_jax.runs import _directory, _graph, _runner, _stages, _tasks, _unlearn_config
from mcu_jax.runs._graph import Stage
from mcu_jax.runs._unlearn_config import Resolved

METRICS = ("UA", "UA_test", "RA", "TA", "MIA")
PATH, LINE = ("sweep", "choice of t"), ("sweep of the line", "choice of t on the line")
"""The stages that look at a path, and choose a point on it."""


def graph(resolved: Resolved, directory: _directory.RunDirectory) -> dict[str, list[Stage]]:
    """Every stage of a run. Raises SplitError."""
    return _graph.by_label([_stages_of(resolved, seed) for seed in _tasks.replicates(directory, resolved)])


def _stages_of(resolved: Resolved, replicate: _tasks.Replicate) -> _graph.Labelled:
    config, seed, made = resolved.config, replicate.seed, _graph.Labelled()
    models: dict[str, _graph.Input] = {
        "original": made.add(replicate.original),
        "retrain": made.add(replicate.retrained("retrain")),
    }
    for spec in (config.pre, *config.baselines):
        name, options = resolved.methods[spec]
        if name == _unlearn_config.CHECKPOINT:
            brought = _graph.Leaf({"checkpoint": options["digest"]}, lambda: resolved.pre)
            models[spec] = made.add(Stage(spec, seed, _tasks.take_up, {"params": brought}))
        elif name == "mcu":
            inputs = {**replicate.begin(name), "end": made[config.pre]}
            options = {k: v for k, v in options.items() if k != "pre"}
            models[spec] = made.add(Stage(spec, seed, another_path, inputs, options))["params"]
        else:
            models[spec] = made.add(replicate.unlearned(spec, name, options))

    end, form = {"end": made[config.pre]}, {"curve": resolved.curve.__name__, "bends": resolved.bends}
    trained = {"epochs": config.epochs, "lr": config.lr, "batch_size": config.train.batch_size, "beta": resolved.beta}
    masked: dict[str, _graph.Input] = {}
    if config.mask.kind != "none":
        settings = dataclasses.asdict(config.mask)
        masked = {"mask": made.add(Stage("mask", seed, mask, replicate.begin("mask"), settings))}
    inputs = {**replicate.begin("path"), **end, **masked}
    bent = made.add(Stage("path", seed, path, inputs, {**form, **trained}))

    rows = replicate.rows()
    seen = {"task": replicate.task(rows if config.sample is None else replicate.sampled(rows, config.sample))}
    swept_form = {**form, "points": config.points}
    line: dict[str, _graph.Input] = {}
    for row, label, choice, inner in (("linear", *LINE, line), ("mcu", *PATH, {"inner": bent["inner"]})):
        along = {**seen, "original": replicate.original, **end, **inner}
        values = functools.partial(sweep_values, points=config.points)
        swept = made.add(Stage(label, seed, sweep, along, swept_form, values))
        read = {"retain": swept["RA"], "unlearned": swept["UA"], "targets": swept["targets"]}
        chosen = made.add(Stage(choice, seed, choose, {**along, **read}, swept_form, choice_values))
        at = {**along, "t": chosen["t"]}
        made.add(Stage(f"metrics of {row}", seed, evaluate_at, at, form, _tasks.metric_values))
    for spec, params in models.items():
        inputs = {**seen, "params": params}
        made.add(Stage(f"metrics of {spec}", seed, _tasks.evaluate, inputs, {}, _tasks.metric_values))
    return made


# Functions of stages


def another_path(task: Problem, original: Params, key: Any, end: Params, **options: Any) -> dict[str, Any]:
    """MCU as a baseline of itself: with other options, to the same pre-unlearned model. keep: realised by its mask."""
    options = registry.arguments(methods.mcu, options)
    unlearned = methods.mcu(_tasks.given(task, original), key, **options, pre=end, full=True)
    masked = unlearned.info.mask
    return {"params": unlearned.params, "t": unlearned.choice.t, "keep": jnp.asarray(masked.keep if masked else 1.0)}


def mask(task: Problem, original: Params, key: Any, **settings: Any) -> dict[str, Any]:
    info = connect.mcu_mask(_tasks.given(task, original), key, **settings)
    assert info is not None  # of kind none there is no stage
    return info._asdict()


def path(
    task: Problem,
    original: Params,
    key: Any,
    end: Params,
    mask: Mapping[str, Any] | None = None,
    *,
    curve: str,
    **settings: Any,
) -> dict[str, Any]:
    """The trained inner points."""
    info = connect.MaskInfo(**mask) if mask else None
    made, about = connect.mcu(
        _tasks.given(task, original), end, key, mask=info, curve=getattr(curves, curve), **settings
    )
    return {"inner": made.inner, "losses": about.losses}


def sweep(
    task: Problem,
    original: Params,
    end: Params,
    inner: Params | None = None,
    *,
    curve: str,
    bends: int,
    points: int,
) -> tuple[Evaluation, paths.Targets]:
    """Along the path of these inner points; None: along the straight line."""
    problem, line = _tasks.given(task, original), _path(original, end, inner, bends)
    return paths.evaluate(problem, line, paths.points(points), _curve(curve)), connect.targets(problem)


def evaluate_at(
    task: Problem, original: Params, end: Params, t: Any, inner: Params | None = None, *, curve: str, bends: int
) -> Evaluation:
    return _tasks.evaluate(task, _curve(curve)(_path(original, end, inner, bends), t))


def _curve(name: str) -> Curve:
    return getattr(curves, name)


def _path(start: Params, end: Params, inner: Params | None, bends: int) -> Path:
    line = curves.straight(start, end, bends)
    return line if inner is None else line._replace(inner=inner)


def sweep_values(swept: tuple[Evaluation, paths.Targets], *, points: int) -> dict[str, Any]:
    """The values along a path."""
    evaluation, targets = swept
    ts, (retain, forget) = paths.points(points), paths.accuracies(evaluation)
    along = jax.device_get(jax.vmap(_tasks.accuracies)(evaluation))
    return {
        "t": [round(float(t), 6) for t in ts],
        **{name: values.tolist() for name, values in along.items()},
        "MIA": _tasks.attacks(evaluation),
        "gap": [float(gap) for gap in paths.gap(retain, forget, targets)],
        "targets": {name: float(value) for name, value in targets._asdict().items()},
        "effective_region": paths.effective_region(ts, retain, forget, targets),
    }


def choose(
    task: Problem,
    original: Params,
    end: Params,
    retain: Sequence[Any],
    unlearned: Sequence[Any],
    targets: Mapping[str, Any],
    inner: Params | None = None,
    *,
    curve: str,
    bends: int,
    points: int,
) -> paths.Choice:
    """The choice of t, from accuracies on D_r and D_f along the path. unlearned: UA."""
    accuracies = (jnp.stack([*retain]), 1 - jnp.stack([*unlearned]))
    path = _path(original, end, inner, bends)
    goal = paths.Targets(**targets)
    return paths.choose(_tasks.given(task, original), path, paths.points(points), accuracies, goal, _curve(curve))


def choice_values(choice: paths.Choice) -> dict[str, float]:
    return {"t": round(float(choice.t), 6), "gap": float(choice.gap)}


# What they come to


def results(resolved: Resolved, graph: _graph.Graph, runner: _runner.Runner) -> dict[str, Any]:
    """As `results.json` holds it; of the seeds and methods of `resolved`, which may be some of the graph's."""
    config, rows, along = resolved.config, [], []
    for seed in config.seeds:
        stages = {label: stage for label, of_label in graph.items() for stage in of_label if stage.seed == seed}
        retrained = runner.read(stages["metrics of retrain"])
        for name in ("original", "retrain", config.pre, "linear", "mcu", *config.baselines):
            rows.append(_row(resolved, stages, runner, name, retrained))
        for curve, labels in ((resolved.curve.__name__, PATH), ("linear", LINE)):
            swept, choice = (runner.read(stages[label]) for label in labels)
            if not isinstance(choice, _stages.Diverged):
                along.append(_path_entry(stages, runner, seed, curve, swept, choice, retrained))
    return {"kind": config.KIND, "config": resolved.as_dict(), "rows": rows, "paths": along}


_PARTS = {
    "original": {"training": "original"},
    "retrain": {"training": "retrain"},
    "linear": {"pre_unlearning": "", "sweep": LINE[0], "selection": LINE[1]},
    "mcu": {"pre_unlearning": "", "mask": "mask", "path": "path", "sweep": PATH[0], "selection": PATH[1]},
}
"""Which stages a row's seconds are of; empty: the run's pre-unlearning method."""


def _row(
    resolved: Resolved, stages: Mapping[str, Stage], runner: _runner.Runner, name: str, retrained: Any
) -> dict[str, Any]:
    is_mcu = name in resolved.methods and resolved.methods[name][0] == "mcu"
    parts = _PARTS.get(name, {"pre_unlearning": "", "unlearning": name} if is_mcu else {"unlearning": name})
    labels = {part: label or resolved.config.pre for part, label in parts.items()}
    used = {part: stages[label] for part, label in labels.items() if label in stages}
    spent = {part: runner.spent(stage) for part, stage in used.items()}
    values = runner.read(stages[f"metrics of {name}"])
    diverged = values if isinstance(values, _stages.Diverged) else None
    t, kept, seconds = None, {}, {part: one.seconds for part, one in spent.items()}
    if not diverged and "selection" in used:
        t = runner.read(used["selection"])["t"]
    elif not diverged and is_mcu:
        t = round(float(runner.read(stages[name])["t"]), 6)
        kept = {"mask_keep": float(runner.read(stages[name])["keep"])}
    seconds["compile"] = sum(one.compile_seconds for one in spent.values())
    known = not diverged and not isinstance(retrained, _stages.Diverged)
    return {
        "method": name,
        "seed": stages["original"].seed,
        "t": t,
        **{metric: None if diverged else values.get(metric) for metric in METRICS},
        "avg_gap": metrics.avg_gap(values, retrained) if known else None,
        "seconds": seconds,
        **kept,
        **({"diverged": diverged.step, "diverged_stage": diverged.label} if diverged else {}),
    }


def _path_entry(
    stages: Mapping[str, Stage],
    runner: _runner.Runner,
    seed: int,
    curve: str,
    swept: Mapping[str, Any],
    choice: Mapping[str, Any],
    retrained: Any,
) -> dict[str, Any]:
    realised = {"keep": 0.0, "retain_filter": 0.0}  # nothing of a line is trained
    if curve != "linear":
        masked = runner.read(stages["mask"]) if "mask" in stages else {"keep": 1.0, "retain_filter": 0.0}
        realised = {name: float(masked[name]) for name in realised}
    region = None
    if not isinstance(retrained, _stages.Diverged):
        yardstick = paths.Targets(retain=retrained["RA"], forget=1 - retrained["UA"])
        accuracies = (np.array(swept["RA"]), 1 - np.array(swept["UA"]))
        region = paths.effective_region(np.array(swept["t"]), *accuracies, yardstick)
    chosen = {"best_t": choice["t"], "best_gap": choice["gap"]}
    return {"seed": seed, "curve": curve, **swept, **chosen, "effective_region_retrain": region, "mask": realised}
