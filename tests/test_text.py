"""The one reader of what users write."""

from __future__ import annotations

import math
import pathlib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mcu_jax import text


def test_plain_values_are_read() -> None:
    found = text.read("{a: [1, -2.5, 1e-4, .5], b: {c: null, d: True, e: ~}, f: '1', g: word, h: .inf, i: 1:30}")
    assert found == {
        **{"a": [1, -2.5, 1e-4, 0.5], "b": {"c": None, "d": True, "e": None}},
        **{"f": "1", "g": "word", "h": math.inf, "i": "1:30"},
    }
    assert math.isnan(text.read("nan"))
    assert text.read("") is None


WORDS = st.text("ab 1:-#'.", max_size=8)  # but not 1e4, which PyYAML takes for a word and we for a number
SCALARS = st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False) | WORDS
KEYS = st.text("abc", min_size=1, max_size=3)


@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=8))
def test_what_yaml_writes_is_read_back(value: object) -> None:
    assert text.read(yaml.safe_dump(value)) == value


@pytest.mark.parametrize(
    ("given_text", "message"),
    [
        ("&a [*a]", "anchors and aliases"),
        ("*a", "anchors and aliases"),
        ("!!int 3", "tags"),
        ("!x y", "tags"),
        ("[" * 100, "more than 20 deep"),
        ("- " * 100, "more than 20 deep"),
        ("1" * 5000, "a whole number of 5000 digits"),
        ("x" * 400_000, "400000 characters"),
        ("a: 1\na: 2", "'a' is given twice"),
        ("? [a]\n: b", "cannot be a key"),
        ("--- a\n--- b", "second document"),
        ("a\x00", "character 2"),
        ("\ud800", "character 1"),
        *((bad, "line 1") for bad in ("[", "{", "a: b: c", "%", "@", "'a", "[a")),
    ],
    ids=lambda part: str(part)[:20].encode("unicode_escape").decode(),
)
def test_everything_else_is_refused_in_a_short_message(given_text: str, message: str) -> None:
    with pytest.raises(text.TextError, match=message) as caught:
        text.read(given_text)
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"\xff\xfe", "not UTF-8"), (b"x" * 400_000, "more than 300000 bytes")],
)
def test_a_file_that_cannot_be_read_says_why(content: bytes | None, message: str, tmp_path: pathlib.Path) -> None:
    if content:
        (tmp_path / "file").write_bytes(content)
    with pytest.raises(text.TextError, match=message):
        text.read_file(tmp_path / "file")


def test_values_in_messages_are_short_and_show_control_characters() -> None:
    assert text.show("a\x1b\n") == r"'a\x1b\n'"
    assert text.plain("a\x1b\u202e") == r"a\x1b\u202e"
    assert len(text.show(list(range(10_000)))) == text.SHOWN
    assert text.show(10**5000) == "a very large int"
