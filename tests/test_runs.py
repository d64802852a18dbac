"""A run directory: its results, what is made once, what goes on, what is refused."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import pathlib
import re
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SMALL, problem_of, with_values

from mcu_jax import checkpoint, chunks, curves, metrics, report, runs, splits
from mcu_jax.base import Path
from mcu_jax.runs import _files, _runner, _timing, _unlearn_config

pytestmark = pytest.mark.usefixtures("kept_compilations")

METRICS = ("UA", "RA", "TA", "MIA")
SCORES = ("score_accuracy", "score_distribution")


class Watcher(runs.Silent):
    """Remembers what it is told, and asks to stop at a step of a stage or after it."""

    def __init__(self, stop_in: str = "", stop_at: int = 0):
        self.stages: list[tuple[str, list[int]]] = []
        self.counted: list[tuple[int, int]] = []
        self.notes: list[str] = []
        self.steps: list[int] = []
        self.stop_in, self.stop_at, self.stopping = stop_in, stop_at, False

    def stage(self, name: str, seeds: Any, cached: int, number: int, total: int) -> None:
        self.stages.append((name, list(seeds)))
        self.counted.append((number, total))
        self.stopping |= name == self.stop_in and not self.stop_at

    def progress(self, name: str, seed: int, step: int, steps: int, loss: float) -> None:
        self.steps.append(step)
        assert math.isfinite(loss)
        self.stopping |= name == self.stop_in and step >= self.stop_at > 0

    def note(self, text: str) -> None:
        self.notes.append(text)

    def should_stop(self) -> bool:
        return self.stopping


def unlearn(out: pathlib.Path, observer: Any = None, **settings: Any) -> dict[str, Any]:
    return with_values(runs.unlearn(runs.from_mapping({**SMALL, "out": str(out), **settings}), observer))


def numbers(results: Mapping[str, Any], seeds: Any = (0, 1), methods: Any = None) -> dict[str, Any]:
    """What a run found, without its seconds."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in results["rows"] if row["seed"] in seeds]
    return {
        "rows": [row for row in rows if methods is None or row["method"] in methods],
        "paths": [path for path in results["paths"] if path["seed"] in seeds],
    }


def copy(run: runs.Run, to: pathlib.Path) -> pathlib.Path:
    shutil.copytree(run.directory, to)
    return to


def seeds_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """As convolutional networks have it, without the time they take; every segment is saved."""
    monkeypatch.setattr(chunks, "convolves", lambda *_: True)
    monkeypatch.setattr(_runner, "SAVE_EVERY_SECONDS", 0.0)


# results.json


CHOSEN = ("linear", "mcu", "linear:rule=distribution", "mcu:rule=distribution")
"""Rows of points on the line and on the path, where the run's own rule is that of accuracies."""


LOSSES = ("retain_loss", "forget_loss", "test_loss")


def own_methods(pre: str, *baselines: str) -> list[str]:
    return ["original", "retrain", pre, *CHOSEN, *baselines]


