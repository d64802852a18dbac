"""Tuning alike: what is searched, how the best is found, and the recipe file that comes of it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from conftest import SMALL, TUNED
from test_runs import Watcher

from mcu_jax import cli, methods, registry, report, runs
from mcu_jax.runs import _directory, _files, _graph, _recipe_file, _tune, _tune_config

pytestmark = pytest.mark.usefixtures("kept_compilations")

SEARCHED = [name for name in methods.NAMES if name != "retrain"]


def resolve(**settings: Any) -> Any:
    return _tune_config.resolve(runs.from_mapping({**TUNED, **settings}))


def graph(resolved: Any, at: pathlib.Path) -> _graph.Graph:
    return _tune.graph(resolved, _directory.RunDirectory(at, at / "stages", resolved))


def change(run: runs.Run, to: pathlib.Path, **changes: Any) -> str:
    """A recipe file like that of the run, with other values."""
    _recipe_file.write(to, {**_recipe_file.read(str(run.directory / "recipe.json")), **changes})
    return str(to)


# What is searched


@pytest.mark.parametrize("name", SEARCHED)
def test_every_method_has_a_search_space_inside_its_ranges(name: str) -> None:
    method = getattr(methods, name)
    space, usual = registry.search_space(method), registry.schema(method)
    assert space
    for option, search in space.items():
        for value in (search.low, search.high, *search.words):
            assert value is None or registry.bind(method, {option: value}, name) == {option: value}
    for number in range(1, 40):
        drawn = _tune_config.draw(name, number)
        assert registry.bind(method, drawn, name) == drawn
        for option, search in space.items():
            value = drawn[option]
            assert value in search.words or search.low <= value <= search.high
            assert not isinstance(usual[option], int) or type(value) is int


def test_nothing_is_searched_of_retraining() -> None:
    assert not registry.search_space(methods.retrain)


def test_draws_are_log_uniform_and_words_take_half() -> None:
    drawn = [_tune_config.draw("mcu", number) for number in range(1, 2001)]
    quarters = np.quantile([one["lr"] for one in drawn], [0.25, 0.5, 0.75])
    assert np.log10(quarters) == pytest.approx(np.linspace(np.log10(0.003), np.log10(0.3), 5)[1:4], abs=0.15)
    assert {one["mask"] for one in drawn} == {"none", "mcu"}
    for option, word in (("beta", "adaptive"), ("mask", "mcu")):
        assert sum(one[option] == word for one in drawn) / 2000 == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("name", SEARCHED)
def test_draws_depend_on_nothing_but_method_and_number(name: str) -> None:
    few, more = (
        resolve(methods=[*others, name], tries=tries) for others, tries in (([], 3), (["influence", "npo"], 5))
    )
    assert few.tries(name) == more.tries(name)[:3]
    assert len({json.dumps(options) for options in more.tries(name)}) == 5
    alone = resolve(methods=[name], tries=1)
    assert alone.tries(name) == [alone.methods[name][1]] == more.tries(name)[:1]


def test_the_first_try_is_the_papers_default() -> None:
    """But for the batches of the data set, and the length of MCU's path, which is told in steps."""
    tuned = resolve(methods=["npo", "mcu"])
    assert tuned.tries("npo")[0] == registry.schema(methods.npo) | {"batch_size": tuned.config.train.batch_size}
    usual = registry.schema(methods.mcu) | {"batch_size": tuned.config.train.batch_size}
    found = tuned.tries("mcu")[0]
    own = {"steps": 2000, "rule": "distribution", "pre": registry.spec(*tuned.methods["start"])}
    assert found == usual | own


def test_mcu_leads_to_its_start_as_the_recipe_has_it() -> None:
    tuned, used = resolve(pre="npo"), runs.resolve(runs.Config(pre="npo", train_size=60))
    assert tuned.methods["start"] == ("npo", used.methods["npo"][1])


# What stages are given


