"""Help, lists, version and completion."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from mcu_jax import (
    augmentations,
    cli,
    curricula,
    curves,
    datasets,
    methods,
    metrics,
    models,
    optimizers,
    registry,
    rules,
    runs,
)
from mcu_jax.cli import _help, _jobs, _main

KINDS = {"unlearn": runs.Config, "connect": runs.ConnectConfig, "tune": runs.TuneConfig}
FLAG = re.compile(r"(?m)^  --([a-z][a-z.-]*)")


def of_kind(kind: type) -> set[str]:
    """The flags of a dataclass of settings."""
    names = {field.name.replace("_", "-"): field for field in dataclasses.fields(kind)}
    groups = {"train": runs.Train, "mask": runs.MaskConfig}
    return {
        flag
        for name in names
        for flag in ({f"{name}.{inner}" for inner in of_kind(groups[name])} if name in groups else {name})
    }


@pytest.mark.parametrize("command", KINDS)
def test_all_help_shows_every_flag_once_and_nothing_internal(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run([command, "--help-all"]) == 0
    shown = capsys.readouterr().out
    found = FLAG.findall(shown)
    assert len(found) == len(set(found))
    assert set(found) == of_kind(KINDS[command]) | of_kind(_jobs.Own)
    assert "None" not in shown
    assert re.search(r"\(default: \d+ \d+ \d+", shown)
    assert max(map(len, shown.splitlines())) <= 80
    monkeypatch.setenv("COLUMNS", "9")  # no narrower than can be read
    assert cli.run([command, "--help"]) == 0


@pytest.mark.parametrize("command", KINDS)
def test_help_is_one_screen_of_the_usual_flags_in_groups(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run([command, "--seeds", "3", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 24 <= len(lines) <= 40
    assert max(map(len, lines)) <= 80
    titles = [line.removesuffix(":") for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert titles == [title for title in runs.GROUPS if title in titles]
    assert f"mcu-jax {command} --help-all" in lines[-1]
    usual = {flag for flag, _, group in _help.flags([KINDS[command], _jobs.Own]) if group.usual}
    assert set(FLAG.findall("\n".join(lines))) == usual
    assert {"dataset", "model", "forget", "seeds", "out", "dry-run", "device"} <= usual


@pytest.mark.parametrize("kind", [*KINDS.values(), _jobs.Own])
def test_every_setting_says_its_group(kind: Any) -> None:
    for name, setting in runs.settings(kind).items():
        assert setting.group is not None, name
        assert setting.group.title in runs.GROUPS, name


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"], ["help"], ["list", "--help"]])
def test_the_commands_are_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(arguments) == 0
    shown = capsys.readouterr()
    assert "mcu-jax unlearn" in shown.out
    assert "mcu-jax list" in shown.out
    assert not shown.err


def test_list_gives_every_name_first_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for module in (methods, optimizers, curricula, curves, rules, models, augmentations, metrics, datasets):
        title = module.__name__.rpartition(".")[2] + ":"
        following = lines[lines.index(title) + 1 :][: len(module.NAMES)]
        assert [line.split()[0] for line in following] == list(module.NAMES)
    (line,) = [line for line in lines if line.split()[0] == "finetune"]
    for name, value in registry.schema(methods.finetune).items():
        assert f"{name}={value}" in line


def test_the_version_and_completion_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert re.fullmatch(r"mcu-jax \d+\.\d+\.\d+\n", capsys.readouterr().out)
    assert cli.run(["--tyro-print-completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert "complete -F" in script
    assert "--no-quiet" not in script
    for command in _main.COMMANDS:
        assert f"'{command}': {{'description'" in script


@pytest.mark.parametrize("command", ["export", "runs", "diff"])
def test_small_commands_have_one_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([command, "--help"]) == 0
    assert f"mcu-jax {command}" in capsys.readouterr().out
