"""The configuration of a run: what was asked for, and what that comes to."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

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
class MaskConfig:
    """Which weights of the path's inner points are trained."""

    kind: str = "mcu"
    """mcu (two-stage, whole leaves), random (weights, as many as mcu's), or none (all weights)."""
    keep: float | None = None
    """Share of all weights the mask keeps, in [0, 1] (default: the recipe's)."""
    retain_filter: float | None = None
    """Share of all weights dropped first, those that matter most for the retain set (default: the recipe's)."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Unlearn along a path: original → retrain → pre-unlearned → path → sweep → choice of t, for several seeds."""

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
    pre: str = "random_label"
    """Pre-unlearning method, whose model the path leads to: NAME, or NAME:epochs=5,lr=0.01."""
    baselines: tuple[str, ...] = ()
    """Further methods to compare with, as --pre; mcu:beta=0.2 is another path to the same model."""
    beta: str = connect.ADAPTIVE
    """Forgetting penalty of the path: adaptive, or a number."""
    epochs: int | None = None
    """Epochs of path training (default: the recipe's)."""
    lr: float | None = None
    """Learning rate of path training (default: the recipe's)."""
    curve: str = "bezier"
    """bezier or polychain; with :bends=2 for more than one inner point."""
    mask: MaskConfig = MaskConfig()
    points: int = 21
    """How many t of the path are evaluated, from 0 to 1; at least 4."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Replicates: each draws its own forget set, original and retrained model."""
    out: str | None = None
    """Run directory (default: runs/ and a name made from the configuration)."""
    stages: str | None = None
    """Where finished stages are kept; runs that share it make none twice (default: stages/ in the run directory)."""


RESOLVED = "resolved"
"""Key under which a run's configuration tells the hyper-parameters of every method; not read back as a setting."""

EXTENDABLE = ("seeds", "points")
"""What may differ between a run directory and a command that goes on with it."""

PLACES = ("out", "stages", "data_dir")
"""Where things are, which changes no result."""


def from_mapping(values: Mapping[str, Any]) -> Config:
    """A Config from nested mappings, as in a YAML file. Raises ConfigError for an unknown key or a wrong type."""
    return _build(Config, {k: v for k, v in values.items() if k != RESOLVED}, "")


def from_yaml(file: str | pathlib.Path) -> Config:
    """A Config from a YAML file. Raises ConfigError where it cannot be read, or holds something else."""
    return from_mapping(read_yaml(file))


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
    made: dict[str, Any] = {}
    for given, value in values.items():
        name = f"{prefix}{given}".replace("-", "_")
        try:
            registry.check(name, fields, "setting")
        except registry.UnknownNameError as error:
            raise ConfigError(str(error)) from error
        made[fields[name].name] = _typed(value, fields[name], name)
    return kind(**made)


_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a word",
    "tuple[int, ...]": "a list of whole numbers",
    "tuple[str, ...]": "a list of words",
    "Train": f"a group of settings ({', '.join(f.name for f in dataclasses.fields(Train))})",
    "MaskConfig": f"a group of settings ({', '.join(f.name for f in dataclasses.fields(MaskConfig))})",
}


def _typed(value: Any, field: dataclasses.Field, where: str) -> Any:
    annotation = str(field.type)
    kind = annotation.removesuffix(" | None")
    if kind in ("int", "float") and isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)  # YAML reads 1e-3 as a word
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if annotation in ("Train", "MaskConfig"):
        if isinstance(value, Mapping):
            return _build({"Train": Train, "MaskConfig": MaskConfig}[annotation], value, f"{where}.")
    elif value is None and "None" in annotation:
        return None
    elif annotation.startswith("tuple"):
        items = value if isinstance(value, list | tuple) else [value]
        if "int" not in annotation and all(isinstance(item, str) for item in items):
            return tuple(items)
        if "int" in annotation and all(isinstance(item, int) and not isinstance(item, bool) for item in items):
            return tuple(items)
    elif annotation.startswith("float") and number:
        return float(value)
    elif annotation.startswith("int") and number and float(value).is_integer():
        return int(value)
    elif annotation.startswith("str") and (isinstance(value, str) or number):
        return str(value)
    raise ConfigError(f"setting {where} takes {_KINDS[kind]}, given {value!r}")


