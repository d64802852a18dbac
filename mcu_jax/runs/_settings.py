"""What every job is asked, and how it is read from a file, a command line or Python."""

from __future__ import annotations

import contextlib
import dataclasses
import numbers
import os
import pathlib
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar

from mcu_jax import base, registry, text
from mcu_jax.base import Count, Positive, Range


class ConfigError(base.UserError):
    """Something asked for that cannot be: what was expected, what was given, what to do."""


@contextlib.contextmanager
def checking() -> Iterator[None]:
    """What the library refuses inside, before any work, is the user's: raised as ConfigError."""
    try:
        yield
    except ConfigError:
        raise
    except (base.UserError, text.TextError) as error:
        raise ConfigError(str(error)) from error


POINTS = Range("at least 4 points, at most 100001", lambda n: 4 <= n <= 100_001)
SEEDS = Range(
    "one to 1000 different whole numbers from 0 on",
    lambda seeds: 0 < len(seeds) == len(set(seeds)) <= 1000 and all(0 <= seed < 2**32 for seed in seeds),
)
FEW = Range("at most 100 of them", lambda items: len(items) <= 100)
"""Every method meets every other one in a grid."""
FLOAT32 = "float32"
PRECISION = Range("float32 or bfloat16", (FLOAT32, "bfloat16").__contains__)


class Group(NamedTuple):
    """Of a setting: where help shows it, one of `GROUPS`. usual: on the first screen too."""

    title: str
    usual: bool = False


GROUPS = (
    *("data", "model and training", "unlearning", "pairs", "path", "mask and penalty", "tuning"),
    *("evaluation", "output", "devices"),
)
"""In the order of help."""


@dataclasses.dataclass(frozen=True)
class Train:
    """How original and retrained model are trained."""

    epochs: Annotated[int | None, Count, "Passes over the training set (default: the recipe's)."] = None
    lr: Annotated[
        float | None, Positive, "Learning rate at the start, falling to 0 along half a cosine (default: the recipe's)."
    ] = None
    batch_size: Annotated[
        int | None, Count, "Examples in a mini-batch: here, in every method, on the path (default: the recipe's)."
    ] = None


