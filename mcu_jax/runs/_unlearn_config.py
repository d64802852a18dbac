"""The configuration of `mcu-jax unlearn`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from mcu_jax import auto, base, checkpoint, connect, datasets, registry, rules, text
from mcu_jax.base import Count, Fraction, Positive
from mcu_jax.runs import _config, _own, _settings, _specs
from mcu_jax.runs._settings import FEW, POINTS, ConfigError, Group

COMPETITORS = ("finetune", "l1_sparse", "scrub", "influence", "npo")
INFLUENCE_WEIGHTS = 500_000
PLANE = base.Range("a whole number from 2 to 101", lambda n: 2 <= n <= 101)


@dataclasses.dataclass(frozen=True)
class MaskConfig:
    """Which weights of the path's inner points are trained."""

    kind: Annotated[
        str | None,
        "mcu (two-stage, whole leaves), random (weights, as many as mcu's), or none (all weights) (default: the "
        "recipe's, mcu where none was tuned).",
    ] = None
    keep: Annotated[
        float | None, Fraction, "Share of all weights the mask keeps, in [0, 1] (default: the recipe's)."
    ] = None
    retain_filter: Annotated[
        float | None,
        Fraction,
        "Share of all weights dropped first, those that matter most for the retain set (default: the recipe's).",
    ] = None


@dataclasses.dataclass(frozen=True)
class Config(_settings.Settings):
    """Unlearn along a path: original, retrained, pre-unlearned model, path, sweep, choice of t, for several seeds.

    A recipe is what a data set and model need; --dry-run shows what every setting comes to. `mcu-jax list` shows
    every NAME with its hyper-parameters, which are set by NAME:key=value,key=value.
    """

    KIND: ClassVar[str] = "unlearn"
    EXTENDABLE: ClassVar[tuple[str, ...]] = ("seeds", "points", "baselines", "plane")

    pre: Annotated[
        str | None,
        Group("unlearning", usual=True),
        "Pre-unlearning method, whose model the path leads to: NAME, NAME:epochs=5,lr=0.01, or weights, as --original "
        "(default: the recipe's, random_label where none was tuned).",
    ] = None
    baselines: Annotated[
        tuple[str, ...] | None,
        Group("unlearning", usual=True),
        FEW,
        "Further methods to compare with, as --pre; mcu:beta=0.2 is another path to the same model; alone for none "
        f"(default: {' '.join(COMPETITORS)}; influence, which holds a thousand gradients, only for networks of up to "
        f"{INFLUENCE_WEIGHTS:,} weights).",
    ] = None
    beta: Annotated[
        str | None,
        Group("mask and penalty", usual=True),
        "Forgetting penalty of the path: adaptive, or a number (default: the recipe's, adaptive where none was tuned).",
    ] = None
    path: Annotated[
        str,
        Group("path", usual=True),
        "plain, of just the settings below, or auto:budget=4: it chooses lr, beta, length and mask itself, near these, "
        "without a retrained model, for at most so many times the plain path's cost.",
    ] = "plain"
    steps: Annotated[int | None, Group("path"), Count, "Steps of path training (default: the recipe's)."] = None
    lr: Annotated[float | None, Group("path"), Positive, "Learning rate of path training (default: the recipe's)."] = (
        None
    )
    curve: Annotated[str, Group("path"), "bezier or polychain; with :bends=2 for more than one inner point."] = "bezier"
    mask: Annotated[MaskConfig, Group("mask and penalty")] = MaskConfig()
    rule: Annotated[
        str,
        Group("evaluation", usual=True),
        "What t* is chosen by, without a retrained model: accuracy or distribution. Both are reported.",
    ] = "accuracy"
    points: Annotated[
        int, Group("evaluation"), POINTS, "How many t of the path are evaluated, from 0 to 1; at least 4."
    ] = 21
    sample: Annotated[
        int | None,
        Group("evaluation"),
        Count,
        "At most so many retain and test images are evaluated, a seeded sample, BatchNorm statistics from it included "
        "(default: all).",
    ] = None
    plane: Annotated[
        int | None,
        Group("evaluation"),
        PLANE,
        "Evaluate the losses on D_r and D_f at N times N points of the plane that the path lies in, to be drawn; with "
        "21 about as much work as twenty sweeps of the path (default: none).",
    ] = None


CHECKPOINT = "checkpoint"
"""In the place of a method's name: the pre-unlearned model is brought by the user."""


@dataclasses.dataclass(frozen=True)
class Resolved(_config.Resolved):
    """beta: a number or "adaptive". budget: of a path that tunes itself, None of a plain one. curve, bends: of the
    path. pre: the pre-unlearned model, if the user brings it.
    """

    beta: float | str
    budget: float | None
    curve: base.Curve
    bends: int
    pre: _own.Weights | None
    recipe: Mapping[str, Any]

    @property
    def bends_at_most(self) -> int:
        return self.bends

    def changed(self, **settings: Any) -> Resolved:
        config = dataclasses.replace(self.config, **settings)
        specs = _methods(config, self.recipe) | {config.pre: self.methods[config.pre]}
        return dataclasses.replace(self, config=config, methods=specs)


