"""Runs as tasks of Ray on two local workers, one of which is lost."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import types
from typing import Any

import pytest
from conftest import SMALL

from mcu_jax import runs
from mcu_jax.base import UserError

DRIVER = """
import json, os, pathlib, sys
import ray
place = pathlib.Path(sys.argv[1])
asked = json.loads(sys.argv[2])
try:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
except Exception as error:
    sys.exit(f"no cluster here: {error}")
from mcu_jax import runs

LOSING = '''
import os, pathlib, signal
from mcu_jax import models

def build(num_classes):
    lost = pathlib.Path(%r)
    if os.getpid() != %d and not lost.exists():
        lost.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return models.mlp(num_classes=num_classes, hidden=(8,))

def broken(num_classes):
    if os.getpid() != %d:
        raise ValueError("not here")
    return models.mlp(num_classes=num_classes, hidden=(8,))
''' % (str(place / "lost"), os.getpid(), os.getpid())
net = place / "net.py"
net.write_text(LOSING)

def configs(name, **settings):
    made = {**asked, "seeds": [0], "points": 4, "model": f"{net}:{name}", **settings}
    return [runs.from_mapping({**made, "beta": beta, "out": str(place / f"{name}-{beta}")}) for beta in ("0.1", "0.2")]

made = runs.sweep(configs("build"), each={"num_cpus": 1})
told = {"directories": [str(run.directory) for run in made], "betas": [run.results["config"]["beta"] for run in made]}
try:
    runs.sweep([configs("broken")[0], configs("build")[1]], retries=0)
except runs.SweepError as error:
    told |= {"error": str(error), "failures": error.failures}
(place / "told.json").write_text(json.dumps(told))  # on stdout Ray speaks too, whenever it likes
"""


def test_a_run_whose_worker_is_lost_is_begun_again_and_what_fails_is_told(
    tmp_path: pathlib.Path, compilations: dict[str, str]
) -> None:
    """In a process of its own: Ray forks, which jax in this one does not bear."""
    place = os.pathsep.join(filter(None, sys.path))
    ended = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path), json.dumps(SMALL)],
        capture_output=True, text=True, env={**os.environ, **compilations, "PYTHONPATH": place}, timeout=300,
    )  # fmt: skip
    if "no cluster here" in ended.stderr:
        pytest.skip(ended.stderr)  # where a machine gives Ray no shared memory, or no ports
    assert ended.returncode == 0, ended.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    assert (tmp_path / "lost").exists(), "no worker was lost"
    assert told["directories"] == [str(tmp_path / "build-0.1"), str(tmp_path / "build-0.2")]
    assert told["betas"] == ["0.1", "0.2"]
    assert all(runs.read_results(directory)["config"]["seeds"] == [0] for directory in told["directories"])
    assert told["error"].startswith("1 of 2 runs failed, the others are finished: ")
    assert "not here" in told["failures"][str(tmp_path / "broken-0.1")]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Any:
    """None of a cluster: what is refused needs none."""
    made = types.SimpleNamespace(is_initialized=lambda: True)
    monkeypatch.setitem(sys.modules, "ray", made)
    return made


def test_a_sweep_makes_each_run_once(ray: Any, tmp_path: pathlib.Path) -> None:
    first, second = (runs.from_mapping({**SMALL, "out": str(tmp_path / name)}) for name in ("a", "b"))
    with pytest.raises(runs.ConfigError, match=r"b is asked for more than once"):
        runs.sweep([second, first, second])


def test_a_sweep_without_ray_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'mcu-jax\[ray\]'"):
        runs.sweep([runs.Config()])
