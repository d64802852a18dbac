"""What `mcu-jax connect` does: models unlearned from one original, paths between them, and what happens on the way."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

from mcu_jax.runs import _along, _directory, _graph, _tasks
from mcu_jax.runs._connect_config import Endpoint, Pair, Resolved
from mcu_jax.runs._graph import Stage

ORIGINAL = Endpoint("original", "original", {})


def graph(resolved: Resolved, directory: _directory.RunDirectory) -> dict[str, list[Stage]]:
    """Every stage of a run. Raises SplitError."""
    return _graph.by_label(
        [_Seed(resolved, each).stages() for each in _tasks.replicates(directory, resolved, fractions(resolved))]
    )


def fractions(resolved: Resolved) -> list[float]:
    """To forget, of the requests beside the run's own."""
    return sorted({end.fraction for end in resolved.endpoints.values() if end.fraction})


def yardsticks(resolved: Resolved) -> list[Endpoint]:
    """The retrained models of every request."""
    return [yardstick(run, each) for each in (None, *fractions(resolved)) for run in range(resolved.config.retrains)]


def yardstick(run: int, fraction: float | None) -> Endpoint:
    options = [f"run={run}"] if run else []
    options += [] if fraction is None else [f"forget={fraction:g}"]
    return Endpoint(":".join(filter(None, ["retrain", ",".join(options)])), "retrain", {}, run, fraction)


def unlearned(resolved: Resolved) -> list[Endpoint]:
    """What controls are made for: one run of every method."""
    ends = list(resolved.endpoints.values())
    first = {end.settings: end for end in reversed(ends)}
    return [end for end in ends if end.is_unlearned and first[end.settings] is end]


def rival(resolved: Resolved) -> Endpoint:
    """What gradient ascent is connected with, wherever it stops."""
    others = (end for end in unlearned(resolved) if end.name != "gradient_ascent" and end.fraction is None)
    return next(others, ORIGINAL)


def both(pair: Pair) -> str:
    return f"{pair.a.label} to {pair.b.label}"


