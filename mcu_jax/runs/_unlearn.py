"""What `mcu-jax unlearn` does: original → retrain → pre-unlearned → path → sweep → choice of t, for several seeds."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mcu_jax import auto, connect, curves, methods, metrics, paths, registry, rules
from mcu_jax.base import Curve, Evaluation, Params, Path, Problem
from mcu_jax.runs import _along, _directory, _explore, _graph, _runner, _tasks, _unlearn_config
from mcu_jax.runs._graph import Stage
from mcu_jax.runs._unlearn_config import Resolved

METRICS = ("UA", "UA_test", "RA", "TA", "MIA", "VA", "unseen_distance", "retain_loss", "forget_loss", "test_loss")
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
            assert resolved.pre is not None
            models[spec] = made.add(_tasks.taken_up(spec, seed, resolved.pre, options["digest"]))
        elif name == "mcu":
            inputs = {**replicate.begin(name), "end": made[config.pre]}
            options = {k: v for k, v in options.items() if k != "pre"}
            models[spec] = made.add(Stage(spec, seed, another_path, inputs, options))["params"]
        else:
            models[spec] = made.add(replicate.unlearned(spec, name, options))

    end, form = {"end": made[config.pre]}, {"curve": resolved.curve.__name__, "bends": resolved.bends}
    trained = {
        "steps": config.steps,
        "lr": config.lr,
        "batch_size": config.train.batch_size,
        "beta": resolved.beta,
    }
    masked: dict[str, _graph.Input] = {}
    if config.mask.kind != "none":
        settings = dataclasses.asdict(config.mask)
        masked = {"mask": made.add(Stage("mask", seed, mask, replicate.begin("mask"), settings))}
    inputs = {**replicate.begin("path"), **end, **masked}
    if resolved.budget is None:
        bent = made.add(Stage("path", seed, path, inputs, {**form, **trained}))
    else:
        del trained["beta"]
        tuning = {**form, **trained, "budget": resolved.budget}
        searched = made.add(Stage("search", seed, search, {**inputs, **replicate.begin("search")}, tuning))
        inputs = {**replicate.begin("path"), **end, "found": searched}
        bent = made.add(Stage("path", seed, finish, inputs, tuning))

    rows = replicate.rows()
    seen = {"task": replicate.task(rows if config.sample is None else replicate.sampled(rows, config.sample))}
    swept_form = {**form, "points": config.points}
    line: dict[str, _graph.Input] = {}
    for row, label, choice, inner in (("linear", *LINE, line), ("mcu", *PATH, {"inner": bent["inner"]})):
        along = {**seen, "original": replicate.original, **end, **inner}
        values = functools.partial(sweep_values, points=config.points)
        swept = made.add(Stage(label, seed, sweep, along, swept_form, values))
        read = {"standings": swept["standings"], "targets": swept["targets"]}
        for rule in rules.NAMES:
            label = by_rule(choice, rule, config.rule)
            by = {**swept_form, "rule": rule}
            chosen = made.add(Stage(label, seed, choose, {**along, **read}, by, choice_values))
            at = {**along, "t": chosen["t"]}
            label = by_rule(f"metrics of {row}", rule, config.rule)
            made.add(Stage(label, seed, evaluate_at, at, form, _tasks.metric_values))
    whole: dict[str, _graph.Input] = {**seen, "original": replicate.original, **end, "inner": bent["inner"]}
    asked = {"curve": resolved.curve.__name__, "points": config.points}
    values = functools.partial(_explore.explore_values, seed=seed, points=config.points)
    made.add(Stage("explorer", seed, _explore.explore, {**whole, "t": made[PATH[1]]["t"]}, asked, values))
    if config.plane is not None:
        drawn = {**whole, "retrained": models["retrain"]}
        made.add(Stage("plane", seed, _explore.plane, drawn, {"size": config.plane}, _along.as_json))
    for spec, params in models.items():
        inputs = {**seen, "params": params}
        made.add(Stage(f"metrics of {spec}", seed, _tasks.evaluate, inputs, {}, _tasks.metric_values))
    return made


def by_rule(name: str, rule: str, own: str) -> str:
    """What is chosen by the run's own rule is not told by it."""
    return name if rule == own else f"{name}:rule={rule}"


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
    """The trained inner points, and of every step the loss, the penalty and t."""
    info = connect.MaskInfo(**mask) if mask else None
    made, about = connect.mcu(
        _tasks.given(task, original), end, key, mask=info, curve=getattr(curves, curve), **settings
    )
    return {"inner": made.inner, "losses": about.losses, **about.notes}


