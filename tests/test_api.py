"""Public names are those of tests/api.txt, which `python tests/test_api.py` writes anew; the package's papers agree."""

from __future__ import annotations

import ast
import importlib
import pathlib
import pkgutil
import tomllib
from collections.abc import Iterator

import yaml

import mcu_jax

LIST = pathlib.Path(__file__).with_name("api.txt")
ROOT = pathlib.Path(__file__).parents[1]


def public() -> Iterator[str]:
    """A line for every module: its `__all__`, or what it defines without a leading underscore."""
    names = sorted(module.name for module in pkgutil.iter_modules(mcu_jax.__path__) if module.name[0] != "_")
    for module in map(importlib.import_module, ("mcu_jax", *(f"mcu_jax.{name}" for name in names))):
        listed = getattr(module, "__all__", None) or defined(pathlib.Path(str(module.__file__)))
        assert not [name for name in listed if not hasattr(module, name)], module
        yield f"{module.__name__}: {' '.join(sorted(listed))}"


def defined(file: pathlib.Path) -> list[str]:
    names: list[str] = []
    for node in ast.parse(file.read_text()).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names += [target.id for target in targets if isinstance(target, ast.Name)]
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
    return [name for name in names if name[0] != "_"]


def test_public_names_are_listed() -> None:
    assert list(public()) == LIST.read_text().splitlines(), "run `python tests/test_api.py` if this is meant"


def test_the_citation_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert {paper["url"] for paper in citation["references"]} == set(project["urls"].values())
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()
    assert (ROOT / "mcu_jax" / "py.typed").exists()


if __name__ == "__main__":
    LIST.write_text("\n".join(public()) + "\n")
