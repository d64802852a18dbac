"""Are models unlearned in different ways connected? Claims F1 to F7 of Cheng & Amiri 2025, arXiv 2504.06407.

Run:  python experiments/connectivity.py digits
      python experiments/connectivity.py fashion_mnist --data-dir DIR
Time: digits three minutes; fashion_mnist 97 minutes; on 2 x86-64 CPU cores shared with other work, jax 0.10.2.
Result: on both F1, F5 and F7 hold, F4 by task is undecided, of optimisers only help is shown. F3, asked of straight
lines alone, fails on digits. The rest differs: see the table.md files, and README for how far that carries. A + behind
a commit there: results of the runs before it were not committed yet.
Six runs of `mcu-jax connect`, which share their stages in experiments/runs/stages: all pairs of six methods; one pair
with all there is to measure; trained curves between two runs of some; curricula; optimisers; sizes of the forget set.
Writes experiments/results/connectivity_DATASET/table.md and, by run, {environment.json, results.json, results.csv.gz,
figures}. The claims are read off those tables in connectivity_claims.py.
"""

from __future__ import annotations

import argparse
import gzip
import pathlib
import shutil
import sys
from typing import Any

import connectivity_claims
import jax

from mcu_jax import report, runs

HERE = pathlib.Path(__file__).parent

RUNS: dict[str, dict[str, Any]] = {
    "methods": {
        "grid": "methods",
        "methods": ("finetune", "neggrad_plus", "random_label", "salun", "npo", "scrub"),
        "also": ("mia",),
    },
    "pair": {
        "a": "random_label",
        "b": "salun",
        "curve": ("linear", "bezier"),
        "also": ("mia", "continued", "relearning"),
    },
    "curves": {"grid": "seeds", "curve": ("linear", "bezier"), "methods": ("random_label", "salun", "scrub")},
    "curriculum": {"grid": "curriculum", "methods": ("npo", "random_label")},
    "optimizer": {"grid": "optimizer", "methods": ("npo", "random_label")},
    "sizes": {"grid": "sizes", "methods": ("npo",), "sizes": (0.02, 0.06, 0.1), "retrains": 1},
}
DATASETS: dict[str, dict[str, Any]] = {
    # As many retain images as the smallest D_r holds: then all sizes share their compiled code.
    "digits": {"sample": 270},
    "fashion_mnist": {"forget": "random:0.1"},
}


class Lines(runs.Silent):
    """One line on stderr for every finished stage."""

    def finished(self, name: str, seconds: float, compile_seconds: float) -> None:
        print(f"{name}: {seconds:.0f} s, and {compile_seconds:.0f} s compiling", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("--data-dir")
    asked = parser.parse_args()
    kept = HERE / "results" / f"connectivity_{asked.dataset}"
    if asked.dataset == "digits":
        # A net so small compiles longer than it runs.
        jax.config.update("jax_disable_most_optimizations", True)
    # The runs compile much the same.
    jax.config.update("jax_compilation_cache_dir", str((HERE / "runs" / "compiled").absolute()))
    found = {}
    for name, settings in RUNS.items():
        config = runs.ConnectConfig(
            dataset=asked.dataset,
            data_dir=asked.data_dir,
            out=str(HERE / "runs" / f"connectivity-{asked.dataset}-{name}"),
            stages=str(HERE / "runs" / "stages"),
            **{**DATASETS[asked.dataset], **settings},
        )
        run = runs.connect(config, Lines())
        found[name] = report.read(run.directory)
        (kept / name).mkdir(parents=True, exist_ok=True)
        (kept / name / "table.txt").write_text(report.write(run.directory) + "\n")
        for file in (*run.directory.glob("*.json"), *run.directory.glob("*.png")):
            if file.name != "stages.json":
                shutil.copy(file, kept / name / file.name)
        packed = gzip.compress((run.directory / "results.csv").read_bytes(), mtime=0)
        (kept / name / "results.csv.gz").write_bytes(packed)
    others = (HERE / "results" / f"connectivity_{name}" / "methods" for name in DATASETS if name != asked.dataset)
    other = next((directory for directory in others if directory.exists()), None)
    text = table(found, report.read(other) if other else None)
    (kept / "table.md").write_text(text)
    print(text)


def table(found: dict[str, report.Results], other: report.Results | None) -> str:
    """Every claim with its number, interval and verdict. other: run "methods" of another data set, if it is there."""
    config = found["methods"].summary["config"]
    lines = [
        f"{config['dataset']}, {config['model']}, {config['train_size']} training images, forget {config['forget']}, "
        f"{len(config['seeds'])} seeds. [95 % interval over seeds, Student t.] A barrier is the largest excess over "
        "the straight line between a path's ends, on the side that is worse; points: of per cent. Seed floor: between "
        "two runs that differ in the seed of unlearning alone.",
        "",
        "| claim | what it says | number | verdict |",
        "|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in connectivity_claims.rows(found, other)),
        "",
        "| run | minutes of its stages | of which |",
        "|---|---|---|",
        *(
            f"| {name} | {sum(results.summary['seconds'].values()) / 60:.1f} | {spent(results)} |"
            for name, results in found.items()
        ),
        "",
        "Compilation included, membership attacks not, which run beside other work. A stage that several runs share",
        "counts in each.",
        "",
    ]
    return "\n".join(lines)


def spent(results: report.Results) -> str:
    """The four parts that took longest."""
    longest = sorted(results.summary["seconds"].items(), key=lambda part: -part[1])[:4]
    return ", ".join(f"{part} {seconds / 60:.1f}" for part, seconds in longest)


if __name__ == "__main__":
    main()
