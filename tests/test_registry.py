"""Names and hyper-parameters as text."""

from __future__ import annotations

import functools
import math
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcu_jax import augmentations, curricula, curves, datasets, methods, metrics, models, optimizers, registry, training
from mcu_jax.base import Positive, UserError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ssd", ("ssd", {})),
        ("finetune:epochs=5,lr=1e-4", ("finetune", {"epochs": 5, "lr": 1e-4})),
        (" mlp : hidden = [64, 32] ", ("mlp", {"hidden": [64, 32]})),
        ("mcu:beta=adaptive,mask=none", ("mcu", {"beta": "adaptive", "mask": "none"})),
    ],
)
def test_parse_reads_names_and_options(text: str, expected: tuple) -> None:
    assert registry.parse(text) == expected


@given(
    st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.floats(allow_nan=False), min_size=1, max_size=4)
)
def test_parse_inverts_writing(options: dict[str, float]) -> None:
    written = "name:" + ",".join(f"{key}={value!r}" for key, value in options.items())
    assert registry.parse(written) == ("name", options)


@pytest.mark.parametrize("text", ["ssd:alpha", "ssd:alpha=", "ssd:=3", "ssd:alpha=1,alpha=2"])
def test_parse_refuses_other_forms(text: str) -> None:
    with pytest.raises(ValueError, match="ssd:"):
        registry.parse(text)


def test_names_are_checked_and_the_nearest_offered() -> None:
    assert registry.get(methods, "ssd", "method") is methods.ssd
    with pytest.raises(registry.UnknownNameError, match=r"no method 'finetun'; did you mean 'finetune'\? There are: r"):
        registry.get(methods, "finetun", "method")
    with pytest.raises(registry.UnknownNameError, match=r"no curve 'zzz'\. There are: linear, "):
        registry.get(curves, "zzz", "curve")
    with pytest.raises(registry.UnknownNameError, match="__all__"):  # an attribute is not a name
        registry.get(methods, "__all__", "method")


def _function(
    x: int,
    *,
    epochs: int = 3,
    lr: Annotated[float, Positive] = 0.1,
    kind: str = "a",
    widths: tuple = (8,),
    full: bool = False,
):
    raise NotImplementedError


def test_schema_is_what_text_can_set() -> None:
    assert registry.schema(_function) == {"epochs": 3, "lr": 0.1, "kind": "a", "widths": (8,)}
    shared = {"epochs", "steps", "lr", "momentum", "weight_decay", "batch_size", "optimizer", "curriculum"}
    npo = registry.schema(methods.npo)
    assert set(npo) == {"beta", "retain_weight", *shared}
    assert (npo["epochs"], npo["optimizer"], npo["curriculum"]) == (5, "sgd", "none")
    assert registry.schema(methods.mcu)["pre"] == "random_label"


@pytest.mark.parametrize(
    ("given_value", "bound"),
    [
        ({"epochs": 5.0}, 5),
        ({"lr": 1}, 1.0),
        ({"kind": "b"}, "b"),
        ({"kind": 0.2}, 0.2),
        ({"widths": [4, 2.0]}, (4, 2)),
        ({"widths": 4}, (4,)),
    ],
)
def test_bind_gives_the_defaults_type(given_value: dict, bound: object) -> None:
    (value,) = registry.bind(_function, given_value, "method f").values()
    assert value == bound
    assert type(value) is type(bound)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 2.5}, "method f: epochs takes a whole number .default 3., given 2.5"),
        ({"epochs": True}, "takes a whole number"),
        ({"lr": "fast"}, "lr takes a number"),
        ({"kind": [1]}, "kind takes a word"),
        ({"widths": ["a"]}, "widths takes a whole number"),
        ({"epoch": 5}, r"method f has no hyper-parameter 'epoch'; did you mean 'epochs'\? It has: epochs=3, lr=0.1"),
        ({"full": True}, "no hyper-parameter 'full'"),
        ({"x": 1}, "no hyper-parameter 'x'"),
        ({"lr": 0}, "method f: lr must be a number above 0, given 0"),
        ({"lr": float("inf")}, "lr must be a number above 0, given inf"),
        ({"lr": float("nan")}, "lr must be"),
        ({"widths": [10**400]}, "widths must be a finite number"),
    ],
)
def test_bind_refuses(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        registry.bind(_function, options, "method f")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("npo:beta=0", "npo: beta must be a number above 0, given 0"),
        ("finetune:momentum=5", r"momentum must be a number in \[0, 1\), given 5"),
        ("finetune:weight_decay=-1", "weight_decay must be a number from 0 on, given -1"),
        ("finetune:epochs=0", "epochs must be a whole number above 0"),
        ("finetune:epochs=4e9", "epochs must be a whole number above 0"),
        ("sfron:steps=0", "steps must be a whole number above 0"),
        ("salun:keep=1.5", r"keep must be a fraction in \[0, 1\]"),
        ("finetune:optimizer=adam,momentum=0.3", "momentum has no effect with optimizer adam, .* leave it out"),
        ("sfron:optimizer=sophia,momentum=0.3", "momentum has no effect with optimizer sophia"),
        ("finetune:optimizer=adam:b1=3", r"optimizer adam: b1 must be a number in \[0, 1\), given 3"),
        ("finetune:optimizer=sophia:interval=0", "optimizer sophia: interval must be a whole number above 0"),
        (
            "finetune:curriculum=superloss:strength=0",
            "curriculum superloss: strength must be a number above 0, given 0",
        ),
        ("finetune:curriculum=superloss:power=1", "curriculum superloss has no hyper-parameter 'power'"),
        ("finetune:optimizer=adamw", r"no optimizer 'adamw'; did you mean 'adam'\?"),
        ("finetune:optimizer=none", "no optimizer 'none'"),
        ("finetune:optimizer=3", "optimizer takes NAME or NAME:key=value, given 3"),
        ("sfron:coupling=shard", "there is no coupling 'shard'; did you mean 'shared'"),
        ("mcu:retain_fraction=0", r"retain_fraction must be a fraction in \(0, 1\]"),
        ("mcu:mask=mc", "there is no mask 'mc'; did you mean 'mcu'"),
        ("mcu:pre=npo:beta=0", "method npo: beta must be a number above 0"),
    ],
)
def test_settings_of_methods_are_checked_where_they_enter(spec: str, message: str) -> None:
    name, options = registry.parse(spec)
    with pytest.raises(UserError, match=message):
        registry.bind(getattr(methods, name), options, f"method {name}")


