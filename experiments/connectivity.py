"""Are models unlearned in different ways connected? Claims F1 to F7 of Cheng & Amiri 2025, arXiv 2504.06407.

Run:  python experiments/connectivity.py digits
      python experiments/connectivity.py fashion_mnist --data-dir DIR
Time: digits, a smaller version, 2.5 minutes; fashion_mnist 2 hours 4 minutes, with tests beside its first and last ten;
on 2 x86-64 CPU cores, jax 0.10.2.
Result: on fashion_mnist F3 and F4 by task are undecided, of optimisers only help is shown, all else holds: table.md.
Six runs of `mcu-jax connect`, which share their stages in experiments/runs/stages: all pairs of ten methods; one pair
with all there is to measure; trained curves between two runs of some; curricula; optimisers; sizes of the forget set.
Writes experiments/results/connectivity_DATASET/table.md and, by run, {environment.json, results.json, figures}.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import stats

from mcu_jax import metrics, report, runs

HERE = pathlib.Path(__file__).parent

RUNS: dict[str, dict[str, Any]] = {
    "methods": {"grid": "methods", "also": ("mia",)},
    "pair": {
        "a": "random_label",
        "b": "salun",
        "curve": ("linear", "bezier"),
        "also": ("mia", "continued", "relearning"),
    },
    "curves": {"grid": "seeds", "curve": ("linear", "bezier"), "methods": ("random_label", "salun", "scrub")},
    "curriculum": {"grid": "curriculum", "methods": ("npo", "random_label")},
    "optimizer": {"grid": "optimizer", "methods": ("npo", "random_label")},
    "sizes": {"grid": "sizes", "methods": ("npo",), "retrains": 1},
}
DATASETS: dict[str, dict[str, Any]] = {
    # As many retain images as the smallest D_r holds: then all sizes share their compiled code.
    "digits": {"sample": 270},
    "fashion_mnist": {"forget": "random:0.1"},
}
SMALL: dict[str, dict[str, Any]] = {
    "methods": {"methods": ("finetune", "neggrad_plus", "random_label", "salun", "npo", "scrub")},
    "curriculum": {"methods": ("npo",)},
    "optimizer": {"methods": ("npo",)},
    "sizes": {"sizes": (0.02, 0.06, 0.1)},
}
"""The digits' version of some runs: a net so small compiles longer than it runs."""

Pair = dict[str, Any]

SAME = 0.2
"""Points within which a difference is none."""


class Row(NamedTuple):
    """One claim of the table."""

    claim: str
    says: str
    number: str
    verdict: str


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
            **{**DATASETS[asked.dataset], **settings, **(SMALL.get(name, {}) if asked.dataset == "digits" else {})},
        )
        run = runs.connect(config, Lines())
        found[name] = run.results
        (kept / name).mkdir(parents=True, exist_ok=True)
        (kept / name / "table.txt").write_text(report.write(run.directory) + "\n")
        for file in (*run.directory.glob("*.json"), *run.directory.glob("*.png")):
            if file.name != "stages.json":
                shutil.copy(file, kept / name / file.name)
    others = (HERE / "results" / f"connectivity_{name}" / "methods" / "results.json" for name in DATASETS)
    other = next((file for file in others if file.exists() and kept not in file.parents), None)
    text = table(found, json.loads(other.read_text()) if other else None)
    (kept / "table.md").write_text(text)
    print(text)


def table(found: dict[str, dict[str, Any]], other: dict[str, Any] | None) -> str:
    """Every claim with its number, interval and verdict. other: run "methods" of another data set, if it is there."""
    task = [] if other is None else [f4_task(found, other)]
    rows = [f1(found), f2(found), f3(found), *task, f4_method(found), f4_size(found), f5(found), *f6(found), f7(found)]
    config = found["methods"]["config"]
    lines = [
        f"{config['dataset']}, {config['model']}, {config['train_size']} training images, forget {config['forget']}, "
        f"{len(config['seeds'])} seeds. [95 % interval over seeds, Student t.] A barrier is the largest excess over "
        "the straight line between a path's ends, on the side that is worse; points: of per cent. Seed floor: between "
        "two runs that differ in the seed of unlearning alone.",
        "",
        "| claim | what it says | number | verdict |",
        "|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        "| run | minutes of its stages | of which |",
        "|---|---|---|",
        *(
            f"| {name} | {sum(results['seconds'].values()) / 60:.1f} | {spent(results)} |"
            for name, results in found.items()
        ),
        "",
        "Compilation included, membership attacks not, which run beside other work. A stage that several runs share",
        "counts in each.",
        "",
    ]
    return "\n".join(lines)