def given_test_examples(made: _graph.Graph) -> set[str]:
    """Labels of the stages that are; to the others other examples stand in for them."""
    given = {}
    for stage in itertools.chain.from_iterable(made.values()):
        rows = stage.inputs["task"].identity
        given[stage.label] = rows["test"] not in (rows["validation"], rows["retain"])
    return {label for label, is_given in given.items() if is_given}


def test_only_the_oracle_looks_at_test_examples(tmp_path: pathlib.Path) -> None:
    assert given_test_examples(graph(resolve(), tmp_path)) == set()
    made = graph(resolve(criterion="avg_gap"), tmp_path)
    assert given_test_examples(made) == {label for label in made if label.startswith("metrics of ")}


def test_a_forgotten_class_is_judged_without_test_examples_too(tmp_path: pathlib.Path) -> None:
    made = graph(resolve(forget="class:3"), tmp_path)
    assert given_test_examples(made) == set()
    for stage in made["metrics of ssd try 0"]:
        assert stage.inputs["task"].identity["forget_test"] == stage.inputs["task"].identity["forget"]


def test_every_method_has_as_many_tries(tmp_path: pathlib.Path) -> None:
    made = graph(resolve(tries=4, methods=["delete", "mcu", "npo"]), tmp_path)
    for name in ("delete", "mcu", "npo"):
        assert {label for label in made if label.startswith(f"{name} ")} == {f"{name} try {k}" for k in range(4)}


# A finished run


def means(results: Mapping[str, Any], method: str) -> list[float]:
    """Of the criterion, by try."""
    rows = [row for row in results["rows"] if row["method"] == method]
    return [np.mean([row["criterion"] for row in rows if row["try"] == number]) for number in range(TUNED["tries"])]


def test_results_hold_the_schema(tuned: runs.Run) -> None:
    results = tuned.results
    assert list(results) == ["schema", "kind", "config", "rows", "recipe", "table_sha256"]
    names = ["influence", "ssd", "mcu"]
    assert [(row["method"], row["try"], row["seed"]) for row in results["rows"]] == [
        *itertools.product(names, [0, 1], [100, 101])
    ]
    for row in results["rows"]:
        assert set(row) == {
            "method", "try", "seed", "values", "criterion", "UA", "RA", "TA", "MIA", "VA", "unseen_distance", "avg_gap",
            "score_accuracy", "score_distribution", "seconds", "diverged",
        }  # fmt: skip
        assert row["criterion"] == row["score_distribution"]
        assert row["TA"] is row["MIA"] is row["avg_gap"] is row["diverged"] is None
        assert 0 <= row["criterion"] <= 1
        assert set(row["values"]) <= set(registry.search_space(getattr(methods, row["method"])))
        assert all(value >= 0 for value in row["seconds"].values())
    table = runs.read_table(tuned.directory)
    assert set(table.role) == {"try"}
    scores = table[table.metric == "score_distribution"]
    assert list(scores.value) == [row["criterion"] for row in results["rows"]]
    assert list(scores.subject.unique()) == [f"{name} try {number}" for name in names for number in (0, 1)]


def test_the_best_try_has_the_lowest_mean_and_is_in_the_file(tuned: runs.Run) -> None:
    recipe = _recipe_file.read(str(tuned.directory / "recipe.json"))
    assert recipe == tuned.results["recipe"]
    assert (recipe["criterion"], recipe["rule"], recipe["oracle"], recipe["tries"]) == (
        "score", "distribution", False, 2,
    )  # fmt: skip
    for name, found in recipe["methods"].items():
        assert found["try"] == int(np.argmin(means(tuned.results, name)))
        assert found["criterion"] == pytest.approx(min(means(tuned.results, name)), abs=1e-12)
        (values,) = {
            json.dumps(row["values"])
            for row in tuned.results["rows"]
            if (row["method"], row["try"]) == (name, found["try"])
        }
        assert json.loads(values) == found["values"]
        assert (found["tries"], found["diverged"]) == (2, 0)
    assert set(recipe["methods"]) == {"influence", "ssd", "mcu"}


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        ([[2.0], [1.0], [1.0]], 1),
        ([[1.0, None], [9.0, 9.0]], 1),
        ([[0.0, 4.0], [1.0, 2.0]], 1),
        ([[None], [None]], None),
    ],
)
def test_the_best_of(criteria: list, expected: int | None) -> None:
    assert _tune._best(criteria) == expected


