"""A short form of what can happen to a run from outside; `experiments/reliability.py` is the long one.

In every case: a message or the same numbers, nothing lost, nothing taken for what it is not.
"""

from __future__ import annotations

import errno
import importlib
import itertools
import json
import math
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import numpy as np
import pytest
from conftest import SMALL, with_values

from mcu_jax import _orbax, checkpoint, cli, disk, report, runs
from mcu_jax.runs import _directory, _graph, _stages, _timing

pytestmark = pytest.mark.usefixtures("kept_compilations")

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"


@pytest.fixture(scope="module")
def reliability() -> Iterator[Any]:
    sys.path.insert(0, str(EXPERIMENTS))
    yield importlib.import_module("reliability")
    sys.path.remove(str(EXPERIMENTS))


@pytest.fixture
def run(finished: runs.Run, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of a finished run."""
    return pathlib.Path(shutil.copytree(finished.directory, tmp_path / "run"))


class Told(runs.Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.made: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def stage(self, name: str, seeds: Any, cached: int, number: int, total: int) -> None:
        self.made.append(name)


def again(run: pathlib.Path, observer: Any = None, **settings: Any) -> list[dict[str, Any]]:
    """The same command: its rows, without their seconds."""
    return rows(runs.unlearn(runs.from_mapping({**SMALL, **settings, "out": str(run)}), observer))


def rows(run: runs.Run) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in with_values(run)["rows"]]


def tree(directory: pathlib.Path) -> dict[str, Any]:
    """Every name in a directory, with what a file holds."""
    found = {place: place.read_bytes() if place.is_file() else None for place in directory.rglob("*")}
    return {str(place.relative_to(directory)): content for place, content in found.items()}


def one(run: pathlib.Path, word: str) -> pathlib.Path:
    """A stage of this word."""
    return min((run / "stages").glob(f"{word}-*"))


# Data that are not what was written


def test_no_flipped_bit_is_taken_for_what_was_written(reliability: Any, run: pathlib.Path) -> None:
    outcomes = reliability.flipped(150, np.random.default_rng(0), run)
    assert outcomes["told"] > 100
    assert outcomes["silent"] == outcomes["crashed"] == 0


def test_no_stage_is_taken_for_another(run: pathlib.Path) -> None:
    random, stages = np.random.default_rng(1), sorted((run / "stages").iterdir())
    pairs = list(itertools.permutations(stages, 2))
    for first, second in (pairs[i] for i in random.choice(len(pairs), 40, replace=False)):
        place = run / second.name
        shutil.copytree(first, place)
        with pytest.raises(checkpoint.DamagedCheckpointError, match="it holds another stage"):
            _stages.read(place)
        shutil.rmtree(place)


def test_much_damage_at_once_is_made_whole(reliability: Any, run: pathlib.Path, finished: runs.Run) -> None:
    """A stage without its manifest, one that is a file, one that hangs in the air as a link, and flipped bits."""
    (one(run, "mask") / "manifest.json").unlink()
    shutil.rmtree(one(run, "choose"))
    one(run, "evaluate").rename(run / "moved")
    (run / "stages" / one(pathlib.Path(finished.directory), "evaluate").name).symlink_to("nowhere")
    path = one(run, "path")
    shutil.rmtree(path)
    path.write_text("mine")
    for name in ("results.json", "stages.json", "results.csv", "splits/seed-1.json"):
        reliability.flip(run / name, np.random.default_rng(2))
    told = Told()
    assert runs.state(run).word == "damaged"
    assert again(run, told) == rows(finished)
    assert len(told.notes) == 4
    assert path.with_name(f"{path.name}.damaged-1").read_text() == "mine"
    assert runs.state(run).word == "finished"


@pytest.mark.parametrize(
    "name", ["config.yaml", "stages.json", "results.csv", "path.png", ".lock", "splits/seed-0.json"]
)
def test_a_folder_in_the_place_of_a_file_is_told_before_any_work(run: pathlib.Path, name: str) -> None:
    (run / name).unlink(missing_ok=True)
    (run / name / "mine").mkdir(parents=True)
    before = tree(run)
    with pytest.raises(runs.ConfigError, match=f"{name} is a folder, where a run has a file: move it away"):
        again(run)
    assert tree(run) == before


def nothing(**_: Any) -> None: ...


def test_a_stage_whose_values_are_not_finite_is_json_all_the_same(tmp_path: pathlib.Path) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    store, stage = _stages.Store(tmp_path), _graph.Stage("x", 0, nothing, {}, values=nothing)
    values = {"MIA": math.nan, "loss": [1.0, math.inf, -math.inf], "of": {"float": "nan or so", "n": 3}}
    store.put(stage, _stages.Made(values, _timing.Spent()))
    json.loads((store.place(stage) / "manifest.json").read_text(), parse_constant=refuse)
    assert repr(store.get(stage).result) == repr(values)


# Processes that end, or meet


SAVER = """
    import sys
    import numpy as np
    from mcu_jax import checkpoint

    number = 0
    while True:
        checkpoint.save(sys.argv[1], {"w": np.full(20_000, number, np.float32)}, {"number": number})
        number += 1
        print(number, flush=True)
"""


def test_a_kill_leaves_one_whole_checkpoint(tmp_path: pathlib.Path, compilations: dict[str, str]) -> None:
    """At any moment, of a process that saves to one place again and again."""
    random = np.random.default_rng(3)
    command = [sys.executable, "-c", textwrap.dedent(SAVER)]
    environment = {**os.environ, "PYTHONPATH": str(EXPERIMENTS.parent)}
    started = [
        subprocess.Popen([*command, str(tmp_path / str(n) / "x")], stdout=subprocess.PIPE, env=environment)
        for n in range(3)
    ]
    for number, process in enumerate(started):
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"1\n"
            time.sleep(random.uniform(0, 0.5))
            os.kill(process.pid, signal.SIGKILL)
            saved = int([b"1", *process.stdout.read().split()][-1])
        place = tmp_path / str(number) / "x"
        last = checkpoint.read_meta(place)["number"]
        assert last in (saved - 1, saved)
        assert (checkpoint.load(place)["w"] == last).all()
        checkpoint.save(place, {"w": np.zeros(1)})
        assert list(place.parent.iterdir()) == [place]


HOLDER = """
    import pathlib, sys
    from mcu_jax import disk

    assert disk.lock(pathlib.Path(sys.argv[1]), "process 7 on host") is not None
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_on_a_run_is_told(run: pathlib.Path, finished: runs.Run) -> None:
    assert runs.state(run).word == "finished"
    command = [sys.executable, "-c", textwrap.dedent(HOLDER), str(run / _directory.LOCK)]
    environment = {**os.environ, "PYTHONPATH": str(EXPERIMENTS.parent)}
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    before = tree(run)
    with pytest.raises(runs.ConfigError, match=r"run is being worked on by process 7 on host: wait for it, or choose"):
        again(run)
    assert tree(run) == before
    assert (runs.state(run).word, runs.state(run).holder) == ("running", "process 7 on host")
    assert runs.load(run, stage="retrain")  # reading waits for nobody
    os.kill(holder.pid, signal.SIGKILL)  # the lock ends with its process
    holder.communicate()
    assert again(run) == rows(finished)
    assert runs.state(run).word == "finished"


def test_a_run_that_another_command_has_changed_meanwhile_is_not_gone_on_with(
    run: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = _directory._lock

    def late(path: pathlib.Path, observer: Any) -> int | None:
        (run / "config.yaml").write_text("another's")
        return lock(path, observer)

    monkeypatch.setattr(_directory, "_lock", late)
    with pytest.raises(runs.ConfigError, match=r"another command has begun or changed .* give this one again"):
        again(run)
    assert (run / "config.yaml").read_text() == "another's"


def test_where_folders_have_no_locks_a_run_says_so(
    run: pathlib.Path, finished: runs.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(disk.fcntl, "flock", none)
    told = Told()
    assert again(run, told) == rows(finished)
    assert [note.partition(":")[0] for note in told.notes] == [f"the file system of {run} has no locks"]
    assert runs.state(run).holder is None


def test_stages_in_progress_are_of_one_run_where_finished_ones_are_shared(tmp_path: pathlib.Path) -> None:
    first, second = (_stages.Store(tmp_path / "shared", tmp_path / name / "stages") for name in ("a", "b"))
    stage = _graph.Stage("path", 0, nothing, {})
    assert first.place(stage) == second.place(stage)
    assert first.partial(stage) != second.partial(stage)
    _stages.save_loop(first.partial(stage) / "loop-0", {"x": np.ones(2)}, {})
    assert second.partials(stage) == []
    first.remove(*first.partials(stage))
    assert not (tmp_path / "a" / "stages").exists()


# Disks


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], None]:
    """Makes a function of a module meet a disk that takes no more than 400 bytes of a file."""

    def make(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def limited(*arguments: Any, **options: Any) -> Any:
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (400, before[1]))
            try:
                return function(*arguments, **options)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)

        monkeypatch.setattr(owner, name, limited)

    return make


