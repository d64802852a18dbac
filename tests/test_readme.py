"""The Python of the README and of the documentation runs as written, page by page, and the pages name what there is."""

from __future__ import annotations

import json
import pathlib
import re

import pytest

from mcu_jax import augmentations, curricula, curves, methods, models, optimizers, rules

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [
    page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if "```python\n" in page.read_text()
]


def run(blocks: list[str], name: str) -> None:
    namespace: dict = {"__name__": name}
    for block in blocks:
        exec(compile(block, name, "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    run(re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL), page.name)
    t, ua = map(float, re.search(r"t\* = (.*), UA = (.*)", capsys.readouterr().out).groups())  # type: ignore[union-attr]
    assert t > 0.05, "it has gone nowhere"
    assert ua < 0.3, "it forgot far more than was asked"
    assert page.name != "own.md" or (tmp_path / "runs" / "exported" / "arrays").is_dir()


def test_notebooks_run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    matplotlib.use("Agg")
    monkeypatch.setattr("tempfile.mkdtemp", lambda: str(tmp_path))
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
        run(["".join(cell["source"]) for cell in cells], notebook.name)
        assert all(cell["execution_count"] for cell in cells), f"{notebook} is kept without what its cells gave"


@pytest.mark.parametrize("module", [methods, curves, rules, models, optimizers, curricula, augmentations])
def test_names_are_listed(module: object) -> None:
    commands = (ROOT / "docs" / "commands.md").read_text().replace("\n", " ")
    assert " ".join(module.NAMES) in commands  # type: ignore[attr-defined]
