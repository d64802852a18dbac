"""Runs of `mcu-jax connect`: which models are connected, how a run goes on, and what it refuses."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import shutil
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import CONNECTED, SMALL, problem_of, with_values

from mcu_jax import alignment, checkpoint, chunks, datasets, models, report, runs, trees
from mcu_jax.runs import _along, _connect, _connect_config, _files, _graph, _jobs, _recipes, _runner, _stages, _tasks

pytestmark = pytest.mark.usefixtures("kept_compilations")


def resolve(**settings: Any) -> _connect_config.Resolved:
    given = {"kind": "connect", "train_size": 60, "validation_size": 40, **settings}
    return _connect_config.resolve(runs.from_mapping(given))


def labels(**settings: Any) -> list[tuple[str, str, str]]:
    return [(pair.a.label, pair.b.label, pair.role) for pair in resolve(**settings).pairs]


def connect(out: pathlib.Path, observer: Any = None, **settings: Any) -> dict[str, Any]:
    return with_values(runs.connect(runs.from_mapping({**CONNECTED, **settings, "out": str(out)}), observer))


def graph(config: Any) -> dict[str, list[_graph.Stage]]:
    return _jobs._open(config, None, None)[1]


def without_seconds(results: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in results.items() if name not in ("seconds", "config")}


class Watcher(runs.Silent):
    """Remembers what is made, and asks to stop after a stage."""

    def __init__(self, stop_in: str = ""):
        self.made: list[str] = []
        self.stop_in = stop_in

    def stage(self, name: str, seeds: Any, cached: int, number: int, total: int) -> None:
        self.made.append(name)

    def should_stop(self) -> bool:
        return self.stop_in in self.made


# Which models


def test_a_pair_has_a_floor_of_either_method() -> None:
    floors = [("finetune", "finetune:run=1", "floor"), ("npo:beta=0.2", "npo:beta=0.2,run=1", "floor")]
    assert labels(a="finetune", b="npo:beta=0.2") == [("finetune", "npo:beta=0.2", "pair"), *floors]


def test_a_floor_that_is_asked_for_is_not_made_twice() -> None:
    assert labels(a="finetune", b="finetune:run=1") == [("finetune", "finetune:run=1", "floor")]
    assert labels(a="npo:run=2", b="npo:run=1") == [("npo:run=2", "npo:run=1", "floor")]
    grid = labels(grid="methods", methods=["npo", "npo:run=1", "finetune"])
    assert [pair for pair in grid if pair[2] == "floor"] == [
        ("npo", "npo:run=1", "floor"),
        ("finetune", "finetune:run=1", "floor"),
    ]
    assert len(set(grid)) == len(grid)


def test_a_later_run_has_its_floor_and_its_controls_too(tmp_path: pathlib.Path) -> None:
    settings = {"a": "npo:run=0", "b": "finetune:lr=0.1234567,run=3"}
    floors = [("npo:run=0", "npo:run=1", "floor"), (settings["b"], "finetune:lr=0.1234567,run=4", "floor")]
    assert labels(**settings)[1:] == floors
    config = runs.ConnectConfig(**settings, train_size=60, validation_size=40, out=str(tmp_path / "x"))
    names = set(graph(config))
    assert {f"controls: {end}" for end in settings.values()} <= names
    assert not any(name.startswith("controls") and "run=4" in name for name in names)


def test_grid_methods_has_every_pair_once() -> None:
    names = ["finetune", "npo", "salun", "scrub"]
    found = labels(grid="methods", methods=names)
    assert [pair[:2] for pair in found if pair[2] == "pair"] == list(itertools.combinations(names, 2))
    assert [pair[:2] for pair in found if pair[2] == "floor"] == [(name, f"{name}:run=1") for name in names]
    default = labels(grid="methods")
    assert sum(pair[2] == "pair" for pair in default) == 45


def test_grid_seeds_is_the_floor() -> None:
    assert labels(grid="seeds", methods=["npo"]) == [("npo", "npo:run=1", "floor")]


@pytest.mark.parametrize(
    ("grid", "plain", "kinds"),
    [
        ("curriculum", "none", ("superloss", "superloss:strength=1", "superloss:strength=0.1")),
        ("optimizer", "sgd", ("adam", "sophia", "sophia_fisher")),
    ],
)
def test_grids_of_training_conditions(grid: str, plain: str, kinds: tuple) -> None:
    resolved = resolve(grid=grid, methods=["npo"])
    asked = [pair for pair in resolved.pairs if pair.role == "pair"]
    assert [pair.a.options[grid] for pair in asked] == [plain] * 3
    assert [pair.b.options[grid] for pair in asked] == list(kinds)
    assert [pair.b.label for pair in asked] == [f"npo:{grid}={kind}" for kind in kinds]
    assert sum(pair.role == "floor" for pair in resolved.pairs) == 4


def test_another_optimiser_has_a_learning_rate_of_its_own_unless_one_is_given() -> None:
    ends = resolve(a="npo:optimizer=adam", b="npo:optimizer=adam,lr=0.5").endpoints
    sgd = resolve(a="npo", b="finetune").endpoints["npo"].options["lr"]
    assert ends["npo:optimizer=adam"].options["lr"] == pytest.approx(0.006 * sgd)
    assert ends["npo:optimizer=adam,lr=0.5"].options["lr"] == 0.5


def test_grid_sizes_compares_with_the_largest_and_within_each() -> None:
    found = labels(grid="sizes", methods=["npo"], forget="random:0.1")
    sizes = ["npo:forget=0.02", "npo:forget=0.04", "npo:forget=0.06", "npo:forget=0.08"]
    last = "npo:forget=0.1"
    assert [pair[:2] for pair in found if pair[2] == "pair"] == [(size, last) for size in sizes]
    assert {pair[0] for pair in found if pair[2] == "floor"} == {*sizes, last}


def test_sizes_may_be_chosen() -> None:
    found = labels(grid="sizes", methods=["npo"], sizes=[0.5, 0.25, 0.5])
    assert found[0] == ("npo:forget=0.25", "npo:forget=0.5", "pair")
    assert len(found) == 3


def test_two_sizes_meet_on_what_both_forgot_and_both_retain(tmp_path: pathlib.Path) -> None:
    config = runs.ConnectConfig(
        a="npo:forget=0.1", b="npo", train_size=60, validation_size=40, forget="random:0.3", out=str(tmp_path / "x")
    )
    opened, stages, _ = _jobs._open(config, None, None)
    indices = opened.directory.indices
    for stage in stages["measures: linear, npo:forget=0.1 to npo"]:
        small, large = (indices[f"seed-{stage.seed}{more}"] for more in ("-random-0.1", ""))
        problem = stage.inputs["task"].make()
        assert set(small.forget) < set(large.forget)
        assert len(problem.forget) == 6
        assert np.array_equal(problem.forget, small.forget)
        assert np.array_equal(problem.retain, large.retain)
    assert set(indices) == {f"seed-{s}{more}" for s in range(5) for more in ("", "-random-0.1")}


def test_what_unlearn_makes_is_found_again() -> None:
    """Originals, retrained and unlearned models of both jobs belong in the same place."""
    given = {"train_size": 60, "validation_size": 40, "seeds": [0, 1]}
    unlearn = graph(runs.from_mapping({**given, "pre": "npo"}))
    connected = graph(runs.from_mapping({**given, "kind": "connect", "a": "npo", "b": "finetune"}))
    for name in ("original", "retrain", "npo"):
        assert [a.folder for a in unlearn[name]] == [a.folder for a in connected[name]]
    assert connected["npo"][0].folder != connected["npo:run=1"][0].folder
    folders = [address.folder for each in connected.values() for address in each]
    assert len(set(folders)) == len(folders)


def test_mcu_is_an_end_too_with_its_recipe() -> None:
    end = resolve(a="mcu:pre=npo,steps=3", b="finetune").endpoints["mcu:pre=npo,steps=3"]
    assert end.options["steps"] == 3
    recipe = _recipes.of("digits", "mlp")
    assert end.options["lr"] == recipe["path"]["lr"]
    assert end.options["pre"].startswith("npo:")
    assert f"lr={recipe['methods']['npo']['lr']}," in end.options["pre"]


def test_one_label_means_one_stage(tmp_path: pathlib.Path) -> None:
    config = runs.ConnectConfig(a="npo", b="finetune", train_size=60, validation_size=40, out=str(tmp_path / "x"))
    directory = _jobs._open(config, None, None)[0].directory
    seed = _connect._Seed(directory.resolved, _tasks.replicates(directory, directory.resolved)[0])
    npo = directory.resolved.endpoints["npo"]
    assert seed.model(npo) is seed.model(npo)
    with pytest.raises(ValueError, match="two different stages are called 'npo'"):
        seed.model(npo._replace(run=1))


# Ends that need care


def test_a_retrained_end_is_aligned_and_a_class_may_be_forgotten(tmp_path: pathlib.Path) -> None:
    trained = {"curve": ["bezier:bends=2"], "objective": "a", "sampling": "centred", "origin": "original"}
    asked = {"a": "npo", "b": "retrain", "forget": "class:3", "retrains": 1, "also": ["continued"], **trained}
    results = connect(tmp_path / "run", **asked)
    load = {name: runs.load(tmp_path / "run", seed=0, stage=name) for name in ("npo", "retrain")}
    further = {name: runs.load(tmp_path / "run", seed=0, stage=f"continued: {name}") for name in load}
    pair = next(p for p in results["pairs"] if (p["role"], p["seed"]) == ("pair", 0))
    assert (pair["curve"], pair["objective"], pair["forget"]) == ("bezier:bends=2", "a", "class:3")
    assert pair["within_retrain"] is None  # of a single model there is no spread
    resolved = _connect_config.resolve(runs.from_yaml(tmp_path / "run" / "config.yaml"))
    aligned = alignment.align(resolved.model, load["retrain"], load["npo"])
    apart = float(optax.tree.norm(optax.tree.sub(aligned, load["npo"])))
    assert pair["distance"]["ab"] == pytest.approx(apart, rel=1e-4)
    assert apart < float(optax.tree.norm(optax.tree.sub(load["retrain"], load["npo"])))
    both = further["npo"], alignment.align(resolved.model, further["retrain"], further["npo"])
    problem = problem_of(runs.Run(tmp_path / "run", results), resolved.data, 0)
    line = jax.jit(_along.lines)(problem, problem.params, a=both[0], b=both[1])
    assert pair["continued"]["barriers"]["retain_nats"] == pytest.approx(float(line["retain_loss"][0]), abs=1e-4)


def plain_init(key: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
    first, second = jax.random.split(key)
    return {"v": 0.1 * jax.random.normal(first, (64, 8)), "w": jax.random.normal(second, (8, 10))}


def plain_apply(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return jax.nn.relu(x.reshape(len(x), -1).astype(jnp.float32) @ params["v"]) @ params["w"]


def test_a_model_without_features_and_permutations_is_connected(digits: datasets.Data, tmp_path: pathlib.Path) -> None:
    a, b = "npo:epochs=1,lr=0.001", "finetune:epochs=1,lr=0.001"
    settings = {"kind": "connect", "model": "plain", "train_size": 60, "validation_size": 40, "train": {"epochs": 3}}
    settings |= {"points": 4, "seeds": [0], "retrains": 1, "sample": 30, "a": a, "out": str(tmp_path / "run")}
    own = {"model": models.adapt(plain_apply, init=plain_init), "data": digits}
    with pytest.raises(runs.ConfigError, match=r"retrain: .* aligned .* give the model its `permutations`"):
        runs.connect(runs.from_mapping({**settings, "b": "retrain"}), **own)
    assert not (tmp_path / "run").exists()

    results = runs.connect(runs.from_mapping({**settings, "b": b}), **own).results
    assert {pair["cka"] for pair in results["pairs"]} == {None}
    controls = results["controls"]
    assert controls["retrain"] == []
    assert [line["method"] for line in controls["unaligned"]] == [a, b]
    assert all(line["distance"]["ab"] > 0 for line in controls["unaligned"])
    assert len(controls["original"]) == len(controls["perturbation"]) == 2

    table = report.write(tmp_path / "run", 150)
    row = next(line for line in table.splitlines() if line.startswith(f"{a} – {b}"))
    assert row.split()[-3] == "–"
    assert "CKA is left out: the model does not give its `features`" in table
    assert "aligned retrained model is left out: the model does not give its `perm" in table.replace("\n", " ")
    header = next(line for line in table.splitlines() if "random" in line and "original" in line)
    assert header.split().count("retrained") == 1
    assert {"curves.png", "barriers.png"} <= {file.name for file in (tmp_path / "run").iterdir()}


def test_the_model_of_mcu_is_read_from_either_job(connected: runs.Run, tmp_path: pathlib.Path) -> None:
    index = json.loads((connected.directory / "stages.json").read_text())
    for name, place in index["npo"].items():
        index["npo"][name] = str((connected.directory / place).resolve())
    _files.write_json(tmp_path / "stages.json", {"mcu:pre=npo": index["npo"]})
    found = runs.load(tmp_path, seed=0, stage="mcu:pre=npo")
    assert float(optax.tree.norm(optax.tree.sub(found, runs.load(connected.directory, seed=0, stage="npo")))) == 0


def test_seconds_count_every_stage_once(connected: runs.Run) -> None:
    stages_ = [checkpoint.read_meta(file.parent) for file in connected.directory.glob("stages/*/manifest.json")]
    for part in ("npo", "bezier", "continued"):
        own = [meta["seconds"] + meta["compile_seconds"] for meta in stages_ if meta["label"].partition(":")[0] == part]
        assert connected.results["seconds"][part] == pytest.approx(sum(own), abs=0.06)


# Going on, and what is refused


def test_a_second_run_makes_nothing_and_finds_the_same(connected: runs.Run, tmp_path: pathlib.Path) -> None:
    shutil.copytree(connected.directory, tmp_path / "run")
    watcher = Watcher()
    again = connect(tmp_path / "run", watcher)
    assert watcher.made == []
    assert without_seconds(again) == without_seconds(with_values(connected))


def test_an_interrupted_run_goes_on_where_it_was(connected: runs.Run, tmp_path: pathlib.Path) -> None:
    shutil.copytree(connected.directory, tmp_path / "run")
    stages = tmp_path / "run" / "stages"
    for kind in ("npo", "bezier", "measure_path", "measure_model", "controls", "relearning", "lines"):
        assert list(stages.glob(f"{kind}-*"))
        for folder in stages.glob(f"{kind}-*"):
            shutil.rmtree(folder)
    first, second = Watcher("npo:run=1"), Watcher()
    with pytest.raises(runs.InterruptedRunError):
        connect(tmp_path / "run", first)
    again = connect(tmp_path / "run", second)
    assert first.made == ["npo", "npo:run=1"]
    assert "npo" not in second.made
    assert without_seconds(again) == without_seconds(with_values(connected))


def test_an_end_that_diverges_is_told_and_the_others_go_on(connected: runs.Run, tmp_path: pathlib.Path) -> None:
    stages = shutil.copytree(connected.directory / "stages", tmp_path / "stages")
    settings = {**CONNECTED, "b": "npo:lr=1e18", "also": [], "stages": str(stages)}
    run = runs.connect(runs.from_mapping({**settings, "out": str(tmp_path / "run")}))
    assert {each.label.partition(":")[0] for each in run.failures} == {"npo"}

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    json.loads((tmp_path / "run" / "results.json").read_text(), parse_constant=refuse)
    for pair in run.results["pairs"]:
        methods = {pair[end]["label"].partition(":")[0] for end in "ab"}
        assert ("diverged" in pair) == ("npo" in methods)
    assert methods
    assert "npo:lr=1" in report.write(tmp_path / "run")


def test_seeds_one_by_one_find_the_same(
    connected: runs.Run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As convolutional networks have it."""
    monkeypatch.setattr(chunks, "convolves", lambda *_: True)
    shutil.copytree(connected.directory, tmp_path / "run")
    stages = tmp_path / "run" / "stages"
    for kind in ("npo", "measure_path", "controls"):
        for folder in stages.glob(f"{kind}-*"):
            shutil.rmtree(folder)
    again = connect(tmp_path / "run")
    for mine, theirs in zip(again["pairs"], with_values(connected)["pairs"], strict=True):
        assert mine["metrics"]["retain_loss"] == pytest.approx(theirs["metrics"]["retain_loss"], rel=2e-3, abs=1e-4)


