"""The command line as a process of its own: signals, pipes, kills, and what is imported."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from commands import CONNECT, FLAGS, environment, numbers

from mcu_jax import checkpoint, cli, runs

pytestmark = pytest.mark.usefixtures("kept_compilations")


LIGHT = """
    import sys
    from mcu_jax import cli

    for arguments in ([], ["--version"], ["runs", sys.argv[1]]):
        assert cli.run(arguments) == 0
    print(*{"jax", "tyro", "numpy", "rich"} & set(sys.modules))
"""


def test_what_needs_no_jax_imports_none(finished: runs.Run, compilations: dict[str, str]) -> None:
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIGHT), str(finished.directory)],
        capture_output=True, text=True, env=environment(compilations),
    )  # fmt: skip
    assert told.stdout.splitlines()[-1] == "", told.stdout + told.stderr


def test_a_reader_that_stops_reading_is_no_error(compilations: dict[str, str]) -> None:
    read, write = os.pipe()
    os.close(read)
    told = subprocess.run(
        [sys.executable, "-m", "mcu_jax", "list"],
        stdout=write, stderr=subprocess.PIPE, text=True, env=environment(compilations),
    )  # fmt: skip
    os.close(write)
    assert (told.returncode, told.stderr) == (0, "")


def test_a_process_ends_with_2_for_bad_input(compilations: dict[str, str], tmp_path: pathlib.Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "mcu_jax", "unlearn", "--model", "mpl"],
        capture_output=True, text=True, cwd=tmp_path, env=environment(compilations),
    )  # fmt: skip
    assert told.returncode == 2
    assert told.stderr.startswith("mcu-jax: there is no model 'mpl'; did you mean 'mlp'?")
    assert "Traceback" not in told.stderr
    assert not list(tmp_path.iterdir())


def interrupted(command: list[str], compilations: dict[str, str]) -> tuple[str, str]:
    """The first line and the rest of what a process says that is asked to stop after its first stage began."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(compilations)) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130, rest
    return first, rest


def test_an_interrupted_connection_ends_with_130_and_goes_on(
    connected: runs.Run, tmp_path: pathlib.Path, compilations: dict[str, str]
) -> None:
    shutil.copytree(connected.directory / "stages", tmp_path / "stages")
    for kind in ("npo", "measures", "relearning"):
        for folder in (tmp_path / "stages").glob(f"{kind}-*"):
            shutil.rmtree(folder)
    arguments = [*CONNECT.split(), "--out", str(tmp_path / "run"), "--stages", str(tmp_path / "stages")]
    command = [sys.executable, "-m", "mcu_jax", *arguments]
    first, rest = interrupted(command, compilations)
    assert first.startswith("npo: ")
    assert "give the same command again to go on" in rest
    assert "Traceback" not in rest
    assert cli.run([*arguments, "--quiet"]) == 0
    told = json.loads((tmp_path / "run" / "results.json").read_text())
    assert told["pairs"] == json.loads((connected.directory / "results.json").read_text())["pairs"]


def test_an_interrupted_process_ends_with_130_and_goes_on(
    finished: runs.Run, tmp_path: pathlib.Path, compilations: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "mcu_jax", "unlearn", *FLAGS, "--out", str(tmp_path / "run")]
    first, rest = interrupted(command, compilations)
    assert first.startswith("original: ")
    assert "Ctrl-C again stops at once" in rest
    kept = (
        r"stopped (before|in|after) .* of \d+ stages are finished and kept in .*: give the same command again to go on"
    )
    assert re.search(kept, rest)
    assert "Traceback" not in rest
    assert cli.run(["unlearn", *FLAGS, "--out", str(tmp_path / "run"), "--quiet"]) == 0
    assert numbers(tmp_path / "run") == numbers(finished.directory)


BUSY = """
    import sys
    import jax, jax.numpy as jnp
    from mcu_jax import runs

    with runs.Progress():
        print("busy", file=sys.stderr, flush=True)
        jax.jit(lambda x: jax.lax.while_loop(lambda x: x >= 0, lambda x: 1 - x, x))(0).block_until_ready()
"""


def test_compiled_code_that_does_not_end_is_interrupted(tmp_path: pathlib.Path, compilations: dict[str, str]) -> None:
    (tmp_path / "busy.py").write_text(textwrap.dedent(BUSY))
    command = [sys.executable, "busy.py"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment(compilations)
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "busy\n"
        process.send_signal(signal.SIGINT)
        assert "Ctrl-C again stops at once" in process.stderr.readline()  # while the loop goes on
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        asked = time.monotonic()
        assert process.stderr.read().startswith("mcu-jax: stopped; what was finished is kept")
        assert process.wait(10) == 130
        assert time.monotonic() - asked < 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_an_import_ends_with_130_and_no_traceback(number: int, tmp_path: pathlib.Path) -> None:
    (tmp_path / "jax.py").write_text(
        "import sys, time\nprint('importing', file=sys.stderr, flush=True)\ntime.sleep(60)"
    )
    path = os.pathsep.join([str(tmp_path), str(pathlib.Path(__file__).parent.parent)])
    command = [sys.executable, "-m", "mcu_jax", "list"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "importing\n"
        process.send_signal(number)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert rest == "mcu-jax: interrupted; what was finished is kept: give the same command again to go on\n"


DRIVER = """
    import os, signal, sys
    from mcu_jax import cli, runs
    from mcu_jax.runs import _runner

    _runner.SAVE_EVERY_SECONDS = 0.0

    class Killed(runs.Progress):
        def progress(self, name, seed, step, steps, loss):
            if step > kill_after:
                os.kill(os.getpid(), signal.SIGKILL)

        def finished(self, name, seconds, compile_seconds):
            self.stopping = True  # one stage is enough

    kill_after = int(sys.argv.pop(1))
    runs.Progress = Killed
    cli.main()
"""


def test_a_killed_process_goes_on_within_a_stage_and_ends_with_the_same_numbers(
    tmp_path: pathlib.Path, compilations: dict[str, str]
) -> None:
    """A convolutional net, whose seeds are trained one after another."""
    (tmp_path / "driver.py").write_text(textwrap.dedent(DRIVER))
    flags = "--model cnn --train-size 20 --validation-size 10 --train.epochs 4 --train.batch-size 8 --seeds 0"

    def process(out: str, kill_after: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "driver.py", str(kill_after), "unlearn", *flags.split(), "--out", out],
            capture_output=True, text=True, cwd=tmp_path, env=environment(compilations),
        )  # fmt: skip

    assert process("run", 4).returncode == -signal.SIGKILL
    with pytest.raises(ValueError, match="not finished"):
        runs.load(tmp_path / "run", stage="original")
    going_on = process("run", 12)
    assert going_on.returncode == 130, going_on.stderr
    assert going_on.stderr.startswith("original, seed 0: going on at step ")
    assert not list((tmp_path / "run" / "stages").glob("*.partial"))
    process("whole", 12)
    found = [checkpoint.digest(runs.load(tmp_path / out, stage="original")) for out in ("run", "whole")]
    assert found[0] == found[1]
