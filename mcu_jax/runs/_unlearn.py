"""The main job: original → retrain → pre-unlearned → path → sweep → choice of t, for several seeds."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mcu_jax import connect, curves, methods, metrics, paths, splits, training
from mcu_jax.base import Params, Path, Predictions, Problem, Split
from mcu_jax.runs import _config, _directory, _stages

VERSION = 1
"""Part of every stage's key: raised when the code changes what a configuration comes to."""


class Run(NamedTuple):
    """A finished run: its directory, and what `results.json` there holds (fractions)."""

    directory: pathlib.Path
    results: dict[str, Any]


def unlearn(config: _config.Config | None = None, observer: _stages.Observer | None = None) -> Run:
    """Runs the main job, or what of it is not finished.

    Raises ConfigError for a configuration that cannot be and DamagedCheckpointError, both before any work;
    StageFailedError and InterruptedRunError as their names say: what was finished stays.
    """
    with _config.checking():
        job = _Job(config or _config.Config(), observer or _stages.Silent())
    job.check_stages()
    job.directory.prepare()
    return Run(job.directory.path, job.directory.write_results(job.run()))


def plan(config: _config.Config) -> tuple[dict[str, Any], list[tuple[str, int, int]], str]:
    """(resolved configuration, [(stage, seeds finished, seeds to compute)], run directory): nothing is computed."""
    with _config.checking():
        job = _Job(config, _stages.Silent())
    found = []
    for name, addresses in job.addresses().items():
        finished = sum(job.store.has(address) for address in addresses)
        found.append((name, finished, len(addresses) - finished))
    return job.resolved.as_dict(), found, str(job.directory.path)