def test_a_full_disk_is_told_and_nothing_is_lost(
    run: pathlib.Path, finished: runs.Run, full: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = one(run, "retrain")
    shutil.rmtree(place)
    before = tree(run)
    full(_orbax, "write")
    with pytest.raises(OSError, match="File too large") as caught:
        again(run)
    monkeypatch.undo()
    assert caught.value.errno == errno.EFBIG
    assert {name for name in tree(run).keys() - before.keys() if ".partial" not in name} <= {".lock"}
    now = tree(run)
    assert all(now[name] == content for name, content in before.items() if name.startswith(("stages/", "splits/")))
    before = tree(run)
    full(disk, "write")
    for name in ("results.json", "model"):
        with pytest.raises(OSError, match="File too large"):
            disk.write(run / name, "x" * 1000)
    assert tree(run) == before
    monkeypatch.undo()
    assert again(run) == rows(finished)


def test_a_file_is_written_by_several_at_once_and_what_a_kill_left_is_swept(tmp_path: pathlib.Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / f".saving-{socket.gethostname()}-{dead.pid}-{'0' * 8}-{'1' * 8}"
    other = tmp_path / f".saving-elsewhere-{dead.pid}-{'0' * 8}-{'1' * 8}"
    for place in (left, other):
        place.write_text("half")
    contents = [str(i) * 100_000 for i in range(8)]
    with futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: disk.write(tmp_path / "file", content), contents))
    assert (tmp_path / "file").read_text() in contents
    with pytest.raises(TypeError), disk.placing(tmp_path / "file") as opened:
        opened.writelines([b"half", "and what cannot be written"])
    assert (tmp_path / "file").read_text() in contents
    assert sorted(tmp_path.iterdir()) == [other, tmp_path / "file"]
    with pytest.raises(FileNotFoundError, match=r"nowhere/file'$"):  # not by the name it is written by first
        disk.write(tmp_path / "nowhere" / "file", "")


