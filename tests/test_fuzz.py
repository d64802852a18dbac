"""Mutated command lines and configuration files: a message, never a traceback, never a hang."""

from __future__ import annotations

import pathlib
import re

import numpy as np
import pytest

from mcu_jax import cli

LINES = [
    "unlearn --pre finetune:epochs=5,lr=0.01 --baselines ssd mcu:beta=0.2,curve=bezier:bends=2 --curve polychain",
    "unlearn --model mlp:hidden=[8,8] --forget random:0.2 --seeds 0 1 --points 9 --beta adaptive --mask.keep 0.4",
    "unlearn --train-size 60 --validation-size 40 --train.epochs 3 --forget class:3 --pre npo:optimizer=adam:b1=0.9",
    "unlearn --dataset digits --data-dir data --stages stages --out run --pre scrub:temperature=2,max_epochs=3",
    "connect --a finetune:run=1 --b npo:forget=0.1 --curve linear bezier --sample 9 --points 5 --also mia --out r",
    "tune --methods finetune mcu --tries 3 --criterion avg_gap --rule accuracy --pre npo --seeds 100 --to r.json",
    "connect --grid sizes --methods finetune npo --sizes 0.02 0.1 --train-size 100 --validation-size 40 --retrains 2",
]
FILES = [
    "lr: 1e-3\nbeta: 0.2\nseeds: [0, 1]\nbaselines: [ssd, 'npo:epochs=3']\ntrain: {epochs: 4, lr: 0.1}\n",
    "pre: scrub:temperature=2\nmask:\n  kind: mcu\n  keep: 0.4\nforget: random:0.2\ntrain_size: 60\n",
    "model: mlp:hidden=[8]\npoints: 9\nvalidation_size: 40\ncurve: bezier:bends=2\n",
]
PIECES = [
    *("", "[", "]", "{", "}", ":", ",", "=", "- ", "? ", "#", "%", "'", '"', "|", "&a", "*a", "!!python/object:x "),
    *("nan", "-inf", "1e300", "-1", "0", "1" * 5000, "9" * 19, "10000000000", "[1000000000]", "null", "true", "3.5"),
    *("\x1b[31m", "\x00", "\u202e", "\ud800", "x" * 5000, "[" * 200, "a: " * 30, "&a [*a]", "--", "/dev/null", "\t"),
    *("adaptive", "linear", "retrain", "original", "mcu", "bends=1000000000", "points=1000000000", "hidden=[1000000]"),
]  # fmt: skip


def mutated(random: np.random.Generator, text: str) -> str:
    for _ in range(random.integers(1, 4)):
        start, length = random.integers(0, len(text) + 1), random.integers(0, 8)
        text = text[:start] + str(random.choice(PIECES)) + text[start + length :]
    return text


def check(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status = cli.run([*arguments, "--dry-run"])
    shown = capsys.readouterr()
    assert status in (0, 2), arguments
    assert "Traceback" not in shown.err
    if status:
        assert 0 < len(shown.err) < 2000, arguments
        assert not re.search(r"[^\x20-\x7e\n\u00a0-\u2009\u2010-\u2027\u2030-\U000fffff]", shown.err), arguments


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
    ("--config nul.yaml", "out has a NUL character"),
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


@pytest.mark.parametrize("seed", range(150))
def test_mutated_command_lines_are_refused_in_short(
    seed: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(seed)
    name, *arguments = str(random.choice(LINES)).split()
    i = random.integers(len(arguments))
    check([name, *arguments[:i], mutated(random, arguments[i]), *arguments[i + 1 :]], capsys)


@pytest.mark.parametrize("seed", range(150))
def test_mutated_files_are_refused_in_short(
    seed: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng([seed, 1])
    content = mutated(random, str(random.choice(FILES)))
    pathlib.Path("c.yaml").write_bytes(content.encode("utf-8", "surrogatepass"))
    check(["unlearn", "--config", "c.yaml"], capsys)