def spent(results: dict[str, Any]) -> str:
    """The four parts that took longest."""
    longest = sorted(results["seconds"].items(), key=lambda part: -part[1])[:4]
    return ", ".join(f"{part} {seconds / 60:.1f}" for part, seconds in longest)


# Statistics: the seed is the replicate

Interval = tuple[float, float, float]


def interval(values: Sequence[float] | np.ndarray, of: int = 1) -> Interval:
    """Mean and 95 % interval, infinite for one value. of: so many intervals together (Bonferroni)."""
    mean, half = metrics.mean_interval(list(values))
    if half is None:
        return mean, -np.inf, np.inf
    wider, plain = (stats.t.ppf(1 - 0.025 / many, len(values) - 1) for many in (of, 1))
    return mean, mean - half * wider / plain, mean + half * wider / plain


def by_seed(pairs: Iterable[Pair], value: Callable[[Pair], float]) -> list[float]:
    """The mean over pairs, of every seed."""
    found: dict[int, list[float]] = {}
    for pair in pairs:
        found.setdefault(pair["seed"], []).append(value(pair))
    return [float(np.mean(values)) for values in found.values()]


def over_seeds(pairs: Iterable[Pair], value: Callable[[Pair], float], of: int = 1) -> Interval:
    return interval(by_seed(pairs, value), of)


def apart(values: dict[str, list[float]]) -> Interval:
    """Largest − smallest: which they are is chosen by the other seeds, so that chance does not choose them."""
    table = np.array(list(values.values()))
    differences = []
    for seed in range(table.shape[1]):
        others = np.delete(table, seed, axis=1).mean(axis=1) if table.shape[1] > 1 else table[:, 0]
        differences.append(table[np.argmax(others), seed] - table[np.argmin(others), seed])
    return interval(differences)


def told(interval: Interval, unit: str = "", decimals: int = 2) -> str:
    mean, low, high = (f"{each:.{decimals}f}" for each in interval)
    return f"{mean}{unit} [{low}, {high}]"


def select(results: dict[str, Any], role: str, curve: str = "linear") -> list[Pair]:
    return [pair for pair in results["pairs"] if pair["role"] == role and pair["curve"] == curve]


def grouped(pairs: Iterable[Pair]) -> dict[tuple[str, str], list[Pair]]:
    found: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        found.setdefault((pair["a"]["label"], pair["b"]["label"]), []).append(pair)
    return found


def holds(yes: bool, no: bool) -> str:
    return "holds" if yes else "fails" if no else "undecided"


# The claims


def f1(found: dict[str, Any]) -> Row:
    """Excess variation: total variation beyond the difference of the ends; in points for all of these metrics."""
    pairs = select(found["methods"], "pair")

    def excess(name: str) -> Callable[[Pair], float]:
        return lambda p: 100 * (p["total_variation"][name] - abs(p["metrics"][name][-1] - p["metrics"][name][0]))

    names = ("retain_accuracy", "forget_accuracy", "test_accuracy", "MIA", "zrf")
    each = {name: by_seed(pairs, excess(name)) for name in names}
    ordered = sorted(names, key=lambda name: np.mean(each[name]))
    difference = apart(each)
    number = "; ".join(f"{name} {told(interval(each[name]))}" for name in ordered)
    return Row(
        "F1",
        "metrics fluctuate differently along one path",
        f"excess variation, points: {number}; largest − smallest {told(difference)}",
        holds(difference[1] > 0, difference[2] < SAME),
    )


