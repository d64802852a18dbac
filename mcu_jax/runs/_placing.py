"""On which devices a run computes where nobody says: on one, or on all, where its training does not fit one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from mcu_jax import memory, methods, optimizers, registry, sharding, sources
from mcu_jax.runs import _config

SHARE = 1 - sources.SHARE
"""Of a device's memory, which training may take: what examples leave."""


class Placing(NamedTuple):
    """mesh: to be used, None: as outside. note: a line that says so, where it was chosen because of the memory."""

    mesh: Mesh | None = None
    note: str | None = None


def place(resolved: _config.Resolved) -> Placing:
    """Where a run computes. A mesh that is in use stays; without one all devices of several processes share batches.

    Where `training_bytes` are more than `SHARE` of a device's memory, parameters too: over as many devices as divide
    every batch, all of several processes. Activations are not counted: shapes do not tell them.
    """
    devices = jax.device_count()
    if devices == 1 or sharding.current() is not None:
        return Placing()
    need, most = training_bytes(resolved), int(SHARE * memory.device())
    if not sharding.agree(need > most):
        return Placing(sharding.mesh(f"{sharding.DATA}={devices}") if sharding.are_several() else None)
    if not sharding.are_several():
        batch = math.gcd(*batch_sizes(resolved).values())
        devices = max(count for count in range(1, devices + 1) if batch % count == 0)
    if devices == 1:
        return Placing()
    each, spec = memory.shown(-(-need // devices)), f"{sharding.FSDP}={devices}"
    note = (
        f"training takes {memory.shown(need)} besides activations, of {memory.shown(most)} for it on a device: "
        f"parameters are shared out, {each} on each of {devices} devices, as by --mesh {spec}"
    )
    return Placing(sharding.mesh(spec), note)


def batch_sizes(resolved: _config.Resolved) -> dict[str, int]:
    """Of everything that is trained, by what asks for it."""
    asked = {
        f"{spec}: batch_size": options["batch_size"]
        for spec, (_, options) in resolved.methods.items()
        if "batch_size" in options
    }
    return {"train.batch_size": resolved.config.train.batch_size, **asked}


def training_bytes(resolved: _config.Resolved) -> int:
    """Of what training holds of parameters, at most: nothing is built to know it.

    A step holds what it changes and the optimiser's state twice, because a step that is not finite is not taken, and
    gradients. A method has θ_o beside it; a path its two ends, the point at t and the gradient there.
    """
    params = _config.shapes(resolved.model, resolved.data)
    size = _bytes(params)
    of_methods = max(_step(params, optimizer) for optimizer in _optimizers(resolved)) + size
    bends = max([resolved.bends_at_most, *(options.get("bends", 0) for _, options in resolved.methods.values())])
    inner = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((bends, *leaf.shape), leaf.dtype), params)
    return max(of_methods, _step(inner, _SGD) + 4 * size)


_SGD = optimizers.make(optimizers.sgd, 0.1, 0.9, 0.0)
"""Of originals, retrained models and paths."""


def _step(params: Any, optimizer: Any) -> int:
    return 2 * _bytes((params, jax.eval_shape(optimizer().init, params))) + _bytes(params)


def _optimizers(resolved: _config.Resolved) -> Iterator[Any]:
    yield _SGD
    for name, options in resolved.methods.values():
        if "optimizer" in options:
            given = {"optimizer": options["optimizer"]}
            (settings,) = registry.arguments(getattr(methods, name), given).values()
            yield optimizers.make(settings.optimizer, settings.lr, settings.momentum, settings.weight_decay)


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
