"""What `mcu-jax unlearn` does: original → retrain → pre-unlearned → path → sweep → choice of t, for several seeds."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any

import jax
import numpy as np

from mcu_jax import connect, curves, methods, metrics, paths
from mcu_jax.base import Params, Path, Predictions, Problem
from mcu_jax.runs import _directory, _replicate, _stages, _unlearn_config


class Job:
    """One run: addresses of its stages, and the functions that make them."""

    def __init__(self, config: _unlearn_config.Config, observer: _stages.Observer):
        self.directory = _directory.open_run(_unlearn_config.resolve(config))
        self.resolved, self.config = self.directory.resolved, self.directory.resolved.config
        self.seeds = self.config.seeds
        self.replicates = _replicate.Replicates(self.directory, observer)
        self.store = self.replicates.store
        self.specs = [self.config.pre, *self.config.baselines]

    # Where stages belong.

    def addresses(self) -> dict[str, list[_stages.Address]]:
        """Every stage whose key is known before anything is computed, by name, one address a seed."""
        config = self.config
        found: dict[str, list[_stages.Address]] = {}
        for seed in self.seeds:
            of = self.replicates
            ends = {spec: of.method_key(seed, name, options) for spec, (name, options) in self.resolved.methods.items()}
            for spec, (name, _) in self.resolved.methods.items():
                if name == "mcu":
                    ends[spec] = {**ends[spec], "end": ends[config.pre]}
            mask = {**of.request_key(seed), **dataclasses.asdict(config.mask)}
            evaluated = of.evaluation_key(seed)
            path: dict[str, Any] = {
                "end": ends[config.pre],
                "mask": mask,
                "beta": config.beta,
                "curve": config.curve,
                "epochs": config.epochs,
                "lr": config.lr,
                "validation": evaluated["validation"],
            }
            sweep = {"points": config.points, **evaluated}
            keys = {"original": of.original_key(seed), "retrain": of.method_key(seed, "retrain", {}), **ends}
            keys |= {} if config.mask.kind == "none" else {"mask": mask}
            keys |= {
                "path": path,
                "sweep of the line": {**sweep, "line": ends[config.pre]},
                "sweep": {**sweep, "path": path},
            }
            named = ("original", "retrain", *self.specs)
            keys |= {f"metrics of {name}": {**evaluated, "of": keys[name]} for name in named}
            for name, key in keys.items():
                found.setdefault(name, []).append(_stages.Address(name, seed, key))
        return found

    # How they are made.

    def run(self) -> dict[str, Any]:
        addresses = self.addresses()
        self.directory.write_index(
            {name: {a.seed: self.store.place(a) for a in each} for name, each in addresses.items()}
        )
        config, of = self.config, self.replicates

        def make(name: str, function: Callable[..., Any], *more: Any, **options: Any) -> list[_stages.Stage]:
            return of.make(addresses[name], function, *more, **options)

        stages = {"original": of.make_originals(addresses["original"])}
        stages["retrain"] = of.make_retrained(addresses["retrain"])
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
        lines = [curves.straight(p.params, end, self.resolved.bends) for p, end in zip(of.problems, ends, strict=True)]
        bent = [line._replace(inner=path["inner"]) for line, path in zip(lines, _results(stages["path"]), strict=True)]
        stages["sweep of the line"] = make("sweep of the line", self._sweep, (lines, 0), values=self._choose)
        stages["sweep"] = make("sweep", self._sweep, (bent, 0), values=self._choose)

        def parameters(name: str) -> list[Params]:
            found = _results(stages[name])
            return [own["params"] for own in found] if self._is_mcu(name) else found

        table = {
            name: of.make_metrics(addresses[f"metrics of {name}"], parameters(name))
            for name in ("original", "retrain", *self.specs)
        }
        for row, sweep, along in (("linear", "sweep of the line", lines), ("mcu", "sweep", bent)):
            chosen = [stage.result["best_t"] for stage in stages[sweep]]
            models = [jax.jit(self.resolved.curve)(path, t) for path, t in zip(along, chosen, strict=True)]
            at = [
                _stages.Address(f"metrics of {row}", a.seed, {"of": a.key, "t": t})
                for a, t in zip(addresses[sweep], chosen, strict=True)
            ]
            table[row] = of.make_metrics(at, models)
        return self._results(stages, table)

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
        along = jax.device_get(jax.vmap(_replicate.accuracies)(found))
        return {
            "t": _rounded(ts),
            **{name: values.tolist() for name, values in along.items()},
            "MIA": attacks,
            "gap": [float(gap) for gap in paths.gap(retain, forget, targets)],
            "targets": {name: float(value) for name, value in targets._asdict().items()},
            "best_t": best_t,
            "best_gap": float(choice.gap),
            "effective_region": paths.effective_region(ts, retain, forget, targets),
            "selection_seconds": spent.seconds,
        }

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
        return {"schema": 1, "kind": self.config.KIND, "config": self.resolved.as_dict(), "rows": rows, "paths": along}


def _mcu(problem: Problem, key: Any, end: Params, *, options: Mapping[str, Any]) -> dict[str, Any]:
    """MCU as a baseline of itself: with other options, to the same pre-unlearned model unless it names one."""
    found = methods.mcu(problem, key, **{**options, "pre": end}, full=True)
    return {"params": found.params, "t": found.choice.t}


def _chosen_t(swept: Mapping[str, Any] | None, unlearned: Mapping[str, Any] | None) -> float | None:
    if swept:
        return swept["best_t"]
    return round(float(unlearned["t"]), 6) if unlearned else None


def _results(stages: Sequence[_stages.Stage]) -> list[Any]:
    return [stage.result for stage in stages]


def _rounded(ts: np.ndarray) -> list[float]:
    return [round(float(t), 6) for t in ts]
