"""Runs of `mcu-jax connect`: which models are connected, what is measured on the way, and what it comes to."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import CONNECTED, SMALL
from scipy import special, stats
from scipy.cluster import hierarchy

from mcu_jax import Problem, alignment, checkpoint, methods, metrics, models, paths, runs, splits, trees
from mcu_jax.runs import _along, _connect, _connect_config, _connect_results, _replicate, _stages, _unlearn

BOTH = ("neggrad_plus", "npo")


def resolve(**settings: Any) -> _connect_config.Resolved:
    given = {"kind": "connect", "train_size": 60, "validation_size": 40, **settings}
    return _connect_config.resolve(runs.from_mapping(given))


def labels(**settings: Any) -> list[tuple[str, str, str]]:
    return [(pair.a.label, pair.b.label, pair.role) for pair in resolve(**settings).pairs]


def connect(out: pathlib.Path, observer: Any = None, **settings: Any) -> dict[str, Any]:
    return runs.connect(runs.from_mapping({**CONNECTED, **settings, "out": str(out)}), observer).results


def of(results: dict[str, Any], a: str = BOTH[0], b: str = BOTH[1], curve: str = "linear") -> list[dict[str, Any]]:
    found = [p for p in results["pairs"] if (p["a"]["label"], p["b"]["label"], p["curve"]) == (a, b, curve)]
    assert [p["seed"] for p in found] == [0, 1]
    return found


def without_seconds(results: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in results.items() if name not in ("seconds", "config")}


class Watcher(runs.Silent):
    """Remembers what is made, and asks to stop after a stage."""

    def __init__(self, stop_in: str = ""):
        self.made: list[str] = []
        self.stop_in = stop_in

    def stage(self, name: str, seeds: Any, cached: int) -> None:
        self.made.append(name)

    def should_stop(self) -> bool:
        return self.stop_in in self.made


def problem_of(connected: runs.Run, resolved: Any, seed: int) -> Problem:
    """What the run's models of one seed were unlearned from, and are evaluated on."""
    split = json.loads((connected.directory / "splits" / f"seed-{seed}.json").read_text())
    train = resolved.data.train
    parts = {name: splits.take(train, np.array(split[name])) for name in ("forget", "retain", "validation")}
    original = runs.load(connected.directory, seed=seed, stage="original")
    return Problem(model=resolved.model, params=original, test=resolved.data.test, num_classes=10, **parts)


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
    names = set(_connect.Job(config, runs.Silent()).addresses())
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
    job = _connect.Job(config, runs.Silent())
    blank = job.resolved.model.init(jax.random.key(0), job.resolved.data.train.x[:1])
    for each in job.requests.values():
        each.take_up([_stages.Stage(blank, 0.0, 0.0)] * 5)
    pair = job.resolved.pairs[0]
    small, large = (job.requests[fraction].indices for fraction in (0.1, None))
    for seed, problem in zip(job.config.seeds, job._problems(pair), strict=True):
        assert set(small[seed].forget) < set(large[seed].forget)
        assert len(problem.forget.y) == 6
        x = job.resolved.data.train.x
        assert np.array_equal(problem.forget.x, x[small[seed].forget])
        assert np.array_equal(problem.retain.x, x[large[seed].retain])
    assert set(job.directory.indices) == {f"seed-{s}{more}" for s in range(5) for more in ("", "-random-0.1")}


def test_what_unlearn_makes_is_found_again() -> None:
    """Originals, retrained and unlearned models of both jobs belong in the same place."""
    given = {"train_size": 60, "validation_size": 40, "seeds": [0, 1]}
    unlearn = _unlearn.Job(runs.from_mapping({**given, "pre": "npo"}), runs.Silent()).addresses()
    connected = _connect.Job(
        runs.from_mapping({**given, "kind": "connect", "a": "npo", "b": "finetune"}), runs.Silent()
    ).addresses()
    for name in ("original", "retrain", "npo"):
        assert [a.folder for a in unlearn[name]] == [a.folder for a in connected[name]]
    assert connected["npo"][0].folder != connected["npo:run=1"][0].folder
    folders = [address.folder for each in connected.values() for address in each]
    assert len(set(folders)) == len(folders)


def test_mcu_is_an_end_too_with_its_recipe() -> None:
    end = resolve(a="mcu:pre=npo,epochs=3", b="finetune").endpoints["mcu:pre=npo,epochs=3"]
    assert end.options["epochs"] == 3
    assert end.options["pre"].startswith("npo:")
    assert "lr=0.015" in end.options["pre"]


