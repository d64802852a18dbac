"""Runs as tasks of Ray on two local workers, one of which is lost."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import SMALL

from mcu_jax import runs
from mcu_jax.base import UserError

NET = """
import os, pathlib, signal
from mcu_jax import models

def build(num_classes):
    lost = pathlib.Path({marker!r})
    if os.getpid() != {driver} and not lost.exists():
        lost.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return models.mlp(num_classes=num_classes, hidden=(8,))
"""


@pytest.fixture(scope="module")
def cluster(compilations: dict[str, str]) -> Iterator[Any]:
    import ray

    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error",
        runtime_env={"env_vars": {**compilations, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}},
    )  # fmt: skip
    yield ray
    ray.shutdown()


def configs(place: pathlib.Path, **settings: Any) -> list[runs.Config]:
    made = {**SMALL, "seeds": [0], "points": 4, **settings}
    return [runs.from_mapping({**made, "beta": beta, "out": str(place / f"beta-{beta}")}) for beta in (0.1, 0.2)]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_run_whose_worker_is_lost_is_begun_again(cluster: Any, tmp_path: pathlib.Path) -> None:
    net, marker = tmp_path / "net.py", tmp_path / "lost"
    net.write_text(NET.format(marker=str(marker), driver=os.getpid()))
    asked = configs(tmp_path, model=f"{net}:build")
    made = runs.sweep(asked, each={"num_cpus": 1})
    assert marker.exists(), "no worker was lost"
    assert [run.directory for run in made] == [tmp_path / "beta-0.1", tmp_path / "beta-0.2"]
    assert [run.results["config"]["beta"] for run in made] == ["0.1", "0.2"]
    assert all(runs.read_results(run.directory) == run.results for run in made)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_what_fails_is_told_when_the_others_are_finished(cluster: Any, tmp_path: pathlib.Path) -> None:
    asked = configs(tmp_path)
    net = tmp_path / "net.py"
    net.write_text(
        f"import os\nfrom mcu_jax import models\n\ndef build(num_classes):\n"
        f"    if os.getpid() != {os.getpid()}:\n        raise ValueError('not here')\n"
        "    return models.mlp(num_classes=num_classes, hidden=(8,))\n"
    )
    failing = configs(tmp_path / "failing", model=f"{net}:build")[0]
    with pytest.raises(
        runs.SweepError, match=r"1 of 2 runs failed, the others are finished: .*failing.*not here"
    ) as told:
        runs.sweep([failing, asked[1]], retries=0)
    assert list(told.value.failures) == [str(failing.out)]
    assert runs.read_results(tmp_path / "beta-0.2")["config"]["beta"] == "0.2"


def test_a_sweep_makes_each_run_once(tmp_path: pathlib.Path) -> None:
    asked = configs(tmp_path)
    with pytest.raises(runs.ConfigError, match=r"beta-0\.2 is asked for more than once"):
        runs.sweep([asked[1], *asked])


def test_a_sweep_without_ray_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'mcu-jax\[ray\]'"):
        runs.sweep(configs(tmp_path))
