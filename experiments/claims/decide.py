"""Decides the claims on one data set, by rules that were committed before.

Run:  python experiments/claims/decide.py digits
      python experiments/claims/decide.py fashion_mnist --data-dir DIR
      python experiments/claims/decide.py cifar10 --data-dir DIR
Time: digits 13 minutes on 2 CPU cores that had other work too; the others hours.
Every claim is a file here: hypothesis, statistic, interval, rule, smallest effect. They must be committed before the
runs are made; a result tells the commit of its file, and whether the file has changed since. The same command goes on
where it was stopped. cifar10 is compared with fashion_mnist, which comes first.
Writes experiments/results/claims_DATASET/{RUN/…, claims.json, table.md}.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib
import json
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import settings
import verdicts
from reading import Reading

from mcu_jax import report, runs

KEPT = ("environment.json", "results.json", "path.png", "matrix.png")
FILES = sorted(file.stem for file in settings.HERE.glob("[cfmsx][0-9][0-9].py"))


class Lines(runs.Silent):
    """One line on stderr for every finished stage."""

    def finished(self, name: str, seconds: float, compile_seconds: float) -> None:
        print(f"{name}: {seconds:.0f} s, and {compile_seconds:.0f} s compiling", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=sorted(settings.DATASETS))
    parser.add_argument("--data-dir")
    asked = parser.parse_args()
    refuse_uncommitted()
    kept, found = settings.kept(asked.dataset), {}
    for name, config in settings.configs(asked.dataset, asked.data_dir).items():
        run = runs.unlearn(config, Lines()) if isinstance(config, runs.Config) else runs.connect(config, Lines())
        report.write(run.directory)
        keep(run.directory, kept / name)
        found[name] = report.read(kept / name)
        if name == settings.STARTS[0]:
            measure(run, kept)
    decided = [decide(name, found) for name in FILES]
    (kept / "claims.json").write_text(json.dumps(decided, indent=1, ensure_ascii=False) + "\n")
    (kept / "table.md").write_text("\n".join(table(decided, found)) + "\n")
    print((kept / "table.md").read_text())


def measure(run: runs.Run, kept: pathlib.Path) -> None:
    """What claims measure on models themselves."""
    retrained = {row["seed"]: row for row in run.results["rows"] if row["method"] == "retrain"}
    for name in FILES:
        module, file = importlib.import_module(name), kept / f"{name}.json"
        if not hasattr(module, "measure") or file.exists():
            continue
        made = []
        for seed, yardstick in retrained.items():
            problem = runs.problem(run.directory, seed=seed)
            labels = [run.results["config"]["pre"], *run.results["config"]["baselines"]]
            models = {label: runs.load(run.directory, seed=seed, stage=label) for label in labels}
            made.append(module.measure(problem, models, yardstick, run.results["config"]["train"]["batch_size"]))
            print(f"{name}: seed {seed}", file=sys.stderr, flush=True)
        file.write_text(json.dumps(made) + "\n")


def refuse_uncommitted() -> None:
    changed = git("status", "--porcelain", "--", str(settings.HERE)).strip()
    if changed:
        sys.exit(
            f"claims are decided by files that were committed before; these are not:\n{changed}\nCommit them first."
        )


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=settings.HERE, check=True, capture_output=True, text=True).stdout


def keep(directory: pathlib.Path, to: pathlib.Path) -> None:
    to.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if (directory / name).exists():
            shutil.copy(directory / name, to / name)
    (to / "results.csv.gz").write_bytes(gzip.compress((directory / "results.csv").read_bytes(), mtime=0))


def digest(name: str) -> str:
    """Of the file of a claim."""
    return hashlib.sha256((settings.HERE / f"{name}.py").read_bytes()).hexdigest()


def decide(name: str, found: settings.Runs) -> dict[str, Any]:
    module = importlib.import_module(name)
    readings = module.read(found)
    return {
        **module.CLAIM._asdict(),
        "file": f"{name}.py",
        "commit": git("log", "-1", "--format=%H", "--", str(settings.HERE / f"{name}.py")).strip(),
        "sha256": digest(name),
        "verdict": module.verdict(readings) if hasattr(module, "verdict") else every(readings),
        "readings": [told(reading) for reading in readings],
    }


def every(readings: list[Reading]) -> str:
    """Of a claim that does not say otherwise."""
    return verdicts.every([reading.verdict for reading in readings if reading.verdict])


def told(reading: Reading) -> dict[str, Any]:
    numbers = {name: finite(value) for name, value in reading.effect._asdict().items()}
    return {"item": reading.item, **numbers, "verdict": reading.verdict}


def finite(value: float) -> float | None:
    """As JSON knows it."""
    return round(value, 6) if abs(value) < float("inf") else None


def table(decided: list[dict[str, Any]], found: settings.Runs) -> list[str]:
    """For people: every claim, then all of its numbers."""
    first = found[settings.STARTS[0]].summary["config"]
    seeds = first["seeds"]
    lines = [
        f"Claims on {first['dataset']}, {first['model']}, {first['train_size']} training images, seeds {seeds[0]} to "
        f"{seeds[-1]}. Points of per cent unless it says otherwise.",
        "",
        "| claim | hypothesis | verdict | smallest effect | committed |",
        "|---|---|---|---|---|",
    ]
    for claim in decided:
        changed = "" if digest(claim["file"].removesuffix(".py")) == claim["sha256"] else ", **file changed since**"
        lines.append(
            f"| {claim['name']} | {claim['hypothesis']} | **{claim['verdict']}** | {claim['smallest']:g} | "
            f"{claim['commit'][:7]}{changed} |"
        )
    lines += ["", "Mean [95 % interval over seeds, simultaneous within a claim]:"]
    for claim in decided:
        lines += ["", f"**{claim['name']}** {claim['statistic']}", ""]
        lines += [f"- {one['item']}: {shown(one)}" for one in claim["readings"]]
    return lines


def shown(one: dict[str, Any]) -> str:
    if one["mean"] is None:
        return "none"
    low, high = (f"{one[end]:+.2f}" if one[end] is not None else "∞" for end in ("low", "high"))
    return f"{one['mean']:+.2f} [{low}, {high}]" + (f" {one['verdict']}" if one["verdict"] else "")


if __name__ == "__main__":
    main()
