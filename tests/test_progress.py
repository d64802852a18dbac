"""Observers: what a terminal shows, what is logged, and who may stop a run."""

from __future__ import annotations

import datetime
import io
import json
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from mcu_jax import cli, interrupts, runs
from mcu_jax.runs import _estimate, _graph, _progress, _stages
from mcu_jax.runs._timing import Spent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_with_loss_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with runs.Progress(quiet=False) as progress:
        for name in ("original", "retrain"):  # the second finds the first's bar gone
            progress.stage(name, [0, 1], 0, 1, 2)
            for seed in (0, 1):
                for step in (10, 20):
                    progress.progress(name, seed, step, 40, 0.25)
                    progress.bar.refresh()
            progress.expect(runs.Expected(30.0, 200.0, 0 if name == "retrain" else 3))
            progress.bar.refresh()
            everything, whole, *each = progress.bar.tasks  # seeds may be trained at the same time
            assert everything.description == "stage 1 of 2"
            assert (whole.description, whole.total) == (f"{name} · 2 seeds", None)
            assert [(task.completed, task.total) for task in each] == [(20, 40)] * 2
            assert [task.description for task in each] == [f"{name} · seed 0", f"{name} · seed 1"]
            progress.finished(name, 1.0, 2.0)
    shown = screen.getvalue()
    assert "loss 0.250" in shown
    assert "about 30 s left" in shown
    assert "more than 4 min left" in shown  # of three stages nothing is known
    assert "retrain: 1.0 s, and 2.0 s compiling (stage 1 of 2, about 3 min left)" in shown


def test_nothing_but_a_line_a_stage_is_written_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with runs.Progress() as progress:
        for number, expected in enumerate([runs.Expected(None, 0.0, 1), runs.Expected(3.0, 100.0)], 1):
            progress.stage(f"s{number}", [0], 0, number, 3)
            progress.expect(expected)
            progress.progress(f"s{number}", 0, 1, 2, 0.5)
            progress.finished(f"s{number}", 1.0, 2.0)
    told = "s{}: 1.0 s, and 2.0 s compiling (stage {} of 3, {})\n"
    shown = told.format(1, 1, "time left unknown") + told.format(2, 2, "about 2 min left")
    assert capsys.readouterr() == ("", shown)


def test_time_left_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [_progress.duration(seconds) for seconds in (0.4, 89.0, 91.0, 3541.0, 7500.0)] == [
        "0 s", "89 s", "2 min", "59 min", "2 h 05 min"
    ]  # fmt: skip
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    loop = _progress._Loop(10)
    assert str(loop.left(10, 100)) == "time left unknown"  # the first segment is compiled
    now[0] = 20.0
    left = loop.left(20, 100)
    assert str(left) == "about 3 min left"  # 2 s a step, 80 steps
    now[0] = 160.0
    assert str(left) == "about 20 s left"
    now[0] = 190.0
    assert str(left) == "longer than expected"


# Time left


def given(x: Any) -> Any:
    return x


def other(x: Any) -> Any:
    return x


def stages(label: str, function: Callable, seeds: range, **settings: Any) -> list[_graph.Stage]:
    return [
        _graph.Stage(label, seed, function, {"x": _graph.Leaf([label, seed], lambda: 0)}, settings) for seed in seeds
    ]


def test_time_left_comes_from_what_was_measured_and_nothing_else(tmp_path: pathlib.Path) -> None:
    store = _stages.Store(tmp_path)
    graph = {
        "known": stages("known", given, range(4), way="known"),
        "alike": stages("alike", given, range(2), way="known"),
        "new": stages("new", other, range(2)),
        "newer": stages("newer", other, range(3)),
    }
    for stage in graph["known"][:2]:
        store.put(stage, _stages.Made({}, Spent(3.0, 1.0)))
    missing = {label: [s for s in of_label if not store.has(s)] for label, of_label in graph.items()}
    estimates = _estimate.Estimates(graph, missing, store)
    # Two seeds of 3 s each, and 2 s compiling; of the same program two more; of the others nothing is known.
    assert estimates.left("known") == runs.Expected(8.0, 8.0, 2)
    estimates.made("known", Spent(8.0, 10.0))
    assert estimates.left("alike") == runs.Expected(2 * 14 / 4, 0.0, 2)  # this program is compiled now
    estimates.made("new", Spent(5.0, 9.0))
    assert estimates.left("newer") == runs.Expected(7.5, 0.0, 0)


def test_interrupting_asks_once_and_stops_at_once_the_second_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = {number: threading.Event() for number in (1, 2)}
    monkeypatch.setattr(interrupts, "end", lambda message: heard[2].set())
    monkeypatch.setattr(runs.Progress, "note", lambda self, text: (print(text), heard[1].set()))
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with runs.Progress() as progress:
        assert not progress.should_stop()
        signal.raise_signal(signal.SIGINT)
        assert heard[1].wait(10)
        assert progress.should_stop()
        assert "Ctrl-C again stops at once" in capsys.readouterr().out
        signal.raise_signal(signal.SIGTERM)
        assert heard[2].wait(10)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_stopping_at_once_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "unlearn", interrupted)
    assert cli.run(["unlearn"]) == 130
    assert "give the same command again to go on" in capsys.readouterr().err


