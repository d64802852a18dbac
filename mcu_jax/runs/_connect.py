"""The stages of `mcu-jax connect`: models unlearned from one original, paths between them, measures along these."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mcu_jax.runs import _along, _directory, _graph, _tasks
from mcu_jax.runs._connect_config import Endpoint, Pair, Resolved
from mcu_jax.runs._graph import Stage

ORIGINAL = Endpoint("original", "original", {})


class Asked(NamedTuple):
    """The stages of one seed that results are read from, by the label of a model or of a pair.

    measures: of the original and the retrained models. paths: by (label of the pair, curve).
    """

    seed: int
    models: dict[str, Stage]
    measures: dict[str, Stage]
    paths: dict[tuple[str, str], Stage]
    controls: dict[str, Stage]
    stopping: dict[str, Stage]
    continued: dict[str, Stage]
    relearning: dict[str, Stage]


class Graph(dict[str, list[Stage]]):
    """Every stage of a run, by label. asked: by seed. parts: by label, what the seconds of a stage are counted as."""

    def __init__(self, seeds: Sequence[_Seed]):
        self.asked = {seed.replicate.seed: seed.asked() for seed in seeds}
        self.parts = seeds[0].parts
        groups = (itertools.chain(*(group.values() for group in asked[1:])) for asked in self.asked.values())
        super().__init__(_graph.by_label([{s.label: s for s in _with_sources(stages)} for stages in groups]))


def graph(resolved: Resolved, directory: _directory.RunDirectory) -> Graph:
    """Raises SplitError."""
    replicates = _tasks.replicates(directory, resolved, fractions(resolved))
    return Graph([_Seed(resolved, replicate) for replicate in replicates])


def _with_sources(stages: Iterable[Stage]) -> Iterator[Stage]:
    """Each stage after those it is given."""
    for stage in stages:
        yield from _with_sources(_graph.sources(stage))
        yield stage


def fractions(resolved: Resolved) -> list[float]:
    """The fractions to forget of the requests beside the run's own."""
    return sorted({end.fraction for end in resolved.endpoints.values() if end.fraction})


def retrained(resolved: Resolved) -> list[Endpoint]:
    """The retrained models of every request."""
    runs = range(resolved.config.retrains)
    return [_retrained(run, fraction) for fraction in (None, *fractions(resolved)) for run in runs]


def _retrained(run: int, fraction: float | None) -> Endpoint:
    options = [f"run={run}"] * bool(run) + ([] if fraction is None else [f"forget={fraction:g}"])
    return Endpoint(f"retrain:{','.join(options)}".removesuffix(":"), "retrain", {}, run, fraction)


def unlearned(resolved: Resolved) -> list[Endpoint]:
    """One run of every method: what controls are made for."""
    ends = list(resolved.endpoints.values())
    first = {end.settings: end for end in reversed(ends)}
    return [end for end in ends if end.is_unlearned and first[end.settings] is end]


def stopping_end(resolved: Resolved) -> Endpoint:
    """The other end of the lines from gradient ascent, wherever it stops."""
    others = (end for end in unlearned(resolved) if end.name != "gradient_ascent" and end.fraction is None)
    return next(others, ORIGINAL)


