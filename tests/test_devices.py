"""A run on many devices, and in several processes, comes to the numbers of one device."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys
import time
from typing import Any

import chex
import jax
import jax.numpy as jnp
import pytest
from conftest import SMALL

from mcu_jax import runs, sharding
from mcu_jax.runs import _directory, _graph, _runner, _stages, _tasks
from mcu_jax.training import _loop

FLAGS = (
    f"--train-size {SMALL['train_size']} --validation-size {SMALL['validation_size']} --train.epochs 3 --points 5 "
    "--seeds 0 1 --baselines"
).split()


def check_same(results: dict[str, Any], of_one_device: dict[str, Any]) -> None:
    """But for how sums are rounded."""
    assert len(results["rows"]) == len(of_one_device["rows"])
    for row, expected in zip(results["rows"], of_one_device["rows"], strict=True):
        for name, value in expected.items():
            if isinstance(value, float):
                assert row[name] == pytest.approx(value, abs=1e-4), (name, row)
            elif name != "seconds":
                assert row[name] == value, name


def test_seeds_side_by_side_on_a_mesh_come_to_the_same_weights(
    finished: runs.Run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laid_out: set[Any] = set()
    together = _loop._together

    def spy(start: Any, *arguments: Any, **static: Any) -> Any:
        result = together(start, *arguments, **static)
        laid_out.update(leaf.sharding.spec[0] for leaf in jax.tree.leaves(result.state) if leaf.ndim > 2)
        return result

    monkeypatch.setattr(_loop, "_together", spy)
    resolved = runs.resolve(runs.from_mapping({**SMALL, "out": str(tmp_path)}))
    replicates = _tasks.replicates(_directory.RunDirectory(tmp_path, tmp_path, resolved), resolved)
    stages = [replicate.retrained("retrain") for replicate in replicates]
    runner = _runner.Runner(_stages.Store(tmp_path), runs.Silent(), together=True)
    with sharding.use(sharding.mesh("data=4,map=2")):
        runner.run({"retrain": stages})
    for seed, stage in enumerate(stages):
        alone = runs.load(finished.directory, seed=seed, stage="retrain")
        chex.assert_trees_all_close(runner.read(stage), alone, rtol=1e-4, atol=1e-5)
    assert laid_out == {"seeds"}, "a seed has devices of its own"


def where(seed: int) -> dict[str, Any]:
    """The devices on which a stage of one seed runs."""
    time.sleep(0.05)  # so that one row does not do the work of all
    made = jnp.zeros(()) + seed
    return {"devices": jnp.asarray(sorted(device.id for device in made.sharding.device_set))}


def test_seeds_one_by_one_have_each_a_row_of_the_mesh(tmp_path: pathlib.Path) -> None:
    stages = [_graph.Stage("where", i, where, {"seed": _graph.Leaf({"seed": i}, lambda i=i: i)}) for i in range(4)]
    runner = _runner.Runner(_stages.Store(tmp_path), runs.Silent(), together=False)
    with sharding.use(sharding.mesh("data=2,map=4")):
        runner.run({"where": stages})
    assert sorted(runner.read(stage)["devices"].tolist() for stage in stages) == [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_one_seed_has_the_whole_mesh(tmp_path: pathlib.Path) -> None:
    stage = _graph.Stage("where", 0, where, {"seed": _graph.Leaf({"seed": 0}, lambda: 0)})
    runner = _runner.Runner(_stages.Store(tmp_path), runs.Silent(), together=False)
    with sharding.use(sharding.mesh("data=2,map=4")):
        runner.run({"where": [stage]})
    assert runner.read(stage)["devices"].tolist() == list(range(8))


class Processes:
    """Two of a run, of four devices each."""

    def __init__(self, out: pathlib.Path, steps: int, environment: dict[str, str]):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=4")
        command = [sys.executable, "-m", "mcu_jax", "unlearn", *FLAGS, "--steps", str(steps), "--out", str(out)]
        command += ["--device", "cpu", "--mesh", "data=4,map=2", "--processes"]
        self.started = [
            subprocess.Popen(
                [*command, f"localhost:{port},2,{number}"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **environment, "XLA_FLAGS": flags},
            )
            for number in range(2)
        ]

    def ended(self) -> list[tuple[int, str, str]]:
        """(exit status, what it printed, what it said) of each."""
        said = [process.communicate(timeout=300) for process in self.started]
        return [(process.returncode, *texts) for process, texts in zip(self.started, said, strict=True)]


def test_two_processes_one_of_which_is_lost_go_on_and_come_to_the_same_numbers(
    finished: runs.Run, tmp_path: pathlib.Path, compilations: dict[str, str]
) -> None:
    out = tmp_path / "run"
    first = Processes(out, SMALL["steps"], compilations)
    finish = time.monotonic() + 240
    while len(list((out / "stages").glob("original-*/manifest.json"))) < len(SMALL["seeds"]):
        assert time.monotonic() < finish
        assert first.started[0].poll() is None, first.ended()
        time.sleep(0.05)
    first.started[1].kill()
    (status, _, said), _ = first.ended()
    assert status != 0
    assert "another process of this run is gone" in said or "another task died" in said
    (status, printed, said), (other, silent, _) = Processes(out, SMALL["steps"], compilations).ended()
    assert (status, other) == (0, 0), said
    assert not said.startswith("original:"), "it is made again"
    assert "Unlearning on digits" in printed
    # The transport's own, which it may break in two.
    ours = [line for line in silent.splitlines() if "[Gloo]" not in line and "peer ranks" not in line]
    assert ours == []
    check_same(runs.read_results(out), finished.results)
