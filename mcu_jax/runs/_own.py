"""What a user brings: a model in a Python file, trained weights, a forget set. Each is checked, and has a digest."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import pathlib
import sys
from typing import Any, NamedTuple

import jax
import numpy as np

from mcu_jax import base, checkpoint, registry, splits, text, weights
from mcu_jax.runs import _files

LARGEST_FILE = 20_000_000
"""Bytes of a list of indices."""


def is_model_file(spec: str) -> bool:
    """Whether a model is asked for as FILE.py:NAME."""
    return ".py:" in spec


def model(spec: str, num_classes: int) -> tuple[base.Model, str]:
    """(the model, its digest) of FILE.py:NAME: a `base.Model`, or a function that returns one, given `num_classes` if
    it takes that. digest: of the file and the name; not of what the file imports.

    Runs the file. Raises UserError where it cannot be read or run, has no such name, or that is no model.
    """
    file, _, name = spec.rpartition(":")
    shown = f"the model file {text.plain(file)}"
    try:
        source = pathlib.Path(file).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        raise base.UserError(f"{shown} cannot be read: {getattr(error, 'strerror', error)}") from error
    digest = hashlib.sha256(source).hexdigest()
    module = _run(file, f"_mcu_jax_model_{digest[:16]}", shown)
    names = [key for key, value in vars(module).items() if not key.startswith("_") and _may_be_a_model(value, module)]
    registry.check(name, names, f"model in {text.plain(file)}")
    made = getattr(module, name)
    if not isinstance(made, base.Model):
        options = {"num_classes": num_classes} if "num_classes" in inspect.signature(made).parameters else {}
        try:
            made = made(**options)
        except (Exception, SystemExit) as error:
            raise base.UserError(f"{shown}: {name} failed: {_told(error)}") from error
    if not isinstance(made, base.Model):
        raise base.UserError(
            f"{shown}: {name} must be a mcu_jax.Model, or a function that returns one, as mcu_jax.models.adapt does; "
            f"it gives {type(made).__name__}"
        )
    return made, f"{digest}:{name}"


def _run(file: str, name: str, shown: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as dataclasses in it need
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script of one's own may end with sys.exit
        raise base.UserError(f"{shown} cannot be run: {_told(error)}") from error
    return module


def _may_be_a_model(value: Any, module: Any) -> bool:
    return isinstance(value, base.Model) or (callable(value) and getattr(value, "__module__", "") == module.__name__)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {text.plain(error)}"


def is_weights(place: str) -> bool:
    """Whether it is where weights are, and no method's name: a path, as ./npo, or a file by its ending."""
    return "/" in place or place.endswith((*weights.FORMATS, *weights.PICKLES))


class Weights(NamedTuple):
    """Of a trained model, on the host. stats: BatchNorm's, an empty tree where there are none."""

    params: base.Params
    stats: base.Stats

    @property
    def digest(self) -> str:
        """Of the parameters alone, where that is all there is."""
        return checkpoint.digest(self._asdict() if jax.tree.leaves(self.stats) else self.params)