@dataclasses.dataclass(frozen=True)
class Resolved:
    """A configuration with everything filled in and checked, and what it names.

    config: no field is None but places. fraction or forgotten: of the forget request, the other None.
    beta: a number or "adaptive". methods: (name, hyper-parameters) by the spec they are asked for with.
    """

    config: Config
    data: datasets.Data
    model: base.Model
    fraction: float | None
    forgotten: int | None
    beta: float | str
    curve: base.Curve
    bends: int
    methods: Mapping[str, tuple[str, dict[str, Any]]]

    def as_dict(self) -> dict[str, Any]:
        """The configuration, without places, as plain JSON and YAML values."""
        resolved = {spec: {"method": name, **options} for spec, (name, options) in self.methods.items()}
        asked = {name: value for name, value in dataclasses.asdict(self.config).items() if name not in PLACES}
        return json.loads(json.dumps({**asked, RESOLVED: resolved}))

    def identity(self) -> dict[str, Any]:
        """What makes this run another run."""
        return identity(self.as_dict())


def identity(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run's configuration as `Resolved.as_dict` gives it, all but what extends a run, and places."""
    apart = (*EXTENDABLE, *PLACES)
    resolved = {
        spec: {name: value for name, value in options.items() if name not in apart}
        for spec, options in values[RESOLVED].items()
    }
    return {name: value for name, value in values.items() if name not in apart} | {RESOLVED: resolved}


def resolve(config: Config) -> Resolved:
    """Fills in the recipe and checks everything that can be checked before any work.

    Raises ConfigError: what was expected, what was given, what to do.
    """
    with checking():
        model_spec = config.model or _recipes.MODELS.get(config.dataset, "cnn")
        model_name, model_options = registry.parse(model_spec)
        registry.check(model_name, models.NAMES, "model")
        constructor = getattr(models, model_name)
        model_options = registry.bind(constructor, model_options, f"model {model_name}")
        recipe = {**_recipes.DEFAULT, **_recipes.RECIPES.get((config.dataset, model_name), {})}
        config = _fill(config, model_spec, recipe)
        curve, bends = _curve(config.curve)
        beta = _beta(config.beta)
        _check_numbers(config)
        specs = _methods(config, recipe)
        kind, _, value = config.forget.partition(":")  # type: ignore[union-attr]
        if kind not in ("random", "class") or not value:
            raise ConfigError(f"forget is random:FRACTION, class:NUMBER or class:NAME; given {config.forget!r}")
        fraction = _fraction(value) if kind == "random" else None
        data = datasets.load(config.dataset, config.data_dir)
        return Resolved(
            config=config,
            data=data,
            model=constructor(num_classes=len(data.class_names), **model_options),
            fraction=fraction,
            forgotten=splits.class_index(value, data.class_names) if kind == "class" else None,
            beta=beta,
            curve=curve,
            bends=bends,
            methods=specs,
        )


def _fill(config: Config, model: str, recipe: Mapping[str, Any]) -> Config:
    def or_recipe(value: Any, default: Any) -> Any:
        return default if value is None else value

    train = {name: or_recipe(getattr(config.train, name), recipe["train"][name]) for name in recipe["train"]}
    mask = {name: or_recipe(getattr(config.mask, name), recipe["mask"][name]) for name in recipe["mask"]}
    return dataclasses.replace(
        config,
        model=model,
        train_size=or_recipe(config.train_size, recipe["train_size"]),
        validation_size=or_recipe(config.validation_size, recipe["validation_size"]),
        forget=or_recipe(config.forget, recipe["forget"]),
        train=Train(**train),
        beta=str(_beta(str(config.beta))),
        mask=dataclasses.replace(config.mask, **mask),
        epochs=or_recipe(config.epochs, recipe["path"]["epochs"]),
        lr=or_recipe(config.lr, recipe["path"]["lr"]),
        baselines=tuple(dict.fromkeys(spec for spec in config.baselines if spec != config.pre)),
    )


def _check_numbers(config: Config) -> None:
    _mask_kind(config.mask.kind)
    paths.points(config.points)
    settings: dict[str, Any] = {
        "mask.keep": config.mask.keep,
        "mask.retain_filter": config.mask.retain_filter,
        "epochs": config.epochs,
        "lr": config.lr,
        "train.epochs": config.train.epochs,
        "train.lr": config.train.lr,
        "train.batch_size": config.train.batch_size,
    }
    _check_options("", settings)
    seeds = config.seeds
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**32 for seed in seeds):
        raise ConfigError(f"seeds are one or more different whole numbers from 0 on, given {list(seeds)}")


_POSITIVE = {
    *("epochs", "steps", "lr", "batch_size", "fisher_batch", "forget_every", "clip", "bends", "retain_fraction"),
    *("samples", "damping", "temperature", "limit"),
}
_FRACTIONS = {"keep", "retain_filter", "retain_fraction"}


