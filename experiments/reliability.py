"""What becomes of a run whose files are damaged, whose process is killed, or whose input is spoilt: every outcome.

Shows: no flipped bit of a run directory is taken for what was written, a damaged run is made whole by its own command,
and a run that was killed, wherever, ends with the numbers of one that was not, with nothing left behind.
Run: python experiments/reliability.py --kills 50 --flips 2000 --inputs 1500
Time: 42 minutes on 2 x86-64 CPU cores that had other work too, 36 of them for the kills.
Result: 50 kills, of four runs, which all ended with the numbers of one that was not killed and left nothing behind; of
    2,000 flips all were told, and a run with one file in five damaged was made whole by its own command; of 1,500
    inputs all ended with a message, none with a complaint. experiments/results/reliability.json, jax 0.10.2.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import _fuzz
import jax
import numpy as np

from mcu_jax import checkpoint, runs
from mcu_jax.base import UserError

RESULT = pathlib.Path(__file__).parent / "results" / "reliability.json"
SMALL = {"train_size": 60, "validation_size": 40, "train": {"epochs": 3}, "steps": 6, "points": 5, "seeds": [0, 1]}
SMALL |= {"baselines": ["ssd"]}
"""Settings of a run of a few seconds."""
LEFT = ("**/.saving-*", "**/.*.old", "stages/*.partial")
"""Of a finished run nothing is called so."""

Outcomes = collections.Counter[str]


def numbers(directory: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a run, without its seconds. Raises as `runs.read_results`."""
    rows = runs.read_results(directory)["rows"]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def read(directory: pathlib.Path, file: pathlib.Path) -> Any:
    """What a reader of this file is given, as something to compare. Raises where it is damaged."""
    part = file.relative_to(directory).parts
    if part[0] == "stages":
        place = directory / part[0] / part[1]
        return checkpoint.read_meta(place), checkpoint.digest(checkpoint.load(place))
    if file.name == "details.json":
        return runs.read_details(directory)
    if file.name == "results.csv":
        return runs.read_table(directory).to_csv()
    if damage := runs.state(directory).damaged:
        raise runs.ConfigError(str(damage))
    return json.loads(file.read_text()) if file.suffix == ".json" else file.read_text()


