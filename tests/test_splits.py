"""Splits: nested, disjoint, the same in any process, and refused on other data."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcu_jax import splits

NAMES = ("cat", "dog", "7", "bird")
seeds = st.integers(0, 2**31)
inside = st.floats(0.02, 0.98)


@given(st.integers(2, 80), st.data(), seeds)
def test_carve_gives_disjoint_sets_nested_in_the_size(n: int, data: st.DataObject, seed: int) -> None:
    validation_size = data.draw(st.integers(1, n - 1))
    larger = data.draw(st.integers(1, n - validation_size))
    smaller = data.draw(st.integers(1, larger))
    train, validation = splits.carve(n, larger, validation_size, seed)
    assert (len(train), len(validation)) == (larger, validation_size)
    assert len({*train, *validation}) == larger + validation_size
    assert {*train, *validation} <= set(range(n))
    less, same = splits.carve(n, smaller, validation_size, seed)
    assert set(less) <= set(train)
    assert same.tolist() == validation.tolist()
    everything, _ = splits.carve(n, None, validation_size, seed)
    assert sorted([*everything, *validation]) == list(range(n))


@given(st.integers(100, 300), inside, inside, seeds)
def test_random_forgetting_partitions_and_is_nested(n: int, one: float, other: float, seed: int) -> None:
    train = np.arange(n) * 3 + 1
    (small, _), (large, retain) = (splits.random_forget(train, f, seed) for f in sorted((one, other)))
    assert len(large) == round(max(one, other) * n)
    assert sorted([*large, *retain]) == train.tolist()
    assert set(small) <= set(large)
    again = splits.random_forget(train, max(one, other), seed)
    np.testing.assert_array_equal(again[0], large)


def test_another_seed_is_another_set_and_not_the_first_examples() -> None:
    train = np.arange(100)
    sets = [splits.random_forget(train, 0.2, seed)[0].tolist() for seed in range(5)]
    assert len({tuple(s) for s in sets}) == 5
    assert train[:20].tolist() not in sets


@given(st.lists(st.integers(0, 3), min_size=4, max_size=60), st.integers(0, 3), seeds)
def test_class_forgetting_is_every_example_of_the_class(labels: list[int], forgotten: int, seed: int) -> None:
    labels = np.array([0, 1, 2, 3, *labels])
    train = np.sort(np.random.default_rng(seed).permutation(len(labels))[: len(labels) // 2])
    here = set(labels[train])
    if forgotten not in here or here == {forgotten}:
        with pytest.raises(splits.SplitError, match="is empty"):
            splits.class_forget(train, labels, forgotten)
        return
    forget, retain = splits.class_forget(train, labels, forgotten)
    assert sorted([*forget, *retain]) == train.tolist()
    assert set(labels[forget]) == {forgotten}
    assert forgotten not in labels[retain]


def test_a_class_by_name_or_number() -> None:
    assert [splits.class_index(name, NAMES) for name in ("dog", "0", "3", "7")] == [1, 0, 3, 2]
    for bad in ("fish", "4", "-1", "1.0", "", "²", "9" * 5000):
        with pytest.raises(splits.SplitError, match=r"there is no class .*: 0 \(cat\), 1 \(dog\), 2 \(7\), 3 \(bird\)"):
            splits.class_index(bad, NAMES)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: splits.carve(10, 0, 2, 0), "training set is empty"),
        (lambda: splits.carve(10, None, 10, 0), "training set is empty"),
        (lambda: splits.carve(10, 5, 0, 0), "validation set is empty"),
        (lambda: splits.carve(10, 8, 3, 0), "more than the 10"),
        (lambda: splits.random_forget(np.arange(10), 0.0, 0), r"inside \(0, 1\)"),
        (lambda: splits.random_forget(np.arange(10), 1.0, 0), r"inside \(0, 1\)"),
        (lambda: splits.random_forget(np.arange(10), float("nan"), 0), r"inside \(0, 1\)"),
        (lambda: splits.random_forget(np.arange(10), 0.01, 0), "forget set is empty"),
        (lambda: splits.random_forget(np.arange(10), 0.99, 0), "retain set is empty"),
    ],
)
def test_sets_that_cannot_be_made_are_refused(call: object, message: str) -> None:
    with pytest.raises(splits.SplitError, match=message):
        call()


def some_indices() -> splits.Indices:
    train, validation = splits.carve(50, 40, 10, 3)
    return splits.Indices("a" * 64, train, validation, *splits.random_forget(train, 0.2, 7))


def test_the_same_seed_gives_the_same_indices_in_a_fresh_process(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "indices.json"
    script = f"""
from mcu_jax import splits
train, validation = splits.carve(50, 40, 10, 3)
splits.save(splits.Indices("a" * 64, train, validation, *splits.random_forget(train, 0.2, 7)), {str(file)!r})
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    for field, value in dataclasses.asdict(splits.load(file, "a" * 64)).items():
        np.testing.assert_array_equal(value, getattr(some_indices(), field))


def test_index_files_come_back_and_are_refused_on_other_data(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "indices.json"
    for forgotten in (None, 3):
        indices = dataclasses.replace(some_indices(), forgotten_class=forgotten)
        splits.save(indices, file)
        loaded = splits.load(file, "a" * 64)
        assert loaded.forgotten_class == forgotten
        np.testing.assert_array_equal(loaded.forget, indices.forget)
    with pytest.raises(splits.SplitError, match="made for data of hash aaaaaaaaaaaa…, this data has bbbb"):
        splits.load(file, "b" * 64)
    fields = json.loads(file.read_text())
    del fields["retain"]
    for damaged in ("{", "[]", json.dumps(fields), json.dumps({**fields, "retain": ["x"]})):
        file.write_text(damaged)
        with pytest.raises(splits.SplitError, match="not readable"):
            splits.load(file, "a" * 64)
