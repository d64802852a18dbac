"""What a setting asks for in a line of text: a method with its hyper-parameters, a curve, a penalty, a share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcu_jax import base, connect, curves, methods, registry, splits, text
from mcu_jax.runs._settings import POINTS, ConfigError

MOST_BENDS = 64


def fraction(share: str) -> float:
    """Of the training examples, those to forget. Raises SplitError outside (0, 1)."""
    try:
        value = float(share)
    except ValueError:
        value = float("nan")
    if not 0 < value < 1:
        given = text.plain(share)
        raise splits.SplitError(f"a forget fraction lies inside (0, 1), as in random:0.1; given random:{given}")
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
    if {"epochs", "steps"} <= options.keys():
        raise ConfigError(f"{text.plain(spec)}: training lasts so many epochs or so many steps; leave out one of them")
    found = {**schema, **common, **(given or {}), **recipe["methods"].get(name, {}), **options}
    if "epochs" in options and "steps" in schema:
        found["steps"] = schema["steps"]
    if "optimizer" in found and "lr" not in options:
        found["lr"] *= recipe["optimizers"].get(registry.parse(found["optimizer"])[0], 1.0)
    for unused, _ in registry.without_effect(method, found):
        del found[unused]
    return name, _mcu(found) if name == "mcu" else found


def _mcu(options: dict[str, Any]) -> dict[str, Any]:
    """Hyper-parameters of `methods.mcu`, checked, its curve and bends apart."""
    if not POINTS.holds(options["points"]):
        raise ConfigError(f"mcu: points takes {POINTS.words}, given {options['points']}")
    found, bends = path_curve(options["curve"])
    bends = bends if ":" in options["curve"] else options["bends"]
    _check_bends(bends, options["curve"])
    return options | {"beta": beta(options["beta"]), "curve": found.__name__, "bends": bends}


def _check_composable(name: str, method: Any, options: Mapping[str, Any]) -> None:
    """A curriculum or an optimiser is for methods that descend a loss of their own from the original."""
    asked = {"curriculum", "optimizer"} & set(options)
    if asked and "optimizer" not in registry.schema(method):
        kind = {"mcu": "trains a path", "retrain": "is trained as the original was"}.get(name, "is a closed form")
        able = [each for each in methods.NAMES if "optimizer" in registry.schema(getattr(methods, each))]
        raise ConfigError(f"{name} {kind}, which takes no {' or '.join(sorted(asked))}; these do: {', '.join(able)}")


def beta(penalty: float | str) -> float | str:
    """A forgetting penalty: "adaptive" or a number from 0 on, else ConfigError."""
    if penalty == connect.ADAPTIVE:
        return penalty
    try:
        value = float(penalty)
    except ValueError:
        value = float("nan")
    if not 0 <= value < float("inf"):
        raise ConfigError(f"beta is {connect.ADAPTIVE!r} or a number from 0 on, given {text.show(penalty)}")
    return value


def curve(spec: str) -> tuple[base.Curve, int]:
    """(curve, its inner points, 0 for a straight line) of NAME or NAME:bends=N."""
    name, options = registry.parse(spec)
    found = registry.get(curves, name, "curve")
    if found is curves.linear:
        if options:
            raise ConfigError(f"linear has no inner point and takes no options, given {text.show(spec)}")
        return found, 0
    bends = options.get("bends", 1)
    if set(options) - {"bends"}:
        raise ConfigError(f"a curve is NAME or NAME:bends=N, given {text.show(spec)}")
    _check_bends(bends, spec)
    return found, int(bends)


def _check_bends(bends: Any, spec: str) -> None:
    if not isinstance(bends, int | float) or not 1 <= bends <= MOST_BENDS or not float(bends).is_integer():
        raise ConfigError(
            f"a curve has bends=N, N from 1 to {MOST_BENDS}, given {text.show(bends)} in {text.show(spec)}"
        )


def curve_name(spec: str) -> str:
    """The shortest way to ask for a curve: one run, however it is written."""
    found, bends = curve(spec)
    return found.__name__ if bends <= 1 else f"{found.__name__}:bends={bends}"


def path_curve(spec: str) -> tuple[base.Curve, int]:
    """As `curve`, of a path that is trained."""
    found, bends = curve(spec)
    if found is curves.linear:
        raise ConfigError("linear has no inner point to train: choose bezier or polychain; the line is reported anyway")
    return found, bends
