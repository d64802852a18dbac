"""How long the stages of a run will take, from those that were measured: never a guess."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence

from mcu_jax import checkpoint
from mcu_jax.runs import _stages
from mcu_jax.runs._graph import Graph, Stage
from mcu_jax.runs._observer import Expected
from mcu_jax.runs._timing import Spent


class Estimates:
    """By label, and by program: stages of one function and its settings differ in what they are given alone."""

    def __init__(self, graph: Graph, missing: Mapping[str, Sequence[Stage]], store: _stages.Store):
        """graph: of the run. missing: what is not finished of it, by label."""
        self.missing = missing
        self.kinds = {label: _kinds(stages[0]) for label, stages in missing.items()}
        self.measured: dict[Hashable, list[Spent]] = {}
        self.compiled: set[Hashable] = set()
        """Of what this process has compiled the program."""
        wanted = {kind for kinds in self.kinds.values() for kind in kinds}
        for stage in (stage for stages in graph.values() for stage in stages):
            kinds = [kind for kind in _kinds(stage) if kind in wanted]
            if kinds and store.has(stage):
                meta = checkpoint.read_meta(store.place(stage))
                self._add(kinds, Spent(meta["seconds"], meta["compile_seconds"]))

    def made(self, label: str, spent: Spent) -> None:
        """The missing stages of a label were made, in so many seconds all together."""
        stages = self.missing[label]
        each = Spent(spent.seconds / len(stages), spent.compile_seconds / len(stages))
        for _ in stages:
            self._add(self.kinds[label], each)
        self.compiled |= set(self.kinds[label])

    def left(self, label: str) -> Expected:
        """When the missing stages of that label begin."""
        labels = list(self.missing)
        later = [self._seconds(other) for other in labels[labels.index(label) + 1 :]]
        known = [seconds for seconds in later if seconds is not None]
        return Expected(self._seconds(label), sum(known, 0.0), len(later) - len(known))

    def _add(self, kinds: Sequence[Hashable], spent: Spent) -> None:
        for kind in kinds:
            self.measured.setdefault(kind, []).append(spent)

    def _seconds(self, label: str) -> float | None:
        kinds = self.kinds[label]
        for kind in kinds:
            if spent := self.measured.get(kind):
                seconds = len(self.missing[label]) * sum(each.seconds for each in spent) / len(spent)
                # One compilation serves all, each of which was told its share of it.
                again = self.compiled.isdisjoint(kinds)
                return seconds + again * sum(each.compile_seconds for each in spent)
        return None


def _kinds(stage: Stage) -> list[Hashable]:
    """What stages share that take about as long, the closest first: their label, or their program."""
    return [stage.label, (stage.function, json.dumps(dict(stage.settings), sort_keys=True))]
