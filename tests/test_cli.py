"""The command line: in this process where it can be, as a process of its own where it must."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from typing import Any

import jax
import pytest
import yaml
from commands import CONNECT, FLAGS, numbers
from conftest import SMALL

from mcu_jax import cli, datasets, runs
from mcu_jax.cli import _devices, _flags, _jobs

pytestmark = pytest.mark.usefixtures("kept_compilations")


def test_flags_and_settings_are_the_same() -> None:
    assert dataclass_flags() == set(_flags.flags_of(runs.Config, _jobs.Own).__annotations__) - {
        *("config", "quiet", "dry_run", "device", "mesh", "processes", "no_compile_cache"),
        *("log", "tensorboard"),
    }
    assert SMALL == {
        "train_size": 60, "validation_size": 40, "train": {"epochs": 3}, "steps": 6, "points": 5, "seeds": [0, 1],
        "baselines": [],
    }  # fmt: skip


def dataclass_flags() -> set[str]:
    return {field.name for field in dataclasses.fields(runs.Config)}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--mesh", "data=9"], "the mesh data=9 takes 9 devices, and there are 8: ask for fewer"),
        (["--mesh", "batch=2"], "a mesh is AXIS=DEVICES,…, as data=4,map=2: data shares every batch"),
        (["--mesh", "data=3"], "train.batch_size is 32, which 3 devices do not divide"),
        (["--mesh", "data=4", "--baselines", "npo:batch_size=30"], "npo:batch_size=30: batch_size is 30, which 4"),
        (["--processes", "here"], "processes are told of each other by auto, or HOST:PORT,PROCESSES,NUMBER"),
    ],
)
def test_devices_that_cannot_be_are_refused(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    assert cli.run(["unlearn", *flags, "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.startswith(f"mcu-jax: {said}")
    assert not (tmp_path / "run").exists()


# The main job


def test_a_run_says_what_it_does_and_what_it_found(
    finished: runs.Run, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished.directory, tmp_path / "run")
    shutil.rmtree(next((tmp_path / "run" / "stages").glob("sweep-*")))
    log = tmp_path / "log.jsonl"
    log.write_text("an earlier line\n")
    assert cli.run(["unlearn", *FLAGS, "--out", str(tmp_path / "run"), "--log", str(log)]) == 0
    shown = capsys.readouterr()
    earlier, *events = log.read_text().splitlines()
    assert earlier == "an earlier line"
    assert [json.loads(line)["event"] for line in events] == ["begun", "stage", "finished", "ended"]
    for text in ("random_label (pre-unlearned)", "straight line", "MCU", "best value", f"Written to {tmp_path}/run"):
        assert text in shown.out
    assert shown.err.startswith("sweep")
    assert (tmp_path / "run" / "path.png").read_bytes().startswith(b"\x89PNG")
    assert numbers(tmp_path / "run") == numbers(finished.directory)


def test_quiet_prints_nothing(finished: runs.Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["unlearn", *FLAGS, "--out", str(finished.directory), "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")


def test_a_dry_run_shows_what_every_setting_comes_to_and_makes_nothing(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["unlearn", *FLAGS, "--dry-run"]) == 0
    settings, _, rest = capsys.readouterr().out.partition("\n\n")
    found = yaml.safe_load(settings)
    assert found["train"] == {"epochs": 3, "lr": 0.1, "batch_size": 32}
    assert found["resolved"]["random_label"]["epochs"] == 20
    assert "run directory: runs/unlearn-digits-mlp-" in rest
    assert "  path: 2 to compute, 0 finished" in rest
    assert not list(tmp_path.iterdir())


def test_the_configuration_of_a_run_is_used_again_and_the_command_line_wins(
    finished: runs.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(finished.directory / "config.yaml")
    again = ["unlearn", "--config", file, "--dry-run"]
    assert cli.run(again) == 0
    shown = capsys.readouterr().out
    assert "path: 0 to compute, 2 finished" in shown, shown
    assert cli.run([*again, "--seeds", "5", "--mask.keep", "0.3", "--out", "elsewhere"]) == 0
    found = yaml.safe_load(capsys.readouterr().out.partition("\n\n")[0])
    assert found["seeds"] == [5]
    assert found["mask"]["keep"] == 0.3
    assert found["train_size"] == 60


# Connecting


def test_connecting_says_what_it_found(
    connected: runs.Run, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(connected.directory, tmp_path / "run")
    shutil.rmtree(next((tmp_path / "run" / "stages").glob("controls-*")))
    assert cli.run([*CONNECT.split(), "--out", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr()
    for text in ("neggrad_plus – npo", "bezier", "two runs", "best value", "Controls", "Stopping time", "Stability"):
        assert text in shown.out
    assert f"Written to {tmp_path}/run: results.json and results.csv, barriers.png, curves.png" in shown.out
    assert shown.err.startswith("controls: ")
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_dry_run_of_connect_shows_pairs_and_makes_nothing(
    connected: runs.Run, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stages = ["--stages", str(connected.directory / "stages"), "--dry-run"]
    assert cli.run([*CONNECT.split(), "--b", "npo:run=3", *stages]) == 0
    settings, _, rest = capsys.readouterr().out.partition("\n\n")
    assert yaml.safe_load(settings)["b"] == "npo:run=3"
    assert "run directory: runs/connect-digits-mlp-" in rest
    assert "  neggrad_plus: 0 to compute, 2 finished" in rest
    assert "  npo:run=3: 2 to compute, 0 finished" in rest
    assert "  measures: linear, neggrad_plus to npo:run=3: 2 to compute" in rest
    assert not list(tmp_path.iterdir())


def test_a_configuration_of_another_command_is_refused(connected: runs.Run, capsys) -> None:
    assert cli.run(["unlearn", "--config", str(connected.directory / "config.yaml")]) == 2
    assert "the configuration of `mcu-jax connect`, not of `mcu-jax unlearn`" in capsys.readouterr().err
    assert cli.run(["connect", "--config", str(connected.directory / "config.yaml"), "--dry-run"]) == 0


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["unlern"],
            "no command 'unlern'; did you mean 'unlearn'? There are: unlearn, connect, tune, report, figure, export",
        ),
        (["--quiet"], "no command '--quiet'"),
        (["--version", "3"], "no command '--version'"),
        (["export"], "mcu-jax export RUN --to DIR"),
        (["export", "none", "--to", "x"], "none is not a run directory"),
        (["unlearn", "--device", "gpo"], "no device 'gpo'; did you mean 'gpu'?"),
        (["unlearn", "--device", "tpu"], "jax has no tpu in this process"),
        (["unlearn", "--data", "none.npz"], "data file none.npz cannot be read: No such file"),
        (["unlearn", "--data", "bad.yaml"], "bad.yaml cannot be used: "),
        (["unlearn", "--data", "a.npz", "--dataset", "cifar10"], "either data of your own or a dataset"),
        (["unlearn", "--model", "none.py:net"], "model file none.py cannot be read"),
        (["unlearn", "--forget", "none.json"], "none.json cannot be read: No such file"),
        (["unlearn", "--original", "none"], "original: there is no checkpoint in "),
        (["unlearn", "--pre", "./none"], "pre: there is no checkpoint in ./none"),
        (["unlearn", "--data-dir", "empty"], "data_dir has no effect with digits, which is embedded"),
        (["unlearn", "--mask.kind", "none", "--mask.keep", "0.3"], "mask.keep has no effect with mask kind none"),
        (["unlearn", "--baselines", "mcu:mask=none,keep=0.2"], "keep and retain_filter have no effect without a mask"),
        (["unlearn", "--train-size", "1200"], "Sizes that are not asked for"),
        (
            ["connect", "--grid", "sizes", "--sizes", "9" * 26, "0.1"],
            "sizes takes fractions inside (0, 1), given (1e+26, 0.1)",
        ),
        (["--tyro-print-completion", "fishy"], "there is no shell 'fishy'; did you mean 'fish'?"),
        (["--tyro-write-completion", "bash", "/proc/x/y"], "the completion cannot be written to /proc/x/y"),
        (["export", "run", "--to", "bad.yaml/x"], "bad.yaml is a file; choose another with --to"),
        (["unlearn", "--original", "n" * 300], "original has a name of 300 bytes"),
        (["unlearn", "--dataset", "mnist", "--data-dir", "n" * 300], "data_dir has a name of 300 bytes"),
        (["export", "run", "--to", "/".join(["d"] * 2000)], "folders deep, at most 200"),
        (["list", "methods"], "list takes no arguments"),
        (["runs", "none"], "there is no folder none; list others, as `mcu-jax runs DIR`"),
        (["runs", "--jsn"], "unrecognized arguments: --jsn"),
        (["diff", "run"], "the following arguments are required: b"),
        (["diff", ".", "."], ". is not a run that can be read: the configuration file config.yaml cannot be read"),
        (["unlearn", "--log", "none/log"], "log: No such file or directory: none/log; choose another with --log"),
        (["unlearn", "--tensorboard", "bad.yaml/x"], "choose another folder with --tensorboard"),
        (["connect"], "connect what? Give both ends, as --a finetune --b npo, or a --grid: methods, seeds"),
        (["connect", "--a", "npo", "--b", "npo"], "the same run of one method"),
        (["connect", "--grid", "method"], "did you mean 'methods'?"),
        (["connect", "--grid", "curriculum", "--methods", "ssd"], "ssd is a closed form, which takes no curriculum"),
        (["connect", "--pre", "npo"], "--pre"),
        (["connect", "--config", "bad.yaml"], "setting steps takes a whole number, given 'many'"),
        (["tune", "--tries", "0"], "setting tries takes 1 to 1000 of them, given 0"),
        (["tune", "--methods"], "tune which methods? Give one or more"),
        (["tune", "--methods", "finetun"], "did you mean 'finetune'?"),
        (["tune", "--methods", "retrain"], "no method to tune 'retrain'"),
        (["tune", "--methods", "npo:beta=1"], "give its name alone, given 'npo:beta=1'"),
        (["tune", "--pre", "mcu"], "no start for mcu 'mcu'"),
        (["tune", "--criterion", "gap"], "no criterion 'gap'; did you mean 'avg_gap'?"),
        (["tune", "--rule", "scores"], "no rule 'scores'"),
        (["tune", "--to", "bad.yaml/x"], "bad.yaml is a file; choose another with --to"),
        (["tune", "--to", "bad.yaml"], "the recipe bad.yaml is not as `mcu-jax tune` writes one"),
        (["tune", "--to", "."], "to is a file, as recipe.json; given the folder ."),
        (["unlearn", "--recipe", "none.json"], "the recipe none.json cannot be read: No such file"),
        (["unlearn", "--recipe", "."], "the recipe . cannot be read: Is a directory"),
        (["connect", "--a", "npo", "--b", "ssd", "--recipe", "bad.yaml"], "the recipe bad.yaml is not as `mcu-jax"),
        (["unlearn", "--recipe", "n" * 300], "recipe has a name of 300 bytes"),
        (["unlearn", "--step", "3"], "--steps INT"),
        (["unlearn", "--mask.kep", "3"], "--mask.keep"),
        (["unlearn", "--points", "four"], "--points"),
        (["unlearn", "--steps", "2.5"], "--steps"),
        (["unlearn", "--seeds", "a"], "--seeds"),
        (["unlearn", "--seeds"], "seeds takes one to 1000 different whole numbers"),
        (["unlearn", "--seeds", "-1"], "seeds takes one to 1000 different whole numbers"),
        (["unlearn", "--lr", "nan"], "lr takes a number above 0"),
        (["unlearn", "extra"], "extra"),
        (["unlearn", "--quiet", "3"], "3"),
        (["unlearn", "--out"], "--out"),
        (["unlearn", "--config", "none.yaml"], "none.yaml cannot be read: No such file"),
        (["unlearn", "--config", "bad.yaml", "--steps", "3"], "setting steps takes a whole number, given 'many'"),
        (["unlearn", "--config", "bad.yaml", "--dry-run"], "setting steps"),
        (["unlearn", "--pre", "random_lable"], "did you mean 'random_label'?"),
        (["unlearn", "--dry-run", "--forget", "class:shoe"], "no class 'shoe'"),
        (["unlearn", "--dataset", "cifar10", "--data-dir", "empty"], "download_and_prepare()"),
        (["unlearn", "--out", "bad.yaml"], "bad.yaml is a file"),
        (["unlearn", "--out", "."], "not empty and not a run directory"),
    ],
    ids=" ".join,
)
def test_bad_input_ends_with_2_and_says_why(
    arguments: list[str], message: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text("steps: many")
    assert cli.run(arguments) == 2
    shown = capsys.readouterr()
    assert message in " ".join((shown.out + shown.err).split())
    assert "Traceback" not in shown.err
    assert [file.name for file in tmp_path.iterdir()] == ["bad.yaml"]


def test_another_configuration_in_the_same_directory_ends_with_2(finished: runs.Run, capsys) -> None:
    assert cli.run(["unlearn", *FLAGS, "--out", str(finished.directory), "--mask.keep", "0.2"]) == 2
    assert "there, 0.2 asked for" in capsys.readouterr().err


def test_a_damaged_stage_is_told_and_made_again(finished: runs.Run, tmp_path: pathlib.Path, capsys) -> None:
    shutil.copytree(finished.directory, tmp_path / "run")
    place = next((tmp_path / "run" / "stages").glob("retrain-*"))
    (place / "manifest.json").write_text("{}")
    assert cli.run(["unlearn", *FLAGS, "--out", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().err.startswith(f"damaged checkpoint {place}: ")
    assert cli.run(["export", str(tmp_path / "run"), "--to", str(tmp_path / "m"), "--method", "retrain"]) == 0


def test_a_loss_that_is_not_finite_ends_with_1(
    finished: runs.Run, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = str(shutil.copytree(finished.directory / "stages", tmp_path / "stages"))
    arguments = [*FLAGS, "--out", str(tmp_path / "run"), "--stages", stages, "--lr", "1e38"]
    assert cli.run(["unlearn", *arguments]) == 1
    assert "not finite: path, seed 0, at step" in capsys.readouterr().err


def test_an_error_of_the_disk_is_told_without_a_traceback(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "unlearn", full)
    assert cli.run(["unlearn", "--quiet"]) == 1
    assert "No space left on device; what was finished is kept" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\n  x")]
)
def test_too_small_a_memory_is_told_without_a_traceback(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def large(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(runs, "unlearn", large)
    assert cli.run(["unlearn", "--quiet"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("mcu-jax: the memory is too small (")
    assert shown.endswith("what was finished is kept\n")
    assert shown.count("\n") == 1


def test_a_refused_command_does_not_spoil_the_next(tmp_path: pathlib.Path, capsys) -> None:
    arguments = ["unlearn", *FLAGS, "--out", str(tmp_path / "run")]
    assert cli.run([*arguments, "--stages", "/proc/x"]) == 2
    assert "/proc/x" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert cli.run([*arguments, "--dry-run"]) == 0


def test_one_seed_is_no_seeds(tmp_path: pathlib.Path, capsys) -> None:
    assert cli.run(["unlearn", *FLAGS[:-2], "--out", str(tmp_path / "run"), "--dry-run"]) == 0
    assert "stages, for 1 seed:\n" in capsys.readouterr().out


def test_an_error_of_the_system_is_not_taken_for_a_place_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "libsomething.so")

    monkeypatch.setattr(datasets, "load", missing)
    with pytest.raises(FileNotFoundError):
        runs.plan(runs.Config())


def test_an_error_of_the_program_is_not_taken_for_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object, **__: object) -> None:
        raise ValueError("a mistake of ours")

    monkeypatch.setattr(runs, "unlearn", wrong)
    with pytest.raises(ValueError, match="of ours"):
        cli.run(["unlearn", "--quiet"])


def test_compiled_code_is_kept_for_later_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    class Config:
        jax_compilation_cache_dir: str | None = None

        def update(self, name: str, value: Any) -> None:
            setattr(self, name, value)

    def told(config: Config, *arguments: str) -> str | None:
        monkeypatch.setattr(_devices.jax, "config", config)
        with pytest.raises(SystemExit):
            cli.main(["unlearn", *arguments, "--help"])
        return config.jax_compilation_cache_dir

    monkeypatch.setenv("MCU_JAX_CACHE", str(tmp_path / "kept"))
    place = pathlib.Path(told(Config()) or "")
    assert place.is_dir()
    assert place.parent == tmp_path / "kept" / "compiled"
    assert told(Config(), "--no-compile-cache") is None
    own = Config()
    own.jax_compilation_cache_dir = "elsewhere"
    assert told(own) == "elsewhere"
    # A home that cannot be written to: without.
    monkeypatch.setenv("MCU_JAX_CACHE", str(tmp_path / "file" / "kept"))
    (tmp_path / "file").touch()
    assert told(Config()) is None