def params(place: str, model: base.Model, like: Any, example: Any, setting: str) -> Weights:
    """What is in a checkpoint of ours: a stage of a run, what `export` or `checkpoint.save` wrote; or in a file of
    others (`weights.read`).

    like: the shapes that the model has. example: inputs of it. Raises UserError where there is none, or it is of
    another model: the first leaf that differs, and both shapes; and where it is damaged.
    """
    shown = text.plain(place)
    _files.place(place, setting)
    if place.endswith((*weights.FORMATS, *weights.PICKLES)) and not pathlib.Path(place).is_dir():
        return jax.device_get(Weights(*weights.read(place, model.name, like, _statistics(model, like, example))))
    if not checkpoint.exists(place):
        if (pathlib.Path(place) / "stages.json").exists():
            raise base.UserError(
                f"{setting}: {shown} is a run directory; give one of its models, as `mcu-jax export {shown} --to DIR "
                "--method original` writes it"
            )
        if pathlib.Path(place).is_file():
            raise base.UserError(
                f"{setting}: {shown} is no checkpoint: weights are a folder, as `mcu-jax export` writes it, or a file "
                f"whose name ends in {' or '.join(weights.FORMATS)}"
            )
        raise base.UserError(f"{setting}: there is no checkpoint in {shown}")
    try:
        found = checkpoint.load(place)
        wrapped = isinstance(found, dict) and "params" in found and set(found) <= {"params", "stats", "t", "keep"}
        found_stats = wrapped and bool(jax.tree.leaves(found.get("stats", {})))
        expected = {"params": like, **({"stats": _statistics(model, like, example)} if found_stats else {})}
        tree = checkpoint.load(place, {**found, **expected} if wrapped else like)
    except checkpoint.DamagedCheckpointError as error:
        raise base.UserError(f"{setting}: {str(error).partition(';')[0]}; give a whole copy of it") from error
    except checkpoint.UnreadableCheckpointError as error:
        raise base.UserError(f"{setting}: {error}") from error
    except ValueError as error:
        raise base.UserError(f"{setting} is of another model than the run's: {error}") from error
    own = Weights(tree["params"] if wrapped else tree, tree["stats"] if found_stats else {})
    for leaf in jax.tree.leaves(own):
        if not np.isfinite(leaf).all():
            raise base.UserError(f"{setting}: weights in {shown} are not finite")
    return own


def _statistics(model: base.Model, params: Any, example: Any) -> Any:
    """The shapes of the model's."""
    return jax.eval_shape(lambda params: model.apply(params, example)[1], params)


def forget(file: str, data_hash: str, n: int) -> tuple[np.ndarray, str]:
    """(sorted indices, digest) of a forget set: a JSON list of indices into the canonical training order of n examples,
    or an object with that list as `forget` and, to be checked, `data_hash`.

    Raises SplitError for a file that cannot be read, indices out of range, given twice, none or all.
    """
    shown = f"the forget set {text.plain(file)}"
    try:
        with pathlib.Path(file).open("rb") as opened:
            content = opened.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise base.UserError(f"it has more than {LARGEST_FILE} bytes")
        values = json.loads(content)
    except OSError as error:
        raise splits.SplitError(f"{shown} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise splits.SplitError(f"{shown} is not JSON: {text.plain(error)}") from error
    whole = values if isinstance(values, dict) else {"forget": values}
    values, given_hash = whole.get("forget"), whole.get("data_hash")
    if not isinstance(values, list) or not all(type(index) is int for index in values):
        raise splits.SplitError(f"{shown} must be a list of whole numbers, or an object with such a list as `forget`")
    if given_hash not in (None, data_hash):
        raise splits.SplitError(
            f"{shown} was made for data of hash {text.plain(given_hash)[:12]}…, this data has {data_hash[:12]}…: its "
            "indices would mean other examples"
        )
    outside = [index for index in values if not 0 <= index < n]
    if outside:
        raise splits.SplitError(f"{shown}: indices lie from 0 to {n - 1}, given {text.show(outside[0])}")
    indices = np.unique(np.array(values, np.int64))
    if len(indices) < len(values):
        repeated = text.plural(len(values) - len(indices), "index", "indices")
        raise splits.SplitError(f"{shown} has {repeated} more than once")
    if not 0 < len(indices) < n:
        raise splits.SplitError(
            f"{shown} has {len(indices)} of {text.plural(n, 'training example')}: give some, not all"
        )
    return indices, hashlib.sha256(indices.tobytes()).hexdigest()


def carve(n: int, train_size: int | None, validation_size: int, forget: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `splits.carve`, with the forget set inside the training sample. Raises SplitError."""
    others = np.setdiff1d(np.arange(n), forget)
    rest = None if train_size is None else train_size - len(forget)
    if rest is not None and rest < 1:
        raise splits.SplitError(
            f"the retain set is empty: a train size of {train_size} and {len(forget)} examples to forget"
        )
    train, validation = splits.carve(len(others), rest, validation_size, 0)
    return np.sort(np.concatenate([forget, others[train]])), others[validation]
