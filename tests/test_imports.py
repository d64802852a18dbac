"""Imports flow one way, and heavy packages are imported only inside the functions that use them."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest

import mcu_jax

ROOT = pathlib.Path(mcu_jax.__file__).parent
LAYERS = (
    "base text interrupts disk memory _orbax",
    "registry",
    "trees sharding sources",
    "masks curves losses splits alignment checkpoint augmentations _archives",
    "outputs optimizers curricula datasets models weights",
    *(
        "training",
        "chunks",
        "metrics",
        "rules",
        "paths",
        "planes",
        "connect",
        "auto",
        "methods",
        "runs",
        "report",
        "cli",
        "__main__",
    ),
)
LEVEL = {name: level for level, layer in enumerate(LAYERS) for name in layer.split()}
FILES = [path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py"]
ONLY_INSIDE = {
    "tensorflow_datasets",
    "orbax",
    "sklearn",
    "matplotlib",
    "tyro",
    "rich",
    "pandas",
    "safetensors",
    "grain",
    "tensorboardX",
    "jinja2",
    "markupsafe",
}


def imported(nodes: list) -> set[str]:
    """Absolute dotted names, a member of a package by itself: `from mcu_jax import trees` is mcu_jax.trees."""
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    assert not any(node.level for node in froms), "relative imports hide where a name is from"
    return names | {f"{node.module}.{alias.name}" for node in froms for alias in node.names}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_flow_one_way(path: pathlib.Path) -> None:
    tree = ast.parse(path.read_text())
    home = path.relative_to(ROOT).parts[0].removesuffix(".py")
    everything = imported(list(ast.walk(tree)))
    packages = {name.split(".")[0] for name in everything}
    ours = {name.split(".")[1] for name in everything if name.startswith("mcu_jax.")} - {home}
    assert all(LEVEL[name] < LEVEL[home] for name in ours), f"{home} imports {ours}"
    assert home not in ("checkpoint", "sharding", "sources") or ours <= {"base", "trees", "disk", "memory", "_orbax"}
    assert home != "registry" or not packages - {"mcu_jax", "yaml", *sys.stdlib_module_names}
    assert "mcu_jax" not in {name for name in everything if "." not in name}
    assert "flax" not in packages or home == "models"
    assert not {name.split(".")[0] for name in imported(tree.body)} & ONLY_INSIDE


def test_importing_the_package_leaves_heavy_packages_alone() -> None:
    """rich comes with Flax; the others would make `import mcu_jax` slow."""
    code = "import sys, mcu_jax; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "mcu_jax" in loaded
    assert not (ONLY_INSIDE - {"rich"}) & set(loaded)