BAD = [
    ({}, "connect what. Give both ends, as --a finetune --b npo, or a --grid: methods, seeds"),
    ({"a": "finetune"}, "connect what"),
    ({"a": "finetune", "b": "npo", "grid": "seeds"}, "either both ends, --a and --b, or a --grid"),
    ({"grid": "method"}, "no grid 'method'; did you mean 'methods'"),
    ({"grid": "seeds", "methods": []}, "one or more --methods"),
    ({"grid": "methods", "methods": ["npo"]}, "two or more --methods"),
    ({"a": "finetune", "b": "finetune"}, "the same run of one method; .* ask for --b finetune:run=1"),
    ({"a": "npo:lr=0.1", "b": "npo:lr=0.1"}, "ask for --b npo:lr=0.1,run=1"),
    ({"a": "finetune:run=1", "b": "finetune:run=1"}, "the same run .* ask for --b finetune:run=2"),
    ({"a": "npo", "b": "npo:forget=0.2"}, "the same run"),
    ({"a": "original", "b": "original"}, "the same run of one method; choose another end"),
    ({"a": "finetune", "b": "finetune:seed=1"}, "two seeds have different originals"),
    ({"a": "finetune", "b": "npo:run=-1"}, "run is a whole number from 0 on, given -1"),
    ({"a": "finetune", "b": "npo:run=x"}, "run is a whole number"),
    ({"a": "finetune", "b": "npo:forget=1.5"}, "inside .0, 1."),
    ({"a": "finetune", "b": "npo:forget=0.1", "forget": "class:3"}, "needs a random request, given class:3"),
    ({"a": "original:run=1", "b": "npo"}, "takes no options"),
    ({"a": "retrain:epochs=3", "b": "npo"}, "--train.epochs"),
    ({"a": "npo", "b": "finetun"}, "did you mean 'finetune'"),
    ({"a": "npo", "b": "ssd:optimizer=adam"}, "ssd is a closed form, which takes no optimizer; these do: finetune"),
    ({"grid": "curriculum", "methods": ["influence"]}, "influence is a closed form, which takes no curriculum"),
    ({"grid": "optimizer", "methods": ["mcu"]}, "mcu trains a path, which takes no optimizer"),
    ({"a": "npo", "b": "ssd", "curve": ["bezier"], "objective": "b"}, "ssd minimises nothing .* --objective neutral"),
    ({"a": "npo", "b": "finetune", "curve": ["bezier"], "objective": "c"}, "no objective 'c'"),
    ({"a": "npo", "b": "finetune", "curve": ["bezier"], "sampling": "x"}, "no sampling 'x'"),
    ({"a": "npo", "b": "finetune", "curve": ["bezier"], "origin": "x"}, "no origin 'x'"),
    ({"a": "npo", "b": "finetune", "objective": "a"}, "objective is of a trained curve.* add --curve bezier"),
    ({"a": "npo", "b": "finetune", "lr": 0.1}, "lr is of a trained curve"),
    ({"a": "npo", "b": "finetune", "methods": ["npo"]}, "methods are those of a grid"),
    ({"grid": "seeds", "sizes": [0.1, 0.2]}, "sizes are those of --grid sizes"),
    ({"grid": "sizes", "sizes": [0.1, 0.1]}, "two or more different --sizes"),
    ({"grid": "sizes", "sizes": [0.1, 2]}, "inside .0, 1."),
    ({"a": "npo", "b": "finetune", "curve": ["linear:bends=2"]}, "linear has no inner point and takes no options"),
    ({"a": "npo", "b": "finetune", "also": ["MIA"]}, "no addition 'MIA'"),
    ({"a": "npo", "b": "finetune", "curve": []}, "one or more curves"),
    ({"a": "npo", "b": "finetune", "curve": ["bezir"]}, "did you mean 'bezier'"),
    ({"a": "npo", "b": "finetune", "curve": ["bezier:bends=0"]}, "bends=N"),
    ({"a": "npo", "b": "finetune", "points": 3}, "at least 4 points"),
    ({"a": "npo", "b": "finetune", "sample": 0}, "sample takes a whole number above 0"),
    ({"a": "npo", "b": "finetune", "retrains": 0}, "retrains takes 1 to 1000 of them, given 0"),
    ({"a": "npo", "b": "finetune", "curve": ["bezier"], "steps": 0}, "steps takes a whole number above 0"),
    ({"a": "npo", "b": "finetune", "seeds": []}, "whole numbers from 0 on"),
    ({"a": "npo", "b": "finetune", "pre": "npo"}, "no setting 'pre'"),
    ({"kind": "unlearn", "grid": "seeds"}, "no setting 'grid'"),
    ({"kind": "conect"}, "no job 'conect'; did you mean 'connect'"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=lambda part: str(part)[:60])
def test_bad_input_is_refused_before_anything_is_made(
    change: dict, message: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(runs.ConfigError, match=message):
        runs.connect(runs.from_mapping({"kind": "connect", "train_size": 60, "validation_size": 40, **change}))
    assert not list(tmp_path.iterdir())


def test_the_directory_of_another_job_is_refused(finished: runs.Run, connected: runs.Run) -> None:
    with pytest.raises(runs.ConfigError, match="is a run of `mcu-jax unlearn`; choose another directory"):
        connect(finished.directory)
    with pytest.raises(runs.ConfigError, match="is a run of `mcu-jax connect`"):
        runs.unlearn(runs.from_mapping({**SMALL, "out": str(connected.directory)}))
    with pytest.raises(runs.ConfigError, match="the configuration of `mcu-jax connect`, not of `mcu-jax unlearn`"):
        runs.from_yaml(connected.directory / "config.yaml", runs.Config)


def test_more_may_be_asked_of_a_run_but_no_other_pair(connected: runs.Run, tmp_path: pathlib.Path) -> None:
    shutil.copytree(connected.directory, tmp_path / "run")
    less = connect(tmp_path / "run", also=["mia"], seeds=[1])
    assert less["config"]["seeds"] == [1]
    assert "continued" not in less["pairs"][0]
    assert less["pairs"][0]["barriers"] == connected.results["pairs"][1]["barriers"]
    assert without_seconds(runs.read_results(tmp_path / "run")) == without_seconds(connected.results)  # it keeps all
    with pytest.raises(runs.ConfigError, match="b is npo there, finetune asked for"):
        connect(tmp_path / "run", b="finetune")


def test_ends_of_another_network_are_refused() -> None:
    from mcu_jax import connect as connecting
    from mcu_jax import training

    small, large = (
        models.mlp(num_classes=10, hidden=hidden).init(jax.random.key(0), jnp.zeros((1, 8, 8))) for hidden in (4, 5)
    )
    objective = training.Objective(lambda *_: (), ())
    with pytest.raises(trees.TreeMismatchError, match="the two ends of a path differ at leaf 'dense0/"):
        connecting.train(objective, small, large, {}, jax.random.key(0))


# Seeds at the same time


def twice(seed: Any, *, wait: float) -> dict[str, Any]:
    time.sleep(wait)  # so that some wait for their turn
    if seed == 3 and not wait:
        raise RuntimeError("seed 3")
    return {"twice": jnp.asarray(2 * seed)}


def test_of_many_seeds_one_by_one_all_are_kept_but_the_one_that_fails(tmp_path: pathlib.Path) -> None:
    store = _stages.Store(tmp_path)
    runner = _runner.Runner(store, runs.Silent(), together=False)

    def stages(wait: float) -> list[_graph.Stage]:
        leaves = [_graph.Leaf({"seed": seed}, lambda seed=seed: seed) for seed in range(6)]
        return [_graph.Stage("work", i, twice, {"seed": leaf}, {"wait": wait}) for i, leaf in enumerate(leaves)]

    with pytest.raises(RuntimeError, match="seed 3"):
        runner.run({"work": stages(0.0)})
    kept = [stage.seed for stage in stages(0.0) if store.has(stage)]
    assert {0, 1, 2} <= set(kept)
    assert 3 not in kept
    runner.run({"work": stages(0.05)})
    assert [int(runner.read(stage)["twice"]) for stage in stages(0.05)] == [0, 2, 4, 6, 8, 10]


def test_settings_are_the_fields_of_the_configuration() -> None:
    assert runs.from_mapping({"kind": "connect", **dataclasses.asdict(runs.ConnectConfig())}) == runs.ConnectConfig()