def test_every_path_leads_to_the_start(tuned: runs.Run) -> None:
    made = graph(_tune_config.resolve(runs.from_mapping(tuned.results["config"])), tuned.directory)
    for number, seed in itertools.product((0, 1), range(2)):
        assert made[f"mcu try {number}"][seed].inputs["end"] is made["influence"][seed]


def test_finished_tries_are_used_again(tuned: runs.Run, tmp_path: pathlib.Path) -> None:
    shutil.copytree(tuned.directory, tmp_path / "run")
    config = runs.from_mapping({**TUNED, "out": str(tmp_path / "run")})
    made = graph(_tune_config.resolve(config), tmp_path / "run")
    for stage in (*made["metrics of influence try 1"], made["metrics of mcu try 0"][0]):
        shutil.rmtree(tmp_path / "run" / "stages" / stage.folder)
    (tmp_path / "run" / "recipe.json").unlink()
    watcher = Watcher()
    again = runs.tune(config, watcher)
    assert watcher.stages == [("metrics of influence try 1", [100, 101]), ("metrics of mcu try 0", [100])]
    assert [row["criterion"] for row in again.results["rows"]] == [row["criterion"] for row in tuned.results["rows"]]
    assert again.recipe == tmp_path / "run" / "recipe.json"
    assert again.recipe.read_bytes() == (tuned.directory / "recipe.json").read_bytes()


def test_more_tries_and_methods_extend_a_run_and_seeds_do_not(tuned: runs.Run) -> None:
    there = {**TUNED, "out": str(tuned.directory)}
    plan = runs.plan(runs.from_mapping({**there, "tries": 3, "methods": ["npo"]}))
    planned = {name: counts for name, *counts in plan.stages}
    assert planned["ssd try 1"] == [2, 0]
    assert planned["ssd try 2"] == planned["npo try 0"] == [0, 2]
    with pytest.raises(runs.ConfigError, match="Only its tries and methods may change"):
        runs.plan(runs.from_mapping({**there, "seeds": [100, 101, 102]}))
    with pytest.raises(runs.ConfigError, match="criterion is score there, avg_gap asked for"):
        runs.plan(runs.from_mapping({**there, "criterion": "avg_gap"}))


def test_a_part_of_a_run_is_shown_and_the_recipe_is_of_all(tuned: runs.Run, tmp_path: pathlib.Path) -> None:
    shutil.copytree(tuned.directory, tmp_path / "run")
    watcher = Watcher()
    config = {
        **TUNED,
        "methods": ["ssd"],
        "tries": 1,
        "out": str(tmp_path / "run"),
        "to": str(tmp_path / "a" / "r"),
    }
    part = runs.tune(runs.from_mapping(config), watcher)
    assert not watcher.stages
    assert {row["method"] for row in part.results["rows"]} == {"ssd"}
    assert {row["try"] for row in part.results["rows"]} == {0, 1}
    assert _recipe_file.read(str(tmp_path / "a" / "r")) == tuned.results["recipe"]


