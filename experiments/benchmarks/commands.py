"""The main job's whole command: wall-clock time and peak memory with five seeds, and the ratio to one seed; start-up.

Shows: `mcu-jax unlearn` stays within a minute and 2 GB on 2 cores, five seeds together cost less than two alone, and a
second run finds its compiled code; the package is imported in under a second, and shows its help in under 1.5, beyond
what jax takes.
Run: python experiments/benchmarks/commands.py
Time: 3 minutes on 2 x86-64 CPU cores, jax 0.10.2.
Result: one seed 51 s, five seeds 49 s (0.97 times as long), again 28 s (0.58 times), peak memory 1.2 GB; beyond jax the
    import takes nothing that shows and the help 0.6 s; experiments/results/commands.json.
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


SEEDS = ("--seeds", "0", "1", "2", "3", "4")


def command(*flags: str, cache: str | None = None) -> dict[str, float]:
    """Seconds and peak memory of one `mcu-jax unlearn` in a directory of its own. cache: of compiled code, if any."""
    with tempfile.TemporaryDirectory() as out:
        began = time.perf_counter()
        call = [sys.executable, "-m", "mcu_jax", "unlearn", "--quiet", "--out", f"{out}/run", *flags]
        call += ["--no-compile-cache"] if cache is None else []
        process = subprocess.Popen(call, env={**os.environ, "MCU_JAX_CACHE": cache or ""})
        usage = os.wait4(process.pid, 0)
        if usage[1] != 0:
            raise RuntimeError(f"{' '.join(call)} ended with {os.waitstatus_to_exitcode(usage[1])}")
        return {"seconds": time.perf_counter() - began, "peak_gigabytes": usage[2].ru_maxrss / 2**20}


def beyond_jax(*arguments: str) -> float:
    """Seconds that a call of Python takes longer than `import jax` alone, the best of five each."""

    def best(*arguments: str) -> float:
        times = []
        for _ in range(5):
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            times.append(time.perf_counter() - began)
        return min(times)

    return best(*arguments) - best("-c", "import jax")


def main() -> None:
    start_up = {
        "import_seconds": beyond_jax("-c", "import jax, mcu_jax"),
        "help_seconds": beyond_jax("-m", "mcu_jax", "unlearn", "--help"),
    }
    one, five = command("--seeds", "0"), command(*SEEDS)
    with tempfile.TemporaryDirectory() as cache:
        first, again = command(*SEEDS, cache=cache), command(*SEEDS, cache=cache)
    figures = {
        "beyond_jax": start_up,
        "one_seed": one,
        "five_seeds": five,
        "five_over_one": five["seconds"] / one["seconds"],
        "five_seeds_again": again,
        "again_over_first": again["seconds"] / first["seconds"],
    }
    device = {"kind": jax.default_backend(), "cores": os.cpu_count(), "machine": platform.machine()}
    versions = {"jax": jax.__version__, "python": platform.python_version()}
    RESULT.write_text(json.dumps({"versions": versions, "device": device, "figures": figures}, indent=2) + "\n")
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
