"""mcu-jax runs and mcu-jax diff: from directories of results."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import sys
from typing import Any

import pytest

from mcu_jax import cli, metrics, report, runs
from mcu_jax.cli import _runs
from mcu_jax.runs import _tidy


def listed(*arguments: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    assert cli.run(["runs", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def copy(run: runs.Run, to: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(run.directory, to))


def changed(directory: pathlib.Path, **values: Any) -> None:
    """Its results, with other values, as a run would have written them."""
    _tidy._files.write_json(directory / "results.json", {**runs.read_results(directory), **values})


def test_runs_are_listed_by_what_they_are(
    finished: runs.Run, connected: runs.Run, tuned: runs.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [str(run.directory) for run in (finished, connected, tuned)]
    found = {run["kind"]: run for run in listed(*places, capsys=capsys)}
    assert sorted(found) == ["connect", "tune", "unlearn"]
    for (kind, run), one in zip(found.items(), (found[k] for k in found), strict=True):
        assert (one["state"], one["dataset"], one["model"], one["why"]) == ("finished", "digits", "mlp", None), kind
        assert run["stages"] == run["finished"] > 10
    gaps = [row["avg_gap"] for row in finished.results["rows"] if row["method"] == "mcu"]
    assert found["unlearn"]["headline"]["mcu"]["avg_gap"] == pytest.approx(sum(gaps) / 2)
    assert found["unlearn"]["headline"]["best_other"]["method"] == "random_label"
    pairs = [pair for pair in connected.results["pairs"] if pair["role"] == "pair"]
    assert found["connect"]["headline"] == {"paths": 4, "connected": sum(pair["connected"] for pair in pairs)}
    assert cli.run(["runs", *places]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all("finished" in line and "digits, mlp, random:0.2" in line for line in lines[1:])


def test_states_of_runs(
    finished: runs.Run, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "other").mkdir(parents=True)
    (tmp_path / "runs" / "other" / "config.yaml").write_text("kind: other\n")
    (tmp_path / "runs" / "words").mkdir()
    (tmp_path / "runs" / "words" / "config.yaml").write_text("[")
    assert cli.run(["runs"]) == 0
    assert capsys.readouterr().out == "no runs in runs\n"
    copy(finished, tmp_path / "runs" / "whole")
    half = copy(finished, tmp_path / "runs" / "deeper" / "half")
    (half / "results.json").unlink()
    shutil.rmtree(next((half / "stages").glob("sweep-*")))
    bad = copy(finished, tmp_path / "runs" / "b\x1bad")
    content = (bad / "results.json").read_text()
    (bad / "results.json").write_text(content.replace("0.25,", "0.26,", 1))
    worse = copy(finished, tmp_path / "runs" / "worse")
    (worse / "results.json").write_text("{")
    found = {pathlib.Path(run["directory"]).name: run for run in listed(capsys=capsys)}
    assert {name: run["state"] for name, run in found.items()} == {
        "whole": "finished", "half": "unfinished", "b\x1bad": "damaged", "worse": "damaged"
    }  # fmt: skip
    assert found["half"]["finished"] == found["half"]["stages"] - 1 > 30
    assert {run["kind"] for run in found.values()} == {"unlearn"}
    assert found["b\x1bad"]["why"] == "results.json is not as it was written"
    assert cli.run(["runs"]) == 0
    shown = capsys.readouterr().out
    assert f"{found['half']['finished']} of {found['half']['stages']} stages" in shown
    assert "results.json cannot be read (JSONDecodeError)" in shown
    assert "\x1b" not in shown


def test_a_narrow_terminal_has_no_broken_line(
    finished: runs.Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    place = str(finished.directory)
    assert cli.run(["runs", place]) == 0
    (_, line) = capsys.readouterr().out.splitlines()  # whoever reads lines gets one a run
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.run(["runs", place]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == place
    assert max(map(len, rest)) <= 50
    told = " ".join(" ".join(rest).split())
    assert told.startswith("unlearn; digits, mlp, random:0.2; 2 seeds; finished; ")
    assert all(word.rstrip(";") in line for word in told.split() if word != "seeds;")


def test_a_run_that_is_being_extended_is_not_finished(
    finished: runs.Run, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy(finished, tmp_path / "run")
    config = run / "config.yaml"
    later = (run / "results.json").stat().st_mtime + 10
    os.utime(config, (later, later))  # the same command again, stopped at once
    assert listed(str(run), capsys=capsys)[0]["state"] == "finished"
    config.write_text(config.read_text().replace("seeds:\n- 0\n", "seeds:\n- 7\n- 0\n"))
    os.utime(config, (later, later))
    (found,) = listed(str(run), capsys=capsys)
    assert (found["state"], found["seeds"], found["headline"]) == ("unfinished", [7, 0, 1], None)


@pytest.mark.parametrize("rows", [{}, 3, [{"method": "mcu"}], [3]])
def test_results_of_something_else_are_damaged(
    rows: Any, finished: runs.Run, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy(finished, tmp_path / "run")
    changed(run, rows=rows)
    (found,) = listed(str(run), capsys=capsys)
    assert found["state"] == ("damaged" if rows else "finished")
    assert "results.json holds something else" in (found["why"] or "results.json holds something else")


def test_the_interval_is_that_of_tables() -> None:
    values = [0.1, 0.4, 0.2, 0.35, 0.3]
    assert _runs.interval(values) == pytest.approx(metrics.mean_interval(values)[1])
    assert _runs.interval(values[:3]) is None


def test_age_and_size_are_told_in_words() -> None:
    assert [_runs.age(s) for s in (-1, 40, 3000, 80_000, 864_000)] == ["0 s", "40 s", "50 min", "22 h", "10 days"]
    assert [_runs.size(n) for n in (3, 12_345, 3_400_000, 5e9)] == ["3 B", "12.3 kB", "3.4 MB", "5 GB"]


# Two runs side by side


def test_a_run_differs_from_itself_in_nothing(finished: runs.Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["diff", str(finished.directory), str(finished.directory)]) == 0
    shown = capsys.readouterr().out
    assert "Settings: the same." in shown
    assert "Versions and machine: the same." in shown
    assert "Data: the same." in shown
    assert "alone" not in shown
    assert set(re.findall(r"[+-]\d+\.\d\d", shown)) == {"+0.00"}


def test_differences_are_paired_by_seed(finished: runs.Run, tmp_path: pathlib.Path) -> None:
    a, b = copy(finished, tmp_path / "a"), copy(finished, tmp_path / "b\x1b")
    rows = [dict(row) for row in finished.results["rows"]]
    for row in rows:
        row["seed"] += 1  # seed 1 alone is in both
        if row["method"] == "mcu":
            row["avg_gap"] = 0.5
    config = {**finished.results["config"], "seeds": [1, 2], "steps": 7, "baselines": ["np\x1bo"]}
    config["resolved"] = {**config["resolved"], "npo": {"epochs": 3}}
    changed(b, rows=[*rows, {**rows[0], "method": "np\x1bo"}], config=config)
    environment = json.loads((b / "environment.json").read_text())
    environment["packages"]["jax"] = "0.1"
    (b / "environment.json").write_text(json.dumps(environment))
    shown = report.difference(a, b)
    assert "\x1b" not in shown
    assert re.search(r"steps +6 +7\n", shown)
    assert re.search(r"seeds +0 +2\n", shown)
    assert re.search(r"packages\.jax +\S+ +0\.1\n", shown)
    assert "npo.epochs" not in shown  # told by the baselines
    assert "In B alone: np\\x1bo." in shown
    gap = 100 * next(row["avg_gap"] for row in finished.results["rows"] if (row["method"], row["seed"]) == ("mcu", 1))
    line = re.search(r"mcu +\S+ +50\.00 +([+-]\S+) +1\n", shown)
    assert line is not None
    assert float(line[1]) == pytest.approx(50 - gap, abs=0.006)


def test_connections_and_tries_are_compared(
    connected: runs.Run, tuned: runs.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = report.difference(connected.directory, connected.directory)
    assert "Barrier on D_r, nats" in shown
    assert "neggrad_plus – npo, linear" in shown
    assert "Criterion of the best try" in report.difference(tuned.directory, tuned.directory)
    assert cli.run(["diff", str(connected.directory), str(tuned.directory)]) == 2
    told = capsys.readouterr().err
    assert "runs of one kind can be compared" in told
    assert "`mcu-jax tune`" in told


def test_what_is_not_finished_is_compared_by_its_settings(finished: runs.Run, tmp_path: pathlib.Path) -> None:
    begun = copy(finished, tmp_path / "run")
    (begun / "results.json").unlink()
    shutil.rmtree(begun / "splits")
    shown = report.difference(finished.directory, begun)
    assert "Data: without a hash in B" in shown
    assert "Settings: the same." in shown
    assert "Outcome: B not finished" in shown
