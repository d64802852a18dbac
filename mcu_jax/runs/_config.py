"""What the settings of a run come to: data, model, methods with hyper-parameters, and what tells it from others."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from mcu_jax import (
    base,
    checkpoint,
    datasets,
    models,
    outputs,
    registry,
    sources,
    splits,
    text,
)
from mcu_jax.runs import _files, _images, _inputs, _own, _recipe_file, _recipes, _specs
from mcu_jax.runs._settings import BROUGHT, FLOAT32, PLACES, AnySettings, ConfigError, Settings, Train

WIDEST = 65_536
"""Of what a model has of anything: its hidden units, its layers."""
DEEPEST = 64
"""Sizes that one option lists."""
MOST_WEIGHTS = 1_000_000_000
MOST_STEPS = 10_000_000
"""Of one loop, which keeps every step's loss."""


@dataclasses.dataclass(frozen=True)
class Resolved:
    """A configuration with everything filled in and checked, and what it names.

    config: no field is None but places and what a user may bring. methods: (name, hyper-parameters) by the spec they
    are asked for with. pool: indices of training sample and validation set. fraction, forgotten or forget (indices): of
    the request, the others None. original: of the user, None where every seed trains its own. digests: of what the user
    brings, by the setting that names it: these, not the names of files, make another run.
    """

    config: Any
    methods: Mapping[str, tuple[str, dict[str, Any]]]
    data: datasets.Data
    model: base.Model
    pool: tuple[np.ndarray, np.ndarray]
    fraction: float | None
    forgotten: int | None
    forget: np.ndarray | None
    original: _own.Weights | None
    digests: dict[str, str]

    @property
    def model_id(self) -> str:
        """What tells the model from others."""
        return self.digests.get("model", self.config.model)

    @property
    def bends_at_most(self) -> int:
        """Inner points of the paths that are trained."""
        return 1

    def as_dict(self) -> dict[str, Any]:
        """The configuration, without places, as plain JSON and YAML values."""
        resolved = {spec: {"method": name, **options} for spec, (name, options) in self.methods.items()}
        values = dataclasses.asdict(self.config)
        left_out = {*PLACES, *(name for name in BROUGHT if values.get(name) is None)}
        asked = {name: value for name, value in values.items() if name not in left_out}
        # Files by names that hold in every working directory: a run's configuration is read again in another one.
        for name in self.digests.keys() & {"data", "original", "model", "forget", "recipe"}:
            if asked.get(name) and not self.digests[name].startswith(NAMED):
                asked[name] = os.path.abspath(asked[name])
        digests = {"digests": self.digests} if self.digests else {}
        return json.loads(json.dumps({"kind": self.config.KIND, **asked, **digests, "resolved": resolved}))

    def identity(self) -> dict[str, Any]:
        """What makes this run another run."""
        return identity(self.as_dict(), type(self.config))

    def changed(self, **settings: Any) -> Resolved:
        """With other settings of those that a run directory can be extended by, and places."""
        return dataclasses.replace(self, config=dataclasses.replace(self.config, **settings))


def identity(values: Mapping[str, Any], kind: type[Settings]) -> dict[str, Any]:
    """Of a run's configuration as `Resolved.as_dict` gives it, all but what extends a run, and places.

    Raises ConfigError for one without what its hyper-parameters come to.
    """
    apart = (*kind.EXTENDABLE, *PLACES)
    methods, digests = values.get("resolved"), values.get("digests", {})
    if not isinstance(methods, Mapping) or not all(isinstance(part, Mapping) for part in (*methods.values(), digests)):
        raise ConfigError("it does not tell what every method's hyper-parameters come to")
    added = {spec for name in kind.EXTENDABLE if isinstance(values.get(name), list) for spec in values[name]}
    resolved = {
        spec: {name: value for name, value in options.items() if name not in apart}
        for spec, options in methods.items()
        if spec not in added
    }
    kept = {name: value for name, value in values.items() if name not in (*apart, "kind", "digests")}
    if "data" in digests:
        kept.pop("dataset", None)  # the name of its file
    return {**kept, **digests, "resolved": resolved}


NAMED = "named:"
"""Of a model that a Python caller brings, there is only the name that the caller gives it."""


class Brought(NamedTuple):
    """What a Python caller brings as objects. The configuration's `model` is then a name that tells it from others."""

    model: base.Model | None = None
    data: datasets.Data | None = None


def check_brought(model: Any, data: Any) -> None:
    """Raises ConfigError for objects of other types than a job takes."""
    if model is not None and not isinstance(model, base.Model):
        given = type(model).__name__
        raise ConfigError(f"model= is a mcu_jax.Model, as models.adapt makes one of a function; given a {given}")
    if data is not None and not isinstance(data, datasets.Data):
        given = type(data).__name__
        raise ConfigError(f"data= is a data set, as datasets.arrays(train, test) makes one; given a {given}")