@dataclasses.dataclass(frozen=True)
class Settings:
    """What every job is asked: data, model, the request to forget, seeds, places.

    A setting's annotation holds its type, its range where it has one, and its help.
    """

    KIND: ClassVar[str]
    """The job, as the command line and `results.json` name it."""
    EXTENDABLE: ClassVar[tuple[str, ...]]
    """What may differ between a run directory and a command that goes on with it."""

    dataset: Annotated[
        str,
        Group("data", usual=True),
        "digits (embedded), folder:DIR of pictures, or the name of an image-classification set prepared by "
        "tensorflow-datasets.",
    ] = "digits"
    data_dir: Annotated[
        str | None,
        Group("data", usual=True),
        "Where tensorflow-datasets prepared it (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets).",
    ] = None
    data: Annotated[
        str | None,
        Group("data"),
        "FILE.npz with arrays train_x, train_y, test_x and test_y, in place of --dataset and --data-dir.",
    ] = None
    train_size: Annotated[
        int | None, Group("data"), Count, "Training images, a seeded sample (default: the recipe's, else all)."
    ] = None
    validation_size: Annotated[
        int | None,
        Group("data"),
        Count,
        "Validation images, never trained on (default: the recipe's, else 2000, or a fifth where that is less).",
    ] = None
    model: Annotated[
        str | None,
        Group("model and training", usual=True),
        "NAME or NAME:key=value, as preresnet:depth=20, or FILE.py:NAME, a function there that returns a Model "
        "(default: the data set's).",
    ] = None
    precision: Annotated[
        str | None,
        Group("devices"),
        PRECISION,
        "float32, or bfloat16: the network computes in it, cheaper on a GPU or TPU, while parameters, losses, "
        "BatchNorm's moments and what an optimiser keeps stay float32. Accuracies move by some tenths of a point "
        "(default: float32).",
    ] = None
    augment: Annotated[
        str | None,
        Group("model and training"),
        "What training does to its images: none, or NAME or NAME:key=value, several joined by +, as "
        "random_resized_crop:scale=0.2+flip (default: the data set's own).",
    ] = None
    normalize: Annotated[
        str | None,
        Group("model and training"),
        "What images of 0 to 1 are to the model, (x − mean) / std: half (−1 to 1), unit (as they are), imagenet (of "
        "torchvision's weights), cifar10, cifar100, or own:mean=[0.5,0.5,0.5],std=[0.2,0.2,0.2] (default: half; models "
        "of one's own are given the data as they are).",
    ] = None
    original: Annotated[
        str | None,
        Group("model and training"),
        "Weights to unlearn from, in place of training for every seed: a checkpoint as export writes it, "
        "FILE.safetensors of PyTorch, or FILE.npz of the public JAX ViT; torchvision's want --normalize imagenet. "
        "Validation images are drawn from the training examples all the same: where it was trained on them, t* is "
        "chosen by images it has seen.",
    ] = None
    recipe: Annotated[
        str | None,
        Group("model and training"),
        "Recipe file that `mcu-jax tune` wrote: its values take the place of the library's own recipe, also for the "
        "sizes, the request and the training of the original; what is asked for here wins. Data and model must be its "
        "own, and no seed that it was tuned on is reported.",
    ] = None
    train: Annotated[Train, Group("model and training")] = Train()
    forget: Annotated[
        str | None,
        Group("data", usual=True),
        "random:FRACTION, class:NUMBER, class:NAME, or FILE.json with a list of indices into the training examples "
        "(default: the recipe's).",
    ] = None
    seeds: Annotated[
        tuple[int, ...],
        Group("evaluation", usual=True),
        SEEDS,
        "Replicates: each draws its own forget set, original and retrained model.",
    ] = (0, 1, 2, 3, 4)
    out: Annotated[
        str | None,
        Group("output", usual=True),
        "Run directory (default: runs/ and a name made from the configuration).",
    ] = None
    stages: Annotated[
        str | None,
        Group("output"),
        "Where finished stages are kept; runs that share it make none twice (default: stages/ in the run directory).",
    ] = None


AnySettings = TypeVar("AnySettings", bound=Settings)

NOT_SETTINGS = ("kind", "resolved", "digests")
"""Keys under which a run's configuration tells the job, and what its hyper-parameters and files come to."""

PLACES = ("out", "stages", "data_dir", "to")
"""Where things are, which changes no result."""

BROUGHT = ("data", "augment", "normalize", "original", "sample", "recipe", "precision", "plane")
"""What a configuration tells only where it is asked for."""


# Reading


def from_mapping(values: Mapping[str, Any], kind: type[AnySettings]) -> AnySettings:
    """Settings of one kind from nested mappings, as in a YAML file.

    Raises ConfigError for an unknown key, a wrong type, a value out of range, or the configuration of another job.
    """
    if values.get("kind", kind.KIND) != kind.KIND:
        other = text.plain(values["kind"])
        raise ConfigError(f"this is the configuration of `mcu-jax {other}`, not of `mcu-jax {kind.KIND}`")
    for name in ("resolved", "digests"):
        if not isinstance(values.get(name, {}), Mapping):
            raise ConfigError(f"{name} is written by a run, as `key: value` lines; given {text.show(values[name])}")
    return build(kind, {k: v for k, v in values.items() if k not in NOT_SETTINGS})


def checked(config: AnySettings) -> AnySettings:
    """A configuration made in Python, read as one from a file is. Raises ConfigError."""
    return from_mapping(dataclasses.asdict(config), type(config))