class _Job:
    """One run: addresses of its stages, and the functions that make them."""

    def __init__(self, config: _config.Config, observer: _stages.Observer):
        resolved = _config.resolve(config)
        self.directory = _directory.open_run(resolved)
        self.resolved = self.directory.resolved
        self.config = self.resolved.config
        self.seeds = self.config.seeds
        self.store = _stages.Store(self.directory.stages)
        data = self.resolved.data
        pool = splits.carve(len(data.train.y), self.config.train_size, self.config.validation_size or 0, 0)
        self.indices = {seed: self._indices(seed, *pool) for seed in self.seeds}
        self._check_classes(pool[1])
        self.directory.indices = self.indices
        model, x = self.resolved.model, data.train.x[:1]
        blank = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
        together = not paths.convolves(lambda params: model.apply(params, x)[0], blank)
        self.maker = _stages.Maker(self.store, observer, together=together)
        self.specs = [self.config.pre, *self.config.baselines]

    # Which examples.

    def _check_classes(self, validation: np.ndarray) -> None:
        """Raises SplitError where the forgotten class leaves nothing to evaluate on."""
        data, forgotten = self.resolved.data, self.resolved.forgotten
        for name, y in (("validation", data.train.y[validation]), ("test", data.test.y)):
            if (y == forgotten).all():
                raise splits.SplitError(f"the {name} set is empty without the forgotten class {forgotten}")
        if forgotten is not None and not (data.test.y == forgotten).any():
            raise splits.SplitError(f"the test set has no example of the forgotten class {forgotten}")

    def _indices(self, seed: int, train: np.ndarray, validation: np.ndarray) -> splits.Indices:
        data, forgotten = self.resolved.data, self.resolved.forgotten
        if saved := self.directory.saved_indices(seed, data.hash):
            return saved
        if forgotten is None:
            forget, retain = splits.random_forget(train, self.resolved.fraction or 0.0, seed)
        else:
            forget, retain = splits.class_forget(train, data.train.y, forgotten)
        return splits.Indices(data.hash, train, validation, forget, retain, forgotten)

    def _problem(self, seed: int, params: Params) -> Problem:
        data, indices, forgotten = self.resolved.data, self.indices[seed], self.resolved.forgotten
        validation, test, forget_test = splits.take(data.train, indices.validation), data.test, None
        if forgotten is not None:
            validation = splits.take(validation, np.flatnonzero(validation.y != forgotten))
            forget_test = splits.take(test, np.flatnonzero(test.y == forgotten))
            test = splits.take(test, np.flatnonzero(test.y != forgotten))
        return Problem(
            model=self.resolved.model,
            params=params,
            forget=splits.take(data.train, indices.forget),
            retain=splits.take(data.train, indices.retain),
            validation=validation,
            test=test,
            num_classes=len(data.class_names),
            augment=data.augment,
            forget_test=forget_test,
        )

    # Where stages belong.

    def addresses(self) -> dict[str, list[_stages.Address]]:
        """Every stage whose key is known before anything is computed, by name, one address a seed."""
        config = self.config
        found: dict[str, list[_stages.Address]] = {}
        for seed in self.seeds:
            indices = self.indices[seed]
            train = dataclasses.asdict(config.train)
            original = {
                "version": VERSION,
                "data": indices.data_hash,
                "train": _digest(indices.train),
                "model": config.model,
                "training": train,
                "seed": seed,
            }
            request = {"original": original, "forget": _digest(indices.forget)}
            ends = {
                spec: {**request, "method": name, **options} for spec, (name, options) in self.resolved.methods.items()
            }
            for spec, (name, _) in self.resolved.methods.items():
                if name == "mcu":
                    ends[spec] = {**ends[spec], "end": ends[config.pre]}
            mask = {**request, **dataclasses.asdict(config.mask)}
            path: dict[str, Any] = {
                "end": ends[config.pre],
                "mask": mask,
                "beta": config.beta,
                "curve": config.curve,
                "epochs": config.epochs,
                "lr": config.lr,
                "validation": _digest(indices.validation),
            }
            sweep: dict[str, Any] = {"points": config.points, "test": "all", "validation": _digest(indices.validation)}
            keys: dict[str, Any] = {"original": original, "retrain": {**request, "method": "retrain"}, **ends}
            keys |= {} if config.mask.kind == "none" else {"mask": mask}
            keys |= {
                "path": path,
                "sweep of the line": {**sweep, "line": ends[config.pre]},
                "sweep": {**sweep, "path": path},
            }
            evaluated = {"test": "all", "validation": sweep["validation"]}
            named = ("original", "retrain", *self.specs)
            keys |= {f"metrics of {name}": {**evaluated, "of": keys[name]} for name in named}
            for name, key in keys.items():
                found.setdefault(name, []).append(_stages.Address(name, seed, key))
        return found

    def check_stages(self) -> None:
        """Raises DamagedCheckpointError for one that cannot be read: before any work, not after it."""
        for address in (address for each in self.addresses().values() for address in each):
            self.store.check(address)

    # How they are made.

    def run(self) -> dict[str, Any]:
        addresses = self.addresses()
        self.directory.write_index(
            {name: {a.seed: self.store.place(a) for a in each} for name, each in addresses.items()}
        )
        make, config = functools.partial(self._make, addresses), self.config

        data = self.resolved.data
        train = splits.take(data.train, self.indices[self.seeds[0]].train)
        originals = self.maker.make(
            addresses["original"],
            self._original,
            [(Split(*map(jnp.asarray, train)), _key(seed, "original")) for seed in self.seeds],
            (None, 0),
        )
        self.problems = [self._problem(seed, stage.result) for seed, stage in zip(self.seeds, originals, strict=True)]
        stages = {"original": originals, "retrain": make("retrain", self._retrain)}
        for spec in self.specs:
            name, options = self.resolved.methods[spec]
            if name == "mcu":
                ends = _results(stages[config.pre])
                stages[spec] = make(spec, functools.partial(_mcu, options=options), (ends, 0))
            else:
                stages[spec] = make(spec, functools.partial(getattr(methods, name), **options))
        ends = _results(stages[config.pre])

        found: list[Any] = [None] * len(self.seeds)
        if config.mask.kind != "none":
            stages["mask"] = make("mask", self._mask)
            found = [connect.MaskInfo(**mask) for mask in _results(stages["mask"])]
        stages["path"] = make("path", self._path, (ends, 0), (found, None if config.mask.kind == "none" else 0))
        lines = [
            curves.straight(p.params, end, self.resolved.bends) for p, end in zip(self.problems, ends, strict=True)
        ]
        bent = [line._replace(inner=path["inner"]) for line, path in zip(lines, _results(stages["path"]), strict=True)]
        stages["sweep of the line"] = make("sweep of the line", self._sweep, (lines, 0), values=self._choose)
        stages["sweep"] = make("sweep", self._sweep, (bent, 0), values=self._choose)

        def parameters(name: str) -> list[Params]:
            found = _results(stages[name])
            return [own["params"] for own in found] if self._is_mcu(name) else found

        table = {
            name: self._metrics(addresses[f"metrics of {name}"], parameters(name))
            for name in ("original", "retrain", *self.specs)
        }
        for row, sweep, along in (("linear", "sweep of the line", lines), ("mcu", "sweep", bent)):
            chosen = [stage.result["best_t"] for stage in stages[sweep]]
            models = [jax.jit(self.resolved.curve)(path, t) for path, t in zip(along, chosen, strict=True)]
            at = [
                _stages.Address(f"metrics of {row}", a.seed, {"of": a.key, "t": t})
                for a, t in zip(addresses[sweep], chosen, strict=True)
            ]
            table[row] = self._metrics(at, models)
        return self._results(stages, table)

    def _make(
        self,
        addresses: Mapping[str, list[_stages.Address]],
        name: str,
        function: Callable[..., Any],
        *more: tuple[Sequence[Any], Any],
        values: Callable[[Any], Any] | None = None,
    ) -> list[_stages.Stage]:
        """A stage function(problem, key, *more) of every seed; more: (a value for each seed, its axis among seeds)."""
        problems, keys = self.problems, [_key(seed, name) for seed in self.seeds]
        arguments = list(zip(problems, keys, *(own for own, _ in more), strict=True))
        axes = (_axes(problems[0]), 0, *(axis for _, axis in more))
        return self.maker.make(addresses[name], function, arguments, axes, values)

    def _original(self, train: Split, key: Any) -> Params:
        return training.from_scratch(
            self.resolved.model, train, key, augment=self.resolved.data.augment, **self._training()
        )

    def _retrain(self, problem: Problem, key: Any) -> Params:
        return methods.retrain(problem, key, **self._training())

    def _training(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self.config.train), "momentum": 0.9, "weight_decay": 5e-4}

    def _mask(self, problem: Problem, key: Any) -> dict[str, Any]:
        info = connect.mcu_mask(problem, key, **dataclasses.asdict(self.config.mask))
        return info._asdict() if info else {}

    def _path(self, problem: Problem, key: Any, end: Params, mask: connect.MaskInfo | None) -> dict[str, Any]:
        config = self.config
        options: dict[str, Any] = {"epochs": config.epochs, "lr": config.lr, "batch_size": config.train.batch_size}
        options |= {"beta": self.resolved.beta, "curve": self.resolved.curve, "bends": self.resolved.bends}
        path, info = connect.mcu(problem, end, key, mask=mask, **options)
        return {"inner": path.inner, "losses": info.losses}

    def _sweep(self, problem: Problem, key: Any, path: Path) -> tuple[Predictions, paths.Targets]:
        del key
        ts = paths.points(self.config.points)
        return paths.predictions(problem, path, ts, self.resolved.curve), connect.targets(problem)

    def _choose(self, swept: tuple[Predictions, paths.Targets]) -> dict[str, Any]:
        """The values along a path, and the choice of t, which looks at D_r and D_f only."""
        found, targets = swept
        ts = paths.points(self.config.points)
        with _stages.timed() as spent:
            retain, forget = paths.accuracies(found)
            choice = paths.best_t(ts, retain, forget, targets, found.forget.labels.shape[-1])
            best_t = round(float(choice.t), 6)
        each = [jax.tree.map(lambda leaf, i=i: leaf[i], found) for i in range(len(ts))]
        with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            attacks = list(pool.map(metrics.mia, each))
        return {
            "t": _rounded(ts),
            **{name: values.tolist() for name, values in jax.device_get(jax.vmap(_accuracies)(found)).items()},
            "MIA": attacks,
            "gap": [float(gap) for gap in paths.gap(retain, forget, targets)],
            "targets": {name: float(value) for name, value in targets._asdict().items()},
            "best_t": best_t,
            "best_gap": float(choice.gap),
            "effective_region": paths.effective_region(ts, retain, forget, targets),
            "selection_seconds": spent.seconds,
        }

    def _metrics(self, addresses: list[_stages.Address], models: list[Params]) -> list[dict[str, float]]:
        arguments = list(zip(self.problems, models, strict=True))
        made = self.maker.make(addresses, metrics.predict, arguments, (_axes(self.problems[0]), 0), _values)
        return [stage.result for stage in made]

    def _is_mcu(self, spec: str) -> bool:
        """Whether a baseline is MCU itself: then its stage holds t* beside the parameters."""
        return spec in self.resolved.methods and self.resolved.methods[spec][0] == "mcu"

    # What they come to.

    def _results(self, stages: Mapping[str, list[_stages.Stage]], table: Mapping[str, list[dict]]) -> dict[str, Any]:
        rows, along = [], []
        pre = self.config.pre
        parts = {"original": {"training": "original"}, "retrain": {"training": "retrain"}}
        parts |= {spec: {"unlearning": spec} for spec in self.specs}
        parts["linear"] = {"pre_unlearning": pre, "sweep": "sweep of the line"}
        parts["mcu"] = {"pre_unlearning": pre, "mask": "mask", "path": "path", "sweep": "sweep"}
        for spec in self.specs:
            if self._is_mcu(spec):
                parts[spec] = {"pre_unlearning": pre, **parts[spec]}
        for i, seed in enumerate(self.seeds):
            retrained = table["retrain"][i]
            for name in ("original", "retrain", pre, "linear", "mcu", *self.config.baselines):
                used = {part: stages[stage][i] for part, stage in parts[name].items() if stage in stages}
                seconds = {part: stage.seconds for part, stage in used.items()}
                chosen = used["sweep"].result if "sweep" in used else None
                if chosen:
                    seconds["selection"] = chosen["selection_seconds"]
                seconds["compile"] = sum(stage.compile_seconds for stage in used.values())
                rows.append(
                    {
                        "method": name,
                        "seed": seed,
                        "t": _chosen_t(chosen, stages[name][i].result if self._is_mcu(name) else None),
                        **{metric: table[name][i].get(metric) for metric in ("UA", "UA_test", "RA", "TA", "MIA")},
                        "avg_gap": metrics.avg_gap(table[name][i], retrained),
                        "seconds": seconds,
                    }
                )
            mask = stages["mask"][i].result if "mask" in stages else {"keep": 1.0, "retain_filter": 0.0}
            realised = {name: float(mask[name]) for name in ("keep", "retain_filter")}
            yardstick = paths.Targets(retain=retrained["RA"], forget=1 - retrained["UA"])
            for curve, stage in ((self.resolved.curve.__name__, "sweep"), ("linear", "sweep of the line")):
                swept = {k: v for k, v in stages[stage][i].result.items() if k != "selection_seconds"}
                accuracies = (np.array(swept["RA"]), 1 - np.array(swept["UA"]))
                region = paths.effective_region(np.array(swept["t"]), *accuracies, yardstick)
                along.append(
                    {
                        "seed": seed,
                        "curve": curve,
                        **swept,
                        "effective_region_retrain": region,
                        "mask": realised if stage == "sweep" else {"keep": 0.0, "retain_filter": 0.0},
                    }
                )
        return {"schema": 1, "config": self.resolved.as_dict(), "rows": rows, "paths": along}