def _check_options(prefix: str, options: Mapping[str, Any]) -> None:
    """Raises ConfigError for a number no method can use."""
    for where, value in options.items():
        name = where.rpartition(".")[2]
        if name in _POSITIVE and not (value > 0 and math.isfinite(value)):
            raise ConfigError(f"{prefix}{where} must be a number above 0, given {value}")
        if name in _FRACTIONS:
            masks.check_fraction(f"{prefix}{where}", value)
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{prefix}{where} must be a finite number, given {value}")


def _beta(text: float | str) -> float | str:
    if text == connect.ADAPTIVE:
        return text
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value < float("inf"):
        raise ConfigError(f"beta is {connect.ADAPTIVE!r} or a number from 0 on, given {text!r}")
    return value


def _mask_kind(kind: str) -> None:
    registry.check(kind, ("mcu", "random", "none"), "mask kind")


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < 1:
        raise splits.SplitError(f"a forget fraction lies inside (0, 1), as in random:0.1; given random:{text}")
    return value


def _curve(spec: str) -> tuple[base.Curve, int]:
    name, options = registry.parse(spec)
    curve = registry.get(curves, name, "curve")
    if name == "linear":
        raise ConfigError("linear has no inner point to train: choose bezier or polychain; the line is reported anyway")
    unknown = set(options) - {"bends"}
    bends = options.get("bends", 1)
    if unknown or not isinstance(bends, int | float) or bends < 1 or not float(bends).is_integer():
        raise ConfigError(f"a curve is NAME or NAME:bends=N with N from 1 on, given {spec!r}")
    return curve, int(bends)


def _methods(config: Config, recipe: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    found = {}
    for spec in (config.pre, *config.baselines):
        name, options = registry.parse(spec)
        method = registry.get(methods, name, "method")
        if name == "retrain":
            raise ConfigError(
                "retrain is the yardstick and always computed: it is neither a start for a path nor a baseline"
            )
        if name == "mcu":
            _check_mcu(spec == config.pre, options)
        _check_composable(name, method, options)
        options = registry.bind(method, options, f"method {name}")
        common: dict[str, Any] = (
            {"batch_size": config.train.batch_size} if "batch_size" in registry.schema(method) else {}
        )
        if name == "mcu":
            common |= {"epochs": config.epochs, "lr": config.lr, "pre": config.pre, "points": config.points}
            curve, bends = _curve(config.curve)
            common |= {"beta": _beta(config.beta), "curve": curve.__name__, "bends": bends}
            common |= {
                "keep": config.mask.keep,
                "retain_filter": config.mask.retain_filter,
                "mask": config.mask.kind,
            }
        options = {**registry.schema(method), **common, **recipe["methods"].get(name, {}), **options}
        _check_options(f"{spec}: ", options)
        if "optimizer" in options:
            optimizers.make(options["optimizer"], options["lr"])
            curricula.make(options["curriculum"])
        if name == "mcu":
            _beta(options["beta"])
            _mask_kind(options["mask"])
            curve, bends = _curve(options["curve"])
            options |= {"curve": curve.__name__, "bends": bends if ":" in options["curve"] else options["bends"]}
            paths.points(options["points"])
        found[spec] = (name, options)
    return found


def _check_composable(name: str, method: Any, options: Mapping[str, Any]) -> None:
    """A curriculum or an optimiser is for methods that descend a loss of their own from the original."""
    asked = {"curriculum", "optimizer"} & set(options)
    if asked and "optimizer" not in registry.schema(method):
        kind = "trains a path" if name == "mcu" else "is a closed form"
        able = [each for each in methods.NAMES if "optimizer" in registry.schema(getattr(methods, each))]
        raise ConfigError(f"{name} {kind}, which takes no {' or '.join(sorted(asked))}; these do: {', '.join(able)}")


def _check_mcu(is_pre: bool, options: Mapping[str, Any]) -> None:
    """As a baseline of itself, MCU is another path to the run's pre-unlearned model."""
    if is_pre:
        raise ConfigError("mcu needs another method's model to draw its path to; choose one with --pre")
    if "pre" in options:
        raise ConfigError("a baseline mcu leads to the run's own pre-unlearned model; for another, run with --pre")
    if not options:
        raise ConfigError("mcu itself is always computed; as a baseline give it other options, as mcu:beta=0.2")


def digest(values: Any) -> str:
    """A short content address of JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
