"""Mutated inputs of every kind: a message, never a traceback, never a hang."""

from __future__ import annotations

import itertools
import pathlib
import re
import sys
import time
from typing import Any

import _fuzz
import pytest

from mcu_jax import cli

OWN = """
import sys

def ends():
    sys.exit(0)

def net(num_classes):
    return models.mlp(num_classes=num_classes)
"""
SMALL = "unlearn --train-size 60 --validation-size 40 --train.epochs 1 --steps 1 --points 4 --seeds 0"
DEEP, LONG = "/".join(["d"] * 2000), "n" * 300
REFUSED = [
    ("--model mlp:hidden=[65536,65536,65536]", "has 8594980874 weights, at most 1000000000 can be"),
    ("--train.epochs 2147483647", "train.epochs comes to 4294967294 steps"),
    ("--steps 2147483647", "steps comes to 2147483647 steps"),
    ("--pre finetune:epochs=2147483647", "finetune:epochs=2147483647: epochs comes to 4294967294 steps"),
    ("--pre sfron:steps=2147483647", "steps comes to 2147483647 steps"),
    ("--forget class:²", "there is no class '²'"),
    (f"--out {DEEP}", "folders deep, at most 200"),
    (f"--stages {DEEP}", "folders deep, at most 200"),
    (f"--stages {LONG}", "a name of 300 bytes, at most 255"),
    (f"--out {LONG}", "a name of 300 bytes, at most 255"),
    ("--out file.txt/run --dry-run", "file.txt is a file"),
    ("--stages /proc/x", "choose another place with --out or --stages"),
    ("--config", "cannot be read"),
    ("--device", "There are: cpu, gpu, tpu"),
    ("--config resolved.yaml", "resolved is written by a run, as `key: value` lines; given 3"),
    ("--config digests.yaml", "digests is written by a run, as `key: value` lines; given [1]"),
    ("--config nul.yaml", "setting out holds a control character"),
    ("--config class.yaml", "there is no class '999"),
    ("--pre npo:", "given none in 'npo:'"),
    ("--model own.py", "FILE.py:NAME"),
    ("--model exit.py:net", "exit.py cannot be run: SystemExit: 0"),
    ("--model ends.py:ends", "ends failed: SystemExit: 0"),
    ("--model init.py:net", "cannot be made for examples of x [8, 8, 1]: SystemExit: 0"),
    ("--model none.py:net", "There are none"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=lambda part: ascii(part)[:40])
def test_what_cannot_be_is_refused_before_any_work(
    arguments: str, message: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in {
        "file.txt": "",
        "resolved.yaml": "resolved: 3",
        "digests.yaml": "digests: [1]",
        "nul.yaml": 'out: "a\\0b"',
        "class.yaml": f"forget: 'class:{'9' * 6000}'",
        "own.py": OWN,
        "ends.py": OWN,
        "exit.py": "import sys\nsys.exit(0)",
        "init.py": "import sys\nfrom mcu_jax import Model\nnet = Model('own', lambda key, x: sys.exit(0), print)",
        "none.py": "number = 3",
    }.items():
        pathlib.Path(name).write_text(content)
    before = sorted(tmp_path.glob("*.*"))
    name, *rest = arguments.split(" ")
    given = [name, *(rest or [""])]
    assert cli.run([*SMALL.split(), *given]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert 0 < len(shown) < 600
    assert sorted(tmp_path.glob("[!_]*")) == before


COUNTS = {kind: {"line": 150, "configuration": 150}.get(kind, 8) for kind in _fuzz.KINDS}


@pytest.mark.parametrize(("kind", "number"), [(kind, number) for kind, n in COUNTS.items() for number in range(n)])
def test_mutated_inputs_end_with_a_short_message(
    kind: str, number: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("MCU_JAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "place").mkdir()
    run = request.getfixturevalue("finished").directory if kind == "run" else None
    assert _fuzz.attack(kind, number, tmp_path / "place", run) is None


@pytest.mark.parametrize(
    ("ends", "complaint"),
    [
        (lambda _: 0, None),
        (lambda _: print("short", file=sys.stderr) or 2, None),
        (lambda _: 2, "a message of 0 characters"),
        (lambda _: print("x" * 3000, file=sys.stderr) or 2, "a message of 3001 characters"),
        (lambda _: print("\x1b[31m") or 0, "printed '.x1b'"),
        (lambda _: print("Traceback", file=sys.stderr) or 0, "printed"),
        (lambda _: 1, "ended with 1"),
        (lambda _: 1 / 0, "ZeroDivisionError"),
        (lambda _: [time.sleep(1) for _ in range(9)], "hangs: 0.2 seconds"),
    ],
    ids=range(9),
)
def test_bad_ends_are_complained_of(ends: Any, complaint: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "run", ends)
    monkeypatch.setattr(_fuzz, "SECONDS", 0.2)
    found = _fuzz.complain([])
    assert found is None if complaint is None else re.search(complaint, found)


def test_what_takes_much_memory_is_complained_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the operating system tells it."""
    monkeypatch.setattr(cli, "run", lambda _: 0)
    monkeypatch.setattr(_fuzz, "_memory", itertools.count(0, 3 * 1024**3).__next__)
    assert "GiB" in str(_fuzz.complain([]))