# What is measured


def test_results_hold_the_schema(connected: runs.Run) -> None:
    results = connected.results
    assert json.loads((connected.directory / "results.json").read_text()) == json.loads(json.dumps(results))
    assert (results["schema"], results["kind"]) == (1, "connect")
    ends = [*[(*BOTH, "pair")], *[(name, f"{name}:run=1", "floor") for name in BOTH]]
    found = [(p["a"]["label"], p["b"]["label"], p["role"], p["curve"], p["seed"]) for p in results["pairs"]]
    assert found == [(*end, curve, seed) for end in ends for curve in ("linear", "bezier") for seed in (0, 1)]
    for pair in results["pairs"]:
        names = {f"{s}_{m}" for s in ("retain", "forget", "validation", "test") for m in ("loss", "accuracy")}
        assert set(pair["metrics"]) == names | {"js", "zrf", "MIA"}
        assert pair["t"] == [0, 0.25, 0.5, 0.75, 1]
        assert all(len(values) == 5 for values in pair["metrics"].values())
        assert pair["objective"] == (None if pair["curve"] == "linear" else "neutral")
        assert pair["a"] == {
            "method": BOTH[0] if pair["a"]["label"] == BOTH[0] else BOTH[1],
            "optimizer": "sgd", "curriculum": "none", "forget": "random:0.2", "run": 0, "label": pair["a"]["label"],
        }  # fmt: skip
        assert 0 <= pair["disagreement"] <= 1
        assert 0 <= pair["cka"] <= 1 + 1e-6
        assert -1 <= pair["task_cosine"] <= 1 + 1e-6
        assert pair["arc_length"] >= pair["distance"]["ab"] * (1 - 1e-4)
        assert len(pair["continued"]["barriers"]) == len(pair["continued"]["before"]) == 3
    assert [(r["seed"], r["run"]) for r in results["retrained"]] == [(s, u) for u in (0, 1) for s in (0, 1)]
    assert results["order"] == []
    assert results["clusters"] is None


def test_barriers_are_what_the_metrics_say(connected: runs.Run) -> None:
    for pair in connected.results["pairs"]:
        t, values = np.array(pair["t"]), {name: np.array(value) for name, value in pair["metrics"].items()}
        excess = {name: value - ((1 - t) * value[0] + t * value[-1]) for name, value in values.items()}
        expected = {
            "retain_nats": excess["retain_loss"].max(),
            "forget_nats": (-excess["forget_loss"]).max(),
            "test_nats": excess["test_loss"].max(),
            "js_nats": excess["js"].max(),
            "retain_accuracy": 100 * (-excess["retain_accuracy"]).max(),
            "forget_accuracy": 100 * excess["forget_accuracy"].max(),
            "test_accuracy": 100 * (-excess["test_accuracy"]).max(),
            "MIA": 100 * (-excess["MIA"]).max(),
            "zrf": 100 * np.abs(excess["zrf"]).max(),
        }
        for name, value in expected.items():
            assert pair["barriers"][name] == pytest.approx(max(value, 0), abs=2e-4), name
        worst = max(pair["barriers"]["retain_accuracy"], pair["barriers"]["forget_accuracy"])
        assert pair["barriers"]["accuracy"] == worst
        assert pair["connected"] == (worst <= 2)
        for name, value in values.items():
            assert pair["total_variation"][name] == pytest.approx(np.abs(np.diff(value)).sum(), abs=1e-5)
            assert pair["max_second_difference"][name] == pytest.approx(np.abs(np.diff(value, n=2)).max(), abs=1e-5)


