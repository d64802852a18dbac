"""Names and hyper-parameters as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcu_jax import curves, datasets, methods, metrics, models, registry


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


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.floats(allow_nan=False), max_size=4))
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


def _function(x: int, *, epochs: int = 3, lr: float = 0.1, kind: str = "a", widths: tuple = (8,), full: bool = False):
    raise NotImplementedError


def test_schema_is_what_text_can_set() -> None:
    assert registry.schema(_function) == {"epochs": 3, "lr": 0.1, "kind": "a", "widths": (8,)}


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
    (found,) = registry.bind(_function, given_value, "method f").values()
    assert found == bound
    assert type(found) is type(bound)


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
    ],
)
def test_bind_refuses(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        registry.bind(_function, options, "method f")


@pytest.mark.parametrize("module", [methods, curves, models, metrics, datasets])
def test_every_name_has_a_function_that_says_what_it_is(module) -> None:
    for name in module.NAMES:
        assert getattr(module, name).__doc__.strip()
        assert name in module.__all__ if hasattr(module, "__all__") else True
