"""The long table of a run, and its summary."""

from __future__ import annotations

import copy
import json
import math
import pathlib
from typing import Any

import connect_results as made
import numpy as np
import pytest
import test_report

from mcu_jax import runs
from mcu_jax.runs import _files, _tidy


def write(directory: pathlib.Path, results: dict[str, Any]) -> pathlib.Path:
    _tidy.write(directory, results)
    return directory


def test_every_value_along_a_path_of_unlearning_is_a_row(tmp_path: pathlib.Path) -> None:
    results = test_report._results(range(3))
    table = runs.read_table(write(tmp_path, results))
    assert list(table.columns) == list(_tidy.Row._fields)
    for path in results["paths"]:
        subject = "linear" if path["curve"] == "linear" else "mcu"
        own = table[(table.role == "path") & (table.replicate == path["seed"]) & (table.subject == subject)]
        assert set(own.metric) == {"RA", "UA", "TA", "MIA", "score_accuracy", "score_distribution"}
        for metric, rows in own.groupby("metric"):
            assert list(rows.t) == path["t"]
            assert list(rows.value) == path[metric]
    for row in results["rows"]:
        own = table[(table.role == "model") & (table.replicate == row["seed"]) & (table.subject == row["method"])]
        values = own.set_index("metric").value
        assert {name: values[name] for name in ("UA", "RA", "TA", "MIA", "avg_gap")} == {
            name: row[name] for name in ("UA", "RA", "TA", "MIA", "avg_gap")
        }
        assert values["seconds_compile" if "compile" in row["seconds"] else f"seconds_{next(iter(row['seconds']))}"] > 0
        assert set(own.t.dropna()) == ({row["t"]} if row["t"] is not None else set())
        assert "UA_test" not in values
    assert set(table[table.metric == "TA"].split) == {"test"}


def test_every_value_of_a_pair_is_a_row(tmp_path: pathlib.Path) -> None:
    results = made.one_pair(curves=("linear", "bezier"), also=("MIA", "continued", "relearning"), seeds=range(2))
    table = runs.read_table(write(tmp_path, results))
    for pair in results["pairs"]:
        at = (table.a == pair["a"]["label"]) & (table.b == pair["b"]["label"]) & (table.curve == pair["curve"])
        own = table[at & (table.role == pair["role"]) & (table.replicate == pair["seed"])]
        along = own[own.t.notna()].groupby(["split", "metric"]).value.agg(list)
        assert len(along) == len(pair["metrics"])
        assert along["retain", "loss"] == pair["metrics"]["retain_loss"]
        assert along["forget", "MIA"] == pair["metrics"]["MIA"]
        assert along["forget", "js"] == pair["metrics"]["js"]
        whole = {(row.split, row.metric): (row.value, row.unit) for row in own[own.t.isna()].itertuples()}
        assert whole["forget", "loss_barrier"] == (pair["barriers"]["forget_nats"], "nats")
        assert whole["test", "accuracy_barrier"] == (pair["barriers"]["test_accuracy"], "points")
        assert whole["forget", "js_barrier"] == (pair["barriers"]["js_nats"], "nats")
        assert whole["test", "accuracy_max_second_difference"][0] == pair["max_second_difference"]["test_accuracy"]
    assert set(table.role) == {"pair", "floor", "retrained", "perturbation", "original", "retrain", "unaligned",
                               "stopping"}  # fmt: skip
    steps = table[table.metric == "relearning_steps"]
    assert list(steps.value) == [entry["relearning_steps"] for entry in results["retrained"]]


def test_one_number_has_one_row(tmp_path: pathlib.Path) -> None:
    for results in (test_report._results(range(2)), made.sizes_grid(2, seeds=range(2)), made.curriculum_grid(1)):
        table = runs.read_table(write(tmp_path, results))
        assert not table.drop(columns=["value", "unit"]).duplicated().any()


def test_the_summary_has_no_arrays_along_paths_and_is_strict_json(tmp_path: pathlib.Path) -> None:
    results = made.one_pair(seeds=range(2))
    results["pairs"][0]["barriers"]["retain_nats"] = math.inf
    results["pairs"][0]["metrics"]["js"][3] = math.nan
    summary = _tidy.summary(results)
    assert summary["schema"] == 2
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert not any({"t", "metrics"} & set(pair) for pair in summary["pairs"])
    assert summary["pairs"][0]["barriers"]["retain_nats"] is None
    table = runs.read_table(write(tmp_path, results))
    assert math.isinf(table.value[(table.metric == "loss_barrier") & (table.split == "retain")].iloc[0])
    assert table.value[(table.metric == "js") & (table.role == "pair")].isna().sum() == 1
    (path, *_) = _tidy.summary(test_report._results([0]))["paths"]
    assert set(path) == {"seed", "curve", "targets", "chosen", "effective_region",
                         "effective_region_retrain", "mask"}  # fmt: skip


def test_a_diverged_row_keeps_its_place(tmp_path: pathlib.Path) -> None:
    results = copy.deepcopy(test_report._results([0]))
    row = next(row for row in results["rows"] if row["method"] == "finetune")
    row |= dict.fromkeys(("UA", "RA", "TA", "MIA", "avg_gap")) | {"diverged": 88}
    table = runs.read_table(write(tmp_path, results))
    own = table[table.subject == "finetune"].set_index("metric").value
    assert own["diverged_step"] == 88
    assert own[["UA", "RA", "TA", "MIA", "avg_gap"]].isna().all()


def test_a_finished_run_has_both_files(finished: runs.Run) -> None:
    assert runs.read_results(finished.directory) == finished.results
    table = runs.read_table(finished.directory)
    along = table[(table.role == "path") & (table.metric == "RA")]
    assert len(along) == 2 * len(finished.results["config"]["seeds"]) * finished.results["config"]["points"]
    path = finished.results["paths"][0]
    own = along[(along.replicate == path["seed"]) & (along.subject == "mcu")]
    assert np.allclose(own.t, np.linspace(0, 1, finished.results["config"]["points"]))


def test_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        runs.read_table(tmp_path)
    text = "a,b\n1,2\n"
    (tmp_path / "results.csv").write_text(text)
    about = {"schema": 2, "kind": "connect"}
    _files.write_json(tmp_path / "results.json", {**about, "table_sha256": _files.sha256(text)})
    with pytest.raises(ValueError, match="expected the columns replicate, role"):
        runs.read_table(tmp_path)
    _files.write_json(tmp_path / "results.json", {**about, "table_sha256": _files.sha256("another")})
    with pytest.raises(ValueError, match=r"results\.csv is not as it was written"):
        runs.read_table(tmp_path)