def test_the_ends_of_a_path_are_the_models_and_between_them_is_their_mean(connected: runs.Run) -> None:
    data = _connect_config.resolve(runs.from_yaml(connected.directory / "config.yaml")).data
    model = models.mlp(num_classes=10)
    for i, seed in enumerate((0, 1)):
        a, b = (runs.load(connected.directory, seed=seed, stage=name) for name in BOTH)
        original = runs.load(connected.directory, seed=seed, stage="original")
        split = json.loads((connected.directory / "splits" / f"seed-{seed}.json").read_text())
        x, y = data.train.x[split["forget"]], data.train.y[split["forget"]]
        pair = of(connected.results)[i]
        for t, params in ((0, a), (2, trees.lerp(a, b, 0.5)), (4, b)):
            log_p = special.log_softmax(np.asarray(model.apply(params, x)[0], np.float64), -1)
            assert pair["metrics"]["forget_loss"][t] == pytest.approx(-log_p[np.arange(len(y)), y].mean(), abs=1e-4)
        for name, (p, q) in {"a": (a, original), "b": (b, original), "ab": (a, b)}.items():
            assert pair["distance"][name] == pytest.approx(float(trees.norm(trees.sub(p, q))), rel=1e-4)
        assert pair["task_cosine"] == pytest.approx(float(metrics.task_cosine(a, b, original)), abs=1e-4)
        hidden = [model.features(params, data.test.x) for params in (a, b)]
        assert pair["cka"] == pytest.approx(float(metrics.cka(*hidden)), abs=1e-3)
        told = [np.asarray(model.apply(params, data.test.x)[0]).argmax(-1) for params in (a, b)]
        assert pair["disagreement"] == pytest.approx((told[0] != told[1]).mean(), abs=1e-4)


def test_a_trained_curve_leaves_its_ends_and_has_another_middle(connected: runs.Run) -> None:
    for line, curve in zip(of(connected.results), of(connected.results, curve="bezier"), strict=True):
        for name, values in line["metrics"].items():
            bent = curve["metrics"][name]
            assert (bent[0], bent[-1]) == pytest.approx((values[0], values[-1]), abs=1e-5)
        assert curve["metrics"]["retain_loss"][2] != line["metrics"]["retain_loss"][2]
        assert curve["arc_length"] > line["arc_length"]


def test_runs_differ_in_the_key_of_unlearning_alone(connected: runs.Run) -> None:
    first, second = (runs.load(connected.directory, seed=0, stage=name) for name in ("npo", "npo:run=1"))
    assert float(trees.norm(trees.sub(first, second))) > 0
    floor = of(connected.results, "npo", "npo:run=1")[0]
    assert floor["distance"]["ab"] < of(connected.results)[0]["distance"]["ab"]


def test_the_floor_is_the_mean_over_seeds_of_the_mean_over_methods(connected: runs.Run) -> None:
    by_seed = [
        np.mean([of(connected.results, name, f"{name}:run=1")[i]["barriers"]["forget_nats"] for name in BOTH])
        for i in (0, 1)
    ]
    found = connected.results["floor"]["forget_nats"]
    assert found["pairs"] == 4
    assert found["mean"] == pytest.approx(np.mean(by_seed))
    low, high = stats.t.interval(0.95, 1, np.mean(by_seed), stats.sem(by_seed))
    assert found["interval"] == pytest.approx([low, high])


def test_interior_points_are_chosen_on_validation_and_told_on_test() -> None:
    ts = np.linspace(0, 1, 5)
    values = {
        "validation_accuracy": [0.8, 0.9, 0.85, 0.7, 0.8],
        "test_accuracy": [0.7, 0.75, 0.9, 0.9, 0.6],
        "forget_accuracy": [0.9, 0.9, 0.9, 0.9, 0.9],
    }
    original = {"validation_accuracy": 0.9, "test_accuracy": 0.8}
    found = _connect_results._interior(ts, values, original, class_wise=False)
    assert found["t"] == 0.25
    assert found["share"] == pytest.approx(2 / 3)  # 0.25 and 0.5 are nearer than both ends
    assert found["score"] == pytest.approx(0.5 * 0.05)
    assert found["ends"] == pytest.approx([0.5 * 0.1, 0.5 * 0.2])
    class_wise = _connect_results._interior(ts, values, original, class_wise=True)
    assert class_wise["score"] == pytest.approx(0.5 * (0.05 + 0.9))


def test_the_share_within_the_spread_of_retrained_models(connected: runs.Run) -> None:
    for seed, pair in enumerate(of(connected.results)):
        spread = [r["test_accuracy"] for r in connected.results["retrained"] if r["seed"] == seed]
        values = np.array(pair["metrics"]["test_accuracy"])
        expected = ((values >= min(spread) - 1e-6) & (values <= max(spread) + 1e-6)).mean()
        assert pair["within_retrain"]["test_accuracy"] == pytest.approx(expected)


# Controls, and what is beyond


