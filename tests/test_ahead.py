"""Where data live, and what is read ahead: no result depends on either."""

from __future__ import annotations

import dataclasses
import pathlib
import threading
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SMALL

from mcu_jax import memory, metrics, runs, sources, training
from mcu_jax.base import Batch, Problem
from mcu_jax.runs import _directory, _runner, _stages, _tasks
from mcu_jax.sources import _ahead
from mcu_jax.training import _loop

KEY = jax.random.key(5)


def number(rows: np.ndarray) -> Batch:
    """Examples that are their own indices."""
    return {"x": rows.astype(np.int32)}


def host(read: Any = number, length: int = 20_000) -> sources.Host:
    return sources.Host(read, {"x": np.zeros((), np.int32)}, length, ahead=2)


class Strict(_ahead.Reader):
    """Gives nothing that it was not told of, in turn; but one example alone, which a model is made for."""

    def announce(self, batches: np.ndarray) -> None:
        assert batches.nbytes < 50_000, "jax waits for ever for larger arguments"
        super().announce(batches)

    def take(self, rows: np.ndarray) -> Batch:
        if len(rows) == 1:
            return super().take(rows)
        plan, i = self.places[hash(rows.tobytes())]
        batch = plan.take(i)
        assert batch is not None, "out of turn"
        return batch


def strict(data: sources.Host) -> sources.Host:
    data.reader = Strict(data.read, 2)
    return data


def test_a_reader_gives_what_is_asked_for() -> None:
    rng = np.random.default_rng(0)
    reader = _ahead.Reader(number, 2)
    plans = [rng.integers(0, 99, (6, 3)).astype(np.int32) for _ in range(3)]
    order = [*plans[0], plans[1][2], plans[1][3], plans[1][0]]
    order += [rows for pair in zip(plans[1], plans[2], strict=True) for rows in (*pair, pair[0])]
    order += [rng.integers(0, 99, 3).astype(np.int32), *plans[0][:2], *plans[0][::-1]]
    for i, rows in enumerate(order):
        if i % 7 == 0:
            for plan in plans:
                reader.announce(plan)
        np.testing.assert_array_equal(reader.take(rows)["x"], rows)


def test_a_plan_is_walked_from_its_beginning_again() -> None:
    reader = Strict(number, 2)
    plan = np.arange(12, dtype=np.int32).reshape(4, 3)
    reader.announce(plan)
    for i in (2, 3, 0, 1, 0, 1, 2, 3, 0):
        np.testing.assert_array_equal(reader.take(plan[i])["x"], plan[i])


def test_a_reader_forgets_old_plans() -> None:
    reader = _ahead.Reader(number, 2)
    for i in range(_ahead._MOST_PLANS + 5):
        reader.announce(np.array([[i, 0], [i, 1]], np.int32))
    reader.announce(np.array([[5, 0], [5, 1]], np.int32))  # again, and not twice
    assert len(reader.plans) == _ahead._MOST_PLANS
    assert len(reader.places) == 2 * _ahead._MOST_PLANS
    assert hash(np.array([4, 0], np.int32).tobytes()) not in reader.places
    np.testing.assert_array_equal(reader.take(np.array([4, 0], np.int32))["x"], [4, 0])


def test_the_next_batches_are_read_meanwhile() -> None:
    read = {i: threading.Event() for i in range(5)}

    def slow(rows: np.ndarray) -> Batch:
        read[int(rows[0])].set()
        return number(rows)

    reader = _ahead.Reader(slow, 2)
    reader.announce(np.arange(5, dtype=np.int32)[:, None])
    reader.take(np.array([0], np.int32))
    assert read[1].wait(10)
    assert read[2].wait(10)
    assert not read[4].is_set()  # no more than so many


def test_what_cannot_be_read_is_told() -> None:
    def broken(rows: np.ndarray) -> Batch:
        raise OSError("the disk is gone")

    reader = _ahead.Reader(broken, 2)
    reader.announce(np.zeros((2, 1), np.int32))
    with pytest.raises(OSError, match="the disk is gone"):
        reader.take(np.zeros(1, np.int32))


@pytest.mark.parametrize("shape", [(3, 4), (50, 300), (1, 5), (2, 9000)])
def test_announcing_changes_nothing(shape: tuple[int, int]) -> None:
    batches = np.random.default_rng(0).integers(0, 20_000, (2, *shape)).astype(np.int32)

    def take(data: Any, batches: Any) -> Any:
        return jax.lax.map(lambda rows: sources.take(data, rows)["x"], sources.ahead(data, batches))

    for data in (host(), {"x": jnp.arange(20_000)}, sources.Host(number, {"x": np.zeros((), np.int32)}, 20_000)):
        np.testing.assert_array_equal(jax.jit(take)(data, batches[0]), batches[0])
        np.testing.assert_array_equal(jax.jit(jax.vmap(lambda b, d=data: take(d, b)))(batches), batches)
    if shape[0] > 1 and shape[1] < 9000:
        np.testing.assert_array_equal(jax.jit(take)(strict(host()), batches[1]), batches[1])


def test_loops_and_evaluations_announce_all_that_they_ask_for(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_loop, "SEGMENT_SECONDS", 0.0)  # of a step each: an epoch goes on where it was

    arrays = jax.tree.map(np.asarray, problem.data)
    announced = dataclasses.replace(problem, data=strict(sources.memory_mapped(arrays)))

    def both(run: Any) -> None:
        chex.assert_trees_all_equal(run(announced), run(problem))

    def trained(given: Problem, key: Any) -> Any:
        return training.train(given.model, given.data, key, rows=given.retain, epochs=1, lr=0.1, batch_size=24)

    both(lambda given: trained(given, KEY))
    both(lambda given: jax.vmap(lambda key: trained(given, key))(jax.random.split(KEY, 2)))
    both(lambda given: metrics.evaluate(given, given.params, batch_size=10))
    both(lambda given: training.gradient(given, given.params, given.retain, {}, batch_size=40))


def test_data_that_fit_live_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = {"x": np.zeros((10, 100), np.uint8), "y": np.zeros(10, np.int32)}
    assert memory.device() > 2**28

    @dataclasses.dataclass
    class Device:
        limit: int

        def memory_stats(self) -> dict[str, int]:
            return {"bytes_limit": self.limit}

    monkeypatch.setattr(jax, "local_devices", lambda: [Device(4 * 1040)])
    assert memory.device() == 4 * 1040
    assert sources.placed(examples) == examples
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(4 * 1040 - 4)])
    kept = sources.placed(examples)
    assert isinstance(kept, sources.Host)
    assert kept.reader is not None
    assert sources.length(kept) == 10


def test_a_run_on_the_host_makes_what_one_on_the_device_makes(
    finished: runs.Run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "device", lambda: 1000)
    resolved = runs.resolve(runs.from_mapping({**SMALL, "out": str(tmp_path)}))
    replicates = _tasks.replicates(_directory.RunDirectory(tmp_path, tmp_path / "stages", resolved), resolved)
    assert isinstance(replicates[0].placed, sources.Host)
    assert replicates[0].examples() is replicates[1].examples() is replicates[0].placed
    stages = [replicate.retrained("retrain") for replicate in replicates]
    _runner.Runner(_stages.Store(tmp_path / "stages"), runs.Silent(), together=True).run({"retrain": stages})
    for seed, stage in enumerate(stages):
        there = finished.directory / "stages" / stage.folder  # known by the same name
        chex.assert_trees_all_equal(_stages.read(tmp_path / "stages" / stage.folder)[1], _stages.read(there)[1])
        assert there == finished.directory / _directory.index(finished.directory)["retrain"][str(seed)]
