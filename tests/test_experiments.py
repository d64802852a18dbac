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