# Several observers, and what is logged


class Listening(runs.Silent):
    def __init__(self, told: list[str], name: str):
        self.told, self.name, self.stopping = told, name, False

    def note(self, text: str) -> None:
        self.told.append(f"{self.name}: {text}")

    def should_stop(self) -> bool:
        return self.stopping


def test_several_observers_are_told_in_order_and_any_may_stop() -> None:
    told: list[str] = []
    one, two = Listening(told, "one"), Listening(told, "two")
    both = runs.Observers(one, runs.Observers(two))
    assert isinstance(both, runs.Observer)
    both.note("x")
    assert told == ["one: x", "two: x"]
    assert not both.should_stop()
    two.stopping = True
    assert both.should_stop()


def test_observers_pass_everything_on() -> None:
    """What `Silent` has, and nothing that it has not."""
    methods = {name for name in vars(runs.Silent) if not name.startswith("_")}
    assert methods == {name for name in vars(runs.Observers) if not name.startswith("_")}
    assert methods == {name for name in vars(runs.Observer) if not name.startswith("_")}


def test_a_log_has_a_json_object_a_line(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, clock = tmp_path / "log", iter([0.0, 0.5, 1.5, 1.6])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with runs.Log(file) as log:
        log.begun(runs.Begun("unlearn", tmp_path / "ru\nn", "abc", (0, 1), 2, 10))
        log.stage("path", [0], 1, 1, 3)
        for step in (1, 2, 3, 4):  # the second comes too soon
            log.progress("path", 0, step, 4, float("nan") if step == 3 else 0.5)
        log.finished("path", 1.5, 0.25)
        log.note("a\u2028b")
        assert len(file.read_bytes().splitlines()) == 7  # flushed
        log.ended({}, [runs.Diverged("npo", 1, 12)])
    with pytest.raises(runs.InterruptedRunError), runs.Log(file):
        raise runs.InterruptedRunError("stopped in path")
    with pytest.raises(OSError, match="full"), runs.Log(file):
        raise OSError("full")
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    for line in lines:
        assert datetime.datetime.fromisoformat(line.pop("time")).utcoffset() == datetime.timedelta(0)
    assert [line.pop("event") for line in lines] == [
        *("begun", "stage", "progress", "progress", "progress", "finished", "note", "ended", "stopped", "failed")
    ]
    assert lines[0] == {
        "kind": "unlearn", "directory": str(tmp_path / "ru\nn"), "digest": "abc", "seeds": [0, 1], "finished": 2,
        "stages": 10,
    }  # fmt: skip
    assert [(line["step"], line["loss"]) for line in lines[2:5]] == [(1, 0.5), (3, None), (4, 0.5)]
    assert lines[5] == {"name": "path", "seconds": 1.5, "compile_seconds": 0.25}
    assert lines[7] == {"failures": [{"label": "npo", "seed": 1, "step": 12}]}
    assert lines[8] == {"error": "InterruptedRunError", "text": "stopped in path"}


class Written:
    """In the place of tensorboardX."""

    def __init__(self, folder: str):
        self.folder, self.scalars, self.closed = folder, [], False  # type: ignore[var-annotated]

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def close(self) -> None:
        self.closed = True


def test_tensorboard_is_given_losses_and_what_is_along_a_path(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = type(sys)("tensorboardX")
    module.SummaryWriter = Written  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    values = {"curve": "bezier", "seed": 1, "t": [0.0, 0.25], "RA": [0.5, 1.0], "chosen": {}, "effective_region": []}
    ends = {
        "a": {"label": "a"},
        "b": {"label": "b"},
        "curve": "linear",
        "seed": 0,
        "t": [0.5],
        "metrics": {"js": [2.0]},
    }
    with runs.TensorBoard(tmp_path / "events") as board:
        board.progress("path", 0, 3, 9, 0.5)
        board.progress("path", 0, 6, 9, float("nan"))  # of which it would complain
        board.ended({"paths": [values], "pairs": [ends]}, [])
        written: Any = board.writer
    assert written.closed
    assert written.scalars == [
        ("loss/path/seed 0", 0.5, 3),
        ("along the path/RA/bezier/seed 1", 0.5, 0),
        ("along the path/RA/bezier/seed 1", 1.0, 250),
        ("between/js/a – b, linear/seed 0", 2.0, 500),
    ]


def test_tensorboard_needs_its_library(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(runs.ConfigError, match="pip install tensorboardX"), runs.TensorBoard(tmp_path):
        pass
