"""Out of the directory of a run: a model, or the problem of one of its seeds."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

import jax

from mcu_jax import base, checkpoint, datasets, sources, splits, text, training, weights
from mcu_jax.runs import (
    _config,
    _directory,
    _files,
    _inputs,
    _jobs,
    _own,
    _settings,
    _specs,
    _tasks,
    _tidy,
    _unlearn_config,
)
from mcu_jax.runs._settings import ConfigError


def export(
    directory: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    seed: int | None = None,
    t: float | str | None = None,
    method: str | None = None,
    model: base.Model | str | None = None,
    data: datasets.Data | None = None,
) -> dict[str, Any]:
    """Writes {"params": weights, "stats": BatchNorm statistics} of one model to `to`.

    Without such layers the statistics are an empty tree. The checkpoint is `checkpoint.save`'s: plain orbax reads
    `to`/arrays, and `original` and `pre` of a configuration take `to`, whose meta tells dtype and scale of the data, so
    that a run on other data is refused. A `to` that ends in .safetensors becomes a file of the model's PyTorch names
    (`weights.write`). seed: default the run's first. t: of the path of `unlearn`, "best" (the default) as the run chose
    it, or in [0, 1]. method: a model as `load` names it, in place of the path's. model, data: as given to the run; a
    model that it took from a file as "FILE.py:NAME", which is run only by being given here.
    Gives what was exported. Raises ConfigError for a run or a model there is not, DamagedCheckpointError.
    """
    with _settings.checking():
        directory, to = _files.place(directory, "run"), _files.place(to, "to")
        is_file = to.suffix == ".safetensors"
        _directory.check_writable(to.parent if is_file else to, "--to")
        replaceable = to.is_file() if is_file else checkpoint.exists(to) or (to.is_dir() and not any(to.iterdir()))
        if to.exists() and not replaceable:
            raise ConfigError(f"{text.plain(to)} is there already, and is no checkpoint; choose another place")
        if method is not None and t is not None:
            raise ConfigError("give either t, a point of the path, or a method, not both")
        config, resolved = _opened(directory, model, data)
        if is_file:
            weights.check(resolved.model.name)
        seed = config.seeds[0] if seed is None else seed
        if method is not None:
            _check_model(directory, resolved, method)
            params = _directory.load(directory, seed=seed, stage=method)
        elif isinstance(config, _unlearn_config.Config):
            path = _directory.load(directory, seed=seed)
            t = _point(directory, seed, "best" if t is None else t)
            params = jax.jit(_specs.path_curve(config.curve)[0])(path, t)
        else:
            raise ConfigError(
                f"a run of {config.KIND} has no chosen point of a path; give a method, as original or npo"
            )
        retain = splits.load(directory / "splits" / f"seed-{seed}.json", resolved.data.hash).retain
        made = {"params": params, "stats": _stats(resolved, params, retain)}
        exported = {"run": str(directory), "seed": seed, "method": method or "mcu", "t": t}
        if is_file:
            weights.write(to, resolved.model.name, **made)
        else:
            checkpoint.save(to, made, exported | _inputs.kept(resolved.data, resolved.config))
    return exported


def problem(
    directory: str | os.PathLike[str],
    *,
    seed: int | None = None,
    model: base.Model | str | None = None,
    data: datasets.Data | None = None,
) -> base.Problem:
    """The problem of one seed of a run, with its original model: to go on with, beside `load`.

    seed: default the run's first. model, data: as for `export`. Raises as `load` does.
    """
    with _settings.checking():
        directory = _files.place(directory, "run")
        config, resolved = _opened(directory, model, data)
        seed = config.seeds[0] if seed is None else seed
        if seed not in config.seeds:
            raise ConfigError(f"there is no seed {seed}; there are: {', '.join(map(str, config.seeds))}")
        opened = _directory.RunDirectory(directory, directory / "stages", resolved)
        replicate = next(each for each in _tasks.replicates(opened, resolved) if each.seed == seed)
        for error in opened.damaged.values():
            raise error
        original = _directory.load(directory, seed=seed, stage="original")
        return _tasks.given(replicate.problem(replicate.rows(), replicate.own_statistics), original)


def _opened(directory: pathlib.Path, model: base.Model | str | None, data: datasets.Data | None) -> tuple[Any, Any]:
    """The configuration of a run, and what it comes to. A run directory is data: the code that it names is not run."""
    file = directory / _directory.CONFIG
    if not file.exists():
        raise ConfigError(f"{text.plain(directory)} is not a run directory")
    _files.check_sealed(file)
    kept = _settings.read_yaml(file)
    config = _jobs.from_mapping(kept)
    if not isinstance(model, str):
        if model is None:
            _config.check_names_no_code(config, file)
        return config, _jobs.resolver(config)(config, model, data)
    if not (_own.is_model_file(model) and _own.is_model_file(str(config.model))):
        raise ConfigError(f"the model of this run is {text.show(config.model)}, given {text.show(model)}")
    config = dataclasses.replace(config, model=model)
    resolved = _jobs.resolver(config)(config, None, data)
    if resolved.digests["model"] != kept["digests"]["model"]:
        raise ConfigError(f"{text.plain(model)} is not the model of this run: the file is another, or the name in it")
    return config, resolved


def _check_model(directory: pathlib.Path, resolved: _config.Resolved, method: str) -> None:
    """Raises ConfigError for a stage that is no model, and for none: the models of the run."""
    names = ("original", "retrain", *resolved.methods)
    models = [stage for stage in _directory.index(directory) if stage in names or stage.startswith("continued: ")]
    if method not in models:
        raise ConfigError(
            f"this run has no model {text.show(method)}; it has: {', '.join(models)}. Points of its path are asked for "
            "by t"
        )


def _point(directory: pathlib.Path, seed: int, t: float | str) -> float:
    """On the path of one seed."""
    if t == "best":
        try:
            rows = _tidy.read_results(directory)["rows"]
            return next(float(row["t"]) for row in rows if (row["method"], row["seed"]) == ("mcu", seed))
        except _files.DamagedFileError:
            raise
        except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
            raise ConfigError(
                f"seed {seed} of {text.plain(directory)} has no finished choice of t; give the run's command again"
            ) from error
    try:
        value = float(t)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise ConfigError(f"t is best or a number from 0 to 1, given {text.show(t)}")
    return value


def _stats(resolved: _config.Resolved, params: base.Params, retain: Any) -> base.Stats:
    """As in every evaluation: from retain data, but of an original that has its own."""
    original, rows = resolved.original, dict.fromkeys(("forget", "retain", "validation", "test"), retain)
    problem = base.Problem(
        model=resolved.model,
        data=sources.placed(resolved.data.examples),
        num_classes=len(resolved.data.class_names),
        **rows,
        **(_tasks.own_statistics(original) or {"params": params}),
    )
    return training.evaluation_stats(problem, params)
