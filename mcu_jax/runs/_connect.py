"""What `mcu-jax connect` does: models unlearned from one original, paths between them, and what happens on the way."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mcu_jax import alignment, curves, methods, splits, trees
from mcu_jax.base import Params, Path, Problem, Split
from mcu_jax.runs import _along, _connect_config, _connect_results, _directory, _replicate, _stages
from mcu_jax.runs._connect_config import Endpoint, Pair

ORIGINAL = Endpoint("original", "original", {})


class Job:
    """One run: addresses of its stages, and how these are made."""

    def __init__(self, config: _connect_config.ConnectConfig, observer: _stages.Observer):
        self.directory = _directory.open_run(_connect_config.resolve(config))
        self.resolved: _connect_config.Resolved = self.directory.resolved
        self.config: _connect_config.ConnectConfig = self.resolved.config
        self.observer = observer
        self.replicates = _replicate.Replicates(self.directory, observer)
        self.requests: dict[float | None, _replicate.Replicates] = {None: self.replicates}
        for fraction in sorted({end.fraction for end in self.resolved.endpoints.values() if end.fraction}):
            self.requests[fraction] = self.replicates.asking(fraction)
        self.functions: dict[Any, Callable] = {}
        self.models: dict[str, list[Params]] = {}

    # Where stages belong.

    @functools.cached_property
    def addresses_by_name(self) -> dict[str, list[_stages.Address]]:
        found: dict[str, list[_stages.Address]] = {}
        for seed in self.config.seeds:
            for name, key in self._keys(seed):
                found.setdefault(name, []).append(_stages.Address(name, seed, key))
        return found

    def addresses(self) -> dict[str, list[_stages.Address]]:
        """Every stage by name, one address a seed."""
        return self.addresses_by_name

    def _keys(self, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
        config, resolved = self.config, self.resolved
        data = {"sample": config.sample, **self.replicates.evaluation_key(seed)}
        fresh = {"model": config.model, "seed": seed}
        attacked = {"mia": True} if "mia" in config.also else {}

        def model(end: Endpoint) -> dict[str, Any]:
            of = self.requests[end.fraction]
            if end.name == "original":
                return of.original_key(seed)
            return of.method_key(seed, end.name, end.options, end.run)

        def compared(fraction: float | None) -> dict[str, Any]:
            return {"retrained": model(_yardstick(0, fraction)), "untrained": fresh, **data, **attacked}

        yield "original", model(ORIGINAL)
        ends = {end.label: end for end in (*self.yardsticks(), *resolved.endpoints.values(), *resolved.stops)}
        for label, end in ends.items():
            if end.name != "original":
                yield label, model(end)
        for end in (ORIGINAL, *self.yardsticks()):
            yield f"measures: {end.label}", {"model": model(end), **compared(end.fraction)}
        if "relearning" in config.also:
            for end in self.yardsticks():
                yield f"relearning: {end.label}", {"model": model(end), **self._attack()}
        control = {"points": _along.CONTROL_POINTS, **data}
        for end in self._unlearned():
            yield f"controls: {end.label}", {
                "model": model(end), "retrained": model(_yardstick(0, end.fraction)), **control
            }  # fmt: skip
        for end in resolved.stops:
            yield f"stopping: {end.label}", {"a": model(end), "b": model(self.rival()), **control}
        if "continued" in config.also:
            for end in self._connected():
                asked = self.requests[end.fraction].request_key(seed)
                yield f"continued: {end.label}", {"from": model(end), **asked, **resolved.further}
        for pair in resolved.pairs:
            both = {"a": model(pair.a), "b": model(pair.b)}
            for spec in resolved.curves:
                path = {**both, **self._path_key(spec)}
                if resolved.curves[spec][1]:
                    yield _path_name(spec, pair), path
                evaluated = {"path": path, "points": config.points, **compared(self.resolved.smaller(pair).fraction)}
                yield f"measures: {spec}, {_both(pair)}", evaluated
            if "continued" in config.also:
                yield f"barriers continued: {_both(pair)}", {**both, "further": resolved.further, **control}
            if "relearning" in config.also:
                attack = {"ts": _along.RELEARNED, **self._attack()}
                yield f"relearning: {_both(pair)}", {**both, **self._path_key(config.curve[0]), **attack}

    def _path_key(self, spec: str) -> dict[str, Any]:
        curve, bends = self.resolved.curves[spec]
        named = ("objective", "sampling", "origin", "epochs", "lr")
        trained = {name: getattr(self.config, name) for name in named}
        trained |= {"batch_size": self.config.train.batch_size, "bends": bends}
        return {"curve": curve.__name__, **(trained if bends else {})}

    # Which models.

    def yardsticks(self) -> list[Endpoint]:
        """The retrained models of every request."""
        return [_yardstick(run, fraction) for fraction in self.requests for run in range(self.config.retrains)]

    def rival(self) -> Endpoint:
        """What gradient ascent is connected with, wherever it stops."""
        others = (end for end in self._unlearned() if end.name != "gradient_ascent" and end.fraction is None)
        return next(others, ORIGINAL)

    def _unlearned(self) -> list[Endpoint]:
        """What controls are made for: one run of every method."""
        first = {end.settings: end for end in reversed(self._connected())}
        return [end for end in self._connected() if end.is_unlearned and first[end.settings] is end]

    def _connected(self) -> list[Endpoint]:
        return list(self.resolved.endpoints.values())

    # What they are evaluated on.

    def _problems(self, pair: Pair) -> list[Problem]:
        """Of every seed; where two sizes meet, what both were asked to forget and what both retain."""
        smaller = self.resolved.smaller(pair)
        larger = pair.b if smaller is pair.a else pair.a
        each = zip(*(self.requests[end.fraction].problems for end in (smaller, larger)), strict=True)
        return [small if small is large else dataclasses.replace(small, retain=large.retain) for small, large in each]

    def _sampled(self, problems: Sequence[Problem]) -> list[Problem]:
        """With a seeded sample of D_r and D_t."""

        def sample(split: Split, seed: int) -> Split:
            order = np.random.default_rng([seed, 2]).permutation(len(split.y))
            return splits.take(split, np.sort(order[: self.config.sample]))

        return [
            dataclasses.replace(each, retain=sample(each.retain, seed), test=sample(each.test, 0))
            for seed, each in zip(self.config.seeds, problems, strict=True)
        ]

    @functools.cache  # noqa: B019, a job lives as long as the process
    def _references(self, fraction: float | None) -> list[_along.Reference]:
        problems, retrained = (
            self._sampled(self.requests[fraction].problems),
            self.models[_yardstick(0, fraction).label],
        )
        keys = [_replicate.key(seed, "untrained") for seed in self.config.seeds]
        return [_along.reference(*each) for each in zip(problems, retrained, keys, strict=True)]

    # How they are made.

    def run(self) -> dict[str, Any]:
        place = self.replicates.store.place
        self.directory.write_index({name: {a.seed: place(a) for a in each} for name, each in self.addresses().items()})
        self._make_models()
        also = self.config.also
        found = _connect_results.Found(
            models={end.label: self._measure_model(end) for end in (ORIGINAL, *self.yardsticks())},
            paths={(i, spec): self._measure_path(pair, spec) for i, pair, spec in self._asked()},
            controls={end.label: self._control(end) for end in self._unlearned()},
            stopping=[self._stop(end) for end in self.resolved.stops],
            continued=[self._continue(pair) for pair in self.resolved.pairs] if "continued" in also else [],
            relearning=[self._relearn(pair) for pair in self.resolved.pairs] if "relearning" in also else [],
            relearned={end.label: self._relearn_model(end) for end in self.yardsticks()}
            if "relearning" in also
            else {},
        )
        return _connect_results.results(self.resolved, self.yardsticks(), self.rival(), found, self._seconds())

    def _asked(self) -> Iterator[tuple[int, Pair, str]]:
        for i, pair in enumerate(self.resolved.pairs):
            for spec in self.resolved.curves:
                yield i, pair, spec

    def _make(
        self,
        name: str,
        function: Callable[..., Any],
        more: Callable[[], Sequence[tuple[Sequence[Any], Any]]] = tuple,
        *,
        of: _replicate.Replicates | None = None,
        **options: Any,
    ) -> list[Any]:
        """The results of one stage, of every seed; more: its further arguments, asked for if anything is missing."""
        addresses, store = self.addresses()[name], self.replicates.store
        if all(store.has(address) for address in addresses):
            return [store.get(address).result for address in addresses]
        return [stage.result for stage in (of or self.replicates).make(addresses, function, *more(), **options)]

    def _seconds(self) -> dict[str, float]:
        """That the stages took, compilation included, by what comes before the colon in their names."""
        found: dict[str, float] = {}
        for name, addresses in self.addresses().items():
            part = name.partition(":")[0]
            found[part] = found.get(part, 0.0) + sum(map(self.replicates.store.seconds, addresses))
        return found

    def _function(self, function: Callable, **options: Any) -> Callable:
        """The same for the same options, so that it is compiled once."""
        name = (function, json.dumps(options, sort_keys=True, default=lambda value: value.__name__))
        return self.functions.setdefault(name, functools.partial(function, **options))

    def _make_models(self) -> None:
        originals = self.replicates.make_originals(self.addresses()["original"])
        self.models["original"] = [stage.result for stage in originals]
        for of in self.requests.values():
            of.take_up(originals)
        for end in (*self.yardsticks(), *self._connected(), *self.resolved.stops):
            if end.label in self.models:
                continue
            of = self.requests[end.fraction]
            if end.name == "retrain":
                made = of.make_retrained(self.addresses()[end.label], end.run)
                self.models[end.label] = [stage.result for stage in made]
            else:
                function = self._function(getattr(methods, end.name), **end.options)
                self.models[end.label] = self._make(end.label, function, of=of, run=end.run)

    def _measure_model(self, end: Endpoint) -> list[dict[str, float]]:
        def more() -> Any:
            return (self.models[end.label], 0), (self._references(end.fraction), 0)

        problems = self._sampled(self.requests[end.fraction].problems)
        values = functools.partial(_along.model_values, attack="mia" in self.config.also)
        return self._make(f"measures: {end.label}", _along.measure_model, more, problems=problems, values=values)

    def _measure_path(self, pair: Pair, spec: str) -> list[dict[str, Any]]:
        def more() -> Any:
            return (self._paths(pair, spec), 0), (self._references(self.resolved.smaller(pair).fraction), 0)

        if self.resolved.curves[spec][1]:
            self._train(pair, spec)
        function = self._function(_along.measure_path, curve=self.resolved.curves[spec][0], points=self.config.points)
        values = functools.partial(_along.path_values, attack="mia" in self.config.also)
        problems = self._sampled(self._problems(pair))
        return self._make(f"measures: {spec}, {_both(pair)}", function, more, problems=problems, values=values)

    def _ends(self, pair: Pair) -> tuple[list[Params], list[Params]]:
        """A model retrained from scratch is aligned with the other end before anything is said of a path to it."""
        return self._comparable(pair, self.models[pair.a.label], self.models[pair.b.label])

    def _comparable(self, pair: Pair, a: list[Params], b: list[Params]) -> tuple[list[Params], list[Params]]:
        if pair.b.name == "retrain":
            return a, self._aligned(b, a)
        return (self._aligned(a, b), b) if pair.a.name == "retrain" else (a, b)

    def _aligned(self, models: Sequence[Params], references: Sequence[Params]) -> list[Params]:
        model = self.resolved.model
        return [alignment.align(model, *both) for both in zip(models, references, strict=True)]

    def _paths(self, pair: Pair, spec: str) -> list[Path]:
        bends = self.resolved.curves[spec][1]
        straight = [curves.straight(*ends, bends) for ends in zip(*self._ends(pair), strict=True)]
        if not bends:
            return straight
        trained = self._train(pair, spec)
        return [path._replace(inner=found["inner"]) for path, found in zip(straight, trained, strict=True)]

    def _train(self, pair: Pair, spec: str) -> list[dict[str, Any]]:
        config, (curve, bends) = self.config, self.resolved.curves[spec]
        chosen = {"neutral": None, "a": pair.a, "b": pair.b}[config.objective]
        function = self._function(
            _along.train,
            method=chosen.name if chosen else None,
            options=chosen.options if chosen else {},
            curve=curve,
            bends=bends,
            sampling=config.sampling,
            from_original=config.origin == "original",
            epochs=config.epochs,
            lr=config.lr,
            batch_size=config.train.batch_size,
        )

        def more() -> Any:
            return [(ends, 0) for ends in self._ends(pair)]

        return self._make(_path_name(spec, pair), function, more, problems=self._problems(pair))

    # Controls, and what is beyond.

    def _control(self, end: Endpoint) -> list[dict[str, list[float]]]:
        """Of the lines of `_along.CONTROLS`, in that order."""
        of = self.requests[end.fraction]

        def more() -> Any:
            unlearned, retrained = self.models[end.label], self.models[_yardstick(0, end.fraction).label]
            keys = [_replicate.key(seed, end.label, 1) for seed in self.config.seeds]
            each = zip(of.problems, keys, unlearned, retrained, self._aligned(retrained, unlearned), strict=True)
            lines = [_along.controls(*own) for own in each]
            return [([line[i] for line in lines], 0) for i in (0, 1)]

        return self._lines(f"controls: {end.label}", more, self._sampled(of.problems))

    def _stop(self, end: Endpoint) -> list[dict[str, list[float]]]:
        def more() -> Any:
            return _single(self.models[end.label], self.models[self.rival().label])

        return self._lines(f"stopping: {end.label}", more, self._sampled(self.replicates.problems))

    def _continue(self, pair: Pair) -> list[dict[str, list[float]]]:
        """Of two lines, before and after."""

        def more() -> Any:
            before, after = self._ends(pair), self._comparable(pair, *(self._further(end) for end in (pair.a, pair.b)))
            ends = (zip(*both, strict=True) for both in zip(before, after, strict=True))
            return [([trees.stack(each) for each in own], 0) for own in ends]

        return self._lines(f"barriers continued: {_both(pair)}", more, self._sampled(self._problems(pair)))

    def _lines(self, name: str, more: Callable, problems: Sequence[Problem]) -> list[dict[str, list[float]]]:
        return self._make(name, _along.lines, more, problems=problems, values=_along.as_json)

    def _further(self, end: Endpoint) -> list[Params]:
        """The model trained further on D_r, as fine-tuning is."""
        function = self._function(_along.train_further, **self.resolved.further)
        of = self.requests[end.fraction]
        return self._make(f"continued: {end.label}", function, lambda: [(self.models[end.label], 0)], of=of)

    def _relearn(self, pair: Pair) -> list[list[int]]:
        """Of five points of the first curve."""
        curve = self.resolved.curves[self.config.curve[0]][0]
        function = self._function(_along.relearn, curve=curve, **self._attack())

        def more() -> Any:
            return [(self._paths(pair, self.config.curve[0]), 0)]

        name = f"relearning: {_both(pair)}"
        return self._make(name, function, more, problems=self._problems(pair), values=np.ndarray.tolist)

    def _relearn_model(self, end: Endpoint) -> list[int]:
        function = self._function(_along.relearn_model, **self._attack())
        of = self.requests[end.fraction]
        return self._make(
            f"relearning: {end.label}", function, lambda: [(self.models[end.label], 0)], of=of, values=int
        )

    def _attack(self) -> dict[str, Any]:
        return {"lr": self.resolved.further["lr"], "batch_size": self.config.train.batch_size, "limit": _along.LIMIT}


def _yardstick(run: int, fraction: float | None) -> Endpoint:
    options = [f"run={run}"] if run else []
    options += [] if fraction is None else [f"forget={fraction:g}"]
    return Endpoint(":".join(filter(None, ["retrain", ",".join(options)])), "retrain", {}, run, fraction)


def _both(pair: Pair) -> str:
    return f"{pair.a.label} to {pair.b.label}"


def _path_name(spec: str, pair: Pair) -> str:
    return f"{spec.partition(':')[0]}: {spec}, {_both(pair)}"


def _single(a: Sequence[Params], b: Sequence[Params]) -> list[tuple[Sequence[Params], int]]:
    """One line of every seed, where many are expected."""
    return [([trees.stack([params]) for params in ends], 0) for ends in (a, b)]
