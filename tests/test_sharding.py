"""On a mesh of devices every method gives the numbers of one, and each device does its share of every batch."""

from __future__ import annotations

import re
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mcu_jax import curves, methods, paths, registry, sharding, training
from mcu_jax.base import Problem, UserError
from mcu_jax.training import _loop

BATCH = 20
"""As many as nothing else in the problem is, nor a quarter of it."""
OPTIONS: dict[str, dict] = {
    **{name: {"epochs": 1, "batch_size": BATCH, "lr": 0.05} for name in methods.NAMES},
    "sfron": {"steps": 2, "batch_size": BATCH, "alpha": 1.0, "forget_every": 2, "lr": 0.05},
    "ssd": {"alpha": 1.0, "fisher_batch": BATCH},
    "influence": {"samples": 10, "damping": 0.1},
    "fisher_noise": {"alpha": 0.01, "fisher_batch": BATCH},
    "mcu": {"steps": 4, "batch_size": BATCH, "points": 5, "pre": f"random_label:epochs=1,batch_size={BATCH}"},
}


@pytest.fixture(scope="module")
def mesh() -> jax.sharding.Mesh:
    return sharding.mesh("data=4")


def call(problem: Problem, name: str, **changes: Any) -> Any:
    method = getattr(methods, name)
    return method(problem, jax.random.key(3), **registry.arguments(method, {**OPTIONS[name], **changes}))


@pytest.mark.parametrize("name", methods.NAMES)
def test_every_method_is_shared_out(
    problem: Problem, mesh: jax.sharding.Mesh, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs: dict[str, Any] = {}
    compiled = _loop._compiled

    def spy(*arguments: Any, **static: Any) -> Any:
        # Over leaves, because what lowering tells of arguments fills their structures.
        leaves, structure = jax.tree.flatten(arguments)
        shapes = str([np.shape(leaf) for leaf in leaves])
        if shapes not in programs:
            flat = jax.jit(lambda leaves: compiled(*jax.tree.unflatten(structure, leaves), **static))
            programs[shapes] = flat.lower(leaves)
        return compiled(*arguments, **static)

    alone = call(problem, name)
    monkeypatch.setattr(_loop, "_compiled", spy)
    with sharding.use(mesh):
        result = call(problem, name)
    chex.assert_trees_all_close(result, alone, rtol=1e-3, atol=1e-5)
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(result)} == {4}
    assert bool(programs) == (name not in {"ssd", "influence", "fisher_noise"}), "these have no loop"
    for lowered in programs.values():
        text = lowered.compile().as_text()
        assert re.search(rf"f32\[{BATCH // 4},\d+\]", text), "no quarter of a batch"
        assert not re.search(rf"f32\[{BATCH},\d+\]", text), "a whole batch on one device"
        assert "all-reduce" in text


@pytest.mark.parametrize("name", ["finetune", "ssd"])
def test_a_batch_that_devices_do_not_divide_is_shared_out_too(
    problem: Problem, mesh: jax.sharding.Mesh, name: str
) -> None:
    changes = {"fisher_batch": 30} if name == "ssd" else {"batch_size": 30}
    with sharding.use(mesh):
        result = call(problem, name, **changes)
    chex.assert_trees_all_close(result, call(problem, name, **changes), rtol=1e-3, atol=1e-5)
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(result)} == {4}


@pytest.mark.parametrize(
    "spec", ["", "data", "data=0", "data=-1", "data=x", "seeds=2", "data=2,data=2", "data=2;map=2"]
)
def test_a_mesh_is_of_known_axes(spec: str) -> None:
    with pytest.raises(UserError, match="a mesh is AXIS=DEVICES"):
        sharding.mesh(spec)


def test_a_mesh_takes_no_more_devices_than_there_are() -> None:
    with pytest.raises(UserError, match="takes 9 devices, and there are 8"):
        sharding.mesh("data=3,map=3")


def test_a_mesh_of_other_axes_is_refused() -> None:
    named = jax.make_mesh((4,), ("model",))
    with pytest.raises(UserError, match="axes of type Auto by the names data, fsdp, map"), sharding.use(named):
        pass