def test_a_perturbation_is_as_far_as_the_method_went(connected: runs.Run) -> None:
    found = connected.results["controls"]["perturbation"]
    assert [(e["method"], e["seed"]) for e in found] == [(name, seed) for name in BOTH for seed in (0, 1)]
    for entry in found:
        went = of(connected.results)[entry["seed"]]["distance"]["a" if entry["method"] == BOTH[0] else "b"]
        assert entry["distance"]["a"] == pytest.approx(went, rel=1e-3)
        assert entry["distance"]["b"] == pytest.approx(went, rel=1e-3)
        assert entry["distance"]["ab"] > went  # two directions


def test_the_retrained_model_is_aligned_first(connected: runs.Run) -> None:
    for entry in connected.results["controls"]["retrain"]:
        load = {name: runs.load(connected.directory, seed=entry["seed"], stage=name) for name in (*BOTH, "retrain")}
        unlearned, model = load[entry["method"]], models.mlp(num_classes=10)
        aligned = alignment.align(model, load["retrain"], unlearned)
        apart = float(trees.norm(trees.sub(aligned, unlearned)))
        assert entry["distance"]["ab"] == pytest.approx(apart, rel=1e-4)
        assert apart < float(trees.norm(trees.sub(load["retrain"], unlearned)))
        assert set(entry["unaligned"]) == set(entry["barriers"]) == {"retain_nats", "forget_nats", "accuracy"}
    assert any(e["unaligned"] != e["barriers"] for e in connected.results["controls"]["retrain"])


def test_the_line_to_the_original_ends_there(connected: runs.Run) -> None:
    assert {e["distance"]["b"] for e in connected.results["controls"]["original"]} == {0.0}


def test_gradient_ascent_is_stopped_at_several_epochs(connected: runs.Run) -> None:
    found = connected.results["controls"]["stopping"]
    assert [(e["epochs"], e["seed"]) for e in found] == [(n, seed) for n in (2, 4, 6, 8, 10) for seed in (0, 1)]
    assert {e["method"] for e in found} == {BOTH[0]}
    for seed in (0, 1):
        distances = [e["distance"]["a"] for e in found if e["seed"] == seed]
        assert distances == sorted(distances)


def test_continued_training_starts_from_both_ends(connected: runs.Run) -> None:
    resolved = _connect_config.resolve(runs.from_yaml(connected.directory / "config.yaml"))
    for name, seed in itertools.product(BOTH, (0, 1)):
        problem = problem_of(connected, resolved, seed)
        end = runs.load(connected.directory, seed=seed, stage=name)
        further = runs.load(connected.directory, seed=seed, stage=f"continued: {name}")
        key = _replicate.key(seed, "continued")
        expected = methods.finetune(dataclasses.replace(problem, params=end), key, **resolved.further)
        assert float(trees.norm(trees.sub(further, expected))) < 1e-3 * float(trees.norm(trees.sub(end, expected)))
    for i, seed in enumerate((0, 1)):
        problem = problem_of(connected, resolved, seed)
        ends = {
            "before": [runs.load(connected.directory, seed=seed, stage=name) for name in BOTH],
            "barriers": [runs.load(connected.directory, seed=seed, stage=f"continued: {name}") for name in BOTH],
        }
        for when, models_ in ends.items():
            line = jax.jit(_along.lines)(problem, jax.random.key(0), *(trees.stack([params]) for params in models_))
            found = of(connected.results)[i]["continued"][when]
            assert found["retain_nats"] == pytest.approx(float(line["retain_loss"][0]), abs=1e-4)
            assert found["accuracy"] == pytest.approx(100 * float(line["accuracy"][0]), abs=1e-3)


def test_relearning_starts_at_five_points_of_the_first_curve(connected: runs.Run) -> None:
    for pair in connected.results["pairs"]:
        assert ("relearning" in pair) == (pair["curve"] == "linear")
    for pair in of(connected.results):
        assert pair["relearning"]["t"] == list(_along.RELEARNED)
    resolved = _connect_config.resolve(runs.from_yaml(connected.directory / "config.yaml"))
    for i, seed in enumerate((0, 1)):
        problem, found = problem_of(connected, resolved, seed), of(connected.results)[i]["relearning"]
        ends = [runs.load(connected.directory, seed=seed, stage=name) for name in BOTH]
        for t, steps in zip(found["t"], found["steps"], strict=True):
            key, lr = _replicate.key(seed, "relearning"), resolved.further["lr"]
            expected = metrics.relearn_steps(
                problem, trees.lerp(*ends, t), key, lr=lr, batch_size=resolved.config.train.batch_size, limit=100
            )
            assert abs(steps - int(expected)) <= 1  # a last bit may tip a step
    assert all(0 < r["relearning_steps"] <= _along.LIMIT for r in connected.results["retrained"])