@dataclasses.dataclass(frozen=True)
class _Seed:
    """Makes the stages of one seed. stages, parts: by label, what was made so far."""

    resolved: Resolved
    replicate: _tasks.Replicate
    stages: _graph.Labelled = dataclasses.field(default_factory=_graph.Labelled)
    parts: dict[str, str] = dataclasses.field(default_factory=dict)

    def asked(self) -> Asked:
        resolved, also = self.resolved, self.resolved.config.also
        plain = (ORIGINAL, *retrained(resolved))
        ends, pairs = (*plain, *resolved.endpoints.values(), *resolved.stops), resolved.pairs
        relearning = {}
        if "relearning" in also:
            relearning = {pair.label: self._relearned_path(pair) for pair in pairs}
            relearning |= {end.label: self._relearned(end) for end in retrained(resolved)}
        return Asked(
            seed=self.replicate.seed,
            models={end.label: self.model(end) for end in ends},
            measures={end.label: self._measured(end) for end in plain},
            paths={
                (pair.label, curve): self._measured_path(pair, curve) for pair in pairs for curve in resolved.curves
            },
            controls={end.label: self._controls(end) for end in unlearned(resolved)},
            stopping={end.label: self._stopped(end) for end in resolved.stops},
            continued={pair.label: self._continued(pair) for pair in pairs if "continued" in also},
            relearning=relearning,
        )

    def _add(self, part: str, stage: Stage) -> Stage:
        self.parts[stage.label] = part
        return self.stages.add(stage)

    def _stage(self, part: str, subject: str, *rest: Any, **options: Any) -> Stage:
        return self._add(part, Stage(f"{part}: {subject}", self.replicate.seed, *rest, **options))

    # Models

    def model(self, end: Endpoint) -> Stage:
        if end.name == "original":
            stage = self.replicate.original
        elif end.name == "retrain":
            stage = self.replicate.retrained(end.label, end.fraction, end.run)
        else:
            stage = self.replicate.unlearned(end.label, end.name, end.options, end.fraction, end.run)
        return self._add(end.name, stage)

    def _further(self, end: Endpoint) -> Stage:
        """The model trained further on D_r, as fine-tuning is."""
        key = _graph.draw(self.replicate.seed, "continued")
        inputs = {"task": self.replicate.unseen(end.fraction, plain=True), "params": self.model(end), "key": key}
        return self._stage("continued", end.label, _along.train_further, inputs, self.resolved.further)

    def _aligned(self, stage: Stage, reference: Stage) -> Stage:
        inputs = {"task": self.replicate.unseen(plain=True), "params": stage, "reference": reference}
        return self._stage("aligned", f"{stage.label} with {reference.label}", _along.align, inputs, on_host=True)

    def _ends(self, pair: Pair, a: Stage, b: Stage) -> dict[str, _graph.Input]:
        """Both, a model retrained from scratch aligned with the other end."""
        if pair.b.name == "retrain":
            return {"a": a, "b": self._aligned(b, a)}
        return {"a": self._aligned(a, b) if pair.a.name == "retrain" else a, "b": b}

    def _pair_ends(self, pair: Pair) -> dict[str, _graph.Input]:
        return self._ends(pair, self.model(pair.a), self.model(pair.b))

    # Which examples

    def _rows(self, pair: Pair) -> _tasks.Rows:
        """Of two sizes, what both were asked to forget and what both retain."""
        smaller = self.resolved.smaller(pair)
        larger = pair.b if smaller is pair.a else pair.a
        return self.replicate.rows(smaller.fraction)._replace(retain=self.replicate.rows(larger.fraction).retain)

    def _sampled(self, rows: _tasks.Rows) -> dict[str, _graph.Input]:
        return {"task": self.replicate.task(self.replicate.sampled(rows, self.resolved.config.sample))}

    def _begin(self, pair: Pair, name: str) -> dict[str, _graph.Input]:
        """What is trained from both ends is given: no test examples, and a random key by this name."""
        task, key = self.replicate.task(self._rows(pair).unseen()), _graph.draw(self.replicate.seed, name)
        return {"task": task, "original": self.replicate.original, "key": key, **self._pair_ends(pair)}

    # Measures

    def _compared(self, fraction: float | None) -> dict[str, _graph.Input]:
        """What models are compared with."""
        untrained = _graph.draw(self.replicate.seed, "untrained")
        return {"retrained": self.model(_retrained(0, fraction)), "untrained": untrained}

    def _measured(self, end: Endpoint) -> Stage:
        inputs = {**self._sampled(self.replicate.rows(end.fraction)), "params": self.model(end)}
        values = functools.partial(_along.model_values, attack="mia" in self.resolved.config.also)
        inputs |= self._compared(end.fraction)
        return self._stage("measures", end.label, _along.measure_model, inputs, values=values)

    def _inner(self, pair: Pair, spec: str) -> dict[str, _graph.Input]:
        """The inner points of a trained curve."""
        config, (curve, bends) = self.resolved.config, self.resolved.curves[spec]
        if not bends:
            return {}
        chosen = {"neutral": None, "a": pair.a, "b": pair.b}[config.objective]
        settings = {
            "objective": chosen and {"method": chosen.name, "options": chosen.options},
            "curve": curve.__name__,
            "bends": bends,
            "batch_size": config.train.batch_size,
            **{name: getattr(config, name) for name in ("sampling", "origin", "steps", "lr")},
        }
        inputs, subject = self._begin(pair, curve.__name__), f"{spec}, {pair.label}"
        return {"inner": self._stage(curve.__name__, subject, _along.train, inputs, settings)["inner"]}

    def _measured_path(self, pair: Pair, spec: str) -> Stage:
        config = self.resolved.config
        inputs = {**self._sampled(self._rows(pair)), "original": self.replicate.original, **self._pair_ends(pair)}
        inputs |= {**self._compared(self.resolved.smaller(pair).fraction), **self._inner(pair, spec)}
        settings = {"curve": self.resolved.curves[spec][0].__name__, "points": config.points}
        values = functools.partial(_along.path_values, attack="mia" in config.also)
        return self._stage("measures", f"{spec}, {pair.label}", _along.measure_path, inputs, settings, values)

    # Controls, and what is beyond

    def _lines(self, part: str, subject: str, rows: _tasks.Rows, ends: Mapping[str, _graph.Input]) -> Stage:
        inputs = {**self._sampled(rows), "original": self.replicate.original, **ends}
        return self._stage(part, subject, _along.lines, inputs, values=_along.as_json)

    def _controls(self, end: Endpoint) -> Stage:
        """Without the aligned line where the model does not give its `permutations`."""
        scratch, model = self.model(_retrained(0, end.fraction)), self.model(end)
        inputs = {
            **self._sampled(self.replicate.rows(end.fraction)),
            "original": self.replicate.original,
            "key": _graph.draw(self.replicate.seed, f"controls-{end.name}", 1),
            "unlearned": model,
            "retrained": scratch,
        }
        if self.resolved.model.permutations is not None:
            inputs["aligned"] = self._aligned(scratch, model)
        return self._stage("controls", end.label, _along.controls, inputs, values=_along.as_json)

    def _stopped(self, end: Endpoint) -> Stage:
        ends = {"a": self.model(end), "b": self.model(stopping_end(self.resolved))}
        return self._lines("stopping", end.label, self.replicate.rows(), ends)

    def _continued(self, pair: Pair) -> Stage:
        """The line between the ends, and the line between both trained further."""
        after = self._ends(pair, self._further(pair.a), self._further(pair.b))
        ends = {**self._pair_ends(pair), "c": after["a"], "d": after["b"]}
        return self._lines("barriers continued", pair.label, self._rows(pair), ends)

    def _relearned(self, end: Endpoint) -> Stage:
        inputs = {**self.replicate.begin("relearning", end.fraction), "params": self.model(end)}
        return self._stage("relearning", end.label, _along.relearn_model, inputs, self._attack, _along.whole)

    def _relearned_path(self, pair: Pair) -> Stage:
        """From five points of the first curve."""
        spec = self.resolved.config.curve[0]
        inputs = {**self._begin(pair, "relearning"), **self._inner(pair, spec)}
        settings = {"curve": self.resolved.curves[spec][0].__name__, **self._attack}
        return self._stage("relearning", pair.label, _along.relearn, inputs, settings, _along.whole)

    @property
    def _attack(self) -> dict[str, Any]:
        batch_size = self.resolved.config.train.batch_size
        return {"lr": self.resolved.further["lr"], "batch_size": batch_size, "limit": _along.LIMIT}
