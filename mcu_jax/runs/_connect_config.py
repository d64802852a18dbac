"""The configuration of `mcu-jax connect`: which models are connected, and how."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

from mcu_jax import base, datasets, methods, registry, text
from mcu_jax import connect as connecting
from mcu_jax.base import Count, Positive, Range
from mcu_jax.runs import _config, _settings, _specs
from mcu_jax.runs._settings import FEW, POINTS, ConfigError, Group

GRIDS = ("methods", "seeds", "curriculum", "optimizer", "sizes")
OBJECTIVES = ("neutral", "a", "b")
ORIGINS = ("line", "original")
ALSO = ("mia", "continued", "relearning")

CURRICULA = ("superloss", "superloss:strength=1", "superloss:strength=0.1")
"""What grid curriculum sets against none: λ = 10 (Cheng & Amiri 2025, arXiv 2504.06407), 1 and 0.1."""
OPTIMIZERS = ("adam", "sophia", "sophia_fisher")
"""What grid optimizer sets against sgd."""

RUNS = Range("1 to 1000 of them", lambda n: 1 <= n <= 1000)


@dataclasses.dataclass(frozen=True)
class ConnectConfig(_settings.Settings):
    """Connect models unlearned in different ways from one original: barriers, metrics on the way, similarity.

    Give both ends, --a and --b, or a --grid of pairs. `mcu-jax list` shows every NAME with its hyper-parameters, which
    are set by NAME:key=value,key=value; --dry-run what every setting comes to.
    """

    KIND: ClassVar[str] = "connect"
    EXTENDABLE: ClassVar[tuple[str, ...]] = ("seeds", "points", "also")

    a: Annotated[
        str | None,
        Group("pairs", usual=True),
        "One end: a method NAME:key=value, or original, or retrain; run=1 is a second run, forget=0.02 another size.",
    ] = None
    b: Annotated[str | None, Group("pairs", usual=True), "The other end, as --a."] = None
    grid: Annotated[
        str | None,
        Group("pairs", usual=True),
        "Many pairs instead of one: of methods (all pairs), seeds, curriculum, optimizer or sizes, for each method.",
    ] = None
    methods: Annotated[tuple[str, ...], Group("pairs", usual=True), FEW, "The methods of a grid, as --a."] = (
        *("finetune", "gradient_ascent", "neggrad_plus", "random_label", "salun"),
        *("grad_diff", "npo", "scrub", "bad_teacher", "sfron"),
    )
    sizes: Annotated[
        tuple[float, ...],
        Group("pairs"),
        FEW,
        Range("fractions inside (0, 1)", lambda sizes: all(0 < size < 1 for size in sizes)),
        "Of grid sizes: fractions to forget, drawn in each other; every smaller one meets the largest.",
    ] = (0.02, 0.04, 0.06, 0.08, 0.1)
    curve: Annotated[
        tuple[str, ...],
        Group("path", usual=True),
        FEW,
        "One or more of linear, bezier, polychain; with :bends=2 for more than one inner point.",
    ] = ("linear",)
    objective: Annotated[
        str, Group("path"), "What a curve is trained to minimise: neutral, or the objective of a or of b."
    ] = "neutral"
    sampling: Annotated[
        str,
        Group("path"),
        "How t is drawn in training a curve: uniform, or centred, from N(0.5, 0.1) clipped to [0, 1].",
    ] = "uniform"
    origin: Annotated[
        str, Group("path"), "Where a curve's inner points begin: line, or original, at the original model."
    ] = "line"
    steps: Annotated[int | None, Group("path"), Count, "Steps of training a curve (default: the recipe's)."] = None
    lr: Annotated[
        float | None, Group("path"), Positive, "Learning rate of training a curve (default: the recipe's)."
    ] = None
    points: Annotated[
        int, Group("evaluation"), POINTS, "How many t of a path are evaluated, from 0 to 1; at least 4."
    ] = 31
    sample: Annotated[
        int,
        Group("evaluation"),
        Count,
        "At most so many retain and test images are evaluated, a seeded sample, BatchNorm statistics from it included; "
        "all forget and validation images are.",
    ] = 2000
    retrains: Annotated[
        int,
        Group("evaluation"),
        RUNS,
        "Retrained models of every seed: their spread is what the oracle's share of a path is measured against.",
    ] = 3
    also: Annotated[
        tuple[str, ...],
        Group("evaluation"),
        FEW,
        "What takes longer: mia (at every t), continued (ends trained further), relearning (attacks at five t).",
    ] = ()


class Endpoint(NamedTuple):
    """A model at the end of a path. run: of unlearning, each with a key of its own. fraction: None, or its own request.

    name: of a method, or `original`. label: unique in a run, and how one asks for it.
    """

    label: str
    name: str
    options: dict[str, Any]
    run: int = 0
    fraction: float | None = None

    @property
    def settings(self) -> tuple[str, str, float | None]:
        """What runs of one method have in common."""
        return self.name, repr(sorted(self.options.items())), self.fraction

    @property
    def is_unlearned(self) -> bool:
        return self.name not in ("original", "retrain")

    def describe(self, forget: str) -> dict[str, Any]:
        """As `results.json` has it. forget: the run's request."""
        return {
            "method": self.name,
            "optimizer": self.options.get("optimizer"),
            "curriculum": self.options.get("curriculum"),
            "forget": forget if self.fraction is None else f"random:{self.fraction:g}",
            "run": self.run,
            "label": self.label,
        }