def test_correlations_are_taken_within_a_seed() -> None:
    def pair(seed: int, barrier: float, attack: float, role: str = "pair") -> dict[str, Any]:
        barriers = {"retain_nats": barrier, "forget_nats": 1.0, "accuracy": -barrier}
        metrics = {"MIA": [attack, 0.5, attack]}
        return {"seed": seed, "role": role, "forget": "random:0.2", "barriers": barriers, "metrics": metrics}

    # Within either seed they rise together; over all of them they would not.
    pairs = [pair(0, 1.0, 0.6), pair(0, 2.0, 0.7), pair(0, 3.0, 0.8)]
    pairs += [pair(1, 11.0, 0.1), pair(1, 12.0, 0.2), pair(1, 13.0, 0.3)]
    pairs.append(pair(0, 9.0, 0.0, "floor"))
    retrained = [{"seed": seed, "forget": "random:0.2", "run": 0, "MIA": 0.0} for seed in (0, 1)]
    # Pairs of another size are compared with models retrained without that much: their attacks fall.
    pairs += [{**pair(seed, 4.0 + 10 * seed, 0.9), "forget": "random:0.1"} for seed in (0, 1)]
    retrained += [{"seed": seed, "forget": "random:0.1", "run": 0, "MIA": 0.9} for seed in (0, 1)]
    told = {(e["barrier"], e["attack"]): e for e in _connect_results._correlation(pairs, retrained)}
    ranks = stats.spearmanr([1, 2, 3, 4], [2, 3, 4, 1]).statistic
    assert told["retain_nats", "at the ends"]["mean"] == pytest.approx(ranks)
    assert told["accuracy", "at the ends"]["mean"] == pytest.approx(-ranks)
    assert told["retain_nats", "at the ends"]["seeds"] == 2
    assert ("forget_nats", "at the ends") not in told  # constant


def test_methods_are_clustered_by_their_barriers() -> None:
    names = ["p", "q", "r", "s"]
    apart = {("p", "q"): 9.0, ("p", "r"): 1.0, ("p", "s"): 8.0, ("q", "r"): 9.0, ("q", "s"): 2.0, ("r", "s"): 8.0}

    def entry(a: str, b: str, role: str, value: float, seed: int) -> dict[str, Any]:
        ends = {"a": {"label": a}, "b": {"label": b}}
        return {**ends, "role": role, "seed": seed, "barriers": {"accuracy": value + seed}}

    pairs = [entry(*both, "pair", value, seed) for both, value in apart.items() for seed in (-0.5, 0.5)]
    pairs += [entry(name, f"{name}:run=1", "floor", i, 0) for i, name in enumerate(names)]
    order, clusters = _connect_results._clusters(pairs)
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset("pr"), frozenset("qs")}
    assert clusters is not None
    assert clusters["labels"] == names
    for (i, a), (j, b) in itertools.product(enumerate(names), repeat=2):
        assert clusters["matrix"][i][j] == (i if a == b else apart.get((a, b), apart.get((b, a))))
    drawn = hierarchy.dendrogram(np.asarray(clusters["linkage"]), labels=clusters["labels"], no_plot=True)
    assert drawn["ivl"] == order


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
    apart = float(trees.norm(trees.sub(aligned, load["npo"])))
    assert pair["distance"]["ab"] == pytest.approx(apart, rel=1e-4)
    assert apart < float(trees.norm(trees.sub(load["retrain"], load["npo"])))
    both = further["npo"], alignment.align(resolved.model, further["retrain"], further["npo"])
    problem = problem_of(runs.Run(tmp_path / "run", results), resolved, 0)
    line = jax.jit(_along.lines)(problem, jax.random.key(0), *(trees.stack([params]) for params in both))
    assert pair["continued"]["barriers"]["retain_nats"] == pytest.approx(float(line["retain_loss"][0]), abs=1e-4)


def test_the_model_of_mcu_is_read_from_either_job(connected: runs.Run, tmp_path: pathlib.Path) -> None:
    index = json.loads((connected.directory / "stages.json").read_text())
    for name, place in index["npo"].items():
        index["npo"][name] = str((connected.directory / place).resolve())
    (tmp_path / "stages.json").write_text(json.dumps({"mcu:pre=npo": index["npo"]}))
    found = runs.load(tmp_path, seed=0, stage="mcu:pre=npo")
    assert float(trees.norm(trees.sub(found, runs.load(connected.directory, seed=0, stage="npo")))) == 0