def read_yaml(file: str | pathlib.Path) -> dict[str, Any]:
    """The settings in a YAML file, as `from_mapping` takes them. Raises ConfigError where it cannot be read."""
    try:
        values = text.read_file(file)
    except text.TextError as error:
        raise ConfigError(f"the configuration file {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(
            f"the configuration file {text.plain(file)} must hold `key: value` lines, as config.yaml in a run directory"
        )
    return values


class Setting(NamedTuple):
    """What a field's annotation says. kind: a type, `tuple[type, ...]` or a dataclass. help: empty for a dataclass.

    group: of help, None of a setting that is in none.
    """

    kind: Any
    optional: bool
    ranges: tuple[Range, ...]
    help: str
    default: Any
    group: Group | None = None


def settings(kind: type) -> dict[str, Setting]:
    """The fields of a dataclass of settings by name."""
    hints = typing.get_type_hints(kind, include_extras=True)
    found = {}
    for field in dataclasses.fields(kind):
        hint: Any = hints[field.name]
        notes: list[Any] = []
        if typing.get_origin(hint) is Annotated:
            hint, *notes = typing.get_args(hint)
        union = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        (one,) = (part for part in union if part is not types.NoneType)
        ranges = tuple(note for note in notes if isinstance(note, Range))
        told = next((note for note in notes if isinstance(note, str)), "")
        group = next((note for note in notes if isinstance(note, Group)), None)
        found[field.name] = Setting(one, len(union) > 1, ranges, told, field.default, group)
    return found


def build(kind: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    """A dataclass of settings from values by name. Raises ConfigError as `from_mapping`, and where one is missing."""
    known = {f"{prefix}{name}": (name, setting) for name, setting in settings(kind).items()}
    made: dict[str, Any] = {}
    for given, value in values.items():
        where = f"{prefix}{given}".replace("-", "_")
        try:
            registry.check(where, known, "setting")
        except registry.UnknownNameError as error:
            raise ConfigError(str(error)) from error
        name, setting = known[where]
        made[name] = _read(value, setting, where)
    for where, (name, setting) in known.items():
        if name not in made and setting.default is dataclasses.MISSING:
            raise ConfigError(f"setting {where} is missing")
    return kind(**made)


_WORDS = {int: "a whole number", float: "a number", str: "a word"}


def _read(value: Any, setting: Setting, where: str) -> Any:
    if dataclasses.is_dataclass(setting.kind):
        if isinstance(value, Mapping):
            return build(setting.kind, value, f"{where}.")
        group = f"a group of settings ({', '.join(f.name for f in dataclasses.fields(setting.kind))})"
        raise ConfigError(f"setting {where} takes {group}, given {text.show(value)}")
    if value is None and setting.optional:
        return None
    (kind, *several) = typing.get_args(setting.kind) or (setting.kind,)
    try:
        if several:
            read: Any = tuple(
                _scalar(item, kind) for item in (value if isinstance(value, list | tuple | range) else [value])
            )
        else:
            read = _scalar(value, kind)
    except (ValueError, OverflowError):
        words = f"a list of {_WORDS[kind].removeprefix('a ')}s" if several else _WORDS[kind]
        raise ConfigError(f"setting {where} takes {words}, given {text.show(value)}") from None
    for word in read if isinstance(read, tuple) else (read,):
        if isinstance(word, str) and text.printable(word) != word:
            raise ConfigError(f"setting {where} holds a control character: {text.show(value)}")
    for allowed in setting.ranges:
        if not allowed.holds(read):
            raise ConfigError(f"setting {where} takes {allowed.words}, given {text.show(value)}")
    return read


def _scalar(value: Any, kind: type) -> Any:
    """Raises ValueError for a value that is not of this kind."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if kind is str and (number or isinstance(value, str | os.PathLike)):
        return str(value)
    if kind is float and number:
        return float(value)
    if kind is int and number and (isinstance(value, numbers.Integral) or float(value).is_integer()):
        return int(value)
    raise ValueError(kind)