def search(
    task: Problem, original: Params, key: Any, end: Params, mask: Mapping[str, Any] | None = None, **settings: Any
) -> dict[str, Any]:
    """What a path that tunes itself begins with."""
    info = connect.MaskInfo(**mask) if mask else None
    return _told(auto.search(_tasks.given(task, original), end, key, info, _tuning(**settings)))


def finish(
    task: Problem, original: Params, key: Any, end: Params, found: Mapping[str, Any], **settings: Any
) -> dict[str, Any]:
    """The trained inner points, and the settings that were chosen."""
    begun = auto.Found(**{**found, "settings": auto.Candidate(**found["settings"])})
    return _told(auto.finish(_tasks.given(task, original), end, key, begun, _tuning(**settings)))


def _tuning(curve: str, **settings: Any) -> auto.Tuning:
    return auto.Tuning(curve=_curve(curve), **settings)


def _told(found: auto.Found) -> dict[str, Any]:
    return found._asdict() | {"settings": found.settings._asdict()}


def sweep(
    task: Problem,
    original: Params,
    end: Params,
    inner: Params | None = None,
    *,
    curve: str,
    bends: int,
    points: int,
) -> tuple[Evaluation, rules.Targets]:
    """Along the path of these inner points; None: along the straight line."""
    problem, line = _tasks.given(task, original), _path(original, end, inner, bends)
    return paths.evaluate(problem, line, paths.points(points), _curve(curve)), rules.targets(problem)


def evaluate_at(
    task: Problem, original: Params, end: Params, t: Any, inner: Params | None = None, *, curve: str, bends: int
) -> Evaluation:
    return _tasks.evaluate(task, _curve(curve)(_path(original, end, inner, bends), t))


def _curve(name: str) -> Curve:
    return getattr(curves, name)


def _path(start: Params, end: Params, inner: Params | None, bends: int) -> Path:
    line = curves.straight(start, end, bends)
    return line if inner is None else line._replace(inner=inner)


def sweep_values(swept: tuple[Evaluation, rules.Targets], *, points: int) -> dict[str, Any]:
    """The values along a path."""
    evaluation, targets = swept
    ts, standings = paths.points(points), paths.standings(evaluation)
    along = jax.device_get(jax.vmap(_tasks.traceable)(evaluation))
    return {
        "t": [round(float(t), 6) for t in ts],
        **{name: values.tolist() for name, values in along.items()},
        "MIA": _tasks.attacks(evaluation),
        **{f"score_{name}": _rule(name)(standings, targets).tolist() for name in rules.NAMES},
        "standings": {name: np.asarray(values).tolist() for name, values in standings._asdict().items()},
        "targets": _tasks.target_values(targets),
        "effective_region": {name: paths.effective_region(ts, standings, targets, _rule(name)) for name in rules.NAMES},
    }


def _rule(name: str) -> rules.Rule:
    return getattr(rules, name)


def choose(
    task: Problem,
    original: Params,
    end: Params,
    standings: Mapping[str, Sequence[Any]],
    targets: Mapping[str, Any],
    inner: Params | None = None,
    *,
    curve: str,
    bends: int,
    points: int,
    rule: str,
) -> paths.Choice:
    """The choice of t by a rule, from what it looks at along the path."""
    along = rules.Standing(**{name: jnp.stack([*values]) for name, values in standings.items()})
    path, goal = _path(original, end, inner, bends), rules.Targets(**targets)
    problem = _tasks.given(task, original)
    return paths.choose(problem, path, paths.points(points), along, goal, _curve(curve), _rule(rule))


def choice_values(choice: paths.Choice) -> dict[str, float]:
    return {"t": round(float(choice.t), 6), "score": float(choice.score)}


# What they come to


def results(resolved: Resolved, graph: _graph.Graph, runner: _runner.Runner) -> dict[str, Any]:
    """As `results.json` holds it; of the seeds and methods of `resolved`, which may be some of the graph's."""
    config, rows, along = resolved.config, [], []
    own_first = sorted(rules.NAMES, key=lambda rule: rule != config.rule)
    for seed in config.seeds:
        stages = {label: stage for label, of_label in graph.items() for stage in of_label if stage.seed == seed}
        read = _Read(stages, runner)
        rows += [_model_row(resolved, read, name) for name in ("original", "retrain", config.pre)]
        rows += [_path_row(config, read, name, rule) for rule in own_first for name in ("linear", "mcu")]
        rows += [_model_row(resolved, read, name) for name in config.baselines]
        for curve, labels in ((resolved.curve.__name__, PATH), ("linear", LINE)):
            entry = _path_entry(config, read, curve, *labels)
            along += [] if entry is None else [{"seed": seed, "curve": curve, **entry}]
    return {"kind": config.KIND, "config": resolved.as_dict(), "rows": rows, "paths": along}