def test_batches_that_the_devices_do_not_divide_are_refused_by_name() -> None:
    with sharding.use(sharding.mesh("data=2,fsdp=2,map=2")):
        sharding.check_batch("train.batch_size", 128)
        with pytest.raises(UserError, match="npo: batch_size is 30, which 4 devices do not divide"):
            sharding.check_batch("npo: batch_size", 30)
    sharding.check_batch("train.batch_size", 31)


def test_every_t_is_evaluated_on_one_of_the_devices_and_its_batches_on_others(problem: Problem, unlearned: Any) -> None:
    path, ts = curves.straight(problem.params, unlearned, 1), np.linspace(0, 1, 5)
    alone = paths.evaluate(problem, path, ts)
    with sharding.use(sharding.mesh("data=2,map=4")):
        shared = paths.evaluate(problem, path, ts)
        # Two of five t on each of four devices, which three of them fill up.
        program = str(jax.make_jaxpr(lambda ts: paths.sweep(_norm, path, ts))(jnp.asarray(ts, jnp.float32)))
        swept = paths.sweep(_norm, path, ts)
    assert "shard_map" in program
    assert "f32[2]" in program
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(shared)} == {8}
    chex.assert_trees_all_close(shared.retain.loss, alone.retain.loss, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(shared.forget.correct, alone.forget.correct)
    chex.assert_trees_all_close(swept, paths.sweep(_norm, path, ts), rtol=1e-5)


def _norm(params: Any) -> jax.Array:
    return optax.tree.norm(params)


class Parts:
    """A monitor that remembers how large the largest part of any array was on a device, and the whole."""

    def __init__(self) -> None:
        self.seen: set[tuple[int, int]] = set()

    def start(self, template: Any, steps: int) -> None:
        return None

    def segment(self, state: Any, step: int, steps: int, loss: np.ndarray) -> None:
        for leaf in jax.tree.leaves(state.state):
            self.seen.add((leaf.size, leaf.addressable_shards[0].data.size))


@pytest.mark.parametrize("name", ["finetune", "scrub"])
def test_parameters_and_what_the_optimiser_keeps_of_them_are_shared_out(
    problem: Problem, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharding, "SMALLEST", 100)
    alone, parts = call(problem, name), Parts()
    with sharding.use(sharding.mesh("data=2,fsdp=4")), training.monitored(parts):
        result = call(problem, name)
    chex.assert_trees_all_close(result, alone, rtol=1e-3, atol=1e-5)
    large = {(whole, part) for whole, part in parts.seen if whole >= 100}
    assert large == {(64 * 16, 64 * 4), (16 * 10, 4 * 10)}
    assert all(whole == part for whole, part in parts.seen - large)


def test_seeds_side_by_side_have_the_axis_that_t_have_otherwise() -> None:
    with sharding.use(sharding.mesh("data=2,map=4")):
        with sharding.use(sharding.for_seeds()):
            assert sharding.size(sharding.MAP) == 1
            assert sharding.count_of_seeds(5) == 8
            stacked = sharding.spread(np.arange(8.0, dtype=np.float32))
        assert sharding.size(sharding.MAP) == 4
    assert {shard.data.size for shard in stacked.addressable_shards} == {2}
    assert sharding.count_of_seeds(5) == 5


def test_seeds_one_by_one_have_devices_of_their_own() -> None:
    with sharding.use(sharding.mesh("data=2,map=4")):
        rows = sharding.rows()
        devices = [sorted(device.id for device in row.devices.flat) for row in rows]
    assert devices == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert {row.axis_names for row in rows} == {("data",)}
    with sharding.use(sharding.mesh("map=3")):
        assert [row.shape for row in sharding.rows()] == [{"data": 1}] * 3


@pytest.mark.parametrize("spec", ["here", "host:1", "host:1,2", "host:1,2,x", "host,2,0"])
def test_processes_are_told_of_each_other_in_one_way(spec: str) -> None:
    with pytest.raises(UserError, match=r"auto, or HOST:PORT,PROCESSES,NUMBER"):
        sharding.start(spec)


def test_a_process_has_a_number_below_their_count() -> None:
    with pytest.raises(UserError, match="of 2 processes the last has number 1, given 2"):
        sharding.start("localhost:1,2,2")
