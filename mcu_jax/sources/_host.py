from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mcu_jax import memory
from mcu_jax.base import Batch, UserError
from mcu_jax.sources import _ahead


@jax.tree_util.register_static
class Host:
    """Examples that stay on the host. Compared by identity: build one and share it.

    read: (indices [n] int32) -> a Batch of NumPy arrays [n, …], in their order; called from the compiled program, so it
    must not use jax. example: a Batch of one example without the leading axis, or its shapes and dtypes. length: how
    many examples there are. A batch at a time is on the device: memory is what a batch takes, not the data. budget:
    bytes that the examples of a batch may take; whatever asks for more at once is refused when it is compiled. ahead:
    how many batches are read before they are asked for, each in a thread of grain's, so that `read` is called from
    several at once; 0 for none.
    """

    def __init__(
        self,
        read: Callable[[np.ndarray], Batch],
        example: Batch,
        length: int,
        *,
        budget: int = 2**30,
        ahead: int = 0,
    ):
        self.read, self.length, self.budget = read, length, budget
        self.reader = _ahead.Reader(read, ahead) if ahead else None
        self.example = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), dict(example))


def memory_mapped(arrays: Batch, *, budget: int = 2**30, ahead: int = 2) -> Host:
    """A source over arrays on disk, `np.load(file, mmap_mode="r")` each. budget, ahead: see `Host`.

    Raises UserError for unequal lengths.
    """
    arrays = dict(arrays)
    length = _common_length(arrays)

    def read(rows: np.ndarray) -> Batch:
        return jax.tree.map(lambda leaf: np.asarray(leaf[rows]), arrays)

    return Host(read, jax.tree.map(lambda leaf: leaf[0], arrays), length, budget=budget, ahead=ahead)


SHARE = 0.25
"""Of a device's memory, which examples may take; the rest is for models."""


def placed(examples: Batch) -> Batch | Host:
    """The same where they take no more than `SHARE` of the device's memory; else a `memory_mapped` source, which stays
    on the host.
    """
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(dict(examples)))
    most = SHARE * memory.device()
    return dict(examples) if size <= most else memory_mapped(examples)


def length(data: Batch | Host) -> int:
    """Number of examples. Raises UserError where leaves differ in length: which, and by how much."""
    return data.length if isinstance(data, Host) else _common_length(data)


def largest_batch(data: Batch | Host) -> int:
    """Number of examples that may be taken at once."""
    if not isinstance(data, Host):
        return length(data)
    return data.budget // sum(math.prod(one.shape) * one.dtype.itemsize for one in jax.tree.leaves(data.example))


def take(data: Batch | Host, rows: Int[Any, "n"]) -> Batch:
    """The examples at these indices. Traceable. Raises UserError for more at once than a source's budget allows."""
    if isinstance(data, Host):
        return _call(data, jnp.asarray(rows, jnp.int32))
    return _rows_of(dict(data), jnp.asarray(rows))


@jax.jit
def _rows_of(data: Batch, rows: Int[Any, "n"]) -> Batch:
    return jax.tree.map(lambda leaf: leaf[rows], data)


def first(data: Batch | Host) -> Batch:
    """The first example, [1, …], alone on the device."""
    return jax.tree.map(jnp.asarray, dict(read(data, np.arange(1))))


def ahead(data: Batch | Host, batches: Int[Any, "batches size"]) -> Int[Any, "batches size"]:
    """The same batches of indices, with which `take` is going to be asked, in this order. Traceable.

    A source on the host is told of them, and reads ahead. That changes no result: what is not asked for as announced
    is read when it is.
    """
    if not isinstance(data, Host) or data.reader is None or batches.shape[0] < 2 or batches.shape[1] > _ROWS:
        return batches
    count, size = batches.shape
    at_once = min(count, _ROWS // size)
    whole, told = count // at_once * at_once, functools.partial(_tell, data)
    parts = jax.lax.map(told, batches[:whole].reshape(-1, at_once, size)).reshape(whole, size)
    return jnp.concatenate([parts, told(batches[whole:])]) if whole < count else parts


def _tell(data: Host, batches: Int[Array, "batches size"]) -> Int[Array, "batches size"]:
    def tell(batches: Any) -> Any:
        assert data.reader is not None
        data.reader.announce(np.ascontiguousarray(batches, np.int32))
        return np.asarray(batches)

    # Its result is what `take` is given, so that the announcement comes before it.
    return jax.pure_callback(
        tell, jax.ShapeDtypeStruct(batches.shape, batches.dtype), batches, vmap_method="sequential"
    )


def read(data: Batch | Host, rows: np.ndarray) -> Batch:
    """The same as NumPy arrays, outside of compiled programs."""
    if isinstance(data, Host):
        return data.read(np.asarray(rows, np.int32))
    return jax.tree.map(lambda leaf: np.asarray(leaf)[rows], dict(data))


_ROWS = 8192
"""Indices in one call to the host. jax hands larger arguments of a callback over in its thread pool, all of which the
program that waits for the answer may hold: it then waits for ever (jax issue 24255; beyond 100 kB on a CPU).
"""


def _call(data: Host, rows: Int[Array, "n"]) -> Batch:
    if rows.size > largest_batch(data):
        raise UserError(
            f"{rows.size} examples are asked for at once, of a source whose budget of {data.budget} bytes holds "
            f"{largest_batch(data)}: take smaller batches, or give the source a larger budget"
        )
    n = rows.shape[0]
    if n <= _ROWS:
        return _call_once(data, rows)
    calls = -(-n // _ROWS)
    filled = jnp.resize(rows, (calls, -(-n // calls)))
    parts = jax.lax.map(functools.partial(_call_once, data), filled)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:n], parts)


def _call_once(data: Host, rows: Int[Array, "n"]) -> Batch:
    shapes = jax.tree.map(lambda one: jax.ShapeDtypeStruct((*rows.shape, *one.shape), one.dtype), data.example)

    def read(rows: Any) -> Batch:
        rows = np.asarray(rows)
        batch = data.read(rows) if data.reader is None else data.reader.take(rows)
        return jax.tree.map(lambda spec, leaf: np.asarray(leaf, spec.dtype), data.example, batch)

    # One after another under vmap, so that no call grows with what is mapped over.
    return jax.pure_callback(read, shapes, rows, vmap_method="sequential")


def _common_length(arrays: Batch) -> int:
    leaves = jax.tree_util.tree_leaves_with_path(dict(arrays))
    lengths = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape[:1] for path, leaf in leaves}
    if not lengths or () in lengths.values():
        raise UserError(f"a batch is a dict of arrays with a leading axis of examples, given {lengths or 'none'}")
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name!r} has {count}" for name, (count,) in lengths.items())
        raise UserError(f"the arrays of a batch share their leading axis of examples; {listed}")
    return next(iter(lengths.values()))[0]