def test_a_message_of_orbax_becomes_an_error_of_the_system(tmp_path: pathlib.Path, full: Callable, capfd: Any) -> None:
    full(_orbax, "write")
    with pytest.raises(OSError, match="File too large"):
        checkpoint.save(tmp_path / "x", {"w": np.random.default_rng(0).normal(size=1000)})
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_a_missing_permission_ends_a_command_and_sets_nothing_aside(
    run: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As root nothing is forbidden."""
    read, before = pathlib.Path.read_bytes, tree(run)

    def forbidden(self: pathlib.Path) -> bytes:
        if self.parent == place:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return read(self)

    place = one(run, "retrain")
    monkeypatch.setattr(pathlib.Path, "read_bytes", forbidden)
    flags = ["--train-size", "60", "--validation-size", "40", "--train.epochs", "3", "--steps", "6", "--points", "5"]
    status = cli.run(["unlearn", *flags, "--seeds", "0", "1", "--baselines", "--out", str(run)])
    monkeypatch.undo()
    assert status == 1
    assert f"Permission denied: '{place}/manifest.json'" in capsys.readouterr().err
    assert tree(run).keys() == {*before, ".lock"}


def test_nothing_is_written_through_a_link(run: pathlib.Path, finished: runs.Run, tmp_path: pathlib.Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").write_text("mine")
    for name in ("results.json", "path.png", "results.csv"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(mine / "file")
    (run / _directory.LOCK).unlink(missing_ok=True)
    assert again(run) == rows(finished)
    report.write(run)
    assert not [place for place in run.iterdir() if place.is_symlink()]
    _stages.save_loop(run / "stages" / "x.partial" / "loop-0", {}, {})
    shutil.rmtree(run / "stages" / "x.partial")
    (run / "stages" / "x.partial").symlink_to(mine)
    _stages.save_loop(run / "stages" / "x.partial" / "loop-0", {}, {})
    (run / _directory.LOCK).unlink()
    (run / _directory.LOCK).symlink_to(mine / "file")
    with pytest.raises(runs.ConfigError, match=r"symbolic links; choose another place"):
        again(run)
    (run / _directory.LOCK).unlink()
    for name in ("splits", "stages"):
        (run / name).rename(run / "moved")
        (run / name).symlink_to(mine)
        with pytest.raises(runs.ConfigError, match=f"{name} is a link, and nothing is written through links"):
            again(run)
        (run / name).unlink()
        (run / "moved").rename(run / name)
    assert tree(mine) == {"file": b"mine"}


# Time


def test_a_clock_that_jumps_back_takes_no_time_away(run: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, jumps = time.time, itertools.count()
    monkeypatch.setattr(time, "time", lambda: now() - 10_793 * next(jumps))
    shutil.rmtree(one(run, "retrain"))
    made = runs.unlearn(runs.from_mapping({**SMALL, "out": str(run)}))
    assert next(jumps) > 0
    for row in made.results["rows"]:
        assert all(0 <= seconds < 1000 for seconds in row["seconds"].values())


def test_reading_a_run_writes_nothing(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    before = tree(run)
    runs.state(run), runs.load(run), runs.read_table(run)
    runs.problem(run, seed=1)
    runs.export(run, tmp_path / "model", seed=1)
    runs.plan(runs.from_yaml(run / "config.yaml"))
    assert tree(run) == before
