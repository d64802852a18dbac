"""What a run computes from what, said once: planning, running, the index, timing, checking and resuming walk this.

A stage's function is given its inputs and its settings and nothing else, and both are in its key: it cannot read what
the key lacks. A label is for people: no number, random key or folder comes from it.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax

from mcu_jax.runs import _config

VERSION = 11
"""Part of every key: raised when the code changes what a stage's function makes of the same inputs and settings."""


class Leaf(NamedTuple):
    """An input that no stage makes. identity: everything that the value depends on, as plain JSON.

    axes: for seeds side by side, 0 where each has its own value, None where all share one, or a tuple of these, one for
    each array of the value.
    """

    identity: Any
    make: Callable[[], Any]
    axes: int | tuple[int | None, ...] | None = 0


class Part(NamedTuple):
    """One entry of what a stage makes, as an input of another."""

    stage: Stage
    name: str


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """One step of a run for one seed: function(**inputs, **settings) -> arrays.

    values: from the function's result to JSON values, on the host, where the stage keeps those instead; a
    `functools.partial` of a module-level function over plain values. on_host: the function cannot be traced.
    """

    label: str
    seed: int
    function: Callable[..., Any]
    inputs: Mapping[str, Input]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    values: Callable[[Any], Any] | None = None
    on_host: bool = False

    def __getitem__(self, name: str) -> Part:
        return Part(self, name)

    @functools.cached_property
    def key(self) -> dict[str, Any]:
        """All that the stage's result depends on, plain JSON."""
        return {
            "version": VERSION,
            "function": _name(self.function),
            "settings": dict(self.settings),
            "inputs": {name: _identity(given) for name, given in self.inputs.items()},
            "values": self.values and [_name(self.values), dict(getattr(self.values, "keywords", {}))],
        }

    @functools.cached_property
    def digest(self) -> str:
        return _config.digest(self.key)

    @property
    def folder(self) -> str:
        """Where it is stored: a readable word, which is part of the key too, and the key's digest."""
        drawn = self.inputs.get("key")
        word = drawn.identity["draw"] if isinstance(drawn, Leaf) else self.function.__name__
        return f"{word}-{self.digest}"


Input: TypeAlias = Stage | Part | Leaf
Graph: TypeAlias = Mapping[str, list[Stage]]
"""By label, in the order in which they are made: one stage a seed."""


def draw(seed: int, name: str, run: int = 0) -> Leaf:
    """A random key, its own for every seed, name of what draws, and run."""

    def make() -> Any:
        key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
        return jax.random.fold_in(key, run) if run else key

    return Leaf({"draw": name, "seed": seed, "run": run}, make)


class Labelled(dict[str, Stage]):
    """The stages of one seed by label: no two of them have the same."""

    def add(self, stage: Stage) -> Stage:
        """Gives it back, or the one that is there already. Raises ValueError for another stage of that label."""
        known = self.setdefault(stage.label, stage)
        if known.digest != stage.digest:
            raise ValueError(f"two different stages are called {stage.label!r}")
        return known


def by_label(seeds: Sequence[Mapping[str, Stage]]) -> dict[str, list[Stage]]:
    """The graph of a run from the stages of each of its seeds."""
    return {label: [stages[label] for stages in seeds] for label in seeds[0]}


def sources(stage: Stage) -> list[Stage]:
    """The stages whose results it is given."""
    stages = [source.stage if isinstance(source, Part) else source for source in stage.inputs.values()]
    return [source for source in stages if isinstance(source, Stage)]


def _identity(given: Input) -> Any:
    if isinstance(given, Leaf):
        return given.identity
    return {"stage": given.digest} if isinstance(given, Stage) else {"stage": given.stage.digest, "part": given.name}


def _name(function: Callable) -> str:
    function = getattr(function, "func", function)
    return f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
