"""MCU from different pre-unlearned models: claims C1 (a lower gap than its own start), C4 (where t* falls) and
C5 (effective region) of Shi & Wang 2025, arXiv 2505.10859.

Run:  python experiments/starts.py digits
      python experiments/starts.py fashion_mnist --data-dir DIR
Time: digits 31 s on 2 x86-64 CPU cores, jax 0.10.2; fashion_mnist 24 minutes of CPU time there, in 32 minutes on cores
    shared with other work.
Result: MCU's avg_gap is below its start's, but from NegGrad+ on digits that is not shown (-1.63 [-3.67, +0.41] points),
    and from NegGrad+ the straight line is as good on both data sets. t* falls in [0.75, 1] only from fine-tuning on
    fashion_mnist. No effective region is empty. See the table.md files.
Each start is a run of `mcu-jax unlearn`; originals and retrained models are made once, in experiments/runs/stages.
Writes experiments/results/starts_DATASET/START/{environment.json, results.json, results.csv, path.png}
and table.md.
"""

from __future__ import annotations

import argparse
import pathlib
import shutil
import sys
from typing import Any

import numpy as np

from mcu_jax import report, runs

HERE = pathlib.Path(__file__).parent
STARTS = ("random_label", "finetune", "neggrad_plus")


class Lines(runs.Silent):
    """One line on stderr for every finished stage."""

    def finished(self, name: str, seconds: float, compile_seconds: float) -> None:
        print(f"{name}: {seconds:.0f} s, and {compile_seconds:.0f} s compiling", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--data-dir")
    asked = parser.parse_args()
    lines = [
        "| start | original | start itself | straight line | MCU | t* | effective region not empty |",
        "|---|---|---|---|---|---|---|",
    ]
    for start in STARTS:
        config = runs.Config(
            dataset=asked.dataset,
            data_dir=asked.data_dir,
            pre=start,
            out=str(HERE / "runs" / f"starts-{asked.dataset}-{start}"),
            stages=str(HERE / "runs" / "stages"),
        )
        run = runs.unlearn(config, Lines())
        print(report.write(run.directory), "\n")
        kept = HERE / "results" / f"starts_{asked.dataset}" / start
        kept.mkdir(parents=True, exist_ok=True)
        for name in ("environment.json", "results.json", "results.csv", "path.png"):
            shutil.copy(run.directory / name, kept / name)
        lines.append(line(start, report.read(run.directory)))
        (kept.parent / "table.md").write_text("\n".join(lines) + "\n")


def line(start: str, results: report.Results) -> str:
    """avg_gap in points, mean over seeds [min–max]; t* likewise; seeds with an effective region."""

    def spread(values: Any, factor: float) -> str:
        scaled = factor * np.asarray(values)
        return f"{scaled.mean():.2f} [{scaled.min():.2f}–{scaled.max():.2f}]"

    gaps = results.table[(results.table.role == "model") & (results.table.metric == "avg_gap")]
    shown = [spread(gaps.value[gaps.subject == method], 100) for method in ("original", start, "linear", "mcu")]
    best = spread(gaps.t[gaps.subject == "mcu"], 1)
    trained = [path for path in results.summary["paths"] if path["curve"] != "linear"]
    improved = sum(bool(path["effective_region"]["accuracy"]) for path in trained)
    return f"| {start} | {' | '.join(shown)} | {best} | {improved} of {len(trained)} |"


if __name__ == "__main__":
    main()