def f2(found: dict[str, Any]) -> Row:
    results = found["methods"]
    floors = {(p["a"]["label"], p["seed"]): p["barriers"]["accuracy"] for p in select(results, "floor")}

    def above(pair: Pair) -> float:
        return pair["barriers"]["accuracy"] - max(floors[pair[end]["label"], pair["seed"]] for end in "ab")

    groups = grouped(select(results, "pair")).values()
    each = [over_seeds(own, above, of=len(groups)) for own in groups]
    apart, alike = sum(low > 0 for _, low, _ in each), sum(high <= 1 for *_, high in each)
    return Row(
        "F2",
        "some method pairs are similar, others not",
        f"of {len(each)} pairs {apart} have an accuracy barrier above both seed floors, {alike} one at most 1 point "
        "above them (simultaneous intervals)",
        holds(apart > 0 and alike > 0, len(each) in (apart, alike)),
    )


def f3(found: dict[str, Any]) -> Row:
    share = over_seeds(select(found["methods"], "pair"), lambda pair: 100 * pair["connected"])
    floor = over_seeds(select(found["methods"], "floor"), lambda pair: 100 * pair["connected"])
    lines, curves = (select(found["curves"], "floor", curve) for curve in ("linear", "bezier"))
    trained = [over_seeds(own, lambda pair: pair["barriers"]["accuracy"]) for own in (lines, curves)]
    return Row(
        "F3",
        "barrier-free paths often exist",
        f"straight lines of at most 2 accuracy points: {told(share, ' %', 0)} of the pairs of methods, "
        f"{told(floor, ' %', 0)} of two runs of one; between two runs of {', '.join(RUNS['curves']['methods'])} the "
        f"line has {told(trained[0])} points, a trained Bézier curve {told(trained[1])}",
        holds(share[1] > 50, share[2] < 50),
    )


def rough(pair: Pair) -> float:
    """What smoothness is read as: the largest second difference of test accuracy, in points."""
    return 100 * pair["max_second_difference"]["test_accuracy"]


def f4_task(found: dict[str, Any], other: dict[str, Any]) -> Row:
    """other: run "methods" of another data set."""
    results = found["methods"]
    both = grouped(select(results, "pair")), grouped(select(other, "pair"))
    shared = [key for key in both[0] if key in both[1]]
    here, there = (by_seed((pair for key in shared for pair in each[key]), rough) for each in both)
    span = stats.ttest_ind(here, there, equal_var=False).confidence_interval()
    task = float(np.mean(here) - np.mean(there)), float(span.low), float(span.high)
    return Row(
        "F4, task",
        "smoothness depends on the task",
        f"largest second difference of test accuracy, points, mean over {len(shared)} pairs of methods: "
        f"{results['config']['dataset']} − {other['config']['dataset']} {told(task)}",
        holds(task[1] > 0 or task[2] < 0, task[1] > -SAME and task[2] < SAME),
    )


def f4_method(found: dict[str, Any]) -> Row:
    """Of lines between two runs: one between two methods belongs to both."""
    results = found["methods"]
    each = {a: by_seed(own, rough) for (a, _), own in grouped(select(results, "floor")).items()}
    least, *_, most = sorted(each, key=lambda name: np.mean(each[name]))
    both = list(itertools.combinations(each, 2))
    differences = [interval(np.subtract(each[a], each[b]), of=len(both)) for a, b in both]
    differ = sum(low > 0 or high < 0 for _, low, high in differences)

    def all_lines(name: str) -> list[float]:
        return by_seed((p for p in select(results, "pair") if name in (p["a"]["label"], p["b"]["label"])), rough)

    spread = apart({name: all_lines(name) for name in each})
    return Row(
        "F4, method",
        "smoothness depends on the method",
        f"the same, between two runs of a method: from {least} {told(interval(each[least]))} to {most} "
        f"{told(interval(each[most]))}; {differ} of {len(both)} pairs of methods differ (simultaneous intervals); mean "
        f"of all lines a method is an end of: largest − smallest {told(spread)}",
        holds(differ > 0, all(low > -SAME and high < SAME for _, low, high in differences)),
    )


def f4_size(found: dict[str, Any]) -> Row:
    sizes, methods = grouped(select(found["sizes"], "floor")), found["sizes"]["config"]["methods"]

    def at(method: str, size: str) -> list[float]:
        label = f"{method}:forget={size}"
        return by_seed(sizes[label, f"{label},run=1"], rough)

    change = {
        method: interval(np.subtract(at(method, "0.1"), at(method, "0.02")), of=len(methods)) for method in methods
    }
    number = "; ".join(f"{method} {told(each)}" for method, each in change.items())
    return Row(
        "F4, forget size",
        "smoothness depends on the size of the forget set",
        f"the same, between two runs, at 10 % − at 2 % forgotten: {number} (simultaneous intervals)",
        holds(
            any(low > 0 or high < 0 for _, low, high in change.values()),
            all(low > -SAME and high < SAME for _, low, high in change.values()),
        ),
    )


