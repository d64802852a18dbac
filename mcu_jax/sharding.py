"""The mesh and its rules. Nothing else knows of devices: `training` asks for batches to be shared out, that is all."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mcu_jax.base import UserError

DATA = "data"
"""The mesh axis over which a batch is shared out."""

_mesh: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar("mesh", default=None)


@contextlib.contextmanager
def use(mesh: Mesh) -> Iterator[None]:
    """Loops inside share their batches out over the axis "data" of this mesh. Raises UserError without it."""
    if DATA not in mesh.shape:
        raise UserError(f"a mesh needs an axis {DATA!r} to share batches out over; given {', '.join(mesh.shape)}")
    token = _mesh.set(mesh)
    try:
        yield
    finally:
        _mesh.reset(token)


def current() -> Mesh | None:
    return _mesh.get()


def share_out(batch: Any, mesh: Mesh | None) -> Any:
    """A batch, leaves [b, …], over the mesh's data axis; where its devices do not divide b, the last have less."""
    if mesh is None:
        return batch
    return jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, PartitionSpec(DATA)))