def test_the_command_tells_the_best_tries(tuned: runs.Run, tmp_path: pathlib.Path, capsys) -> None:
    flags = (
        "--train-size 60 --validation-size 40 --train.epochs 3 --methods influence ssd mcu --pre influence --tries 2"
    )
    shutil.copytree(tuned.directory, tmp_path / "run")
    assert cli.run(["tune", *flags.split(), "--seeds", "100", "101", "--out", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert report.write(tuned.directory) in shown
    assert f"Written to {tmp_path}/run: results.json and results.csv, config.yaml, splits and stages." in shown
    assert f"The recipe: {tmp_path}/run/recipe.json" in shown
    for name, found in tuned.results["recipe"]["methods"].items():
        assert name in shown
        assert f"{100 * found['criterion']:.2f} [" in shown
        assert all(f"{option}={value}" in shown for option, value in found["values"].items())
    assert "needs no retrained model" in " ".join(shown.split())


def test_a_try_that_diverges_is_out_and_no_failure(
    tuned: runs.Run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """The papers' defaults diverge here; of what is drawn, only that of npo."""
    wild = {"epochs": 2, "lr": 1e38}
    monkeypatch.setattr(
        _tune_config, "PAPERS", _tune_config.PAPERS | {"methods": dict.fromkeys(("finetune", "npo"), wild)}
    )
    draws = {"finetune": {"epochs": 2, "lr": 0.01}, "npo": wild}
    monkeypatch.setattr(_tune_config, "draw", lambda name, _: draws[name])
    stages = shutil.copytree(tuned.directory / "stages", tmp_path / "stages")
    config = {**TUNED, "methods": [*draws], "out": str(tmp_path / "run"), "stages": str(stages)}
    watcher = Watcher()
    made = runs.tune(runs.from_mapping(config), watcher)
    assert not made.failures
    assert watcher.notes == ["npo: every try diverged for some seed, so that the recipe is without it"]
    (found,) = made.results["recipe"]["methods"].values()
    assert (found["try"], found["diverged"], found["values"]) == (1, 1, draws["finetune"])
    broken = [row for row in made.results["rows"] if row["diverged"] is not None]
    assert {(row["method"], row["try"]) for row in broken} == {("finetune", 0), ("npo", 0), ("npo", 1)}
    assert all(row["criterion"] is None for row in broken)
    shown = " ".join(report.write(made.directory).split())
    assert "Every try diverged, so that the recipe is without: npo." in shown
    assert "not finite 2/2" in shown


def test_the_oracle_says_so(tuned: runs.Run, tmp_path: pathlib.Path) -> None:
    stages = shutil.copytree(tuned.directory / "stages", tmp_path / "stages")
    config = {**TUNED, "methods": ["influence"], "criterion": "avg_gap", "tries": 1, "seeds": [100]}
    made = runs.tune(runs.from_mapping({**config, "out": str(tmp_path / "run"), "stages": str(stages)}))
    (row,) = made.results["rows"]
    assert row["criterion"] == row["avg_gap"]
    assert None not in (row["TA"], row["MIA"])
    assert made.results["recipe"]["oracle"] is True
    assert "an oracle, which a user does not have" in " ".join(report.write(made.directory).split())


# The recipe file


def used(file: str, **settings: Any) -> Any:
    given = {k: v for k, v in SMALL.items() if k in ("seeds", "points")}
    return runs.resolve(runs.from_mapping({**given, "recipe": file, **settings}))


def test_a_run_by_a_recipe_has_exactly_its_hyper_parameters(tuned: runs.Run) -> None:
    recipe = tuned.results["recipe"]
    resolved = used(str(tuned.directory / "recipe.json"), baselines=["ssd", "mcu:rule=distribution,points=9"])
    found = {name: method["values"] for name, method in recipe["methods"].items()}
    for name in ("influence", "ssd"):
        options = resolved.methods[name][1]
        assert {option: options[option] for option in found[name]} == found[name]
        usual = runs.resolve(runs.from_mapping({**SMALL, "pre": name})).methods[name][1]
        assert {k: v for k, v in options.items() if k not in found[name]} == {
            k: v for k, v in usual.items() if k not in found[name]
        }
    config, mcu = resolved.config, found["mcu"]
    assert (config.steps, config.lr, config.beta) == (mcu["steps"], mcu["lr"], str(mcu["beta"]))
    assert config.mask.kind == mcu["mask"]
    assert (config.mask.keep, config.mask.retain_filter) == (mcu.get("keep"), mcu.get("retain_filter"))
    as_baseline = resolved.methods["mcu:rule=distribution,points=9"][1]
    assert {option: as_baseline[option] for option in mcu} == mcu
    assert (config.train_size, config.validation_size, config.forget) == (60, 40, "random:0.2")
    assert dataclasses.asdict(config.train) == recipe["train"]
    assert config.pre == recipe["pre"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": {"epochs": 3}}, "setting train.lr is missing"),
        ({"train": None}, "setting train takes a group of settings"),
        ({"train": {"epochs": 0, "lr": 0.1, "batch_size": 8}}, "setting train.epochs takes a whole number above 0"),
        ({"forget": 3.5}, "the recipe .* was tuned on seed|forget is random:FRACTION"),
        ({"forget": None}, "setting forget takes a word, given None"),
        ({"data_hash": [1]}, "setting data_hash takes a word"),
        ({"seeds": 3.5}, "setting seeds takes a list of whole numbers"),
        ({"pre": "\x1b[31m"}, "setting pre holds a control character"),
        ({"methods": []}, "methods holds values by the names of methods, given .."),
        ({"methods": {"ssd": {}}}, "values of ssd are hyper-parameters by name, given None"),
        ({"methods": {"ssd": {"values": {"alpha": -1}}}}, "ssd: alpha must be a number from 0 on, given -1"),
        ({"methods": {"sdd": {"values": {}}}}, "no method 'sdd'; did you mean 'ssd'"),
    ],
    ids=lambda part: str(part)[:40],
)
def test_a_recipe_that_somebody_wrote_holds_what_recipes_do_or_is_refused(
    tuned: runs.Run, tmp_path: pathlib.Path, change: dict, message: str
) -> None:
    """Its digest is no signature."""
    whole = _recipe_file.read(str(tuned.directory / "recipe.json"))
    _files.write_json(tmp_path / "r.json", {**whole, **change})
    with pytest.raises(runs.ConfigError, match=message):
        used(str(tmp_path / "r.json"))
    fewer = {name: value for name, value in whole.items() if name not in change}
    _files.write_json(tmp_path / "r.json", fewer)
    with pytest.raises(runs.ConfigError, match=r"is missing|given None"):
        used(str(tmp_path / "r.json"))


@pytest.mark.parametrize("place", ["/dev/zero", "/"])
def test_a_recipe_is_a_file(place: str) -> None:
    with pytest.raises(runs.ConfigError, match=r"is no recipe: expected a file of at most|cannot be read: Is a dir"):
        used(place)


def test_what_is_asked_for_wins_over_a_recipe(tuned: runs.Run) -> None:
    resolved = used(
        str(tuned.directory / "recipe.json"), pre="ssd:fisher_batch=3", steps=9, beta="adaptive",
        mask={"kind": "none"}, train_size=70, train={"epochs": 5},
    )  # fmt: skip
    options = resolved.methods["ssd:fisher_batch=3"][1]
    assert options["fisher_batch"] == 3
    assert options["alpha"] == tuned.results["recipe"]["methods"]["ssd"]["values"]["alpha"]
    asked = used(str(tuned.directory / "recipe.json"), pre="ssd:alpha=7")
    assert asked.methods["ssd:alpha=7"][1]["alpha"] == 7
    config = resolved.config
    assert (config.steps, config.beta, config.mask.kind, config.mask.keep) == (9, "adaptive", "none", None)
    assert (config.train_size, config.validation_size, config.train.epochs) == (70, 40, 5)


def test_connect_and_tune_take_a_recipe(tuned: runs.Run, tmp_path: pathlib.Path) -> None:
    without = {"beta": 0.25, "mask": "none", "steps": 11, "lr": 0.2}
    file = change(
        tuned, tmp_path / "r.json", methods={"mcu": {"values": without}, "influence": {"values": {"alpha": 3.5}}}
    )
    config = runs.from_mapping({"kind": "connect", "a": "mcu", "b": "influence", "recipe": file, "seeds": [0]})
    resolved = runs.plan(config).config["resolved"]
    assert resolved["influence"]["alpha"] == 3.5
    assert {option: resolved["mcu"][option] for option in without} == without
    assert resolve(recipe=file, methods=["mcu"], pre="influence").methods["start"][1]["alpha"] == 3.5
    assert used(file).config.mask == runs.MaskConfig("none")


def test_a_run_knows_a_recipe_by_its_content(
    tuned: runs.Run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = used(str(tuned.directory / "recipe.json"))
    elsewhere = used(str(shutil.copy(tuned.directory / "recipe.json", tmp_path / "other.json")))
    assert first.identity() == elsewhere.identity()
    monkeypatch.chdir(tmp_path)
    assert used("other.json").as_dict() == elsewhere.as_dict()
    assert first.identity() != used(change(tuned, tmp_path / "r.json", tries=3)).identity()
    again = runs.resolve(runs.from_mapping(first.as_dict()))
    assert again.as_dict() == first.as_dict()
    assert again.identity() == first.identity()


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"data_hash": "0" * 64}, {}, r"was tuned on digits, data of hash 000000000000…; this data has [0-9a-f]{12}…"),
        ({"model": "mlp:hidden=[8]"}, {}, r"was tuned for model mlp:hidden=\[8\], given mlp: give its own by --model"),
        ({}, {"model": "mlp:hidden=[8]"}, r"tuned for model mlp, given mlp:hidden=\[8\]"),
        ({}, {"seeds": [0, 101]}, "was tuned on seed 101, which would be reported too: choose --seeds without 100 101"),
        ({"schema": 0}, {}, "is not one of schema 1"),
        ({"kind": "tune"}, {}, "is not one of schema 1"),
        ({"methods": {"nop": {"values": {}}}}, {}, "there is no method 'nop'; did you mean 'npo'"),
        (
            {"methods": {"npo": {"values": {"bet": 1}}}},
            {},
            "method npo has no hyper-parameter 'bet'; did you mean 'beta'",
        ),
    ],
    ids=str,
)
def test_a_recipe_for_something_else_is_refused(
    tuned: runs.Run, tmp_path: pathlib.Path, changes: dict, settings: dict, message: str
) -> None:
    file = change(tuned, tmp_path / "r.json", **changes)
    with pytest.raises(runs.ConfigError, match=message):
        used(file, **settings)
    connection = runs.from_mapping(
        {"kind": "connect", "a": "npo", "b": "influence", "seeds": [0], "recipe": file, **settings}
    )
    with pytest.raises(runs.ConfigError, match=message):
        runs.plan(connection)


def test_seeds_that_it_was_tuned_on_may_be_tuned_on_again(tuned: runs.Run) -> None:
    assert resolve(recipe=str(tuned.directory / "recipe.json")).config.seeds == (100, 101)


def test_a_damaged_recipe_is_refused(tuned: runs.Run, tmp_path: pathlib.Path) -> None:
    whole = (tuned.directory / "recipe.json").read_text()
    for content in (whole[:200], whole.replace('"tries": 2', '"tries": 3', 1), "[]", "{}", '"x"', ""):
        (tmp_path / "r.json").write_text(content)
        with pytest.raises(runs.ConfigError, match=r"r\.json is not as `mcu-jax tune` writes one: .*or tune again"):
            used(str(tmp_path / "r.json"))
    assert math.isfinite(_files.read_json(tuned.directory / "recipe.json")["methods"]["mcu"]["criterion"])
    with pytest.raises(runs.ConfigError, match="is not one of schema 1"):
        used(str(tuned.directory / "results.json"))