class Pair(NamedTuple):
    """Two models to connect. role: "pair", or "floor": two runs that differ in the key of unlearning alone."""

    a: Endpoint
    b: Endpoint
    role: str

    @property
    def label(self) -> str:
        return f"{self.a.label} to {self.b.label}"


@dataclasses.dataclass(frozen=True)
class Resolved(_config.Resolved):
    """endpoints: by label. pairs: floors last. curves: (curve, bends) by how they are asked for."""

    endpoints: Mapping[str, Endpoint]
    pairs: Sequence[Pair]
    curves: Mapping[str, tuple[base.Curve, int]]
    stops: Sequence[Endpoint]
    further: dict[str, Any]

    @property
    def bends_at_most(self) -> int:
        return max(bends for _, bends in self.curves.values())

    def smaller(self, pair: Pair) -> Endpoint:
        """The end that was asked to forget less."""
        return min(pair.a, pair.b, key=lambda end: end.fraction or self.fraction or 0.0)


def resolve(config: ConnectConfig, model: base.Model | None = None, data: datasets.Data | None = None) -> Resolved:
    """Fills in the recipe and checks everything that can be checked before any work.

    model, data: in place of those that the configuration would name. Raises ConfigError: what was expected, what was
    given, what to do.
    """
    with _settings.checking():
        brought = _config.Brought(model, data)
        config = _config.named(_settings.checked(config), brought)
        recipe = _config.recipe(config, brought)
        trained = any(_specs.curve(spec)[1] for spec in config.curve)
        connection = recipe["connection"] if trained else {}
        _check_effect(config, trained=trained)
        config = _config.fill(
            config,
            recipe,
            methods=tuple(dict.fromkeys(config.methods)) if config.grid else (),
            sizes=tuple(sorted(set(config.sizes))) if config.grid == "sizes" else (),
            curve=tuple(dict.fromkeys(map(_specs.curve_name, config.curve))),
            also=tuple(dict.fromkeys(config.also)),
            **{name: _config.or_else(getattr(config, name), value) for name, value in connection.items()},
        )
        _check(config)
        make = _Maker(config, recipe)
        pairs = list(make.pairs())
        endpoints = {end.label: end for pair in pairs for end in (pair.a, pair.b)}
        resolved = Resolved(
            methods={end.label: (end.name, end.options) for end in endpoints.values()},
            endpoints=endpoints,
            pairs=pairs,
            curves={spec: _specs.curve(spec) for spec in config.curve},
            stops=make.stops(),
            further=make.further(),
            **_config.common(config, brought, recipe),
        )
        _check_ends(resolved)
        return resolved


