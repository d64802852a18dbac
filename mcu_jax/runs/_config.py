"""The configuration of a run: what every job is asked, how it is read, and what it comes to."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import pathlib
import typing
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeVar

import yaml

from mcu_jax import (
    base,
    connect,
    curricula,
    curves,
    datasets,
    masks,
    methods,
    models,
    optimizers,
    paths,
    registry,
    splits,
)
from mcu_jax.runs import _recipes


class ConfigError(ValueError):
    """Something asked for that cannot be: what was expected, what was given, what to do."""


@contextlib.contextmanager
def checking() -> Iterator[None]:
    """What the library refuses inside, before any work, is the user's: raised as ConfigError."""
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
    except (TypeError, AttributeError) as error:  # a value of a kind nobody foresaw
        raise ConfigError(f"the configuration cannot be used: {error}") from error


@dataclasses.dataclass(frozen=True)
class Train:
    """How original and retrained model are trained."""

    epochs: int | None = None
    """Passes over the training set (default: the recipe's)."""
    lr: float | None = None
    """Learning rate at the start, falling to 0 along half a cosine (default: the recipe's)."""
    batch_size: int | None = None
    """Examples in a mini-batch: here, in every method, on the path (default: the recipe's)."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What every job is asked: data, model, the request to forget, seeds, places."""

    KIND: ClassVar[str]
    """The job, as the command line and `results.json` name it."""
    EXTENDABLE: ClassVar[tuple[str, ...]]
    """What may differ between a run directory and a command that goes on with it."""

    dataset: str = "digits"
    """digits (embedded), or the name of an image-classification set prepared by tensorflow-datasets."""
    data_dir: str | None = None
    """Where tensorflow-datasets prepared it (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets)."""
    train_size: int | None = None
    """Training images, a seeded sample (default: the recipe's, else all)."""
    validation_size: int | None = None
    """Validation images, never trained on (default: the recipe's)."""
    model: str | None = None
    """NAME or NAME:key=value, as preresnet:depth=20 (default: the data set's)."""
    train: Train = Train()
    forget: str | None = None
    """random:FRACTION, class:NUMBER or class:NAME (default: the recipe's)."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Replicates: each draws its own forget set, original and retrained model."""
    out: str | None = None
    """Run directory (default: runs/ and a name made from the configuration)."""
    stages: str | None = None
    """Where finished stages are kept; runs that share it make none twice (default: stages/ in the run directory)."""


AnySettings = TypeVar("AnySettings", bound=Settings)

NOT_SETTINGS = ("kind", "resolved")
"""Keys under which a run's configuration tells the job, and what its hyper-parameters come to."""

PLACES = ("out", "stages", "data_dir")
"""Where things are, which changes no result."""


# Reading


def from_mapping(values: Mapping[str, Any], kind: type[AnySettings]) -> AnySettings:
    """Settings of one kind from nested mappings, as in a YAML file.

    Raises ConfigError for an unknown key, a wrong type, or the configuration of another job.
    """
    if values.get("kind", kind.KIND) != kind.KIND:
        raise ConfigError(f"this is the configuration of `mcu-jax {values['kind']}`, not of `mcu-jax {kind.KIND}`")
    return _build(kind, {k: v for k, v in values.items() if k not in NOT_SETTINGS}, "")


def read_yaml(file: str | pathlib.Path) -> dict[str, Any]:
    """The settings in a YAML file, as `from_mapping` takes them. Raises ConfigError where it cannot be read."""
    try:
        values = yaml.safe_load(pathlib.Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the configuration file {file} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration file {file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(
            f"the configuration file {file} must hold `key: value` lines, as config.yaml in a run directory"
        )
    return values


def _build(kind: Any, values: Mapping[str, Any], prefix: str) -> Any:
    fields = {f"{prefix}{f.name}": f for f in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    made: dict[str, Any] = {}
    for given, value in values.items():
        name = f"{prefix}{given}".replace("-", "_")
        try:
            registry.check(name, fields, "setting")
        except registry.UnknownNameError as error:
            raise ConfigError(str(error)) from error
        made[fields[name].name] = _typed(value, fields[name], hints[fields[name].name], name)
    return kind(**made)


_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a word",
    "tuple[int, ...]": "a list of whole numbers",
    "tuple[float, ...]": "a list of numbers",
    "tuple[str, ...]": "a list of words",
}


def _typed(value: Any, field: dataclasses.Field, hint: Any, where: str) -> Any:
    annotation = str(field.type)
    kind = annotation.removesuffix(" | None")
    if kind in ("int", "float") and isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)  # YAML reads 1e-3 as a word
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, Mapping):
            return _build(hint, value, f"{where}.")
        group = f"a group of settings ({', '.join(f.name for f in dataclasses.fields(hint))})"
        raise ConfigError(f"setting {where} takes {group}, given {value!r}")
    if value is None and "None" in annotation:
        return None
    if annotation.startswith("tuple"):
        items = value if isinstance(value, list | tuple) else [value]
        of = {"int": int, "float": float, "str": str}[annotation.removeprefix("tuple[").partition(",")[0]]
        if of is float:
            items = [float(item) if isinstance(item, int) and not isinstance(item, bool) else item for item in items]
        if all(isinstance(item, of) and not isinstance(item, bool) for item in items):
            return tuple(items)
    elif annotation.startswith("float") and number:
        return float(value)
    elif annotation.startswith("int") and number and float(value).is_integer():
        return int(value)
    elif annotation.startswith("str") and (isinstance(value, str) or number):
        return str(value)
    raise ConfigError(f"setting {where} takes {_KINDS[kind]}, given {value!r}")