@dataclasses.dataclass(frozen=True)
class _Seed:
    """States the stages of one seed."""

    resolved: Resolved
    replicate: _tasks.Replicate
    stated: dict[str, Stage] = dataclasses.field(default_factory=dict)

    def stages(self) -> dict[str, Stage]:
        """By label, each after those it is given."""
        return {stage.label: stage for asked in self._asked() for stage in _with_sources(asked)}

    def _asked(self) -> Iterator[Stage]:
        resolved, also = self.resolved, self.resolved.config.also
        for end in (ORIGINAL, *yardsticks(resolved), *resolved.endpoints.values(), *resolved.stops):
            yield self.model(end)
        for end in (ORIGINAL, *yardsticks(resolved)):
            yield self._measured(end)
        for pair in resolved.pairs:
            for spec in resolved.curves:
                yield self._measured_path(pair, spec)
        for end in unlearned(resolved):
            yield self._controls(end)
        for end in resolved.stops:
            ends = {"a": self.model(end), "b": self.model(rival(resolved))}
            yield self._lines(f"stopping: {end.label}", self.replicate.rows(), ends)
        for pair in resolved.pairs:
            if "continued" in also:
                yield self._continued(pair)
            if "relearning" in also:
                yield self._relearned(pair)
        if "relearning" in also:
            for end in yardsticks(resolved):
                inputs = {**self.replicate.begin("relearning", end.fraction), "params": self.model(end)}
                yield self._stage(f"relearning: {end.label}", _along.relearn_model, inputs, self._attack, _along.whole)

    def _stage(self, label: str, *rest: Any, **more: Any) -> Stage:
        return self.stated.setdefault(label, Stage(label, self.replicate.seed, *rest, **more))

    # Models

    def model(self, end: Endpoint) -> Stage:
        if end.name == "original":
            return self.replicate.original
        if end.name == "retrain":
            made = self.replicate.retrained(end.label, end.fraction, end.run)
        else:
            made = self.replicate.unlearned(end.label, end.name, end.options, end.fraction, end.run)
        return self.stated.setdefault(end.label, made)

    def _further(self, end: Endpoint) -> Stage:
        """The model trained further on D_r, as fine-tuning is."""
        key = _graph.draw(self.replicate.seed, "continued")
        inputs = {"task": self.replicate.unseen(end.fraction), "params": self.model(end), "key": key}
        return self._stage(f"continued: {end.label}", _along.train_further, inputs, self.resolved.further)

    def _aligned(self, stage: Stage, reference: Stage) -> Stage:
        inputs = {"task": self.replicate.unseen(), "params": stage, "reference": reference}
        label = f"aligned: {stage.label} with {reference.label}"
        return self._stage(label, _along.align, inputs, on_host=True)

    def _ends(self, pair: Pair, a: Stage, b: Stage) -> dict[str, _graph.Input]:
        """A model retrained from scratch is aligned with the other end before anything is said of a path to it."""
        if pair.b.name == "retrain":
            return {"a": a, "b": self._aligned(b, a)}
        return {"a": self._aligned(a, b) if pair.a.name == "retrain" else a, "b": b}

    # Which examples

    def _rows(self, pair: Pair) -> _tasks.Rows:
        """Where two sizes meet, what both were asked to forget and what both retain."""
        smaller = self.resolved.smaller(pair)
        larger = pair.b if smaller is pair.a else pair.a
        return self.replicate.rows(smaller.fraction)._replace(retain=self.replicate.rows(larger.fraction).retain)

    def _sampled(self, rows: _tasks.Rows) -> dict[str, _graph.Input]:
        return {"task": self.replicate.task(self.replicate.sampled(rows, self.resolved.config.sample))}

    def _unseen(self, pair: Pair) -> _graph.Leaf:
        return self.replicate.task(self._rows(pair).unseen())

    # Measures

    def _compared(self, fraction: float | None) -> dict[str, _graph.Input]:
        """What models are compared with."""
        untrained = _graph.draw(self.replicate.seed, "untrained")
        return {"retrained": self.model(yardstick(0, fraction)), "untrained": untrained}

    def _measured(self, end: Endpoint) -> Stage:
        inputs = {**self._sampled(self.replicate.rows(end.fraction)), "params": self.model(end)}
        values = functools.partial(_along.model_values, attack="mia" in self.resolved.config.also)
        inputs |= self._compared(end.fraction)
        return self._stage(f"measures: {end.label}", _along.measure_model, inputs, values=values)

    def _pair_ends(self, pair: Pair) -> dict[str, _graph.Input]:
        return self._ends(pair, self.model(pair.a), self.model(pair.b))

    def _inner(self, pair: Pair, spec: str) -> dict[str, _graph.Input]:
        """Of a curve that is trained."""
        config, (curve, bends) = self.resolved.config, self.resolved.curves[spec]
        if not bends:
            return {}
        chosen = {"neutral": None, "a": pair.a, "b": pair.b}[config.objective]
        settings = {
            "objective": chosen and {"method": chosen.name, "options": chosen.options},
            "curve": curve.__name__,
            "bends": bends,
            "batch_size": config.train.batch_size,
            **{name: getattr(config, name) for name in ("sampling", "origin", "epochs", "lr")},
        }
        key = _graph.draw(self.replicate.seed, curve.__name__)
        inputs = {"task": self._unseen(pair), "original": self.replicate.original, "key": key, **self._pair_ends(pair)}
        return {
            "inner": self._stage(f"{curve.__name__}: {spec}, {both(pair)}", _along.train, inputs, settings)["inner"]
        }

    def _measured_path(self, pair: Pair, spec: str) -> Stage:
        config = self.resolved.config
        inputs = {**self._sampled(self._rows(pair)), "original": self.replicate.original, **self._pair_ends(pair)}
        inputs |= {**self._compared(self.resolved.smaller(pair).fraction), **self._inner(pair, spec)}
        settings = {"curve": self.resolved.curves[spec][0].__name__, "points": config.points}
        values = functools.partial(_along.path_values, attack="mia" in config.also)
        return self._stage(f"measures: {spec}, {both(pair)}", _along.measure_path, inputs, settings, values)

    # Controls, and what is beyond

    def _lines(self, label: str, rows: _tasks.Rows, ends: Mapping[str, _graph.Input]) -> Stage:
        inputs = {**self._sampled(rows), "original": self.replicate.original, **ends}
        return self._stage(label, _along.lines, inputs, values=_along.as_json)

    def _controls(self, end: Endpoint) -> Stage:
        retrained, model = self.model(yardstick(0, end.fraction)), self.model(end)
        inputs = {
            **self._sampled(self.replicate.rows(end.fraction)),
            "original": self.replicate.original,
            "key": _graph.draw(self.replicate.seed, f"controls-{end.name}", 1),
            "unlearned": model,
            "retrained": retrained,
            "aligned": self._aligned(retrained, model),
        }
        return self._stage(f"controls: {end.label}", _along.controls, inputs, values=_along.as_json)

    def _continued(self, pair: Pair) -> Stage:
        """The lines before and after."""
        before, after = self._pair_ends(pair), self._ends(pair, self._further(pair.a), self._further(pair.b))
        ends = {**before, "c": after["a"], "d": after["b"]}
        return self._lines(f"barriers continued: {both(pair)}", self._rows(pair), ends)

    def _relearned(self, pair: Pair) -> Stage:
        """From five points of the first curve."""
        spec = self.resolved.config.curve[0]
        key = _graph.draw(self.replicate.seed, "relearning")
        inputs = {"task": self._unseen(pair), "original": self.replicate.original, "key": key}
        inputs |= {**self._pair_ends(pair), **self._inner(pair, spec)}
        settings = {"curve": self.resolved.curves[spec][0].__name__, **self._attack}
        return self._stage(f"relearning: {both(pair)}", _along.relearn, inputs, settings, _along.whole)

    @property
    def _attack(self) -> dict[str, Any]:
        batch_size = self.resolved.config.train.batch_size
        return {"lr": self.resolved.further["lr"], "batch_size": batch_size, "limit": _along.LIMIT}


def _with_sources(stage: Stage) -> Iterator[Stage]:
    for source in _graph.sources(stage):
        yield from _with_sources(source)
    yield stage
