"""A run as a graph: a key holds everything that its stage reads, and nothing depends on what a stage is called."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import pathlib
import types
from typing import Any

import chex
import jax
import numpy as np
import pytest
from conftest import SMALL

from mcu_jax import checkpoint, datasets, outputs, runs
from mcu_jax.runs import _graph, _jobs, _runner, _stages

UNLEARN = {
    "train_size": 60, "validation_size": 40, "seeds": [0, 1], "points": 5, "steps": 6, "train": {"epochs": 3},
    "baselines": ["ssd", "mcu:beta=0.2"],
}  # fmt: skip
CONNECT = {
    "kind": "connect", "train_size": 60, "validation_size": 40, "seeds": [0, 1], "points": 5, "a": "npo",
    "b": "retrain", "curve": ["linear", "bezier"], "also": ["mia", "continued", "relearning"], "retrains": 1,
    "train": {"epochs": 3}, "forget": "random:0.2", "sample": 30,
}  # fmt: skip


def graph(settings: dict[str, Any], **changes: Any) -> dict[str, list[_graph.Stage]]:
    return _jobs._open(runs.from_mapping({**settings, **changes}), None, None)[1]


def reads(stage: _graph.Stage, known: dict[int, str]) -> str:
    """Everything that the stage's function is given, by value. known: of stages and leaves seen before."""

    def value(given: Any) -> str:
        if isinstance(given, _graph.Part):
            return f"{given.name} of {reads(given.stage, known)}"
        if isinstance(given, _graph.Stage):
            return reads(given, known)
        if id(given) not in known:
            known[id(given)] = _value(given.make())
        return known[id(given)]

    if id(stage) not in known:
        host = stage.values and (_graph._name(stage.values), getattr(stage.values, "keywords", {}))
        inputs = [(name, value(given)) for name, given in sorted(stage.inputs.items())]
        seen = repr((_graph._name(stage.function), sorted(stage.settings.items()), host, inputs))
        known[id(stage)] = hashlib.sha256(seen.encode()).hexdigest()
    return known[id(stage)]


def _value(value: Any) -> str:
    if hasattr(value, "dtype") and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return checkpoint.digest(jax.random.key_data(value))
    weights = jax.eval_shape(lambda: outputs.init(value.model, jax.random.key(0), value.data, value.retain))
    told = f"{weights} {value.num_classes} {value.augment} {value.forget_test is None}"
    return f"{checkpoint.digest(value)} {id(value.model)} {told}"


CHANGES: list[dict[str, Any]] = [
    {"forget": "random:0.3"}, {"forget": "class:3"}, {"train_size": 50}, {"validation_size": 30}, {"seeds": [1, 2]},
    {"points": 6}, {"train": {"epochs": 4}}, {"train": {"epochs": 3, "batch_size": 16}}, {"steps": 8}, {"lr": 0.01},
    {"model": "mlp:hidden=[8]"}, {"precision": "bfloat16"}, {"precision": "float32"},
]  # fmt: skip
OF_UNLEARN: list[dict[str, Any]] = [
    {"pre": "npo"}, {"pre": "random_label:lr=0.01"}, {"beta": 0.3}, {"curve": "polychain"}, {"curve": "bezier:bends=2"},
    {"mask": {"kind": "random"}}, {"mask": {"kind": "none"}}, {"mask": {"keep": 0.3}}, {"baselines": ["ssd:alpha=3"]},
    {"plane": 3}, {"plane": 4},
]  # fmt: skip
OF_CONNECT: list[dict[str, Any]] = [
    {"sample": 20}, {"a": "npo:lr=0.01"}, {"a": "npo:run=1"}, {"a": "npo:forget=0.1"}, {"objective": "a"},
    {"sampling": "centred"}, {"origin": "original"}, {"also": ["continued"]},
    {"curve": ["polychain", "bezier:bends=2"]},
]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "changes"),
    [(UNLEARN, CHANGES + OF_UNLEARN), (CONNECT, CHANGES + OF_CONNECT)],
    ids=["unlearn", "connect"],
)
def test_two_stages_have_one_key_exactly_where_they_read_the_same(settings: dict, changes: list[dict]) -> None:
    graphs = [graph(settings, **each) for each in ({}, *changes)]
    known: dict[int, str] = {}
    by_key: dict[str, str] = {}
    by_reading: dict[str, str] = {}
    for stage in (stage for each in graphs for stages in each.values() for stage in stages):
        seen = reads(stage, known)
        assert by_key.setdefault(stage.digest, seen) == seen, stage.label
        assert by_reading.setdefault(seen, stage.digest) == stage.digest, stage.label