def f5(found: dict[str, Any]) -> Row:
    names = ("test_accuracy", "validation_accuracy", "zrf", "MIA")
    connected = [pair for pair in select(found["methods"], "pair") if pair["connected"]]
    any_other = over_seeds(connected, lambda pair: 100 * (max(pair["barriers"][name] for name in names) > 2))
    each = "; ".join(
        f"{name} {told(over_seeds(connected, lambda pair, name=name: pair['barriers'][name]))}"  # type: ignore[misc]
        for name in names
    )
    return Row(
        "F5",
        "one low-loss path does not mean uniform metrics",
        f"of the lines of at most 2 accuracy points on D_r and D_f {told(any_other, ' %', 0)} have a barrier above 2 "
        f"points in another metric; mean barriers, points: {each}",
        holds(any_other[1] > 5, any_other[2] < 5),
    )


def f6(found: dict[str, Any]) -> list[Row]:
    """Help: a smaller mean distance of UA, RA and TA from the retrained model's."""
    rows = []
    for grid, first in (("curriculum", "none"), ("optimizer", "sgd")):
        results = found[grid]
        retrained: dict[int, list[dict[str, float]]] = {}
        for entry in results["retrained"]:
            retrained.setdefault(entry["seed"], []).append(entry)

        def gap(pair: Pair, t: int, retrained: dict[int, list[dict[str, float]]] = retrained) -> float:
            names = [f"{split}_accuracy" for split in ("forget", "retain", "test")]
            best = {name: np.mean([entry[name] for entry in retrained[pair["seed"]]]) for name in names}
            return 100 * float(np.mean([abs(pair["metrics"][name][t] - best[name]) for name in names]))

        each, groups = {}, grouped(select(results, "pair"))
        for (_, b), own in groups.items():
            change = over_seeds(own, lambda pair: gap(pair, -1) - gap(pair, 0), of=len(groups))
            each[b] = change, over_seeds(own, lambda pair: pair["barriers"]["accuracy"])
        helps = sum(high < 0 for (_, _, high), _ in each.values())
        hinders = sum(low > 0 for (_, low, _), _ in each.values())
        number = "; ".join(f"{b} {told(change)} (barrier {told(barrier)})" for b, (change, barrier) in each.items())
        verdict = holds(helps > 0 and hinders > 0, False)
        if helps == 0 or hinders == 0:
            verdict = "helps only" if helps else "hinders only" if hinders else "no effect shown"
        rows.append(
            Row(
                f"F6, {grid}",
                f"{grid} can help or hinder",
                f"distance of UA, RA, TA from the retrained model's, against {first}, points, below 0: helps "
                f"(simultaneous intervals): {number}",
                verdict,
            )
        )
    return rows


def f7(found: dict[str, Any]) -> Row:
    def gain(pair: Pair) -> float:
        return 100 * (min(pair["interior"]["ends"]) - pair["interior"]["score"])

    pairs = select(found["methods"], "pair")
    share = over_seeds(pairs, lambda pair: 100 * (gain(pair) > 0))
    mean, groups = over_seeds(pairs, gain), grouped(pairs)
    each = {both: over_seeds(own, gain, of=len(groups)) for both, own in groups.items()}
    better = sorted((both for both in each if each[both][1] > 0), key=lambda both: -each[both][0])
    best = "; ".join(f"{a} – {b} {told(each[a, b])}" for a, b in better[:3])
    return Row(
        "F7",
        "some interior points beat both ends (chosen on D_v, reported on D_t; the half on D_f is the same in both)",
        f"{told(share, ' %', 0)} of the lines; mean gain over the better end {told(mean)} points; {len(better)} of "
        f"{len(each)} pairs gain (simultaneous intervals above 0){': ' + best if better else ''}",
        holds(bool(better), not better and mean[2] < 0),
    )


if __name__ == "__main__":
    main()
