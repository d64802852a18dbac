"""The experiments' tables are what their stored runs say, of whatever schema these are."""

from __future__ import annotations

import importlib
import pathlib
from typing import Any

import pytest

from mcu_jax import report

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"
RESULTS = EXPERIMENTS / "results"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    return importlib.import_module


def test_claims_of_connectivity(load: Any) -> None:
    runs = {directory.name: report.read(directory) for directory in (RESULTS / "connectivity_digits").glob("*/")}
    stored = (RESULTS / "connectivity_digits" / "table.md").read_text()
    rows = load("connectivity_claims").rows(runs, None)
    assert [row.claim for row in rows] == ["F1", "F2", "F3", "F4, method", "F4, forget size", "F5", "F6, curriculum",
                                           "F6, optimizer", "F7"]  # fmt: skip
    for row in rows:
        assert f"| {' | '.join(row)} |" in stored.splitlines()


@pytest.mark.parametrize("dataset", ["digits", "fashion_mnist"])
def test_lines_of_starts(load: Any, dataset: str) -> None:
    starts, directory = load("starts"), RESULTS / f"starts_{dataset}"
    for start in starts.STARTS:
        assert starts.line(start, report.read(directory / start)) in (directory / "table.md").read_text().splitlines()