class _Read(NamedTuple):
    """What the stages of a seed came to, by label."""

    stages: Mapping[str, Stage]
    runner: _runner.Runner

    def __call__(self, label: str) -> Any:
        return self.runner.found(self.stages[label])


def _model_row(resolved: Resolved, read: _Read, name: str) -> dict[str, Any]:
    """Of a method; MCU as a baseline of itself chooses a t too."""
    if name in ("original", "retrain"):
        return _row(read, name, {"training": name})
    method, options = resolved.methods[name]
    if method != "mcu":
        return _row(read, name, {"unlearning": name})
    made, chosen = read(name), {}
    if made:
        chosen = {"t": round(float(made["t"]), 6), "rule": options["rule"], "mask_keep": float(made["keep"])}
    return _row(read, name, {"pre_unlearning": resolved.config.pre, "unlearning": name}, **chosen)


def _path_row(config: Any, read: _Read, name: str, rule: str) -> dict[str, Any]:
    """Of the point that a rule chooses on the path, or on the line."""
    sweep, choice = PATH if name == "mcu" else LINE
    selection = by_rule(choice, rule, config.rule)
    trained = {part: part for part in ("mask", "search", "path") if name == "mcu" and part in read.stages}
    parts = {"pre_unlearning": config.pre, **trained, "sweep": sweep, "selection": selection}
    chosen = read(selection)
    return _row(read, by_rule(name, rule, config.rule), parts, t=chosen and chosen["t"], rule=rule)


def _row(read: _Read, name: str, parts: Mapping[str, str], **chosen: Any) -> dict[str, Any]:
    """parts: which stages its seconds are of. chosen: how its t was, where it has one."""
    stages, runner = read
    label = f"metrics of {name}"
    values, retrained, diverged = read(label), read("metrics of retrain"), runner.broken(stages[label])
    spent = {part: runner.spent(stages[label]) for part, label in parts.items()}
    return {
        "method": name,
        "seed": stages[label].seed,
        "t": None,
        "rule": None,
        **{metric: values and values.get(metric) for metric in METRICS},
        "avg_gap": metrics.avg_gap(values, retrained) if values and retrained else None,
        **_scores(values, read(LINE[0])),
        "seconds": {
            **{part: one.seconds for part, one in spent.items()},
            "compile": sum(one.compile_seconds for one in spent.values()),
        },
        **chosen,
        **({"diverged": diverged.step, "diverged_stage": diverged.label} if diverged else {}),
    }


def _scores(values: Mapping[str, Any] | None, swept: Mapping[str, Any] | None) -> dict[str, float | None]:
    """The score of a model by every rule; swept: any path of the seed, which holds the targets."""
    if not values or not swept:
        return {f"score_{name}": None for name in rules.NAMES}
    return dict(_tasks.scores(values, swept["targets"]))


def _path_entry(config: Any, read: _Read, curve: str, sweep: str, choice: str) -> dict[str, Any] | None:
    swept = read(sweep)
    chosen = {rule: read(by_rule(choice, rule, config.rule)) for rule in rules.NAMES}
    if not swept or not all(chosen.values()):
        return None
    realised, tuned = {"keep": 0.0, "retain_filter": 0.0}, {}  # nothing of a line is trained
    if curve != "linear":
        masked = {"keep": 1.0, "retain_filter": 0.0}
        if "search" in read.stages:
            made = read("path")
            masked = made["settings"]
            told = {name: made[name].item() for name in ("score", "line", "steps", "bent")}
            tuned = {"tuned": {"lr": float(masked["lr"]), "beta": _penalty(float(masked["beta"])), **told}}
        elif "mask" in read.stages:
            masked = read("mask")
        realised = {name: float(masked[name]) for name in realised}
    region = None
    if retrained := read("metrics of retrain"):
        yardstick = rules.Targets(retained := retrained["RA"], 1 - retrained["UA"], retained)
        standings = rules.Standing(**{name: np.array(values) for name, values in swept["standings"].items()})
        region = paths.effective_region(np.array(swept["t"]), standings, yardstick)
    kept = {name: values for name, values in swept.items() if name != "standings"}
    return {**kept, "chosen": chosen, "effective_region_retrain": region, "mask": realised, **tuned}


def _penalty(beta: float) -> float | str:
    return connect.ADAPTIVE if beta == connect.SWITCHED else beta
