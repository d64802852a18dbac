"""The README's Python runs as written, block after block, and names what there is."""

from __future__ import annotations

import pathlib
import re

import pytest

from mcu_jax import curricula, curves, methods, models, optimizers, rules

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_python_blocks_run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    namespace: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    assert len(blocks) == 4
    t, ua = map(float, re.search(r"t\* = (.*), UA = (.*)", capsys.readouterr().out).groups())  # type: ignore[union-attr]
    assert t > 0.05, "it has gone nowhere"
    assert ua < 0.3, "it forgot far more than was asked"
    assert (tmp_path / "runs" / "exported" / "arrays").is_dir()


@pytest.mark.parametrize("module", [methods, curves, rules, models, optimizers, curricula])
def test_names_are_listed(module: object) -> None:
    assert " ".join(module.NAMES) in README.read_text().replace("\n", " ")  # type: ignore[attr-defined]
