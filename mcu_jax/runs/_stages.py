"""Finished stages on disk, found again by what made them."""

from __future__ import annotations

import functools
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mcu_jax import checkpoint, sharding
from mcu_jax.runs import _config, _environment
from mcu_jax.runs._graph import Stage
from mcu_jax.runs._timing import Spent


class Diverged(NamedTuple):
    """What a stage comes to whose numbers are no longer finite. step: of its training; 0 where it has no steps."""

    label: str
    seed: int
    step: int


class Made(NamedTuple):
    """A finished stage: arrays, JSON values, or `Diverged`; and its share of the time."""

    result: Any
    spent: Spent


class Store:
    """Stages as checkpoints in one directory, by the digest of their key."""

    def __init__(self, directory: pathlib.Path):
        self.directory = directory

    def place(self, stage: Stage) -> pathlib.Path:
        return self.directory / stage.folder

    def partial(self, stage: Stage, *others: Stage) -> pathlib.Path:
        """Where a stage in progress keeps the state of its loops; others: seeds made side by side with it."""
        company = f"-{_config.digest([stage.digest for stage in others])}" if others else ""
        return self.directory / f"{stage.folder}{company}.partial"

    def partials(self, stage: Stage) -> list[pathlib.Path]:
        """Of the stage alone, and in whatever company."""
        return sorted(self.directory.glob(f"{stage.folder}*.partial"))

    def has(self, stage: Stage) -> bool:
        return checkpoint.exists(self.place(stage))

    def have(self, stages: Sequence[Stage]) -> list[bool]:
        """Of each, whether it is finished; the same in all processes."""
        return [bool(has) for has in sharding.agree([self.has(stage) for stage in stages])]

    def get(self, stage: Stage) -> Made:
        """Raises DamagedCheckpointError where it is not as it was saved, or is another stage."""
        place = self.place(stage)
        meta, result = read(place)
        if meta["diverged"] is not None:
            result = Diverged(stage.label, stage.seed, meta["diverged"])
        return Made(result, Spent(meta["seconds"], meta["compile_seconds"]))

    def put(self, stage: Stage, made: Made) -> None:
        diverged = made.result.step if isinstance(made.result, Diverged) else None
        values = made.result if stage.values and diverged is None else None
        meta = {
            "label": stage.label,
            "seed": stage.seed,
            "key": stage.key,
            "seconds": made.spent.seconds,
            "compile_seconds": made.spent.compile_seconds,
            "diverged": diverged,
            "values": values,
            "environment": _environment.environment(),
        }
        save(self.place(stage), {} if stage.values or diverged is not None else made.result, meta)
        self.remove(*self.partials(stage))

    def remove(self, *places: pathlib.Path) -> None:
        if sharding.is_first():
            for place in places:
                shutil.rmtree(place, ignore_errors=True)

    def damaged(self, stage: Stage) -> Iterator[checkpoint.DamagedCheckpointError]:
        """What of the stage, finished or in progress, is not as it was saved."""
        checks: list[Callable[[], Any]] = [functools.partial(read, self.place(stage))] if self.has(stage) else []
        loops = (loop for left in self.partials(stage) for loop in left.glob("loop-*"))
        for check in checks or [functools.partial(checkpoint.load, loop) for loop in loops]:
            try:
                check()
            except checkpoint.DamagedCheckpointError as error:
                yield error


def save(place: pathlib.Path, tree: Any, meta: dict[str, Any]) -> None:
    """`checkpoint.save`, by one of the processes for all."""
    whole = sharding.fetch(tree)
    if sharding.is_first():
        checkpoint.save(place, whole, meta)
    sharding.wait(str(place))


def read(place: pathlib.Path) -> tuple[dict[str, Any], Any]:
    """(what is known of a finished stage, its arrays or values). Raises DamagedCheckpointError."""
    meta = checkpoint.read_meta(place)
    if not place.name.endswith(f"-{_config.digest(meta.get('key'))}"):
        raise checkpoint.damaged(place, f"it holds another stage, {meta.get('label')!r}")
    if meta["values"] is not None:
        return meta, meta["values"]
    return meta, jax.tree.map(jax.numpy.asarray, checkpoint.load(place))


def is_finite(tree: Any) -> bool:
    """Whether every number of a tree of arrays is."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return all(np.isfinite(leaf).all() for leaf in leaves if jax.numpy.issubdtype(leaf.dtype, np.inexact))