def check_schema(results: dict[str, Any], methods: list[str], *, class_wise: bool, mask: bool = True) -> None:
    assert list(results) == ["schema", "kind", "config", "rows", "paths", "table_sha256"]
    assert results["schema"] == 3
    seeds = results["config"]["seeds"]
    assert [(row["seed"], row["method"]) for row in results["rows"]] == list(itertools.product(seeds, methods))
    for row in results["rows"]:
        kept = ["mask_keep"] if row["method"].startswith("mcu:") and row["method"] not in CHOSEN else []
        assert list(row) == [
            "method", "seed", "t", "rule", "UA", "UA_test", "RA", "TA", "MIA", "VA", "unseen_distance", *LOSSES,
            "avg_gap", *SCORES, "seconds", *kept,
        ]  # fmt: skip
        assert (row["t"] is None) == (row["rule"] is None)
        assert all(0 <= row[name] <= 1 for name in kept)
        assert (row["t"] is None) == (row["method"].partition(":")[0] not in ("linear", "mcu"))
        assert row["t"] is None or 0 <= row["t"] <= 1
        assert (row["UA_test"] is not None) == class_wise
        for name in (*METRICS, "VA", "unseen_distance", "avg_gap", *SCORES, *(["UA_test"] if class_wise else [])):
            assert type(row[name]) is float
            assert 0 <= row[name] <= 1, name
        assert all(type(row[name]) is float and row[name] >= 0 for name in LOSSES)
        assert "compile" in row["seconds"]
        assert len(row["seconds"]) > 1
        assert all(type(value) is float and value >= 0 for value in row["seconds"].values())
    retrained = {row["seed"]: row for row in results["rows"] if row["method"] == "retrain"}
    for row in results["rows"]:
        gaps = [abs(row[name] - retrained[row["seed"]][name]) for name in METRICS]
        assert row["avg_gap"] == pytest.approx(sum(gaps) / 4, abs=1e-12)

    points = results["config"]["points"]
    kinds = [results["config"]["curve"], "linear"]
    assert [(path["seed"], path["curve"]) for path in results["paths"]] == list(itertools.product(seeds, kinds))
    tolerance = 0.25 / (1 if class_wise else round(0.2 * results["config"]["train_size"]))
    for path in results["paths"]:
        of_points = {*METRICS, "VA", "unseen_distance", *LOSSES, *SCORES}
        assert set(path) - {"UA_test"} == of_points | {
            "seed", "curve", "t", "targets", "chosen", "effective_region", "effective_region_retrain", "mask",
        }  # fmt: skip
        assert ("UA_test" in path) == class_wise
        assert path["t"] == pytest.approx(np.linspace(0, 1, points), abs=1e-6)
        for name in (*METRICS, "VA", "unseen_distance", *SCORES, *(["UA_test"] if class_wise else [])):
            assert len(path[name]) == points
            assert all(type(value) is float and 0 <= value <= 1 for value in path[name])
        assert set(path["targets"]) == {"retain", "forget", "validation"}
        assert all(0 <= value <= 1 for value in path["targets"].values())
        goal = path["targets"]
        retain, forget = np.array(path["RA"]) - goal["retain"], 1 - np.array(path["UA"]) - goal["forget"]
        assert path["score_accuracy"] == pytest.approx((abs(retain) + abs(forget)) / 2, abs=1e-6)
        lost = np.maximum(goal["validation"] - np.array(path["VA"]), 0)
        by_distribution = (abs(retain) + lost) / 2 + np.array(path["unseen_distance"])
        assert path["score_distribution"] == pytest.approx(by_distribution, abs=1e-6)
        assert set(path["chosen"]) == set(path["effective_region"]) == {"accuracy", "distribution"}
        for rule, chosen in path["chosen"].items():
            assert 0 <= chosen["t"] <= 1
            assert 0 <= chosen["score"] <= min(path[f"score_{rule}"]) + tolerance + 1e-6
        for regions in (*path["effective_region"].values(), path["effective_region_retrain"]):
            flat = [edge for interval in regions for edge in interval]
            assert all(0 <= a <= b < 1 for a, b in regions)
            assert flat == sorted(flat)
            # Maximal: between two intervals lies at least one point of the grid.
            assert all(b[0] - a[1] > 1.5e-3 for a, b in itertools.pairwise(regions))
        if path["curve"] == "linear":
            assert path["mask"] == {"keep": 0.0, "retain_filter": 0.0}  # nothing of a line is trained
        else:
            assert set(path["mask"]) == {"keep", "retain_filter"}
            assert all(type(value) is float and 0 <= value <= 1 for value in path["mask"].values())
            assert (path["mask"] == {"keep": 1.0, "retain_filter": 0.0}) == (not mask)


def check_ends(results: dict[str, Any], pre: str) -> None:
    """The straight line and the curve begin at the original and end at the pre-unlearned model; t* is the row's."""
    rows = {(row["seed"], row["method"]): row for row in results["rows"]}
    for path in results["paths"]:
        for at, method in ((0, "original"), (-1, pre)):
            for name in METRICS:
                assert path[name][at] == pytest.approx(rows[path["seed"], method][name], abs=1e-6), (at, name)
        for rule in ("accuracy", "distribution"):
            name = "linear" if path["curve"] == "linear" else "mcu"
            row = rows[path["seed"], name if rule == results["config"]["rule"] else f"{name}:rule={rule}"]
            assert (row["t"], row["rule"]) == (path["chosen"][rule]["t"], rule)
            # The score of the model there, evaluated again, is the score it was chosen for.
            assert row[f"score_{rule}"] == pytest.approx(path["chosen"][rule]["score"], abs=1e-5)


def test_results_hold_the_schema(finished: runs.Run) -> None:
    assert runs.read_results(finished.directory) == finished.results
    results = with_values(finished)
    check_schema(results, own_methods("random_label"), class_wise=False)
    check_ends(results, "random_label")
    kept = runs.from_yaml(finished.directory / "config.yaml")
    assert kept.out == str(finished.directory)
    assert runs.from_mapping(results["config"]) == dataclasses.replace(kept, out=None)