def named(config: AnySettings, brought: Brought) -> AnySettings:
    """With the names of model and data set. Raises ConfigError for two data sets, or a model that has no name."""
    if config.data is not None and brought.data is not None:
        raise ConfigError("give either data=, or the name of a data file, not both")
    dataset, model = datasets.absolute(config.dataset), config.model
    if config.data_dir is not None and (dataset in datasets.NAMES or dataset.startswith(datasets.FOLDER)):
        why = "which is embedded" if dataset in datasets.NAMES else "which says where it is"
        raise ConfigError(f"data_dir has no effect with {text.plain(dataset)}, {why}; leave it out, or name a dataset")
    if _is_own_data(config, brought):
        dataset = brought.data.name if brought.data else pathlib.Path(str(config.data)).stem
        if config.dataset not in (dataset, Settings.dataset) or config.data_dir is not None:
            raise ConfigError("give either data of your own or a dataset (and its data_dir), not both")
    if model is None:
        if brought.model is not None:
            raise ConfigError("a model of your own needs a name that tells it from others: Config(model='my-net-1')")
        model = "mlp" if _is_own_data(config, brought) else _recipes.MODELS.get(dataset, "cnn")
    precision = None if config.precision == FLOAT32 else config.precision  # one run, whether it is asked for or not
    return dataclasses.replace(config, dataset=dataset, model=model, precision=precision)


def _is_own_data(config: Settings, brought: Brought) -> bool:
    return config.data is not None or brought.data is not None


def recipe(config: Settings, brought: Brought) -> dict[str, Any]:
    """What the data set and the model need, `file` among it: what a recipe file of the user holds, where there is one.

    Raises ConfigError or UnknownNameError for a model there is not, UserError for a file that is no recipe.
    """
    own = _is_own_data(config, brought) or _is_own_model(config, brought)
    known = _recipes.DEFAULT if own else _recipes.of(config.dataset, _model_options(str(config.model))[0])
    return known if config.recipe is None else _recipe_file.over(known, _recipe_file.read(config.recipe))


def _is_own_model(config: Settings, brought: Brought) -> bool:
    return brought.model is not None or _own.is_model_file(str(config.model))


def check_names_no_code(config: Settings, file: pathlib.Path | str) -> None:
    """Raises ConfigError where a configuration that was read from a file names code: that is for the caller to do."""
    if _own.is_model_file(str(config.model)):
        raise ConfigError(
            f"{text.plain(file)} names code, {text.plain(config.model)}, which a file alone does not have run: if you "
            "know that code, name it too, as --model FILE.py:NAME (in Python model=)"
        )


def _model_options(spec: str) -> tuple[str, dict[str, Any]]:
    """(name, hyper-parameters) of one of our models."""
    if spec.endswith(".py"):
        raise ConfigError(f"a model file is asked for with a name in it, FILE.py:NAME; given {text.show(spec)}")
    name, options = registry.parse(spec)
    registry.check(name, models.NAMES, "model")
    options = registry.bind(getattr(models, name), options, f"model {name}")
    for option, value in options.items():
        sizes = value if isinstance(value, tuple | list) else (value,)
        if len(sizes) > DEEPEST or any(isinstance(size, int) and size > WIDEST for size in sizes):
            raise ConfigError(f"model {name}: {option} is at most {WIDEST}, given {text.show(value)}")
    return name, options


def fill(config: AnySettings, recipe: Mapping[str, Any], **more: Any) -> AnySettings:
    """The configuration with the recipe where nothing was asked for; more: what else is filled in."""
    train = {name: or_else(getattr(config.train, name), recipe["train"][name]) for name in recipe["train"]}
    return dataclasses.replace(
        config,
        train_size=or_else(config.train_size, recipe["train_size"]),
        validation_size=or_else(config.validation_size, recipe["validation_size"]),
        forget=or_else(config.forget, recipe["forget"]),
        train=Train(**train),
        **more,
    )


def or_else(value: Any, default: Any) -> Any:
    return default if value is None else value


