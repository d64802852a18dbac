"""On a mesh of devices every method gives the numbers of one, and each device does its share of every batch."""

from __future__ import annotations

import re
from typing import Any

import chex
import jax
import numpy as np
import pytest

from mcu_jax import methods, registry, sharding
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
    return jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


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


def test_a_mesh_without_a_data_axis_is_refused() -> None:
    with pytest.raises(UserError, match="a mesh needs an axis 'data'"), sharding.use(jax.make_mesh((4,), ("model",))):
        pass