def test_a_class_can_be_forgotten_along_a_chain_without_a_mask(tmp_path: pathlib.Path) -> None:
    results = unlearn(
        tmp_path / "run", forget="class:3", curve="polychain", mask={"kind": "none"}, pre="ssd", seeds=[0],
        baselines=["mcu:beta=0.2"], beta=0.1,
    )  # fmt: skip
    methods = own_methods("ssd", "mcu:beta=0.2")
    check_schema(results, methods, class_wise=True, mask=False)
    check_ends(results, "ssd")
    assert results["paths"][0]["targets"]["forget"] == 0
    assert not list((tmp_path / "run" / "stages").glob("mask*"))
    indices = json.loads((tmp_path / "run" / "splits" / "seed-0.json").read_text())
    assert indices["forgotten_class"] == 3
    details = runs.read_details(tmp_path / "run")
    assert {layer["kept"] for layer in details["mask"][0]["layers"]} == {1.0}
    assert set(details["history"][0]["beta"]) == {0.1}


def test_the_directory_tells_versions_and_splits(finished: runs.Run) -> None:
    told = json.loads((finished.directory / "environment.json").read_text())
    assert {"python", "platform", "packages", "backend", "device", "commit"} <= set(told)
    assert told["packages"]["jax"] == jax.__version__
    drawn = [json.loads((finished.directory / "splits" / f"seed-{seed}.json").read_text()) for seed in (0, 1)]
    assert drawn[0]["validation"] == drawn[1]["validation"]
    assert drawn[0]["forget"] != drawn[1]["forget"]
    # Nothing half-written stays.
    assert not list(finished.directory.rglob(".saving-*"))
    assert not list(finished.directory.rglob("*.partial"))


# Made once


def test_a_second_run_makes_nothing(finished: runs.Run, tmp_path: pathlib.Path) -> None:
    watcher = Watcher()
    again = unlearn(copy(finished, tmp_path / "run"), watcher)
    assert watcher.stages == []
    assert numbers(again) == numbers(with_values(finished))


def test_more_seeds_extend_a_run(finished: runs.Run, tmp_path: pathlib.Path) -> None:
    watcher = Watcher()
    more = unlearn(copy(finished, tmp_path / "run"), watcher, seeds=[2, 0, 3])
    assert {tuple(seeds) for _, seeds in watcher.stages} == {(2, 3)}
    assert more["config"]["seeds"] == [0, 1, 2, 3]
    assert runs.from_yaml(tmp_path / "run" / "config.yaml").seeds == (0, 1, 2, 3)
    assert numbers(more) == numbers(with_values(finished))
    check_schema(more, own_methods("random_label"), class_wise=False)


def test_a_run_only_grows(finished: runs.Run, tmp_path: pathlib.Path) -> None:
    """Less shows that part; more points are evaluated anew; another baseline is made, and nothing else."""
    directory, watcher = copy(finished, tmp_path / "run"), Watcher()
    finer = unlearn(directory, watcher, points=9)
    chosen = [f"choice of t{line}{rule}" for line in ("", " on the line") for rule in ("", ":rule=distribution")]
    again = {"sweep", "sweep of the line", "explorer", *chosen}
    assert {name for name, _ in watcher.stages} == again | {f"metrics of {row}" for row in CHOSEN}
    check_schema(finer, own_methods("random_label"), class_wise=False)
    for old, new in zip(with_values(finished)["paths"], finer["paths"], strict=True):
        for name in METRICS:
            assert new[name][::2] == pytest.approx(old[name], abs=1e-6)

    watcher = Watcher()
    more = unlearn(directory, watcher, baselines=["ssd"])
    assert {name for name, _ in watcher.stages} == {"ssd", "metrics of ssd"}
    assert watcher.counted == [(1, 2), (2, 2)]
    assert more["config"]["points"] == 9
    kept = (directory / "results.json").read_bytes()

    watcher = Watcher()
    less = unlearn(directory, watcher, seeds=[1])
    assert watcher.stages == []
    assert [note.partition(" has ")[2].partition(" and keeps")[0] for note in watcher.notes] == [
        "seeds 0 1", "points 9", "baselines ssd",
    ]  # fmt: skip
    assert (directory / "results.json").read_bytes() == kept
    assert numbers(less) == numbers(finer, seeds=[1])
    assert less["config"]["baselines"] == []
    part = report.write(directory, shown=less)
    assert "1 seed\n" in part
    assert "ssd" not in part
    assert "2 seeds" in report.write(directory)
    assert runs.from_yaml(directory / "config.yaml").seeds == (0, 1)

    # Less of one and more of another: the whole run grows, and it says that it is not only of what was asked for.
    watcher = Watcher()
    part = unlearn(directory, watcher, seeds=[1], points=9, baselines=["ssd", "finetune"])
    assert ("finetune", [0, 1]) in watcher.stages
    assert {row["seed"] for row in part["rows"]} == {0, 1}
    assert any("has seeds 0 1 and keeps" in note for note in watcher.notes)


