"""MCU from different pre-unlearned models: claims C1 (a lower gap than its own start), C4 (where t* falls) and
C5 (effective region) of Shi & Wang 2025, arXiv 2505.10859.

Run:  python experiments/starts.py digits
      python experiments/starts.py fashion_mnist --data-dir DIR
Time: digits 70 s; fashion_mnist 48 minutes of CPU time. On 2 x86-64 CPU cores shared with other work, jax 0.10.2.
Result: MCU's avg_gap is below its start's everywhere. From NegGrad+ on fashion_mnist the straight line is as good. t*
    falls in [0.75, 1] only from fine-tuning on fashion_mnist. No effective region is empty. See the table.md files.
Each start is a run of `mcu-jax unlearn`; originals and retrained models are made once, in experiments/runs/stages.
Writes experiments/results/starts_DATASET/START/{environment.json, results.json, path.png} and table.md.
"""

from __future__ import annotations

import argparse
import pathlib
import shutil
import sys

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
        for name in ("environment.json", "results.json", "path.png"):
            shutil.copy(run.directory / name, kept / name)
        lines.append(line(start, run.results))
        (kept.parent / "table.md").write_text("\n".join(lines) + "\n")


def line(start: str, results: dict) -> str:
    """avg_gap in points, mean over seeds [min–max]; t* likewise; seeds with an effective region."""

    def spread(values: list[float], factor: float) -> str:
        scaled = factor * np.array(values)
        return f"{scaled.mean():.2f} [{scaled.min():.2f}–{scaled.max():.2f}]"

    gaps = [
        spread([row["avg_gap"] for row in results["rows"] if row["method"] == method], 100)
        for method in ("original", start, "linear", "mcu")
    ]
    trained = [path for path in results["paths"] if path["curve"] != "linear"]
    found = sum(bool(path["effective_region"]) for path in trained)
    return f"| {start} | {' | '.join(gaps)} | {spread([p['best_t'] for p in trained], 1)} | {found} of {len(trained)} |"


if __name__ == "__main__":
    main()