# What it comes to


@dataclasses.dataclass(frozen=True)
class Resolved:
    """A configuration with everything filled in and checked, and what it names.

    config: no field is None but places. fraction or forgotten: of the forget request, the other None.
    methods: (name, hyper-parameters) by the spec they are asked for with.
    """

    config: Any
    data: datasets.Data
    model: base.Model
    fraction: float | None
    forgotten: int | None
    methods: Mapping[str, tuple[str, dict[str, Any]]]

    def as_dict(self) -> dict[str, Any]:
        """The configuration, without places, as plain JSON and YAML values."""
        resolved = {spec: {"method": name, **options} for spec, (name, options) in self.methods.items()}
        asked = {name: value for name, value in dataclasses.asdict(self.config).items() if name not in PLACES}
        return json.loads(json.dumps({"kind": self.config.KIND, **asked, "resolved": resolved}))

    def identity(self) -> dict[str, Any]:
        """What makes this run another run."""
        return identity(self.as_dict(), type(self.config))


def identity(values: Mapping[str, Any], kind: type[Settings]) -> dict[str, Any]:
    """Of a run's configuration as `Resolved.as_dict` gives it, all but what extends a run, and places."""
    apart = (*kind.EXTENDABLE, *PLACES)
    resolved = {
        spec: {name: value for name, value in options.items() if name not in apart}
        for spec, options in values["resolved"].items()
    }
    kept = {name: value for name, value in values.items() if name not in (*apart, "kind")}
    return kept | {"resolved": resolved}


def named_model(config: Settings) -> tuple[str, str, dict[str, Any]]:
    """(as asked for, name, hyper-parameters) of the model. Raises ConfigError or UnknownNameError."""
    spec = config.model or _recipes.MODELS.get(config.dataset, "cnn")
    name, options = registry.parse(spec)
    registry.check(name, models.NAMES, "model")
    return spec, name, registry.bind(getattr(models, name), options, f"model {name}")


def fill(config: AnySettings, model: str, recipe: Mapping[str, Any], **more: Any) -> AnySettings:
    """The configuration with the recipe where nothing was asked for; more: what else is filled in."""
    train = {name: or_else(getattr(config.train, name), recipe["train"][name]) for name in recipe["train"]}
    check_options("", {f"train.{name}": value for name, value in train.items()})
    return dataclasses.replace(
        config,
        model=model,
        train_size=or_else(config.train_size, recipe["train_size"]),
        validation_size=or_else(config.validation_size, recipe["validation_size"]),
        forget=or_else(config.forget, recipe["forget"]),
        train=Train(**train),
        **more,
    )


def or_else(value: Any, default: Any) -> Any:
    return default if value is None else value


def common(config: Settings) -> dict[str, Any]:
    """What `Resolved` holds for every job, but the methods: the data set is read last."""
    _, name, options = named_model(config)
    seeds = config.seeds
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**32 for seed in seeds):
        raise ConfigError(f"seeds are one or more different whole numbers from 0 on, given {list(seeds)}")
    kind, _, value = config.forget.partition(":")  # type: ignore[union-attr]
    if kind not in ("random", "class") or not value:
        raise ConfigError(f"forget is random:FRACTION, class:NUMBER or class:NAME; given {config.forget!r}")
    wanted = fraction(value) if kind == "random" else None
    data = datasets.load(config.dataset, config.data_dir)
    return {
        "data": data,
        "model": getattr(models, name)(num_classes=len(data.class_names), **options),
        "fraction": wanted,
        "forgotten": splits.class_index(value, data.class_names) if kind == "class" else None,
    }


