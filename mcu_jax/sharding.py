"""The mesh of devices and its rules; nothing else knows of devices.

A mesh is set for what is inside of `use`, by jax's own `set_mesh`: arrays that are made there lie on all of its
devices, code is compiled for it, and what is marked by the functions here is shared out over one of its axes.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mcu_jax.base import UserError

DATA = "data"
"""The mesh axis over which a batch is shared out."""
FSDP = "fsdp"
"""The same, and so is every array of parameters: each device keeps a part of it, along its largest axis."""
MAP = "map"
"""The axis over which t along a path are shared out, or seeds."""
AXES = {
    DATA: "shares every batch",
    FSDP: "shares every batch, and the parameters too",
    MAP: "shares seeds, or the t of a path",
}
_SEEDS = "seeds"
"""What `MAP` is called where seeds have it: then t have not."""
SMALLEST = 4096
"""Elements of the least array that is shared out over `FSDP`."""


def mesh(spec: str) -> Mesh:
    """A mesh from `AXIS=DEVICES,AXIS=DEVICES`, of `AXES`: `data=4,map=2` takes eight devices.

    Raises UserError for another axis, a number below 1, more devices than there are, and fewer where there are several
    processes: all of theirs have a part.
    """
    sizes: dict[str, int] = {}
    for part in spec.split(","):
        name, _, value = part.partition("=")
        is_number = value.isascii() and value.isdecimal() and len(value) < 10
        if name not in AXES or name in sizes or not is_number or not int(value):
            told = "; ".join(f"{axis} {what}" for axis, what in AXES.items())
            raise UserError(f"a mesh is AXIS=DEVICES,…, as data=4,map=2: {told}. Given {spec[:80]!r}")
        sizes[name] = int(value)
    wanted, there = math.prod(sizes.values()), jax.device_count()
    if wanted > there:
        raise UserError(f"the mesh {spec} takes {wanted} devices, and there {_are(there)}: ask for fewer")
    if are_several() and wanted != there:
        raise UserError(
            f"the mesh {spec} takes {wanted} devices; of {jax.process_count()} processes it takes all {there}"
        )
    return _of(np.array(jax.devices()[:wanted]).reshape([*sizes.values()]), tuple(sizes))


def _are(count: int) -> str:
    return "is 1" if count == 1 else f"are {count}"


def _of(devices: np.ndarray, names: tuple[str, ...]) -> Mesh:
    return Mesh(devices, names, axis_types=(AxisType.Auto,) * len(names))


@contextlib.contextmanager
def use(mesh: Mesh | None) -> Iterator[None]:
    """What is inside runs on the devices of this mesh, None: as outside. Raises UserError for axes it does not know."""
    if mesh is None:
        yield
        return
    unknown = sorted(set(mesh.axis_names) - {*AXES, _SEEDS})
    if unknown or {*mesh.axis_types} != {AxisType.Auto}:
        raise UserError(
            f"a mesh has axes of type Auto by the names {', '.join(AXES)}, as sharding.mesh makes it; given {mesh}"
        )
    with jax.set_mesh(mesh):
        yield


def current() -> Mesh | None:
    """The mesh in use."""
    here = jax.sharding.get_mesh()
    return None if here.empty else here


def size(axis: str) -> int:
    """Devices along an axis of the mesh that is in use; 1 without."""
    return jax.sharding.get_abstract_mesh().shape.get(axis, 1)


def _shared(*axes: str) -> tuple[str, ...]:
    return tuple(axis for axis in axes if size(axis) > 1)


def share_out(batch: Any) -> Any:
    """A batch, leaves [b, …], over the devices; where these do not divide b, the last have less. To be compiled."""
    if not (axes := _shared(DATA, FSDP)):
        return batch
    return jax.lax.with_sharding_constraint(batch, PartitionSpec(axes))


def check_batch(name: str, batch_size: int) -> None:
    """Raises UserError where the devices do not divide a batch."""
    devices = size(DATA) * size(FSDP)
    if batch_size % devices:
        raise UserError(
            f"{name} is {batch_size}, which {devices} devices do not divide: ask for a multiple, or for another mesh"
        )


def _part(leaf: Any) -> PartitionSpec:
    """How an array of parameters is kept: its largest axis that the devices divide."""
    count = size(FSDP)
    axes = [i for i, length in enumerate(leaf.shape) if length % count == 0]
    if math.prod(leaf.shape) < SMALLEST or not axes:
        return PartitionSpec()
    largest = max(axes, key=lambda i: leaf.shape[i])
    return PartitionSpec(*[FSDP if i == largest else None for i in range(len(leaf.shape))])


def split(params: Any) -> Any:
    """Parameters, or whatever is shaped like them, with a part of every large array on each device of `FSDP`.

    Traceable; of what is concrete, each device is given its part.
    """
    if size(FSDP) == 1:
        return params

    def one(leaf: Any) -> Any:
        if isinstance(leaf, jax.core.Tracer):
            return jax.lax.with_sharding_constraint(leaf, _part(leaf))
        if not np.ndim(leaf):
            return leaf
        return _laid_out(leaf, _part(leaf))

    return jax.tree.map(one, params)


def map_over(f: Callable[[Any], Any], xs: Any, chunk: int) -> Any:
    """`jax.lax.map` of leaves [n, …], chunk of them side by side, over the devices of `MAP`: each has its share."""
    size_of_chunk = None if chunk == 1 else chunk
    count, n = size(MAP), len(jax.tree.leaves(xs)[0])
    if count == 1:
        return jax.lax.map(f, xs, batch_size=size_of_chunk)
    filled = -(-n // count) * count
    padded = jax.tree.map(lambda leaf: leaf[jnp.arange(filled) % n], xs)
    size_of_chunk = None if chunk == 1 else min(chunk, filled // count)
    mapped = jax.shard_map(
        lambda part: jax.lax.map(f, part, batch_size=size_of_chunk),
        in_specs=PartitionSpec(MAP),
        out_specs=PartitionSpec(MAP),
        axis_names={MAP},
        check_vma=False,
    )(padded)
    # Whole on every device again: other processes have parts of it that this one could not read.
    whole = jax.lax.with_sharding_constraint(mapped, PartitionSpec())
    return jax.tree.map(lambda leaf: leaf[:n], whole)


# Seeds, of a run


def for_seeds() -> Mesh | None:
    """The mesh in use, with `MAP` given to seeds side by side."""
    if size(MAP) == 1:
        return None
    here = jax.sharding.get_mesh()
    return _of(here.devices, tuple(_SEEDS if name == MAP else name for name in here.axis_names))


def rows() -> list[Mesh]:
    """The mesh in use as one for every index of `MAP`, for seeds one by one; none where several processes share it."""
    if size(MAP) == 1 or are_several():
        return []
    here = jax.sharding.get_mesh()
    axis = here.axis_names.index(MAP)
    others = tuple(name for name in here.axis_names if name != MAP)
    if not others:
        return [_of(here.devices[i : i + 1], (DATA,)) for i in range(size(MAP))]
    return [_of(part, others) for part in np.moveaxis(here.devices, axis, 0)]


def count_of_seeds(n: int) -> int:
    """So many seeds side by side that each device has as many."""
    devices = size(_SEEDS)
    return -(-n // devices) * devices


def spread(stacked: Any) -> Any:
    """An array of seeds side by side, [seeds, …], of which each device has its own."""
    if size(_SEEDS) == 1:
        return stacked
    return _laid_out(stacked, PartitionSpec(_SEEDS))


# Processes


def start(spec: str) -> None:
    """Makes this process one of several: `auto`, where the cluster says it, or `HOST:PORT,PROCESSES,NUMBER`.

    The same command is given to each. Raises UserError where they do not come together.
    """
    options: dict[str, Any] = {}
    if spec != "auto":
        address, *numbers = spec.split(",")
        are_numbers = all(number.isdecimal() and len(number) < 10 for number in numbers)
        if len(numbers) != 2 or not are_numbers or ":" not in address:
            raise UserError(
                f"processes are told of each other by auto, or HOST:PORT,PROCESSES,NUMBER, of the first, as "
                f"10.0.0.1:1234,2,0; given {spec[:80]!r}"
            )
        count, number = map(int, numbers)
        if number >= count:
            raise UserError(f"of {count} processes the last has number {count - 1}, given {number}")
        options = {"coordinator_address": address, "num_processes": count, "process_id": number}
    try:
        jax.distributed.initialize(**options)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the processes did not come together: {error}") from error


def are_several() -> bool:
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def wait(what: str) -> None:
    """Until every process is here."""
    if are_several():
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(what)


def agree(value: Any) -> np.ndarray:
    """The first process's numbers: what depends on a clock or on files must not differ between processes."""
    if not are_several():
        return np.asarray(value)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def anywhere(flag: bool) -> bool:
    """Whether it is so in any process."""
    if not are_several():
        return flag
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def fetch(tree: Any) -> Any:
    """As NumPy arrays, whole; together in all processes, where devices of others hold parts."""
    leaves, structure = jax.tree.flatten(tree)
    apart = {i: leaf for i, leaf in enumerate(leaves) if not getattr(leaf, "is_fully_addressable", True)}
    if apart:
        whole = {**dict(enumerate(leaves)), **_laid_out(apart, PartitionSpec())}
        leaves = [whole[i] for i in range(len(leaves))]
    return jax.device_get(jax.tree.unflatten(structure, leaves))


def _laid_out(tree: Any, spec: PartitionSpec) -> Any:
    """Compiled, because `device_put` cannot reach the devices of other processes."""
    return _identity(NamedSharding(jax.sharding.get_mesh(), spec))(tree)


@functools.cache
def _identity(out: NamedSharding) -> Callable[[Any], Any]:
    return jax.jit(lambda tree: tree, out_shardings=out)
