"""How many points of a path go side by side: what the memory holds, on an accelerator what a short measurement says.

Never needed: what was measured is only remembered to save time, and where memory runs out all the same the number
halves.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import hashlib
import json
import pathlib
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Any, NamedTuple

import jax
from jax.tree_util import Partial

from mcu_jax import datasets, disk, memory, sharding, trees
from mcu_jax.base import Params, UserError

FEW = 1_000_000
"""Weights of a model of which a CPU evaluates several at a time."""
REPEATS = 3
"""Of every measurement, of which the quickest counts."""
GAIN = 0.95
"""A number of t is better than another where it takes at most so much of the other's time."""
PATIENCE = 2
"""After so many numbers that are no better, larger ones are not tried."""


class Work(NamedTuple):
    """A compiled function of points of a path. function: of these arguments and settings, and of `chunk`, static."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    settings: Mapping[str, Any]

    def at(self, chunk: int) -> Any:
        """The result, with so many t side by side."""
        leaves, options = self._flat()
        return jax.block_until_ready(_call(leaves, chunk=chunk, **options))

    def needs(self, chunk: int) -> int | None:
        """Bytes beside its arguments, of what was compiled; None where the compiler does not tell."""
        leaves, options = self._flat()
        told = _call.lower(leaves, chunk=chunk, **options).compile().memory_analysis()  # jax keeps it for the call
        return None if told is None else told.temp_size_in_bytes + told.output_size_in_bytes

    @property
    def key(self) -> Any:
        """The same for other values of the same types, on the same devices."""
        leaves, options = self._flat()
        return tuple(options.values()), tuple(map(jax.typeof, leaves)), sharding.current()

    def _flat(self) -> tuple[list[Any], dict[str, Any]]:
        leaves, structure = jax.tree.flatten(self.arguments)
        settings = tuple(sorted(self.settings.items()))
        return leaves, {"function": self.function, "structure": structure, "settings": settings}


@functools.partial(jax.jit, static_argnames=("function", "structure", "settings", "chunk"))
def _call(leaves: list[Any], *, function: Callable[..., Any], structure: Any, settings: tuple, chunk: int) -> Any:
    """Over leaves, because `lower` would fill the structures with place-holders of no type."""
    return function(*jax.tree.unflatten(structure, leaves), **dict(settings), chunk=chunk)


def side_by_side(
    work: Work, brief: Callable[[int], Work], f: Partial, params: Params, most: int, chunk: int | None
) -> Any:
    """The work with the best number of points side by side, up to `most`. chunk: another number, None: what is best.

    brief: the same work of a few points. f: what is done at one, of its parameters, which are like `params`. Raises
    UserError for a chunk below 1, or memory that does not suffice for one point.
    """
    if chunk is not None and chunk < 1:
        raise UserError(f"chunk is how many t are evaluated side by side, at least 1, given {chunk}")
    traced = trees.is_traced(work.arguments)
    if chunk is not None:
        first = min(chunk, most)
    elif traced or platform() == "cpu" or jax.process_count() > 1:
        first = usual(f, params, most)  # processes that measure may find different programs best
    else:
        first = measured(brief, most, f, params)
    if traced:
        return work.function(*work.arguments, **work.settings, chunk=first)
    return run(work, fitting(work, first) if chunk is None else first)


def usual(f: Partial, params: Params, most: int) -> int:
    """1 on a CPU where f convolves (a batch of kernels becomes a slow grouped convolution) or the weights are more than
    `FEW` (one model keeps it busy, and several do not fit its cache), else `most`.
    """
    if platform() != "cpu":
        return most
    return 1 if sum(leaf.size for leaf in jax.tree.leaves(params)) > FEW or convolves_at(f, params) else most


_MOST_KNOWN = 256
_known: dict[Any, int] = {}
"""What fits into the memory in place of so many t, by the key of a work and these."""


def run(work: Work, chunk: int) -> Any:
    """The work with so many t side by side; where the memory runs out, with half as many, and a line says so.

    Raises UserError where it does not suffice for one.
    """
    key = work.key, chunk
    chunk = _known.get(key, chunk)
    while True:
        try:
            return work.at(chunk)
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if not _is_exhausted(error):
                raise
            if chunk == 1:
                raise UserError(_too_little(work)) from error
        # Out of the handler, which would keep alive what the failed call has allocated.
        _tell.get()(f"the memory is too small for {chunk} points of a path side by side: {chunk // 2} from here on")
        chunk = _keep(key, chunk // 2)


def fitting(work: Work, chunk: int) -> int:
    """So many t, or fewer where what was compiled needs more memory than is free; at least 1."""
    key = work.key, chunk
    return _known[key] if key in _known else _keep(key, int(sharding.agree(_fitting(work, chunk))))


def _keep(key: Any, chunk: int) -> int:
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    _known[key] = chunk
    return chunk


def _fitting(work: Work, chunk: int) -> int:
    while chunk > 1:
        need, free = work.needs(chunk), memory.free()
        if need is None or free is None or need <= free:
            break
        chunk = max(1, min(chunk // 2, chunk * free // need))
    return chunk


def measured(brief: Callable[[int], Work], count: int, f: Partial, params: Params) -> int:
    """The number of t side by side, up to `count`, at which one takes the shortest time; from an earlier run, or found.

    brief: a short work on so many t. f: what is computed at one, of its parameters.
    """
    versions = [metadata.version(name) for name in ("jax", "jaxlib", "mcu-jax")]
    asked = json.dumps([device().device_kind, _fingerprint(*_types(f, params)), count, versions])
    key, known = hashlib.sha256(asked.encode()).hexdigest(), _read()
    found = known.get(key)
    if type(found) is not int or not 1 <= found <= count:
        found = _measure(brief, count)
        _write({**_read(), key: found})
    return found


def _measure(brief: Callable[[int], Work], count: int) -> int:
    best, least, patience = 1, float("inf"), PATIENCE
    for chunk in [*(2**i for i in range((count - 1).bit_length())), count]:
        try:
            each = seconds(functools.partial(brief(chunk).at, chunk)) / chunk
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if not _is_exhausted(error):
                raise
            break
        if each <= GAIN * least:
            best, least, patience = chunk, each, PATIENCE
        elif not (patience := patience - 1):
            break
    return best


def seconds(call: Callable[[], Any]) -> float:
    """That a call takes, after one that compiles."""
    call()
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return min(taken)


# What is computed at one t


def convolves_at(f: Partial, params: Params) -> bool:
    """Whether f(params) convolves."""
    return _convolves(*_types(f, params))


def _types(f: Partial, params: Params) -> tuple[Any, tuple[Any, ...]]:
    leaves, structure = jax.tree.flatten((f, params))
    return structure, tuple(map(jax.typeof, leaves))  # those jax gives them: of NumPy's indices, int32


@functools.lru_cache(maxsize=256)
def _convolves(structure: Any, types: tuple[Any, ...]) -> bool:
    """Cached, because tracing f takes longer than a small sweep."""
    return convolves(_over_leaves(structure), *types)


@functools.lru_cache(maxsize=256)
def _fingerprint(structure: Any, types: tuple[Any, ...]) -> str:
    """Of the program, the same in every process."""
    program = re.sub(r" at 0x[0-9a-f]+", "", str(jax.make_jaxpr(_over_leaves(structure))(*types)))
    return hashlib.sha256(program.encode()).hexdigest()


def _over_leaves(structure: Any) -> Callable[..., Any]:
    def call(*leaves: Any) -> Any:
        f, params = jax.tree.unflatten(structure, leaves)
        return f(params)

    return call


def convolves(f: Callable[..., Any], *arguments: Any) -> bool:
    """Whether f(*arguments) holds a convolution, in whatever form it will be computed."""

    def search(jaxpr: Any) -> bool:
        for equation in jaxpr.eqns:
            if equation.primitive.name == "conv_general_dilated":
                return True
            for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns") and search(inner):
                    return True
        return False

    return search(jax.make_jaxpr(f)(*arguments).jaxpr)


# Where the memory runs out


def _is_exhausted(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def _too_little(work: Work) -> str:
    try:
        need = work.needs(1)
    except (MemoryError, jax.errors.JaxRuntimeError):  # it cannot even be compiled
        need = None
    wanted, free = "" if need is None else f", which takes {memory.shown(need)}", memory.free()
    there = "" if free is None else f" with {memory.shown(free)} free"
    return (
        f"the memory of {device().device_kind}{there} does not suffice to evaluate one point of a path{wanted}. Fewer "
        "points do not help; a smaller model or smaller images do, bfloat16 (--precision, models.in_bfloat16), "
        "another --device, or from Python metrics.evaluate at each point with a smaller batch_size"
    )


# Of the machine


def platform() -> str:
    return jax.default_backend()


def device() -> Any:
    return jax.local_devices()[0]


# Who is told


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=2)


_tell: contextvars.ContextVar[Callable[[str], None]] = contextvars.ContextVar("tell", default=_warn)


@contextlib.contextmanager
def told(tell: Callable[[str], None]) -> Iterator[None]:
    """Inside, `tell` is given the lines that otherwise are warnings."""
    token = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(token)


# What is remembered


def _file() -> pathlib.Path:
    return datasets.cache_directory() / "chunks.json"


def _read() -> dict[str, Any]:
    """Nothing where the file is missing or damaged."""
    try:
        values = json.loads(_file().read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _write(values: dict[str, Any]) -> None:
    """Does nothing where the directory cannot be written."""
    with contextlib.suppress(OSError):
        file = _file()
        file.parent.mkdir(parents=True, exist_ok=True)
        disk.write(file, json.dumps(values))
