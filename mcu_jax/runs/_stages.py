"""Finished stages on disk, found again by what made them."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mcu_jax import checkpoint, disk, sharding
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
    """Stages as checkpoints in one directory, by the digest of their key.

    own: where stages in progress are, of one run alone; by default among the finished ones, which runs may share.
    """

    def __init__(self, directory: pathlib.Path, own: pathlib.Path | None = None):
        self.directory, self.own = directory, own or directory

    def place(self, stage: Stage) -> pathlib.Path:
        return self.directory / stage.folder

    def partial(self, stage: Stage, *others: Stage) -> pathlib.Path:
        """Where a stage in progress keeps the state of its loops; others: seeds made side by side with it."""
        company = f"-{_config.digest([stage.digest for stage in others])}" if others else ""
        return self.own / f"{stage.folder}{company}.partial"

    def partials(self, stage: Stage) -> list[pathlib.Path]:
        """Of the stage alone, and in whatever company."""
        return sorted(self.own.glob(f"{stage.folder}*.partial"))

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
        """Where another run has meanwhile made the same stage, that is kept: others may be reading it."""
        diverged = made.result.step if isinstance(made.result, Diverged) else None
        values = made.result if stage.values and diverged is None else None
        meta = {
            "label": stage.label,
            "seed": stage.seed,
            "key": stage.key,
            "seconds": made.spent.seconds,
            "compile_seconds": made.spent.compile_seconds,
            "diverged": diverged,
            "values": _strict(values),
            "environment": _environment.environment(),
        }
        place, tree = self.place(stage), {} if stage.values or diverged is not None else made.result
        save(place, tree, meta, keep=True)
        self.remove(*self.partials(stage))

    def remove(self, *places: pathlib.Path) -> None:
        if sharding.is_first():
            for place in places:
                shutil.rmtree(place, ignore_errors=True)
            if self.own != self.directory:
                with contextlib.suppress(OSError):
                    self.own.rmdir()

    def sweep(self) -> None:
        """Removes what killed saves left: their own, and the states of stages that are finished."""
        for directory in {self.directory, self.own, *self.own.glob("*.partial")}:
            if directory.is_dir():
                checkpoint.sweep(directory)
        for left in sorted(self.own.glob("*.partial")):
            alone = left.name.removesuffix(".partial")
            if any(checkpoint.exists(self.directory / folder) for folder in (alone, alone.rpartition("-")[0])):
                self.remove(left)

    def damaged(self, stage: Stage) -> Iterator[tuple[pathlib.Path, checkpoint.DamagedCheckpointError]]:
        """What of the stage, finished or in progress, is not as it was saved: what to set aside, and why."""
        place = self.place(stage)
        if os.path.lexists(place):
            yield from _damage(place, place, read)
            return
        for left in self.partials(stage):
            loops = sorted(left.glob("loop-*"))
            yield from next(filter(None, ([*_damage(left, loop, read_loop)] for loop in loops)), [])


def _damage(
    whole: pathlib.Path, place: pathlib.Path, read: Callable[[pathlib.Path], Any]
) -> Iterator[tuple[pathlib.Path, checkpoint.DamagedCheckpointError]]:
    def found() -> checkpoint.DamagedCheckpointError | None:
        try:
            read(place)
        except checkpoint.DamagedCheckpointError as error:
            return error
        return None

    if found():
        with disk.in_turn(place.parent):  # once more, while no other process exchanges what is read
            if error := found():
                yield whole, error


def save(place: pathlib.Path, tree: Any, meta: dict[str, Any], *, keep: bool = False) -> None:
    """`checkpoint.save`, by one of the processes for all. keep: what is there already."""
    whole = sharding.fetch(tree)
    if sharding.is_first() and not (keep and checkpoint.exists(place)):
        checkpoint.save(place, whole, meta)
    sharding.wait(str(place))


def save_loop(place: pathlib.Path, tree: Any, meta: dict[str, Any]) -> None:
    """The state of a loop of a stage in progress, which says whose it is."""
    if place.parent.is_symlink():
        place.parent.unlink()
    save(place, tree, {**meta, "loop": _loop(place)})


def read_loop(place: pathlib.Path, like: Any = None) -> tuple[dict[str, Any], Any]:
    """(what was told beside it, the state of a loop). Raises DamagedCheckpointError, also for another loop's."""
    meta = checkpoint.read_meta(place)
    if meta.get("loop") != _loop(place):
        raise checkpoint.damaged(place, f"it holds the state of another loop, {meta.get('loop')!r}")
    return meta, checkpoint.load(place, like)


def _loop(place: pathlib.Path) -> str:
    return f"{place.parent.name}/{place.name}"


def read(place: pathlib.Path) -> tuple[dict[str, Any], Any]:
    """(what is known of a finished stage, its arrays or values). Raises DamagedCheckpointError."""
    meta = read_meta(place)
    if meta["values"] is not None:
        return meta, _loose(meta["values"])
    return meta, jax.tree.map(jax.numpy.asarray, checkpoint.load(place))


def read_meta(place: pathlib.Path) -> dict[str, Any]:
    """What is known of a finished stage, without a look at its arrays. Raises DamagedCheckpointError."""
    if os.path.lexists(place) and not place.is_dir():
        raise checkpoint.damaged(place, "it is no folder")
    meta = checkpoint.read_meta(place)
    if not place.name.endswith(f"-{_config.digest(meta.get('key'))}"):
        raise checkpoint.damaged(place, f"it holds another stage, {meta.get('label')!r}")
    return meta


_NO_NUMBERS = ("nan", "inf", "-inf")


def _strict(values: Any) -> Any:
    """As JSON has it, which knows no NaN: {"float": "nan"}."""
    if isinstance(values, Mapping):
        return {name: _strict(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_strict(value) for value in values]
    return {"float": repr(float(values))} if isinstance(values, float) and not math.isfinite(values) else values


def _loose(values: Any) -> Any:
    """What `_strict` was given."""
    if isinstance(values, Mapping):
        if set(values) == {"float"} and values["float"] in _NO_NUMBERS:
            return float(values["float"])
        return {name: _loose(value) for name, value in values.items()}
    return [_loose(value) for value in values] if isinstance(values, list) else values


def is_finite(tree: Any) -> bool:
    """Whether every number of a tree of arrays is."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return all(np.isfinite(leaf).all() for leaf in leaves if jax.numpy.issubdtype(leaf.dtype, np.inexact))