def flips(count: int, random: np.random.Generator, place: pathlib.Path) -> Outcomes:
    """So many times one bit of one file of a run, which is then read: told (refused as damaged), harmless (what is read
    is the same), silent (it is not) or crashed. In the end one file in five is damaged at once: made again, with the
    same numbers, or lost.
    """
    config = runs.from_mapping({**SMALL, "out": str(place / "run")})
    directory = runs.unlearn(config).directory
    outcomes, before = flipped(count, random, directory), numbers(directory)
    names = [file for file in files(directory) if file.name != "config.yaml"]  # of which nothing is guessed
    for i in random.choice(len(names), len(names) // 5, replace=False):
        flip(names[i], random)
    runs.unlearn(config)
    outcomes["made again" if numbers(directory) == before else "lost"] += 1
    return outcomes


def flipped(count: int, random: np.random.Generator, directory: pathlib.Path) -> Outcomes:
    """The single flips, each of which is taken back: half of them in stages, half in the few files beside them."""
    outcomes, known, names = Outcomes(), {}, files(directory)
    stages = [file for file in names if file.is_relative_to(directory / "stages")]
    beside = [file for file in names if file not in stages]
    for _ in range(count):
        group = (stages, beside)[random.integers(2)]
        file = group[random.integers(len(group))]
        if file not in known:
            known[file] = read(directory, file)
        whole = file.read_bytes()
        flip(file, random)
        try:
            outcome = "harmless" if read(directory, file) == known[file] else "silent"
        except (checkpoint.DamagedCheckpointError, UserError):
            outcome = "told"
        except Exception:
            outcome = "crashed"
        outcomes[outcome] += 1
        file.write_bytes(whole)
    return outcomes


def files(directory: pathlib.Path) -> list[pathlib.Path]:
    """Of a run, without figures, which are drawn anew, its lock, and the environment, which every stage tells too."""
    found = (file for file in directory.rglob("*") if file.is_file() and file.suffix != ".png")
    return sorted(file for file in found if file.stat().st_size and file.name not in (".lock", "environment.json"))


def flip(file: pathlib.Path, random: np.random.Generator) -> None:
    content = bytearray(file.read_bytes())
    content[random.integers(len(content))] ^= 1 << int(random.integers(8))
    file.write_bytes(bytes(content))


def kills(count: int, random: np.random.Generator, place: pathlib.Path) -> Outcomes:
    """So many times SIGKILL, at any moment that a run takes; each run is killed again and again, and once not at all.
    Then: same numbers, other numbers or failed; and whether something was left behind.
    """
    config = place / "config.json"  # which YAML holds
    config.write_text(json.dumps(SMALL))
    command = [sys.executable, "-m", "mcu_jax", "unlearn", "--quiet", "--config", str(config), "--out"]
    environment = {**os.environ, "MCU_JAX_CACHE": str(place / "cache")}
    for _ in range(2):  # the second finds its compiled code, as all that follow
        began = time.perf_counter()
        subprocess.run([*command, str(place / "whole")], env=environment, check=True)
        seconds = time.perf_counter() - began
        expected = numbers(place / "whole")
        shutil.rmtree(place / "whole")
    outcomes = Outcomes()
    while outcomes["kills"] < count:
        out = place / f"run-{outcomes['kills']}"
        while True:
            process = subprocess.Popen([*command, str(out)], env=environment, stderr=subprocess.DEVNULL)
            try:
                # All are done: this one is let go.
                process.wait(random.uniform(0, seconds) if outcomes["kills"] < count else None)
                break
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                outcomes["kills"] += 1
        if process.returncode:
            outcomes["failed"] += 1
            continue
        outcomes["same numbers" if numbers(out) == expected else "other numbers"] += 1
        outcomes["something left"] += any(list(out.glob(pattern)) for pattern in LEFT)
    return outcomes


def inputs(count: int, random: np.random.Generator, place: pathlib.Path) -> Outcomes:
    """So many inputs of ten kinds, changed as their number says: ended with a short message, or a complaint (a
    traceback, a hang, too much memory or text), which is printed.
    """
    del random
    run = runs.unlearn(runs.from_mapping({**SMALL, "out": str(place / "run")})).directory
    folder = place / "inputs"
    folder.mkdir()
    complaints = _fuzz.attack_often(count, folder, run)
    print(*complaints, sep="\n", file=sys.stderr)
    return Outcomes({"ended with a message": count - len(complaints), "complaints": len(complaints)})


ATTACKS: dict[str, Callable[[int, np.random.Generator, pathlib.Path], Outcomes]] = {
    "kills": kills,
    "flips": flips,
    "inputs": inputs,
}
"""By the flag that says how many: each is given an empty folder, and counts its outcomes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ATTACKS:
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    asked = vars(parser.parse_args())
    figures, seconds = {}, {}
    for number, (name, attack) in enumerate(ATTACKS.items()):
        if asked[name]:
            began = time.perf_counter()
            with tempfile.TemporaryDirectory() as place:
                random = np.random.default_rng([asked["seed"], number])
                figures[name] = dict(attack(asked[name], random, pathlib.Path(place)))
            seconds[name] = round(time.perf_counter() - began)
    told = {
        "command": " ".join(["python", "experiments/reliability.py", *sys.argv[1:]]),
        "versions": {"jax": jax.__version__, "python": platform.python_version()},
        "device": {"kind": jax.default_backend(), "cores": os.cpu_count(), "machine": platform.machine()},
        "seconds": seconds,
        "figures": figures,
    }
    RESULT.write_text(json.dumps(told, indent=2) + "\n")
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
