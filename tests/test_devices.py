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
import numpy as np
import pytest
import yaml
from conftest import CONNECTED, SMALL

from mcu_jax import cli, memory, models, outputs, runs, sharding
from mcu_jax.runs import _directory, _graph, _jobs, _placing, _runner, _stages, _tasks
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


# Parameters that do not fit one device


def resolve(**settings: Any) -> Any:
    base = CONNECTED if settings.get("kind") == "connect" else SMALL
    config = runs.from_mapping({**base, **settings})
    return _jobs.resolver(config)(config)


def small(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """A device has so many bytes."""
    monkeypatch.setattr(memory, "device", lambda: size)


def test_what_training_holds_is_counted_by_shapes() -> None:
    size = 4 * (64 * 64 + 64 + 64 * 10 + 10)
    asked: dict[str, Any] = {"kind": "connect", "model": "mlp:hidden=[64]", "also": []}
    line = {**asked, "curve": ["linear"], "steps": None}
    counted = {
        # Parameters and momentum before and after a step, gradients, θ_o.
        6: line,
        # The same of the inner points of a path, its ends, the point at t and its gradient.
        9: {**asked, "curve": ["linear", "bezier"]},
        19: {**asked, "curve": ["bezier", "bezier:bends=3"]},
    }
    for times, settings in counted.items():
        assert _placing.training_bytes(resolve(**settings)) == times * size
    with_adam = _placing.training_bytes(resolve(**line | {"a": "finetune:optimizer=adam"}))
    assert 8 * size <= with_adam < 8 * size + 100
    assert _placing.training_bytes(resolve(model="mlp:hidden=[64]", baselines=["mcu:bends=3"])) == 19 * size


def test_parameters_are_shared_out_where_training_does_not_fit_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = resolve(train={"batch_size": 40})
    need = _placing.training_bytes(resolved)
    small(monkeypatch, need * 4 // 3)
    assert _placing.place(resolved) == (None, None)
    small(monkeypatch, need * 4 // 3 - 2)
    found = _placing.place(resolved)
    assert dict(found.mesh.shape) == {"fsdp": 8}
    assert "on each of 8 devices, as by --mesh fsdp=8" in found.note
    for batch_size, count in ((20, 5), (12, 6), (7, 7), (128, 8)):
        assert dict(_placing.place(resolve(train={"batch_size": batch_size})).mesh.shape) == {"fsdp": count}
    small_batch = resolve(train={"batch_size": 8}, pre="npo:batch_size=9")
    assert _placing.place(small_batch) == (None, None), "no number of devices divides both"
    with sharding.use(sharding.mesh("data=2")):  # which somebody asked for
        assert _placing.place(resolved) == (None, None)


class Stopping(runs.Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    def should_stop(self) -> bool:
        return True


def test_a_run_that_does_not_fit_a_device_says_so_and_comes_to_the_same(
    finished: runs.Run,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    parts: set[tuple[int, int]] = set()
    compiled = _loop._compiled

    def spy(*arguments: Any, **static: Any) -> Any:
        arrays = [leaf for leaf in jax.tree.leaves(arguments) if np.size(leaf) == 640 and leaf.dtype == jnp.float32]
        parts.update((leaf.size, leaf.addressable_shards[0].data.size) for leaf in arrays)
        return compiled(*arguments, **static)

    monkeypatch.setattr(_loop, "_compiled", spy)
    monkeypatch.setattr(sharding, "SMALLEST", 600)
    small(monkeypatch, 100_000)
    settings = {**SMALL, "seeds": [0], "out": str(tmp_path / "run")}
    config, watcher = runs.from_mapping(settings), Stopping()
    (note,) = runs.plan(config).notes
    with pytest.raises(runs.InterruptedRunError, match="stopped before original"):
        runs.unlearn(config, watcher)
    assert "parameters are shared out" in note
    assert note in watcher.lines
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    assert cli.run(["unlearn", "--config", str(tmp_path / "config.yaml"), "--dry-run"]) == 0
    assert note in capsys.readouterr().out.splitlines()
    _, graph, placing = _jobs._open(config, None, None)
    stages = {label: graph[label] for label in ("original", "random_label", "mask", "path", "metrics of original")}
    runner = _runner.Runner(_stages.Store(tmp_path / "stages"), runs.Silent(), together=False)
    with sharding.use(placing.mesh):
        runner.run(stages)
    assert parts == {(640, 80)}, "of what every loop is given"
    for (stage,) in stages.values():
        _, expected = _stages.read(finished.directory / "stages" / stage.folder)  # known by the same name
        chex.assert_trees_all_close(runner.read(stage), expected, rtol=1e-3, atol=1e-4)


def weights() -> dict[str, Any]:
    return {"w": jnp.arange(640.0).reshape(80, 8)}


def part_of(given: dict[str, Any]) -> dict[str, Any]:
    return {"part": jnp.asarray(given["w"].addressable_shards[0].data.size), "sum": given["w"].sum()}


def test_stages_are_given_parts_and_what_they_come_to_is_kept_on_the_host(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharding, "SMALLEST", 600)
    made = _graph.Stage("weights", 0, weights, {})
    graph = {"weights": [made], "part": [_graph.Stage("part", 0, part_of, {"given": made})]}
    graph["whole"] = [_graph.Stage("whole", 0, part_of, {"given": made}, {}, on_host=True)]
    for place, expected in (("shared", 80), ("alone", 640)):
        runner = _runner.Runner(_stages.Store(tmp_path / place), runs.Silent(), together=False)
        with sharding.use(sharding.mesh("fsdp=8") if place == "shared" else None):
            runner.run(graph)
        assert int(runner.read(graph["part"][0])["part"]) == expected
        assert float(runner.read(graph["part"][0])["sum"]) == 640 * 639 / 2
        assert isinstance(runner.read(made)["w"], np.ndarray)


def test_fresh_parameters_are_never_whole_on_a_device(digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "SMALLEST", 600)
    model, rows = models.mlp(num_classes=10, hidden=(80,)), np.arange(1)
    alone = outputs.init(model, jax.random.key(0), digits.examples, rows)
    with sharding.use(sharding.mesh("fsdp=8")):
        made = outputs.init(model, jax.random.key(0), digits.examples, rows)
    chex.assert_trees_all_close(made, alone, rtol=1e-6)
    sizes = [(leaf.size, leaf.addressable_shards[0].data.size) for leaf in jax.tree.leaves(made)]
    assert sorted(sizes) == [(10, 10), (80, 80), (800, 100), (5120, 640)]


# Several processes


class Processes:
    """Two of a run, of four devices each. other: where the second one has it, by mistake."""

    def __init__(self, out: pathlib.Path, environment: dict[str, str], other: str | None = None):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=4")
        command = [sys.executable, "-m", "mcu_jax", "unlearn", *FLAGS, "--steps", str(SMALL["steps"])]
        command += ["--device", "cpu", "--mesh", "data=4,map=2"]
        self.started = [
            subprocess.Popen(
                [*command, "--out", place, "--processes", f"localhost:{port},2,{number}"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **environment, "XLA_FLAGS": flags},
            )
            for number, place in enumerate((str(out), other or str(out)))
        ]

    def ended(self) -> list[tuple[int, str, str]]:
        """(exit status, what it printed, what it said) of each."""
        finish = time.monotonic() + 240
        try:
            said = [process.communicate(timeout=finish - time.monotonic()) for process in self.started]
        except subprocess.TimeoutExpired:
            for process in self.started:
                process.kill()
            pytest.fail(f"they do not end: {[process.communicate() for process in self.started]}")
        return [(process.returncode, *texts) for process, texts in zip(self.started, said, strict=True)]


def test_two_processes_one_of_which_is_lost_go_on_and_come_to_the_same_numbers(
    finished: runs.Run, tmp_path: pathlib.Path, compilations: dict[str, str]
) -> None:
    out = tmp_path / "run"
    first = Processes(out, compilations)
    finish = time.monotonic() + 240
    while len(list((out / "stages").glob("original-*/manifest.json"))) < len(SMALL["seeds"]):
        assert time.monotonic() < finish
        assert first.started[0].poll() is None, first.ended()
        time.sleep(0.05)
    first.started[1].kill()
    (status, _, said), _ = first.ended()
    assert status != 0
    assert "another process of this run is gone" in said or "another task died" in said
    (status, printed, said), (other, silent, _) = Processes(out, compilations).ended()
    assert (status, other) == (0, 0), said
    assert not said.startswith("original:"), "it is made again"
    assert "Unlearning on digits" in printed
    # The transport speaks there too, and breaks its lines as it likes.
    assert not [word for word in ("compiling", "Unlearning", "Written to", "mcu-jax") if word in silent], silent
    check_same(runs.read_results(out), finished.results)


def test_a_process_that_fails_alone_does_not_keep_the_others_waiting(
    tmp_path: pathlib.Path, compilations: dict[str, str]
) -> None:
    (status, _, said), (other, _, why) = Processes(tmp_path / "run", compilations, other="/dev/null/run").ended()
    assert (status, other) == (1, 2)
    assert "another process of this run is gone" in said
    assert "/dev/null/run cannot be used" in why