def common(config: Settings, brought: Brought, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What `Resolved` holds for every job, but the methods: what takes long to read is read last."""
    own = _is_own_model(config, brought)
    name, options = ("", {}) if own else _model_options(str(config.model))
    asked = str(config.forget)
    kind, _, value = ("file", "", asked) if asked.endswith(".json") else asked.partition(":")
    if kind not in ("random", "class", "file") or not value:
        forms = "random:FRACTION, class:NUMBER, class:NAME or FILE.json"
        raise ConfigError(f"forget is {forms}; given {text.show(asked)}")
    wanted = _specs.fraction(value) if kind == "random" else None

    digests = {}
    if brought.data is not None:
        data = datasets.check(brought.data)
    elif config.data is not None:
        data = datasets.npz(config.data)
    else:
        if config.data_dir is not None:
            _files.place(config.data_dir, "data_dir")
        data = datasets.load(config.dataset, config.data_dir)
    if _is_own_data(config, brought) or config.dataset.startswith(datasets.FOLDER):
        digests["data"] = data.hash
    if data.class_list is not None:
        digests["classes"] = data.class_list
    num_classes, n = len(data.class_names), data.train_size
    if config.validation_size is None:
        config = dataclasses.replace(config, validation_size=min(_recipes.VALIDATION_SIZE, n // 5))
    if brought.model is not None:
        model, digests["model"] = brought.model, f"{NAMED}{config.model}"
    elif own:
        model, digests["model"] = _own.model(str(config.model), num_classes)
    else:
        model = getattr(models, name)(num_classes=num_classes, **options)
    if config.precision is not None:
        model = models.in_bfloat16(model)
    data, augment = _images.augmented(data, config.augment)
    model, normalize = _images.normalized(model, data, config.normalize, scales=brought.model is None and not own)
    config = dataclasses.replace(config, augment=augment, normalize=normalize)
    reported = () if config.KIND == "tune" else config.seeds
    if config.recipe is None and "file" in recipe:
        _recipe_file.refuse_seeds(f"the recipe of {text.plain(config.dataset)}", recipe["file"], reported)
    if config.recipe is not None:
        model_id = digests.get("model", str(config.model))
        digests["recipe"] = _recipe_file.check(config.recipe, recipe["file"], data.hash, model_id, reported)
    forget = original = None
    if kind == "file":
        forget, digests["forget"] = _own.forget(value, data.hash, n)
    try:
        sizes = config.train_size, config.validation_size or 0
        pool = splits.carve(n, *sizes, 0) if forget is None else _own.carve(n, *sizes, forget)
    except splits.SplitError as error:
        raise ConfigError(
            f"{error}. Sizes that are not asked for, by --train-size and --validation-size, are the recipe's"
        ) from error
    if config.original is not None:
        original = brought_weights(config.original, model, data, config, "original")
        digests["original"] = original.digest
    return {
        "config": config,
        "data": data,
        "model": model,
        "pool": pool,
        "fraction": wanted,
        "forgotten": splits.class_index(value, data.class_names) if kind == "class" else None,
        "forget": forget,
        "original": original,
        "digests": digests,
    }


def check_size(resolved: Resolved) -> None:
    """Raises ConfigError for more weights, or more steps of training, than any memory holds."""
    weights = count_weights(resolved.model, resolved.data)
    if weights > MOST_WEIGHTS:
        raise ConfigError(
            f"model {text.plain(resolved.config.model)} has {weights} weights, at most {MOST_WEIGHTS} can be"
        )
    n, train = len(resolved.pool[0]), resolved.config.train
    asked = {"train.epochs": (train.epochs, train.batch_size)}
    asked |= {
        f"{text.plain(spec)}: epochs": (options["epochs"], options.get("batch_size", train.batch_size))
        for spec, (_, options) in resolved.methods.items()
        if "epochs" in options
    }
    counts = {name: epochs * -(-n // min(batch, n)) for name, (epochs, batch) in asked.items() if epochs}
    counts["steps"] = getattr(resolved.config, "steps", 0) or 0
    counts |= {f"{text.plain(s)}: steps": options.get("steps", 0) for s, (_, options) in resolved.methods.items()}
    for name, steps in counts.items():
        if steps > MOST_STEPS:
            raise ConfigError(f"{name} comes to {steps} steps of training, at most {MOST_STEPS} can be")


def count_weights(model: base.Model, data: datasets.Data) -> int:
    """Raises ConfigError as `shapes` does."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes(model, data)))


def brought_weights(place: str, model: base.Model, data: datasets.Data, config: Settings, setting: str) -> _own.Weights:
    """What the user has trained. Raises UserError as `_own.params` and `_inputs.check` do."""
    example = outputs.inputs(sources.first(data.examples))
    found = _own.params(place, model, shapes(model, data), example, setting)
    if checkpoint.exists(place):
        _inputs.check(place, data, config, setting)
    return found


def shapes(model: base.Model, data: datasets.Data) -> Any:
    """Of the model's weights, without any. Raises ConfigError where the model cannot be made for these examples."""
    try:
        example = sources.first(data.examples)  # all of them need not fit the device
        return jax.eval_shape(lambda: outputs.init(model, jax.random.key(0), example, np.arange(1)))
    except base.UserError:
        raise
    except (Exception, SystemExit) as error:  # of a user's model, whatever it raises is told
        given = ", ".join(f"{name} {list(leaf.shape[1:])}" for name, leaf in data.examples.items() if name != "y")
        raise ConfigError(
            f"the model {text.plain(model.name)} cannot be made for examples of {given}: "
            f"{type(error).__name__}: {text.plain(error)}"
        ) from error


def digest(values: Any) -> str:
    """A short content address of JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