def test_another_baseline_changes_no_other_row_and_stages_are_shared(
    finished: runs.Run, tmp_path: pathlib.Path
) -> None:
    watcher = Watcher()
    alone = unlearn(tmp_path / "alone", baselines=["ssd"])
    shared = unlearn(
        tmp_path / "shared", watcher, baselines=["ssd"], stages=str(copy(finished, tmp_path / "first") / "stages")
    )
    assert numbers(shared) == numbers(alone)
    assert {name for name, _ in watcher.stages} == {"ssd", "metrics of ssd"}
    ours = {row["method"] for row in with_values(finished)["rows"]}
    assert numbers(alone, methods=ours) == numbers(with_values(finished))
    assert not (tmp_path / "shared" / "stages").exists()


def test_how_options_are_written_changes_no_number(finished: runs.Run, tmp_path: pathlib.Path) -> None:
    """So a stage found under its options is the one they would make: its random numbers follow its name."""
    (options,) = [o for spec, o in with_values(finished)["config"]["resolved"].items() if spec == "random_label"]
    spec = f"random_label:epochs={options['epochs']}"
    other = unlearn(tmp_path / "run", pre=spec)
    rows = [{**row, "method": row["method"].replace(spec, "random_label")} for row in numbers(other)["rows"]]
    assert rows == numbers(with_values(finished))["rows"]


def test_mcu_as_a_baseline_tells_its_t(finished: runs.Run, tmp_path: pathlib.Path) -> None:
    stages = copy(finished, tmp_path / "first") / "stages"
    spec = "mcu:curve=polychain"
    results = unlearn(tmp_path / "run", baselines=[spec], stages=str(stages))
    rows = [row for row in results["rows"] if row["method"] == spec]
    assert all(0 <= row["t"] <= 1 for row in rows)
    assert set(rows[0]["seconds"]) == {"pre_unlearning", "unlearning", "compile"}
    params = runs.load(tmp_path / "run", seed=1, stage=spec)
    original = runs.load(tmp_path / "run", seed=1, stage="original")
    assert jax.tree.structure(params) == jax.tree.structure(original)


def test_a_run_goes_on_with_the_stages_it_was_given(finished: runs.Run, tmp_path: pathlib.Path) -> None:
    stages = copy(finished, tmp_path / "first") / "stages"
    unlearn(tmp_path / "run", stages=str(stages))
    watcher = Watcher()
    unlearn(tmp_path / "run", watcher)
    assert watcher.stages == []


def test_a_plan_says_what_is_left_and_makes_nothing(finished: runs.Run, tmp_path: pathlib.Path) -> None:
    config = runs.from_mapping({**SMALL, "out": str(copy(finished, tmp_path / "run")), "seeds": [0, 7]})
    before = sorted((tmp_path / "run").rglob("*"))
    plan = runs.plan(config)
    assert plan.config["seeds"] == [0, 1, 7]
    assert {counts for _, *counts in map(tuple, plan.stages) for counts in [tuple(counts)]} == {(2, 1)}
    assert plan.directory == str(tmp_path / "run")
    assert plan.notes == ()
    assert sorted((tmp_path / "run").rglob("*")) == before


# Going on


def test_stopping_after_a_stage_and_going_on_gives_the_same(finished: runs.Run, tmp_path: pathlib.Path) -> None:
    with pytest.raises(runs.InterruptedRunError, match="stopped after mask"):  # it has no loop
        unlearn(tmp_path / "run", Watcher("mask"))
    watcher = Watcher()
    assert numbers(unlearn(tmp_path / "run", watcher)) == numbers(with_values(finished))
    assert watcher.stages[0][0] == "path"