def test_seconds_count_every_stage_once(connected: runs.Run) -> None:
    stages_ = [checkpoint.read_meta(file.parent) for file in connected.directory.glob("stages/*/manifest.json")]
    for part in ("npo", "bezier", "continued"):
        own = [meta["seconds"] + meta["compile_seconds"] for meta in stages_ if meta["name"].partition(":")[0] == part]
        assert connected.results["seconds"][part] == pytest.approx(sum(own), abs=0.06)


# Going on, and what is refused


def test_a_second_run_makes_nothing_and_finds_the_same(connected: runs.Run, tmp_path: pathlib.Path) -> None:
    shutil.copytree(connected.directory, tmp_path / "run")
    watcher = Watcher()
    again = connect(tmp_path / "run", watcher)
    assert watcher.made == []
    assert without_seconds(again) == without_seconds(connected.results)


def test_an_interrupted_run_goes_on_where_it_was(connected: runs.Run, tmp_path: pathlib.Path) -> None:
    shutil.copytree(connected.directory, tmp_path / "run")
    stages = tmp_path / "run" / "stages"
    for kind in ("npo", "bezier", "measures", "controls", "relearning", "barriers-continued"):
        assert list(stages.glob(f"{kind}-*"))
        for folder in stages.glob(f"{kind}-*"):
            shutil.rmtree(folder)
    first, second = Watcher("npo:run=1"), Watcher()
    with pytest.raises(runs.InterruptedRunError):
        connect(tmp_path / "run", first)
    again = connect(tmp_path / "run", second)
    assert first.made == ["npo", "npo:run=1"]
    assert "npo" not in second.made
    assert without_seconds(again) == without_seconds(connected.results)


def test_seeds_one_by_one_find_the_same(
    connected: runs.Run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As convolutional networks have it."""
    monkeypatch.setattr(paths, "convolves", lambda *_: True)
    shutil.copytree(connected.directory, tmp_path / "run")
    stages = tmp_path / "run" / "stages"
    for kind in ("npo", "measures", "controls"):
        for folder in stages.glob(f"{kind}-*"):
            shutil.rmtree(folder)
    again = connect(tmp_path / "run")
    for mine, theirs in zip(again["pairs"], connected.results["pairs"], strict=True):
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
    ({"a": "npo", "b": "finetune", "sample": 0}, "sample must be a number above 0"),
    ({"a": "npo", "b": "finetune", "retrains": 0}, "at least 1, given 0"),
    ({"a": "npo", "b": "finetune", "curve": ["bezier"], "epochs": 0}, "epochs must be a number above 0"),
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
    assert less["config"]["seeds"] == [0, 1]  # those it has stay
    assert "continued" not in less["pairs"][0]
    assert less["pairs"][0]["metrics"] == connected.results["pairs"][0]["metrics"]
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
        connecting.train(objective, small, large, jax.random.key(0))


# Seeds at the same time


def test_of_many_seeds_one_by_one_all_are_kept_but_the_one_that_fails(tmp_path: pathlib.Path) -> None:
    store = _stages.Store(tmp_path)
    maker = _stages.Maker(store, runs.Silent(), together=False)
    addresses = [_stages.Address("work", seed, {"seed": seed}) for seed in range(6)]

    def work(seed: Any) -> dict[str, Any]:
        if seed == 3:
            raise runs.StageFailedError("seed 3")
        return {"twice": jnp.asarray(2 * seed)}

    with pytest.raises(runs.StageFailedError, match="seed 3"):
        maker.make(addresses, work, [(seed,) for seed in range(6)], (0,))
    kept = [a.seed for a in addresses if store.has(a)]
    assert {0, 1, 2} <= set(kept)
    assert 3 not in kept
    made = maker.make(addresses, lambda seed: {"twice": jnp.asarray(2 * seed)}, [(s,) for s in range(6)], (0,))
    assert [int(stage.result["twice"]) for stage in made] == [0, 2, 4, 6, 8, 10]


def test_settings_are_the_fields_of_the_configuration() -> None:
    assert runs.from_mapping({"kind": "connect", **dataclasses.asdict(runs.ConnectConfig())}) == runs.ConnectConfig()