def test_the_metrics_of_the_original_depend_on_the_forget_set() -> None:
    """Two requests that share their stages share the original, and not what it scores."""
    random, by_class = graph(UNLEARN, forget="random:0.2"), graph(UNLEARN, forget="class:3")
    assert [s.key for s in random["original"]] == [s.key for s in by_class["original"]]
    same = [label for label in random if {s.digest for s in random[label]} & {s.digest for s in by_class[label]}]
    assert same == ["original"]


def test_other_data_are_other_stages(digits: datasets.Data, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {stage.digest for stages in graph(UNLEARN).values() for stage in stages}
    monkeypatch.setattr(datasets, "load", lambda *_: digits._replace(hash="other"))
    after = {stage.digest for stages in graph(UNLEARN).values() for stage in stages}
    assert not before & after


@pytest.mark.parametrize(
    ("settings", "change", "same"),
    [
        (UNLEARN, {"points": 9}, {"original", "retrain", "random_label", "ssd", "mask", "path"}),
        (UNLEARN, {"mask": {"keep": 0.3}}, {"original", "retrain", "random_label", "ssd", "sweep of the line"}),
        (
            UNLEARN,
            {"baselines": []},
            {"original", "retrain", "random_label", "mask", "path", "sweep", "metrics of mcu"},
        ),
        (CONNECT, {"points": 9}, {"original", "npo", "npo:run=1", "bezier: bezier, npo to retrain", "controls: npo"}),
        (CONNECT, {"sample": 20}, {"original", "npo", "continued: npo", "relearning: npo to retrain"}),
    ],
)
def test_what_does_not_read_a_setting_is_not_made_again(settings: dict, change: dict, same: set) -> None:
    before, after = graph(settings), graph(settings, **change)
    for label in same:
        assert [s.key for s in before[label]] == [s.key for s in after[label]], label


@pytest.mark.parametrize("settings", [UNLEARN, CONNECT], ids=["unlearn", "connect"])
def test_a_function_has_nothing_but_what_it_is_given(settings: dict) -> None:
    for stages in graph(settings).values():
        for stage in stages:
            for function in filter(None, (stage.function, getattr(stage.values, "func", stage.values))):
                function = getattr(function, "__wrapped__", function)
                assert isinstance(function, types.FunctionType)
                assert function.__qualname__ == function.__name__


def test_a_label_is_only_a_label(finished: Any, tmp_path: pathlib.Path) -> None:
    """A run whose every stage is called otherwise comes to the same numbers, in the same folders."""
    renamed: dict[int, _graph.Stage] = {}

    def rename(given: Any) -> Any:
        if isinstance(given, _graph.Part):
            return given._replace(stage=rename(given.stage))
        if isinstance(given, _graph.Leaf):
            return given
        if id(given) not in renamed:
            inputs = {name: rename(each) for name, each in given.inputs.items()}
            renamed[id(given)] = dataclasses.replace(given, label=f"stage {len(renamed)}", inputs=inputs)
        return renamed[id(given)]

    stages = {label: [rename(stage) for stage in each] for label, each in graph(SMALL).items()}
    before, after = _stages.Store(finished.directory / "stages"), _stages.Store(tmp_path)
    _runner.Runner(after, runs.Silent(), together=True).run(stages)
    for stage in (stage for each in stages.values() for stage in each):
        chex.assert_trees_all_equal(after.get(stage).result, before.get(stage).result)


def test_two_stages_of_one_label_are_an_error_of_the_program() -> None:
    made, (stage, other) = _graph.Labelled(), graph(UNLEARN)["ssd"]
    assert made.add(stage) is made.add(dataclasses.replace(stage)) is stage
    with pytest.raises(ValueError, match="two different stages are called 'ssd'"):
        made.add(other)


def test_seeds_side_by_side_share_the_images() -> None:
    for settings in (UNLEARN, CONNECT):
        tasks = [s.inputs["task"] for stages in graph(settings).values() for s in stages if "task" in s.inputs]
        assert tasks
        for task in tasks:
            leaves = jax.tree_util.tree_leaves_with_path(task.make())
            axes = task.axes if isinstance(task.axes, tuple) else (task.axes,) * len(leaves)
            own = {path[0].name for (path, _), axis in zip(leaves, axes, strict=True) if axis == 0}
            assert own <= {"forget", "retain", "forget_test"}


def test_every_draw_has_a_key_of_its_own() -> None:
    draws = [_graph.draw(*each) for each in itertools.product((0, 1), ("npo", "path"), (0, 1))]
    keys = {tuple(np.asarray(jax.random.key_data(each.make())).tolist()) for each in draws}
    assert len(keys) == len({str(each.identity) for each in draws}) == 8