def _check(config: ConnectConfig) -> None:
    if config.grid is None:
        if config.a is None or config.b is None:
            raise ConfigError("connect what? Give both ends, as --a finetune --b npo, or a --grid: " + ", ".join(GRIDS))
    elif config.a is not None or config.b is not None:
        raise ConfigError("give either both ends, --a and --b, or a --grid with its --methods, not both")
    else:
        registry.check(config.grid, GRIDS, "grid")
        if not config.methods:
            raise ConfigError("a grid needs one or more --methods")
        if config.grid == "sizes" and len(config.sizes) < 2:
            raise ConfigError("grid sizes needs two or more different --sizes, as 0.02 0.1")
    registry.check(config.objective, OBJECTIVES, "objective")
    registry.check(config.sampling, connecting.SAMPLING, "sampling")
    registry.check(config.origin, ORIGINS, "origin")
    for addition in config.also:
        registry.check(addition, ALSO, "addition")
    if not config.curve:
        raise ConfigError("give one or more curves, as --curve linear bezier")


def _check_effect(config: ConnectConfig, *, trained: bool) -> None:
    """What is asked for has to do something."""
    plain = ConnectConfig()
    for name in ("objective", "sampling", "origin", "steps", "lr"):
        if not trained and getattr(config, name) != getattr(plain, name):
            raise ConfigError(f"{name} is of a trained curve, and a straight line is not trained: add --curve bezier")
    if config.grid is None and config.methods not in (plain.methods, ()):
        raise ConfigError("methods are those of a grid; give a --grid, or the two ends alone")
    if config.grid != "sizes" and config.sizes not in (plain.sizes, ()):
        raise ConfigError("sizes are those of --grid sizes; one size for all is asked for by --forget random:0.1")


def _check_ends(resolved: Resolved) -> None:
    for pair in resolved.pairs:
        end = {"a": pair.a, "b": pair.b}.get(resolved.config.objective)
        if end and not (end.name in methods.NAMES and methods.has_objective(end.name)):
            raise ConfigError(
                f"{end.label} minimises nothing that a curve could be trained with; choose --objective neutral"
            )
    for end in resolved.endpoints.values():
        if end.name == "retrain" and resolved.model.permutations is None:
            raise ConfigError(
                f"{end.label}: a model trained from scratch is aligned with the other end first, and "
                f"{resolved.model.name} does not say which of its units may change places: give the model its "
                "`permutations` (models.adapt, dataclasses.replace), or choose another end; every method is compared "
                "with the retrained model anyway"
            )