@pytest.mark.parametrize("together", [True, False])
def test_stopping_within_a_stage_and_going_on_gives_the_same(
    together: bool, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if together:
        monkeypatch.setattr(_runner, "SAVE_EVERY_SECONDS", 0.0)
    else:
        seeds_one_after_another(monkeypatch)
    settings = {"pre": "random_label:epochs=2", "train": {"epochs": 8, "batch_size": 8}}
    seeds = "seeds 0, 1" if together else "seed 0"
    whole = unlearn(tmp_path / "whole", **settings)
    with pytest.raises(runs.InterruptedRunError, match=rf"stopped in retrain, {seeds}, at step \d+ of 48"):
        unlearn(tmp_path / "run", Watcher("retrain", stop_at=20), **settings)
    (partial,) = (tmp_path / "run" / "stages").glob("retrain-*.partial")
    before = checkpoint.read_meta(partial / "loop-0")  # what was spent before counts
    watcher = Watcher()
    assert numbers(unlearn(tmp_path / "run", watcher, **settings)) == numbers(whole)
    assert watcher.stages[0] == ("retrain", [0, 1])
    (note,) = watcher.notes
    assert note.startswith(f"retrain, {seeds}: going on at step ")
    assert watcher.steps[0] > 20
    retrain = json.loads((tmp_path / "run" / "stages.json").read_text())["retrain"]
    spent = [checkpoint.read_meta(tmp_path / "run" / place)["seconds"] for place in retrain.values()]
    assert (sum(spent) if together else spent[0]) > before["seconds"] > 0
    assert not list((tmp_path / "run" / "stages").glob("*.partial"))


def test_a_seed_alone_is_the_seed_among_others(finished: runs.Run, tmp_path: pathlib.Path) -> None:
    """Bit by bit: so a run that was killed between seeds ends with the same digits."""
    baselines = ["finetune:optimizer=adam", "scrub", "sfron:steps=4"]
    alone = unlearn(tmp_path / "alone", seeds=[1], baselines=baselines)
    among = unlearn(copy(finished, tmp_path / "run"), seeds=[0, 1], baselines=baselines)
    assert numbers(alone) == numbers(among, seeds=[1])
    for stage in ("original", "retrain", "random_label", "path", *baselines):
        mine, theirs = (runs.load(tmp_path / name, seed=1, stage=stage) for name in ("alone", "run"))
        jax.tree.map(np.testing.assert_array_equal, mine, theirs)


def test_a_request_to_stop_comes_before_the_next_stage(tmp_path: pathlib.Path) -> None:
    watcher = Watcher()
    watcher.stopping = True
    with pytest.raises(runs.InterruptedRunError, match="stopped before original"):
        unlearn(tmp_path / "run", watcher)


def test_a_directory_from_a_kill_at_the_very_start_is_gone_on_with(finished: runs.Run, tmp_path: pathlib.Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".saving-host-1-12345678-12345678").write_text("data")
    stages = copy(finished, tmp_path / "first") / "stages"
    assert numbers(unlearn(tmp_path / "run", stages=str(stages))) == numbers(with_values(finished))


@pytest.mark.parametrize("together", [True, False])
def test_a_method_that_diverges_says_so_and_the_others_go_on(
    together: bool, finished: runs.Run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not together:
        seeds_one_after_another(monkeypatch)
    wild, closed = "finetune:lr=1e30", "influence:alpha=1e38"  # the second has no loop that could notice
    stages = copy(finished, tmp_path / "first") / "stages"
    asked = runs.from_mapping(
        {**SMALL, "out": str(tmp_path / "run"), "baselines": [wild, closed], "stages": str(stages)}
    )
    run = runs.unlearn(asked)
    failed = [(each.label, each.seed) for each in run.failures]
    assert failed == list(itertools.product([wild, closed], [0, 1]))
    for row in run.results["rows"]:
        if row["method"] in (wild, closed):
            assert (row["diverged"] > 0) == (row["method"] == wild)
            assert row["diverged_stage"] == row["method"]
            assert [row[name] for name in (*METRICS, "t", "avg_gap")] == [None] * 6
            assert "unlearning" in row["seconds"]
        else:
            assert "diverged" not in row
    ours = [row["method"] for row in finished.results["rows"]]
    assert numbers(run.results, methods=ours) == numbers(finished.results)
    with pytest.raises(ValueError, match=r"'finetune:lr=1e30' of seed 0 diverged at step \d+: it has no model"):
        runs.load(tmp_path / "run", stage=wild)
    watcher = Watcher()
    assert runs.unlearn(asked, watcher).failures == run.failures
    assert watcher.stages == []


def test_what_needs_a_model_that_diverged_is_left_out_and_named(tmp_path: pathlib.Path) -> None:
    run = runs.unlearn(runs.from_mapping({**SMALL, "out": str(tmp_path / "run"), "train": {"lr": 1e30}}))
    assert [(each.label, each.seed) for each in run.failures] == [
        (name, seed) for name in ("original", "retrain") for seed in (0, 1)
    ]
    stages = {row["method"]: row["diverged_stage"] for row in run.results["rows"]}
    assert stages == {**dict.fromkeys(("original", "random_label", *CHOSEN), "original"), "retrain": "retrain"}
    assert run.results["paths"] == []

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    json.loads((tmp_path / "run" / "results.json").read_text(), parse_constant=refuse)
    details = runs.read_details(tmp_path / "run")
    assert [details[name] for name in ("explorer", "mask", "history", "plane")] == [[]] * 4


# Refusals


def test_another_configuration_in_the_same_directory_is_refused(finished: runs.Run) -> None:
    with pytest.raises(runs.ConfigError, match=r"another configuration: train.epochs is 3 there, 4 asked for\. Only"):
        unlearn(finished.directory, train={"epochs": 4})
    with pytest.raises(runs.ConfigError, match=r"pre is random_label there, ssd asked for"):
        unlearn(finished.directory, pre="ssd")


def test_a_place_that_is_no_run_directory_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for out, message in (("file", "is a file"), ("full", "not empty"), ("file/run", "is a file")):
        with pytest.raises(runs.ConfigError, match=f"{message}.*choose another"):
            unlearn(tmp_path / out)
    with pytest.raises(runs.ConfigError, match="choose another"):
        unlearn(pathlib.Path("/proc/run"))
    with pytest.raises(runs.ConfigError, match="file is a file"):
        unlearn(tmp_path / "new", stages=str(tmp_path / "file"))
    assert sorted(tmp_path.rglob("*")) == before


def flip(file: pathlib.Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


@pytest.mark.parametrize("stage", ["original", "path", "sweep", "evaluate"])
def test_a_damaged_stage_is_set_aside_and_made_again_and_only_that(
    stage: str, finished: runs.Run, tmp_path: pathlib.Path
) -> None:
    directory = copy(finished, tmp_path / "run")
    place = next((directory / "stages").glob(f"{stage}-[0-9a-f]*"))
    flip(max((file for file in place.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size))
    damaged = {file.name: file.read_bytes() for file in place.rglob("*") if file.is_file()}
    inodes = {each: each.stat().st_ino for each in (directory / "stages").iterdir()}
    watcher = Watcher()
    assert numbers(unlearn(directory, watcher)) == numbers(with_values(finished))
    aside = place.with_name(f"{place.name}.damaged-1")
    changed = {each for each in (directory / "stages").iterdir() if each.stat().st_ino != inodes.get(each)}
    assert changed == {place, aside}
    assert {file.name: file.read_bytes() for file in aside.rglob("*") if file.is_file()} == damaged
    (note,) = watcher.notes
    assert re.fullmatch(rf"damaged checkpoint {place}: .*; it is now {aside}, and made again", note)
    assert [len(seeds) for _, seeds in watcher.stages] == [1]


def test_a_damaged_stage_in_progress_is_set_aside_and_begun_again(
    finished: runs.Run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_runner, "SAVE_EVERY_SECONDS", 0.0)
    with pytest.raises(runs.InterruptedRunError):
        unlearn(tmp_path / "run", Watcher("original", stop_at=2))
    (left,) = (tmp_path / "run" / "stages").glob("original-*.partial/loop-0")
    # The state of another loop, whole as it is, is not this one's.
    left.rename(left.with_name("loop-1"))
    watcher = Watcher()
    assert numbers(unlearn(tmp_path / "run", watcher)) == numbers(with_values(finished))
    (note,) = watcher.notes
    assert "it holds the state of another loop, " in note
    assert note.endswith(f"{left.parent}.damaged-1, and made again")


def test_damaged_files_of_a_run_are_named_and_made_again(finished: runs.Run, tmp_path: pathlib.Path) -> None:
    directory = copy(finished, tmp_path / "run")
    split = directory / "splits" / "seed-0.json"
    text, whole = split.read_text(), json.loads(split.read_text())
    other = {**whole, "validation": [whole["validation"][0] + 1, *whole["validation"][1:]]}
    cases = [(json.dumps(other), "is damaged"), ("{", "is not readable"), ("[" * 100_000, "is not readable")]
    for damaged, message in cases:
        split.write_text(damaged)
        with pytest.raises(splits.DamagedIndicesError, match=f"seed-0.json {message}"):
            splits.load(split, whole["data_hash"])
    watcher = Watcher()
    assert numbers(unlearn(directory, watcher)) == numbers(with_values(finished))
    assert watcher.stages == []
    assert [note.endswith(f"it is now {split}.damaged-1, and drawn again") for note in watcher.notes] == [True]
    assert split.read_text() == text
    del whole["sha256"]
    with pytest.raises(splits.SplitError, match="made for data of hash"):
        splits.load(split, "0" * 64)
    index = directory / "stages.json"
    places = index.read_text()
    for damaged in ("{", places.replace('"1"', '"7"', 1)):
        index.write_text(damaged)
        with pytest.raises(ValueError, match=r"stages.json is damaged"):
            runs.load(directory)
    index.write_text(places)
    results = (directory / "results.json").read_text()
    (directory / "results.json").write_text(results.replace('"t": 0', '"t": 1'))
    with pytest.raises(runs.ConfigError, match=r"results.json is not as it was written"):
        runs.export(directory, tmp_path / "model")
    split.unlink()
    (directory / "results.json").write_text("{")
    with pytest.raises(ValueError, match=r"results.json is not the results of a run"):
        runs.read_results(directory)
    assert numbers(unlearn(directory)) == numbers(with_values(finished))  # all are written anew
    assert split.read_text() == text
    config = (directory / "config.yaml").read_text()
    for text in (config.replace("digits", "digit5"), config.partition("# sha256")[0], "dataset: [", "", "\x00"):
        (directory / "config.yaml").write_text(text)
        with pytest.raises(runs.ConfigError, match=r"config.yaml is damaged.*--stages"):
            unlearn(directory)


def test_no_flipped_bit_of_a_small_file_goes_unseen(finished: runs.Run, tmp_path: pathlib.Path) -> None:
    directory, rng = copy(finished, tmp_path / "run"), np.random.default_rng(0)
    data = _unlearn_config.resolve(runs.from_mapping(SMALL)).data
    checks = {
        "splits/seed-0.json": lambda: splits.load(directory / "splits/seed-0.json", data.hash),
        "results.json": lambda: runs.read_results(directory),
        "details.json": lambda: runs.read_details(directory),
        "config.yaml": lambda: _files.check_sealed(directory / "config.yaml"),
    }
    for name, check in checks.items():
        whole = (directory / name).read_bytes()
        check()
        expected = json.loads(whole) if name.endswith("json") else None
        for place in rng.integers(0, len(whole), 300):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << int(rng.integers(8))
            (directory / name).write_bytes(bytes(damaged))
            try:
                check()
            except ValueError:
                continue
            # Only between the values may a blank become another.
            assert expected is not None
            assert json.loads(bytes(damaged)) == expected
        (directory / name).write_bytes(whole)


def test_a_stage_in_the_folder_of_another_is_not_taken_for_it(finished: runs.Run, tmp_path: pathlib.Path) -> None:
    directory = copy(finished, tmp_path / "run")
    first, second = sorted((directory / "stages").glob("retrain-*"))
    shutil.rmtree(second)
    shutil.copytree(first, second)
    index = json.loads((directory / "stages.json").read_text())["retrain"]
    seed = next(seed for seed, place in index.items() if place.endswith(second.name))
    with pytest.raises(checkpoint.DamagedCheckpointError, match=rf"{second.name}: it holds another stage, 'retrain'"):
        runs.load(directory, seed=int(seed), stage="retrain")
    assert runs.state(directory).word == "damaged"
    assert numbers(unlearn(directory)) == numbers(with_values(finished))


def test_reading_a_run_leaves_its_environment(finished: runs.Run, tmp_path: pathlib.Path) -> None:
    directory = copy(finished, tmp_path / "run")
    file = directory / "environment.json"
    told = {**json.loads(file.read_text()), "device": "another"}
    assert told["cpu"]
    file.write_text(json.dumps(told))
    unlearn(directory)
    unlearn(directory, seeds=[7])
    assert json.loads(file.read_text()) == told
    devices = [checkpoint.read_meta(place)["environment"]["device"] for place in (directory / "stages").iterdir()]
    assert set(devices) == {jax.devices()[0].device_kind}


def test_a_clock_set_back_takes_no_time_away() -> None:
    with _timing.timed() as spent:
        _timing._compiled("/jax/core/compile/backend_compile_duration", -10_793.0)
    assert 0 <= spent.compile_seconds <= spent.seconds + spent.compile_seconds < 1


def test_a_bug_is_no_error_of_the_user(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr(splits, "carve", broken)
    with pytest.raises(TypeError, match="a bug"):
        unlearn(tmp_path / "run")


# Reading


def test_the_path_is_given_back_and_its_models_have_the_metrics_of_the_rows(
    finished: runs.Run, digits: Any, tmp_path: pathlib.Path
) -> None:
    moved = copy(finished, tmp_path / "moved")
    rows = {(row["seed"], row["method"]): row for row in with_values(finished)["rows"]}
    for seed in (0, 1):
        path, problem = runs.load(moved, seed=seed), problem_of(runs.Run(moved, {}), digits, seed)
        assert isinstance(path, Path)
        assert curves.bends(path) == 1
        exported = curves.bezier(path, rows[seed, "mcu"]["t"])
        checkpoint.save(tmp_path / f"model-{seed}", exported)
        again = checkpoint.load(tmp_path / f"model-{seed}")
        for params, method in (
            (path.start, "original"),
            (path.end, "random_label"),
            (jax.tree.map(jnp.asarray, again), "mcu"),
            (runs.load(moved, seed=seed, stage="retrain"), "retrain"),
        ):
            found = metrics.evaluate(problem, params)
            for name in ("UA", "RA", "TA"):
                value = float(getattr(metrics, name.lower())(found))
                assert value == pytest.approx(rows[seed, method][name], abs=1e-6)


def test_an_export_is_a_plain_orbax_checkpoint(finished: runs.Run, tmp_path: pathlib.Path) -> None:
    import orbax.checkpoint as ocp

    model = curves.bezier(runs.load(finished.directory), 0.5)
    checkpoint.save(tmp_path / "model", model)
    with ocp.StandardCheckpointer() as plain:
        found = plain.restore(tmp_path / "model" / "arrays", jax.tree.map(np.zeros_like, model))
    jax.tree.map(np.testing.assert_array_equal, found, jax.tree.map(np.asarray, model))


def test_what_is_not_there_cannot_be_loaded(finished: runs.Run, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="not a run directory"):
        runs.load(tmp_path)
    with pytest.raises(ValueError, match=r"no seed 7; there are: 0, 1"):
        runs.load(finished.directory, seed=7)
    with pytest.raises(ValueError, match=r"no stage 'finetune'; there are: original"):
        runs.load(finished.directory, stage="finetune")
    directory = copy(finished, tmp_path / "run")
    shutil.rmtree(next((directory / "stages").glob("path-*")))
    with pytest.raises(ValueError, match=r"not finished; run the same command again"):
        runs.load(directory, seed=0), runs.load(directory, seed=1)


# A path that tunes itself


def test_a_path_that_tunes_itself(finished: runs.Run, tmp_path: pathlib.Path) -> None:
    """Its own settings are told, its seconds apart, and again the same command makes nothing."""
    stages = copy(finished, tmp_path / "first") / "stages"
    settings = {"path": "auto:budget=2", "stages": str(stages), "baselines": ["mcu:budget=1.5"]}
    results = unlearn(tmp_path / "run", **settings)
    methods = own_methods("random_label", "mcu:budget=1.5")
    assert [row["method"] for row in results["rows"] if row["seed"] == 0] == methods
    for row in results["rows"]:
        if row["method"] == "mcu":
            assert {"search", "path", "mask", "sweep"} <= set(row["seconds"])
    for path in results["paths"]:
        assert ("tuned" in path) == (path["curve"] != "linear")
        if path["curve"] != "linear":
            tuned = path["tuned"]
            assert set(tuned) == {"lr", "beta", "score", "line", "steps", "bent"}
            assert tuned["score"] <= tuned["line"]
            assert tuned["beta"] in ("adaptive", pytest.approx(0.2))
    details = runs.read_details(tmp_path / "run")
    assert (len(details["explorer"]), len(details["mask"]), details["history"]) == (2, 2, [])
    watcher = Watcher()
    again = unlearn(tmp_path / "run", watcher, **settings)
    assert watcher.stages == []
    assert numbers(again) == numbers(results)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "auto:budget=0"}, "a number from 1 to 1000"),
        ({"path": "auto:budget=soon"}, "a number from 1 to 1000"),
        ({"path": "auto:lr=1"}, "a path is plain, or auto:budget=N"),
        ({"path": "plain:budget=2"}, "a path is plain, or auto:budget=N"),
        ({"path": "best"}, "there is no kind of path 'best'"),
        ({"path": "auto", "beta": 0.2}, "path auto chooses beta itself"),
        ({"path": "auto", "mask": {"kind": "random"}}, "takes a mask of whole leaves"),
        ({"baselines": ["npo:epochs=2,steps=3"]}, "so many epochs or so many steps; leave out one of them"),
        ({"baselines": ["mcu:budget=0.5"]}, "budget must be 0, or a number from 1 to 1000"),
        ({"rule": "best"}, "there is no rule 'best'"),
    ],
)
def test_a_path_that_cannot_be_is_refused(settings: dict, message: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(runs.ConfigError, match=message):
        runs.plan(runs.from_mapping({**SMALL, "out": str(tmp_path / "run"), **settings}))