@pytest.mark.parametrize("value", [1e30, 1e16, 100.0, 0.1, 3, "adam"])
def test_what_is_written_is_read_back(value: Any) -> None:
    assert registry.parse(registry.spec("npo", {"lr": value})) == ("npo", {"lr": value})


NAMED = [(module, name) for module in (methods, optimizers, curricula, models, augmentations) for name in module.NAMES]


@pytest.mark.parametrize(("module", "name"), NAMED, ids=lambda part: getattr(part, "__name__", part))
def test_every_number_has_a_range(module: Any, name: str) -> None:
    function = getattr(module, name)
    for option, default in registry.schema(function).items():
        number = default[0] if isinstance(default, tuple) else default
        if not isinstance(number, int | float) or isinstance(number, bool):
            continue
        for value in (-1, math.nan, math.inf, 10**400, *([2**31, 0.5] if isinstance(number, int) else [])):
            with pytest.raises(UserError, match=f"{option} (must be|takes) .*given"):
                registry.bind(function, {option: value}, name)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adam:b1=0.8", "sophia_fisher"])
def test_the_options_an_optimiser_takes_are_bound(optimizer: str) -> None:
    options = {"optimizer": optimizer, "weight_decay": 0.1, **({"momentum": 0.5} if optimizer == "sgd" else {})}
    assert registry.bind(methods.npo, options, "method npo") == options


def test_arguments_are_functions_for_names_and_a_group_for_its_fields() -> None:
    options = {"beta": 0.2, "lr": 0.1, "optimizer": "adam:b1=0.8", "curriculum": "superloss"}
    given = registry.arguments(methods.npo, registry.bind(methods.npo, options, "method npo"))
    train = given.pop("train")
    assert given == {"beta": 0.2}
    assert isinstance(train, training.Training)
    assert (train.epochs, train.lr, train.curriculum) == (5, 0.1, curricula.superloss)
    assert isinstance(train.optimizer, functools.partial)
    assert (train.optimizer.func, train.optimizer.keywords) == (optimizers.adam, {"b1": 0.8})
    assert registry.arguments(methods.npo, {}) == {}
    assert registry.arguments(methods.npo, {"curriculum": "none"})["train"].curriculum is None
    nested = registry.arguments(methods.mcu, {"pre": "finetune:epochs=1,optimizer=adam", "curve": "linear"})
    assert nested["curve"] is curves.linear
    assert nested["pre"].keywords["train"].optimizer is optimizers.adam
    assert registry.arguments(methods.mcu, {"pre": methods.npo}) == {"pre": methods.npo}


@pytest.mark.parametrize("module", [methods, curves, models, metrics, datasets])
def test_every_name_has_a_function_that_says_what_it_is(module) -> None:
    for name in module.NAMES:
        assert getattr(module, name).__doc__.strip()
        assert name in module.__all__ if hasattr(module, "__all__") else True
