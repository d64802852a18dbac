"""How many points of a path go side by side: the memory, a measurement that is remembered, and what halves it."""

from __future__ import annotations

import functools
import os
import pathlib
import subprocess
import sys
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from mcu_jax import Problem, UserError, chunks, curves, memory, paths, runs
from mcu_jax.runs import _graph, _runner, _stages

COUNT = 13
TS = np.linspace(0, 1, COUNT, dtype=np.float32)
START = {"a": jnp.arange(3.0)}
PATH = curves.straight(START, {"a": -jnp.ones(3)})


def square(scale: jax.Array, params: dict) -> jax.Array:
    return scale * jnp.square(params["a"])


F = Partial(square, jnp.asarray(2.0))


def sweep(chunk: int | None = None) -> jax.Array:
    return paths.sweep(F, PATH, TS, chunk=chunk)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> jax.Array:
    """What a sweep gives. Nothing is known from elsewhere."""
    monkeypatch.setenv("MCU_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(chunks, "_known", {})
    expected = sweep()
    chunks._known.clear()
    return expected


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many t every call had side by side."""
    seen, call = [], chunks._call

    class Seen:
        lower = staticmethod(call.lower)

        def __call__(self, *arguments: Any, chunk: int, **options: Any) -> Any:
            seen.append(chunk)
            return call(*arguments, chunk=chunk, **options)

    monkeypatch.setattr(chunks, "_call", Seen())
    return seen


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Another platform than the CPU, where so many t side by side take so long; counts what is measured."""
    taken = {1: 1.0, 2: 1.2, 4: 2.0, 8: 8.0, COUNT: 20.0}
    monkeypatch.setattr(chunks, "platform", lambda: "gpu")
    monkeypatch.setattr(chunks, "seconds", lambda call: taken[call.args[0]])
    return taken


# Memory that runs out


def exhausted(monkeypatch: pytest.MonkeyPatch, most: int, error: Exception) -> None:
    """The memory holds so many t side by side."""
    at = chunks.Work.at

    def fails(work: chunks.Work, chunk: int) -> Any:
        if chunk > most:
            raise error
        return at(work, chunk)

    monkeypatch.setattr(chunks.Work, "at", fails)


OUT = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12345 bytes.")


@pytest.mark.parametrize("error", [OUT, MemoryError()])
@pytest.mark.parametrize("chunk", [None, COUNT])
def test_where_memory_runs_out_it_halves_and_says_so(
    plain: jax.Array, monkeypatch: pytest.MonkeyPatch, error: Exception, chunk: int | None
) -> None:
    exhausted(monkeypatch, 3, error)
    lines: list[str] = []
    with chunks.told(lines.append):
        chex.assert_trees_all_close(sweep(chunk), plain)
        assert lines == [f"the memory is too small for {n} points of a path side by side: {n // 2} from here on"
                         for n in (13, 6)]  # fmt: skip
        sweep(chunk)
        assert len(lines) == 2, "it is known by now"


def test_without_a_listener_it_is_a_warning(plain: jax.Array, monkeypatch: pytest.MonkeyPatch) -> None:
    exhausted(monkeypatch, 12, OUT)
    with pytest.warns(RuntimeWarning, match="too small for 13 points"):
        sweep()


def test_in_a_run_it_is_a_line_of_the_run(
    plain: jax.Array, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    class Listening(runs.Silent):
        lines: ClassVar[list[str]] = []

        def note(self, text: str) -> None:
            self.lines.append(text)

    exhausted(monkeypatch, 12, OUT)
    stage = _graph.Stage("sweep", 3, sweep, {})
    _runner.Runner(_stages.Store(tmp_path / "stages"), Listening(), together=False).run({"sweep": [stage]})
    assert Listening.lines == [
        "sweep, seed 3: the memory is too small for 13 points of a path side by side: 6 from here on"
    ]


def test_too_little_for_one_is_the_users_to_know(plain: jax.Array, monkeypatch: pytest.MonkeyPatch) -> None:
    exhausted(monkeypatch, 0, OUT)
    monkeypatch.setattr(memory, "free", lambda: 3 * 2**30)
    with chunks.told(str), pytest.raises(UserError, match=r"3 GiB free .*Fewer points do not help.*--device"):
        sweep()


def test_another_error_is_none_of_it(plain: jax.Array, monkeypatch: pytest.MonkeyPatch) -> None:
    exhausted(monkeypatch, 0, jax.errors.JaxRuntimeError("INTERNAL: a bug"))
    with pytest.raises(jax.errors.JaxRuntimeError, match="a bug"):
        sweep()


# Memory that is known to be too small


def test_what_is_compiled_fits_the_memory(plain: jax.Array, asked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks.Work, "needs", lambda work, chunk: 100 * chunk)
    for free, expected in ((None, 13), (1300, 13), (1299, 6), (310, 3), (1, 1)):
        monkeypatch.setattr(chunks, "_known", {})
        monkeypatch.setattr(memory, "free", lambda free=free: free)
        chex.assert_trees_all_close(sweep(), plain)
        assert asked.pop() == expected
    chex.assert_trees_all_close(sweep(COUNT), plain)
    assert asked.pop() <= COUNT


def test_more_side_by_side_needs_more_and_nothing_is_compiled_twice(plain: jax.Array) -> None:
    def large(params: dict) -> jax.Array:
        return jnp.cumsum(jnp.cumsum(jnp.ones((4096, 3)) * params["a"][None], axis=0), axis=1)[-1]

    def work(count: int) -> chunks.Work:
        return chunks.Work(paths._sweep, (Partial(large), PATH, jnp.asarray(TS)), {"curve": curves.linear})

    one, all_of_them = work(1).needs(1), work(1).needs(COUNT)
    assert one is not None
    assert all_of_them is not None
    assert all_of_them > 4 * one
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compiled.append(event))
    work(1).at(COUNT)
    jax.monitoring.clear_event_listeners()
    assert not [event for event in compiled if "backend_compile" in event]


def test_a_host_tells_what_is_free() -> None:
    free = memory.free()
    assert free is None or 2**20 < free < 2**50


# On an accelerator it is measured


def test_the_quickest_is_taken_and_remembered(
    plain: jax.Array, asked: list[int], accelerator: dict[int, float]
) -> None:
    chex.assert_trees_all_close(sweep(), plain)
    assert asked == [4], "0.5 for each"
    accelerator |= dict.fromkeys(accelerator, 1.0)
    chunks._known.clear()
    sweep()
    assert asked == [4, 4]
    # Damaged, or for another number of points, it is measured again.
    chunks._file().write_text("{")
    sweep()
    assert asked == [4, 4, 13]
    assert paths.sweep(F, PATH, TS[:2]).shape == (2, 3)
    assert asked[3:] == [2]
    chunks._file().write_text("[]")
    sweep()
    assert asked[4:] == [13]


def test_larger_ones_are_not_tried_once_they_do_not_pay(
    plain: jax.Array, accelerator: dict[int, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    monkeypatch.setattr(chunks, "seconds", lambda call: tried.append(call.args[0]) or float(call.args[0]))
    assert chunks._measure(lambda n: chunks.Work(paths._sweep, (), {}), 61) == 1
    assert tried == [1, 2, 4]

    def out(call: Any) -> float:
        if call.args[0] > 8:
            raise OUT
        return 1.0

    monkeypatch.setattr(chunks, "seconds", out)
    assert chunks._measure(lambda n: chunks.Work(paths._sweep, (), {}), 61) == 8


def test_a_place_that_cannot_be_written_is_no_matter(
    plain: jax.Array, accelerator: dict[int, float], monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MCU_JAX_CACHE", str(tmp_path / "file" / "cache"))
    chex.assert_trees_all_close(sweep(), plain)


def test_an_evaluation_is_measured_on_few_examples(
    problem: Problem, accelerator: dict[int, float], monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("MCU_JAX_CACHE", str(tmp_path))
    monkeypatch.setattr(paths, "BRIEF", 7)
    looked: list[Any] = []
    monkeypatch.setattr(chunks, "seconds", lambda call: looked.append(call.func.__self__.arguments) or 1.0)
    found = paths.evaluate(problem, curves.straight(problem.params, problem.params), TS[:4])
    assert found.retain.loss.shape == (4, len(problem.retain))
    assert [len(arguments[2]) for arguments in looked] == [1, 2, 4]
    assert {len(arguments[0].retain) for arguments in looked} == {7}


def test_under_a_trace_nothing_of_it_happens(
    plain: jax.Array, asked: list[int], accelerator: dict[int, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "seconds", None)
    monkeypatch.setattr(memory, "free", None)
    found = jax.jit(lambda scale: paths.sweep(Partial(square, scale), PATH, TS))(2.0)
    chex.assert_trees_all_close(found, plain)
    assert not asked


def test_the_same_program_is_known_in_another_process() -> None:
    code = "import test_chunks as t; print(t.fingerprint())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(pathlib.Path(__file__).parent), *sys.path])}
    told = [subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)]
    assert told[0].stdout.split()[-1] == fingerprint()


@functools.cache
def fingerprint() -> str:
    """Of a network with everything whose text could hold an address."""
    from mcu_jax import models

    model = models.preresnet(num_classes=3, depth=8, remat=True)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    apply = Partial(lambda x, params: jax.grad(lambda p: model.apply(p, x)[0].sum())(params), jnp.zeros((2, 8, 8, 3)))
    return chunks._fingerprint(*chunks._types(apply, params))
