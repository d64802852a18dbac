"""What `mcu-jax connect` measures on the way between two models, and what results.json tells of it."""

from __future__ import annotations

import itertools
import json
from typing import Any

import jax
import numpy as np
import optax
import pytest
from conftest import ENDS, of_pair, problem_of, with_values
from scipy import special, stats
from scipy.cluster import hierarchy

from mcu_jax import alignment, metrics, models, runs, trees
from mcu_jax.runs import _along, _connect_config, _connect_results, _graph, _tasks

pytestmark = pytest.mark.usefixtures("kept_compilations")


@pytest.fixture(scope="module")
def results(connected: runs.Run) -> dict[str, Any]:
    return with_values(connected)


# Along a path


def test_results_hold_the_schema(connected: runs.Run, results: dict[str, Any]) -> None:
    assert runs.read_results(connected.directory) == connected.results
    assert (results["schema"], results["kind"]) == (2, "connect")
    ends = [*[(*ENDS, "pair")], *[(name, f"{name}:run=1", "floor") for name in ENDS]]
    asked = [(p["a"]["label"], p["b"]["label"], p["role"], p["curve"], p["seed"]) for p in results["pairs"]]
    assert asked == [(*end, curve, seed) for end in ends for curve in ("linear", "bezier") for seed in (0, 1)]
    for pair in results["pairs"]:
        names = {f"{s}_{m}" for s in ("retain", "forget", "validation", "test") for m in ("loss", "accuracy")}
        assert set(pair["metrics"]) == names | {"js", "zrf", "MIA", "unseen_distance"}
        assert pair["t"] == [0, 0.25, 0.5, 0.75, 1]
        assert all(len(values) == 5 for values in pair["metrics"].values())
        assert pair["objective"] == (None if pair["curve"] == "linear" else "neutral")
        assert pair["a"] == {
            "method": ENDS[0] if pair["a"]["label"] == ENDS[0] else ENDS[1],
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


def test_barriers_are_what_the_metrics_say(results: dict[str, Any]) -> None:
    for pair in results["pairs"]:
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
            "unseen_distance": 100 * excess["unseen_distance"].max(),
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


def test_the_ends_of_a_path_are_the_models_and_between_them_is_their_mean(
    connected: runs.Run, results: dict[str, Any]
) -> None:
    data = _connect_config.resolve(runs.from_yaml(connected.directory / "config.yaml")).data
    model = models.mlp(num_classes=10)
    for i, seed in enumerate((0, 1)):
        a, b = (runs.load(connected.directory, seed=seed, stage=name) for name in ENDS)
        original = runs.load(connected.directory, seed=seed, stage="original")
        split = json.loads((connected.directory / "splits" / f"seed-{seed}.json").read_text())
        x, y = data.train["x"][split["forget"]], data.train["y"][split["forget"]]
        pair = of_pair(results)[i]
        for t, params in ((0, a), (2, trees.lerp(a, b, 0.5)), (4, b)):
            log_p = special.log_softmax(np.asarray(model.apply(params, x)[0], np.float64), -1)
            assert pair["metrics"]["forget_loss"][t] == pytest.approx(-log_p[np.arange(len(y)), y].mean(), abs=1e-4)
        for name, (p, q) in {"a": (a, original), "b": (b, original), "ab": (a, b)}.items():
            assert pair["distance"][name] == pytest.approx(float(optax.tree.norm(optax.tree.sub(p, q))), rel=1e-4)
        assert pair["task_cosine"] == pytest.approx(float(metrics.task_cosine(a, b, original)), abs=1e-4)
        hidden = [model.features(params, data.test["x"]) for params in (a, b)]
        assert pair["cka"] == pytest.approx(float(metrics.cka(*hidden)), abs=1e-3)
        classes = [np.asarray(model.apply(params, data.test["x"])[0]).argmax(-1) for params in (a, b)]
        assert pair["disagreement"] == pytest.approx((classes[0] != classes[1]).mean(), abs=1e-4)


def test_a_trained_curve_leaves_its_ends_and_has_another_middle(results: dict[str, Any]) -> None:
    for line, curve in zip(of_pair(results), of_pair(results, curve="bezier"), strict=True):
        for name, values in line["metrics"].items():
            bent = curve["metrics"][name]
            assert (bent[0], bent[-1]) == pytest.approx((values[0], values[-1]), abs=1e-5)
        assert curve["metrics"]["retain_loss"][2] != line["metrics"]["retain_loss"][2]
        assert curve["arc_length"] > line["arc_length"]


def test_runs_differ_in_the_key_of_unlearning_alone(connected: runs.Run, results: dict[str, Any]) -> None:
    first, second = (runs.load(connected.directory, seed=0, stage=name) for name in ("npo", "npo:run=1"))
    assert float(optax.tree.norm(optax.tree.sub(first, second))) > 0
    floor = of_pair(results, "npo", "npo:run=1")[0]
    assert floor["distance"]["ab"] < of_pair(results)[0]["distance"]["ab"]


def test_the_floor_is_the_mean_over_seeds_of_the_mean_over_methods(results: dict[str, Any]) -> None:
    by_seed = [
        np.mean([of_pair(results, name, f"{name}:run=1")[i]["barriers"]["forget_nats"] for name in ENDS])
        for i in (0, 1)
    ]
    floor = results["floor"]["forget_nats"]
    assert floor["pairs"] == 4
    assert floor["mean"] == pytest.approx(np.mean(by_seed))
    low, high = stats.t.interval(0.95, 1, np.mean(by_seed), stats.sem(by_seed))
    assert floor["interval"] == pytest.approx([low, high])


def test_interior_points_are_chosen_on_validation_and_told_on_test() -> None:
    ts = np.linspace(0, 1, 5)
    values = {
        "validation_accuracy": [0.8, 0.9, 0.85, 0.7, 0.8],
        "test_accuracy": [0.7, 0.75, 0.9, 0.9, 0.6],
        "forget_accuracy": [0.9, 0.9, 0.9, 0.9, 0.9],
    }
    original = {"validation_accuracy": 0.9, "test_accuracy": 0.8}
    interior = _connect_results._interior(ts, values, original, class_wise=False)
    assert interior["t"] == 0.25
    assert interior["share"] == pytest.approx(2 / 3)  # 0.25 and 0.5 are nearer than both ends
    assert interior["score"] == pytest.approx(0.5 * 0.05)
    assert interior["ends"] == pytest.approx([0.5 * 0.1, 0.5 * 0.2])
    class_wise = _connect_results._interior(ts, values, original, class_wise=True)
    assert class_wise["score"] == pytest.approx(0.5 * (0.05 + 0.9))


def test_the_share_within_the_spread_of_retrained_models(results: dict[str, Any]) -> None:
    for seed, pair in enumerate(of_pair(results)):
        spread = [r["test_accuracy"] for r in results["retrained"] if r["seed"] == seed]
        values = np.array(pair["metrics"]["test_accuracy"])
        expected = ((values >= min(spread) - 1e-6) & (values <= max(spread) + 1e-6)).mean()
        assert pair["within_retrain"]["test_accuracy"] == pytest.approx(expected)


# Controls, and what is beyond


def test_a_perturbation_is_as_far_as_the_method_went(results: dict[str, Any]) -> None:
    entries = results["controls"]["perturbation"]
    assert [(e["method"], e["seed"]) for e in entries] == [(name, seed) for name in ENDS for seed in (0, 1)]
    for entry in entries:
        went = of_pair(results)[entry["seed"]]["distance"]["a" if entry["method"] == ENDS[0] else "b"]
        assert entry["distance"]["a"] == pytest.approx(went, rel=1e-3)
        assert entry["distance"]["b"] == pytest.approx(went, rel=1e-3)
        assert entry["distance"]["ab"] > went  # two directions


def test_the_retrained_model_is_aligned_first(connected: runs.Run, results: dict[str, Any]) -> None:
    for entry in results["controls"]["retrain"]:
        load = {name: runs.load(connected.directory, seed=entry["seed"], stage=name) for name in (*ENDS, "retrain")}
        unlearned, model = load[entry["method"]], models.mlp(num_classes=10)
        aligned = alignment.align(model, load["retrain"], unlearned)
        apart = float(optax.tree.norm(optax.tree.sub(aligned, unlearned)))
        assert entry["distance"]["ab"] == pytest.approx(apart, rel=1e-4)
        assert apart < float(optax.tree.norm(optax.tree.sub(load["retrain"], unlearned)))
        assert set(entry["unaligned"]) == set(entry["barriers"]) == {"retain_nats", "forget_nats", "accuracy"}
    assert any(e["unaligned"] != e["barriers"] for e in results["controls"]["retrain"])


def test_the_line_to_the_original_ends_there(results: dict[str, Any]) -> None:
    assert {e["distance"]["b"] for e in results["controls"]["original"]} == {0.0}


def test_gradient_ascent_is_stopped_at_several_epochs(results: dict[str, Any]) -> None:
    entries = results["controls"]["stopping"]
    assert [(e["epochs"], e["seed"]) for e in entries] == [(n, seed) for n in (2, 4, 6, 8, 10) for seed in (0, 1)]
    assert {e["method"] for e in entries} == {ENDS[0]}
    for seed in (0, 1):
        distances = [e["distance"]["a"] for e in entries if e["seed"] == seed]
        assert distances == sorted(distances)


def test_continued_training_starts_from_both_ends(connected: runs.Run, results: dict[str, Any]) -> None:
    resolved = _connect_config.resolve(runs.from_yaml(connected.directory / "config.yaml"))
    for name, seed in itertools.product(ENDS, (0, 1)):
        problem = problem_of(connected, resolved.data, seed)
        end = runs.load(connected.directory, seed=seed, stage=name)
        further = runs.load(connected.directory, seed=seed, stage=f"continued: {name}")
        key = _graph.draw(seed, "continued").make()
        expected = _tasks.unlearn(problem, end, key, method="finetune", options=resolved.further)
        assert float(optax.tree.norm(optax.tree.sub(further, expected))) < 1e-3 * float(
            optax.tree.norm(optax.tree.sub(end, expected))
        )
    for i, seed in enumerate((0, 1)):
        problem = problem_of(connected, resolved.data, seed)
        ends = {
            "before": [runs.load(connected.directory, seed=seed, stage=name) for name in ENDS],
            "barriers": [runs.load(connected.directory, seed=seed, stage=f"continued: {name}") for name in ENDS],
        }
        for when, models_ in ends.items():
            line = jax.jit(_along.lines)(problem, problem.params, **dict(zip("ab", models_, strict=True)))
            barriers = of_pair(results)[i]["continued"][when]
            assert barriers["retain_nats"] == pytest.approx(float(line["retain_loss"][0]), abs=1e-4)
            assert barriers["accuracy"] == pytest.approx(100 * float(line["accuracy"][0]), abs=1e-3)


def test_relearning_starts_at_five_points_of_the_first_curve(connected: runs.Run, results: dict[str, Any]) -> None:
    for pair in results["pairs"]:
        assert ("relearning" in pair) == (pair["curve"] == "linear")
    for pair in of_pair(results):
        assert pair["relearning"]["t"] == list(_along.RELEARNED)
    resolved = _connect_config.resolve(runs.from_yaml(connected.directory / "config.yaml"))
    for i, seed in enumerate((0, 1)):
        problem, attacks = problem_of(connected, resolved.data, seed), of_pair(results)[i]["relearning"]
        ends = [runs.load(connected.directory, seed=seed, stage=name) for name in ENDS]
        for t, steps in zip(attacks["t"], attacks["steps"], strict=True):
            key, lr = _graph.draw(seed, "relearning").make(), resolved.further["lr"]
            expected = metrics.relearn_steps(
                problem, trees.lerp(*ends, t), key, lr=lr, batch_size=resolved.config.train.batch_size, limit=100
            )
            assert abs(steps - int(expected)) <= 1  # a last bit may tip a step
    assert all(0 < r["relearning_steps"] <= _along.LIMIT for r in results["retrained"])


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
    correlations = {(e["barrier"], e["attack"]): e for e in _connect_results._correlation(pairs, retrained)}
    ranks = stats.spearmanr([1, 2, 3, 4], [2, 3, 4, 1]).statistic
    assert correlations["retain_nats", "at the ends"]["mean"] == pytest.approx(ranks)
    assert correlations["accuracy", "at the ends"]["mean"] == pytest.approx(-ranks)
    assert correlations["retain_nats", "at the ends"]["seeds"] == 2
    assert ("forget_nats", "at the ends") not in correlations  # constant
    # Six of them hold together.
    rising = [pair(0, value, value) for value in (1.0, 2.0, 3.0)]
    rising += [pair(1, *values) for values in ((1.0, 1.0), (2.0, 0.0), (3.0, 3.0))]
    entry = next(e for e in _connect_results._correlation(rising, retrained) if e["barrier"] == "retain_nats")
    mean, half = metrics.mean_interval([1.0, 0.5], of=6)
    assert (entry["mean"], entry["interval"]) == (pytest.approx(mean), pytest.approx([mean - half, mean + half]))


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