class _Maker:
    """Makes endpoints and pairs of what is asked for."""

    def __init__(self, config: ConnectConfig, recipe: Mapping[str, Any]):
        self.config, self.recipe = config, recipe

    def endpoint(self, spec: str, **added: Any) -> Endpoint:
        """added: options beside those of the spec."""
        label = registry.spec(spec, added)
        name, options = registry.parse(label)
        run, size = options.pop("run", 0), options.pop("forget", None)
        if "seed" in options:
            raise ConfigError(
                f"{text.plain(spec)}: two seeds have different originals, and a path between their models says nothing "
                "about unlearning; run=1 is a second run of unlearning from the same original, --seeds are replicates"
            )
        if not isinstance(run, int | float) or not 0 <= run < 2**31 or not float(run).is_integer():
            raise ConfigError(f"{text.plain(spec)}: run is a whole number from 0 on, given {text.show(run)}")
        if size is not None:
            kind, _, whole = (self.config.forget or "").partition(":")
            if kind != "random":
                request = text.plain(self.config.forget)
                raise ConfigError(f"{text.plain(spec)}: a size of its own needs a random request, given {request}")
            size = _specs.fraction(str(size))
            size = None if size == _specs.fraction(whole) else size
        if name == "original":
            if options or run or size is not None:
                raise ConfigError(
                    f"original is the model before unlearning and takes no options, given {text.show(label)}"
                )
            return Endpoint(label, name, {})
        if name == "retrain":
            if options:
                raise ConfigError(
                    f"retrain is trained as the original is, which --train.epochs and so on set; {text.show(label)}"
                )
            return Endpoint(label, name, {}, int(run), size)
        given = self._given_to_mcu(options.pop("pre", self.recipe["pre"])) if name == "mcu" else {}
        name, options = _specs.method_options(
            registry.spec(name, options), self.recipe, self.config.train.batch_size, given
        )
        return Endpoint(label, name, options, int(run), size)

    def _given_to_mcu(self, pre: str) -> dict[str, Any]:
        """Its recipe, and its pre-unlearning method with the hyper-parameters the recipe gives it."""
        name, options = _specs.method_options(pre, self.recipe, self.config.train.batch_size)
        return {**self.recipe["path"], **self.recipe["mask"], "pre": registry.spec(name, options)}

    def pairs(self) -> Iterator[Pair]:
        """Those that are asked for, and a floor of every method among them."""
        asked = list({(pair.a.label, pair.b.label): pair for pair in self._asked()}.values())
        for pair in asked:
            if pair.a[1:] == pair.b[1:]:
                second = f"--b {registry.spec(pair.b.label, {'run': pair.b.run + 1})}"
                ask = f"for two runs that differ in their seed alone, ask for {second}"
                raise ConfigError(
                    f"{pair.a.label} and {pair.b.label} are the same run of one method; "
                    + (ask if pair.b.name != "original" else "choose another end")
                )
        yield from asked
        known = {pair.a.settings for pair in asked if pair.role == "floor"}
        for end in (end for pair in asked for end in (pair.a, pair.b)):
            if end.is_unlearned and end.settings not in known:
                known.add(end.settings)
                yield Pair(end, self.endpoint(end.label, run=end.run + 1), "floor")

    def _asked(self) -> Iterator[Pair]:
        config = self.config
        if config.grid is None:
            yield _pair(self.endpoint(str(config.a)), self.endpoint(str(config.b)))
        elif config.grid == "methods":
            ends = [self.endpoint(spec) for spec in config.methods]
            if len(ends) < 2:
                raise ConfigError("grid methods needs two or more --methods; for one, use --grid seeds")
            yield from itertools.starmap(_pair, itertools.combinations(ends, 2))
        elif config.grid == "seeds":
            for spec in config.methods:
                end = self.endpoint(spec)
                yield _pair(end, self.endpoint(spec, run=end.run + 1))
        elif config.grid == "sizes":
            for spec in config.methods:
                ends = [self.endpoint(spec, forget=size) for size in config.sizes]
                yield from (Pair(end, ends[-1], "pair") for end in ends[:-1])
        else:
            kinds = CURRICULA if config.grid == "curriculum" else OPTIMIZERS
            for spec, kind in itertools.product(config.methods, kinds):
                yield Pair(self.endpoint(spec), self.endpoint(spec, **{config.grid: kind}), "pair")

    def stops(self) -> list[Endpoint]:
        """Gradient ascent, which has no minimum, stopped at several epochs up to the recipe's: beyond it diverges."""
        recipe = self.endpoint("gradient_ascent").options["epochs"]
        stops = sorted({max(1, round(factor * recipe)) for factor in (0.2, 0.4, 0.6, 0.8, 1.0)})
        return [self.endpoint("gradient_ascent", epochs=epochs) for epochs in stops]

    def further(self) -> dict[str, Any]:
        """Hyper-parameters of training both ends further: a fifth of fine-tuning."""
        options = self.endpoint("finetune").options
        return {**options, "epochs": max(1, options["epochs"] // 5)}


def _pair(a: Endpoint, b: Endpoint) -> Pair:
    return Pair(a, b, "floor" if a.settings == b.settings and a.is_unlearned else "pair")
