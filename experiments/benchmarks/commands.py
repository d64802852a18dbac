"""The main job's whole command: wall-clock time and peak memory with five seeds, and the ratio to one seed.

Shows: `mcu-jax unlearn` stays within a minute and 2 GB on 2 cores, and five seeds together cost less than two alone.
Run: python experiments/benchmarks/commands.py
Time: 50 seconds on 2 x86-64 CPU cores, jax 0.10.2.
Result: one seed 20 s, five seeds 23 s (1.14 times as long), peak memory 1.0 GB; experiments/results/commands.json.
"""

from __future__ import annotations

import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time

import jax

RESULT = pathlib.Path(__file__).parents[1] / "results" / "commands.json"


def command(*flags: str) -> dict[str, float]:
    """Seconds and peak memory of one `mcu-jax unlearn` in a directory of its own."""
    with tempfile.TemporaryDirectory() as out:
        began = time.perf_counter()
        call = [sys.executable, "-m", "mcu_jax", "unlearn", "--quiet", "--out", f"{out}/run", *flags]
        process = subprocess.Popen(call)
        usage = os.wait4(process.pid, 0)
        if usage[1] != 0:
            raise RuntimeError(f"{' '.join(call)} ended with {os.waitstatus_to_exitcode(usage[1])}")
        return {"seconds": time.perf_counter() - began, "peak_gigabytes": usage[2].ru_maxrss / 2**20}


def main() -> None:
    one, five = command("--seeds", "0"), command("--seeds", "0", "1", "2", "3", "4")
    figures = {"one_seed": one, "five_seeds": five, "five_over_one": five["seconds"] / one["seconds"]}
    device = {"kind": jax.default_backend(), "cores": os.cpu_count(), "machine": platform.machine()}
    versions = {"jax": jax.__version__, "python": platform.python_version()}
    RESULT.write_text(json.dumps({"versions": versions, "device": device, "figures": figures}, indent=2) + "\n")
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