def fraction(text: str) -> float:
    """Of the training examples, those to forget. Raises SplitError outside (0, 1)."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < 1:
        raise splits.SplitError(f"a forget fraction lies inside (0, 1), as in random:0.1; given random:{text}")
    return value


def method_options(
    spec: str, recipe: Mapping[str, Any], batch_size: int | None, given: Mapping[str, Any] | None = None
) -> tuple[str, dict[str, Any]]:
    """(name, hyper-parameters) of NAME:key=value: signature, then `given`, then the recipe, then what is asked for."""
    name, options = registry.parse(spec)
    method = registry.get(methods, name, "method")
    _check_composable(name, method, options)
    options = registry.bind(method, options, f"method {name}")
    schema = registry.schema(method)
    common = {"batch_size": batch_size} if "batch_size" in schema else {}
    found = {**schema, **common, **(given or {}), **recipe["methods"].get(name, {}), **options}
    if "optimizer" in found:
        chosen = registry.parse(found["optimizer"])[0]
        if "lr" not in options:
            found["lr"] *= recipe["optimizers"].get(chosen, 1.0)
        optimizers.make(found["optimizer"], found["lr"])
        curricula.make(found["curriculum"])
    check_options(f"{spec}: ", found)
    return name, _mcu(found) if name == "mcu" else found


def _mcu(options: dict[str, Any]) -> dict[str, Any]:
    """Hyper-parameters of `methods.mcu`, checked, its curve and bends apart."""
    beta(options["beta"])
    registry.check(options["mask"], MASKS, "mask kind")
    paths.points(options["points"])
    found, bends = path_curve(options["curve"])
    return options | {"curve": found.__name__, "bends": bends if ":" in options["curve"] else options["bends"]}


def _check_composable(name: str, method: Any, options: Mapping[str, Any]) -> None:
    """A curriculum or an optimiser is for methods that descend a loss of their own from the original."""
    asked = {"curriculum", "optimizer"} & set(options)
    if asked and "optimizer" not in registry.schema(method):
        kind = {"mcu": "trains a path", "retrain": "is trained as the original was"}.get(name, "is a closed form")
        able = [each for each in methods.NAMES if "optimizer" in registry.schema(getattr(methods, each))]
        raise ConfigError(f"{name} {kind}, which takes no {' or '.join(sorted(asked))}; these do: {', '.join(able)}")


MASKS = ("mcu", "random", "none")


def beta(text: float | str) -> float | str:
    """A forgetting penalty: "adaptive" or a number from 0 on, else ConfigError."""
    if text == connect.ADAPTIVE:
        return text
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value < float("inf"):
        raise ConfigError(f"beta is {connect.ADAPTIVE!r} or a number from 0 on, given {text!r}")
    return value


def curve(spec: str) -> tuple[base.Curve, int]:
    """(curve, its inner points, 0 for a straight line) of NAME or NAME:bends=N."""
    name, options = registry.parse(spec)
    found = registry.get(curves, name, "curve")
    if found is curves.linear:
        if options:
            raise ConfigError(f"linear has no inner point and takes no options, given {spec!r}")
        return found, 0
    bends = options.get("bends", 1)
    if set(options) - {"bends"} or not isinstance(bends, int | float) or bends < 1 or not float(bends).is_integer():
        raise ConfigError(f"a curve is NAME or NAME:bends=N with N from 1 on, given {spec!r}")
    return found, int(bends)


def path_curve(spec: str) -> tuple[base.Curve, int]:
    """As `curve`, of a path that is trained."""
    found, bends = curve(spec)
    if found is curves.linear:
        raise ConfigError("linear has no inner point to train: choose bezier or polychain; the line is reported anyway")
    return found, bends


_POSITIVE = {
    *("epochs", "steps", "lr", "batch_size", "fisher_batch", "forget_every", "clip", "bends", "retain_fraction"),
    *("samples", "damping", "temperature", "limit", "sample"),
}
_FRACTIONS = {"keep", "retain_filter", "retain_fraction"}


def check_options(prefix: str, options: Mapping[str, Any]) -> None:
    """Raises ConfigError for a number no method can use."""
    for where, value in options.items():
        name = where.rpartition(".")[2]
        if name in _POSITIVE and not (value > 0 and math.isfinite(value)):
            raise ConfigError(f"{prefix}{where} must be a number above 0, given {value}")
        if name in _FRACTIONS:
            masks.check_fraction(f"{prefix}{where}", value)
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{prefix}{where} must be a finite number, given {value}")


def digest(values: Any) -> str:
    """A short content address of JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