def _mcu(problem: Problem, key: Any, end: Params, *, options: Mapping[str, Any]) -> dict[str, Any]:
    """MCU as a baseline of itself: with other options, to the same pre-unlearned model unless it names one."""
    found = methods.mcu(problem, key, **{**options, "pre": end}, full=True)
    return {"params": found.params, "t": found.choice.t}


def _chosen_t(swept: Mapping[str, Any] | None, unlearned: Mapping[str, Any] | None) -> float | None:
    if swept:
        return swept["best_t"]
    return round(float(unlearned["t"]), 6) if unlearned else None


def _values(predictions: Predictions) -> dict[str, float]:
    accuracies = {name: float(value) for name, value in _accuracies(predictions).items()}
    return {**accuracies, "MIA": metrics.mia(predictions)}


@jax.jit
def _accuracies(predictions: Predictions) -> dict[str, Any]:
    values = {"UA": metrics.ua(predictions), "RA": metrics.ra(predictions), "TA": metrics.ta(predictions)}
    return values if predictions.forget_test is None else {**values, "UA_test": metrics.ua_test(predictions)}


def _axes(problem: Problem) -> tuple[int | None, ...]:
    """Leaf by leaf: seeds differ in their parameters and their forget and retain sets."""
    leaves = jax.tree_util.tree_leaves_with_path(problem)
    return tuple(0 if path[0].name in ("params", "forget", "retain") else None for path, _ in leaves)


def _key(seed: int, name: str) -> Any:
    """Every part of a replicate draws from a key of its own, the same however a method's options are written."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.partition(":")[0].encode()))


def _results(stages: Sequence[_stages.Stage]) -> list[Any]:
    return [stage.result for stage in stages]


def _digest(indices: np.ndarray) -> str:
    return _config.digest(indices.tolist())


def _rounded(ts: np.ndarray) -> list[float]:
    return [round(float(t), 6) for t in ts]