def resolve(config: Config, model: base.Model | None = None, data: datasets.Data | None = None) -> Resolved:
    """Fills in the recipe and checks everything that can be checked before any work.

    model, data: in place of those that the configuration would name. Raises ConfigError: what was expected, what was
    given, what to do.
    """
    with _settings.checking():
        brought = _config.Brought(model, data)
        config = _config.named(_settings.checked(config), brought)
        recipe, asked = _config.recipe(config, brought), config.baselines
        registry.check(config.rule, rules.NAMES, "rule")
        mask = _mask(config.mask, recipe["path"]["mask"], recipe["mask"])
        pre_spec = _config.or_else(config.pre, recipe["pre"])
        budget = _budget(config, str(mask.kind))
        usual = recipe["path"]["beta"] if budget is None else connect.ADAPTIVE
        beta = _specs.beta(_config.or_else(config.beta, usual))
        config = _config.fill(
            config,
            recipe,
            pre=pre_spec,
            beta=str(beta),
            curve=_specs.curve_name(config.curve),
            mask=mask,
            steps=_config.or_else(config.steps, recipe["path"]["steps"]),
            lr=_config.or_else(config.lr, recipe["path"]["lr"]),
            baselines=_baselines(config.baselines, pre_spec),
        )
        path_curve, bends = _specs.path_curve(config.curve)
        _methods(config, recipe)
        common = _config.common(config, brought, recipe)
        if asked is None and _config.count_weights(common["model"], common["data"]) > INFLUENCE_WEIGHTS:
            fewer = tuple(spec for spec in config.baselines or () if spec != "influence")
            common["config"] = dataclasses.replace(common["config"], baselines=fewer)
        specs = _methods(common["config"], recipe)
        pre = None
        if specs[pre_spec][0] == CHECKPOINT:
            brought_by = common["model"], common["data"], common["config"]
            # Its statistics are not looked at: they are of one point of the path, whose others have none.
            pre = _config.brought_weights(pre_spec, *brought_by, "pre")
            common["digests"]["pre"] = checkpoint.digest(pre.params)
            specs[pre_spec] = CHECKPOINT, {"digest": common["digests"]["pre"]}
        return Resolved(
            methods=specs,
            beta=beta,
            budget=budget,
            curve=path_curve,
            bends=bends,
            pre=pre,
            recipe=recipe,
            **common,
        )


def _baselines(asked: tuple[str, ...] | None, pre: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(spec for spec in _config.or_else(asked, COMPETITORS) if spec != pre))


def _budget(config: Config, mask: str) -> float | None:
    """Of --path. Raises ConfigError for another kind of path, and for settings that a path of its own has none of."""
    kind, options = registry.parse(config.path)
    registry.check(kind, ("plain", "auto"), "kind of path")
    unknown = set(options) - ({"budget"} if kind == "auto" else set())
    if unknown:
        raise ConfigError(f"a path is plain, or auto:budget=N; given {text.show(config.path)}")
    if kind == "plain":
        return None
    budget = options.get("budget", auto.PLAIN.budget)
    if isinstance(budget, bool) or not isinstance(budget, int | float) or not 1 <= budget <= 1000:
        raise ConfigError(
            "the budget of a path that tunes itself is a number from 1 to 1000, how many times the plain path's cost "
            f"may be spent; given {text.show(budget)}"
        )
    if config.beta not in (None, connect.ADAPTIVE):
        raise ConfigError(f"path auto chooses beta itself: leave out --beta {text.show(config.beta)}, or the auto")
    if mask == "random":
        raise ConfigError("path auto takes a mask of whole leaves; a random one is a control of the plain path")
    return float(budget)


def _mask(asked: MaskConfig, kind: str, recipe: Mapping[str, float]) -> MaskConfig:
    """With the recipe's kind and shares. Raises ConfigError for shares of no mask."""
    kind = _config.or_else(asked.kind, kind)
    registry.check(kind, connect.MASKS, "mask kind")
    given = [name for name in recipe if getattr(asked, name) is not None]
    if kind != "none":
        shares = {name: _config.or_else(getattr(asked, name), share) for name, share in recipe.items()}
        return MaskConfig(kind, **shares)
    if given:
        raise ConfigError(f"mask.{given[0]} has no effect with mask kind none, which has no mask; leave it out")
    return MaskConfig(kind)


def _methods(config: Config, recipe: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    methods: dict[str, tuple[str, dict[str, Any]]] = {}
    pre_spec = str(config.pre)
    pre = CHECKPOINT if _own.is_weights(pre_spec) else pre_spec
    for spec in (pre_spec, *(config.baselines or ())):
        if spec == config.pre and pre == CHECKPOINT:
            methods[spec] = CHECKPOINT, {}
            continue
        name, asked = registry.parse(spec)
        given: dict[str, Any] = {}
        if name == "retrain":
            raise ConfigError(
                "retrain is the yardstick and always computed: it is neither a start for a path nor a baseline"
            )
        if name == "mcu":
            _check_mcu(spec == config.pre, asked)
            given = {"steps": config.steps, "lr": config.lr, "pre": pre, "points": config.points, "rule": config.rule}
            path_curve, bends = _specs.path_curve(config.curve)
            given |= {"beta": _specs.beta(str(config.beta)), "curve": path_curve.__name__, "bends": bends}
            shares = {name: _config.or_else(getattr(config.mask, name), own) for name, own in recipe["mask"].items()}
            given |= {"mask": config.mask.kind, **shares}
            if asked.get("mask") == "none" and asked.keys() & shares:
                raise ConfigError(f"{text.plain(spec)}: keep and retain_filter have no effect without a mask")
        methods[spec] = _specs.method_options(spec, recipe, config.train.batch_size, given)
    return methods


def _check_mcu(is_pre: bool, options: Mapping[str, Any]) -> None:
    """As a baseline of itself, MCU is another path to the run's pre-unlearned model."""
    if is_pre:
        raise ConfigError("mcu needs another method's model to draw its path to; choose one with --pre")
    if "pre" in options:
        raise ConfigError("a baseline mcu leads to the run's own pre-unlearned model; for another, run with --pre")
    if options.keys() == {"rule"}:
        raise ConfigError("what the path comes to by either rule is always reported; the run's own is set by --rule")
    if not options:
        raise ConfigError("mcu itself is always computed; as a baseline give it other options, as mcu:beta=0.2")
