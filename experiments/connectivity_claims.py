"""Claims F1 to F7 of Cheng & Amiri 2025, arXiv 2504.06407, read off the long tables of connectivity.py's runs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from intervals import apart, by_seed, differences, every_pair, interval, over_seeds, text
from scipy import stats

from mcu_jax import report

SAME = 0.2
"""Points within which a difference is none."""

Runs = dict[str, report.Results]


class Row(NamedTuple):
    """One claim of the table."""

    claim: str
    says: str
    number: str
    verdict: str


def rows(runs: Runs, other: report.Results | None) -> list[Row]:
    """other: run "methods" of another data set, if it is there."""
    task = [] if other is None else [f4_task(runs, other)]
    return [f1(runs), f2(runs), f3(runs), *task, f4_method(runs), f4_size(runs), f5(runs), *f6(runs), f7(runs)]


def pairs(results: report.Results, role: str, curve: str = "linear") -> Any:
    """A row a pair and seed, in the order of the results: numbers of whole paths by `split_metric`, and the values at
    the ends by `split_metric at 0` and `at 1`."""
    table = results.table[(results.table.role == role) & (results.table.curve == curve)]
    names = table.metric.where(table.split.isna(), table.split + "_" + table.metric)
    names = names.where(table.t.isna(), names + " at " + table.t.map("{:g}".format))
    keys = ["a", "b", "replicate"]
    wanted = table.t.isna() | table.t.isin([0.0, 1.0])
    wide = table.assign(name=names)[wanted].pivot(index=keys, columns="name", values="value")
    return wide.reindex(table.set_index(keys).index.unique())


def holds(yes: bool, no: bool) -> str:
    return "holds" if yes else "fails" if no else "undecided"


def f1(runs: Runs) -> Row:
    """Excess variation: total variation beyond the difference of the ends; in points for all of these metrics."""
    own = pairs(runs["methods"], "pair")
    names = ("retain_accuracy", "forget_accuracy", "test_accuracy", "forget_MIA", "forget_zrf")
    excess = {
        name.replace("forget_MIA", "MIA").replace("forget_zrf", "zrf"): by_seed(
            100 * (own[f"{name}_total_variation"] - abs(own[f"{name} at 1"] - own[f"{name} at 0"]))
        )
        for name in names
    }
    difference = apart(excess)
    number = "; ".join(
        f"{name} {text(interval(excess[name]))}" for name in sorted(excess, key=lambda name: np.mean(excess[name]))
    )
    return Row(
        "F1",
        "metrics fluctuate differently along one path",
        f"excess variation, points: {number}; largest − smallest {text(difference)}",
        holds(difference[1] > 0, difference[2] < SAME),
    )


def f2(runs: Runs) -> Row:
    floors = pairs(runs["methods"], "floor").accuracy_barrier.droplevel("b")
    barriers = pairs(runs["methods"], "pair").accuracy_barrier
    keys = list(barriers.index)
    floor = [max(floors[a, seed], floors[b, seed]) for a, b, seed in keys]
    above = every_pair(barriers - floor).values()
    apart, alike = sum(low > 0 for _, low, _ in above), sum(high <= 1 for *_, high in above)
    return Row(
        "F2",
        "some method pairs are similar, others not",
        f"of {len(above)} pairs {apart} have an accuracy barrier above both seed floors, {alike} one at most 1 point "
        "above them (simultaneous intervals)",
        holds(apart > 0 and alike > 0, len(above) in (apart, alike)),
    )


def f3(runs: Runs) -> Row:
    share, floor = (over_seeds(100 * pairs(runs["methods"], role).connected) for role in ("pair", "floor"))
    trained = [over_seeds(pairs(runs["curves"], "floor", curve).accuracy_barrier) for curve in ("linear", "bezier")]
    return Row(
        "F3",
        "barrier-free paths often exist",
        f"straight lines of at most 2 accuracy points: {text(share, ' %', 0)} of the pairs of methods, "
        f"{text(floor, ' %', 0)} of two runs of one; between two runs of "
        f"{', '.join(runs['curves'].summary['config']['methods'])} the "
        f"line has {text(trained[0])} points, a trained Bézier curve {text(trained[1])}",
        holds(share[1] > 50, share[2] < 50),
    )


def rough(results: report.Results, role: str) -> Any:
    """What smoothness is read as: the largest second difference of test accuracy, in points."""
    return 100 * pairs(results, role).test_accuracy_max_second_difference


def f4_task(runs: Runs, other: report.Results) -> Row:
    """other: run "methods" of another data set."""
    here, there = rough(runs["methods"], "pair"), rough(other, "pair")
    keys = [values.index.droplevel("replicate") for values in (here, there)]
    shared = keys[0].unique().intersection(keys[1])
    here, there = (by_seed(values[key.isin(shared)]) for values, key in zip((here, there), keys, strict=True))
    span = stats.ttest_ind(here, there, equal_var=False).confidence_interval()
    task = float(np.mean(here) - np.mean(there)), float(span.low), float(span.high)
    names = [results.summary["config"]["dataset"] for results in (runs["methods"], other)]
    return Row(
        "F4, task",
        "smoothness depends on the task",
        f"largest second difference of test accuracy, points, mean over {len(shared)} pairs of methods: "
        f"{' − '.join(names)} {text(task)}",
        holds(task[1] > 0 or task[2] < 0, task[1] > -SAME and task[2] < SAME),
    )


def f4_method(runs: Runs) -> Row:
    """Of lines between two runs: one between two methods belongs to both."""
    two_runs, lines = rough(runs["methods"], "floor"), rough(runs["methods"], "pair")
    methods = {a: by_seed(values) for a, values in two_runs.groupby("a", sort=False)}
    least, *_, most = sorted(methods, key=lambda name: np.mean(methods[name]))
    between = differences(methods)
    differ = sum(low > 0 or high < 0 for _, low, high in between)
    ends = [lines.index.get_level_values(end) for end in "ab"]
    spread = apart({name: by_seed(lines[(ends[0] == name) | (ends[1] == name)]) for name in methods})
    return Row(
        "F4, method",
        "smoothness depends on the method",
        f"the same, between two runs of a method: from {least} {text(interval(methods[least]))} to {most} "
        f"{text(interval(methods[most]))}; {differ} of {len(between)} pairs of methods differ (simultaneous "
        f"intervals); mean of all lines a method is an end of: largest − smallest {text(spread)}",
        holds(differ > 0, all(low > -SAME and high < SAME for _, low, high in between)),
    )


def f4_size(runs: Runs) -> Row:
    lines, methods = rough(runs["sizes"], "floor"), runs["sizes"].summary["config"]["methods"]

    def at(method: str, size: str) -> list[float]:
        return by_seed(lines.loc[[f"{method}:forget={size}"]])

    change = {
        method: interval(np.subtract(at(method, "0.1"), at(method, "0.02")), of=len(methods)) for method in methods
    }
    number = "; ".join(f"{method} {text(difference)}" for method, difference in change.items())
    return Row(
        "F4, forget size",
        "smoothness depends on the size of the forget set",
        f"the same, between two runs, at 10 % − at 2 % forgotten: {number} (simultaneous intervals)",
        holds(
            any(low > 0 or high < 0 for _, low, high in change.values()),
            all(low > -SAME and high < SAME for _, low, high in change.values()),
        ),
    )


def f5(runs: Runs) -> Row:
    own = pairs(runs["methods"], "pair")
    connected = own[own.connected == 1]
    barriers = {
        name: connected[f"{column}_barrier"]
        for name, column in (
            ("test_accuracy", "test_accuracy"),
            ("validation_accuracy", "validation_accuracy"),
            ("zrf", "forget_zrf"),
            ("MIA", "forget_MIA"),
        )
    }
    any_other = over_seeds(100.0 * (np.maximum.reduce(list(barriers.values())) > 2) + 0 * barriers["MIA"])
    means = "; ".join(f"{name} {text(over_seeds(values))}" for name, values in barriers.items())
    return Row(
        "F5",
        "one low-loss path does not mean uniform metrics",
        f"of the lines of at most 2 accuracy points on D_r and D_f {text(any_other, ' %', 0)} have a barrier above 2 "
        f"points in another metric; mean barriers, points: {means}",
        holds(any_other[1] > 5, any_other[2] < 5),
    )


def f6(runs: Runs) -> list[Row]:
    """Help: a smaller mean distance of UA, RA and TA from the retrained model's."""
    made = []
    for grid, first in (("curriculum", "none"), ("optimizer", "sgd")):
        own, table = pairs(runs[grid], "pair"), runs[grid].table
        retrained = table[(table.role == "retrained") & (table.metric == "accuracy")]
        best = retrained.pivot_table(index="replicate", columns="split", values="value")
        seeds = own.index.get_level_values("replicate")

        def gap(t: int, own: Any = own, best: Any = best, seeds: Any = seeds) -> Any:
            splits = ("forget", "retain", "test")
            return 100 * sum(abs(own[f"{s}_accuracy at {t}"] - best[s].loc[seeds].to_numpy()) for s in splits) / 3

        change, barriers = every_pair(gap(1) - gap(0)), own.accuracy_barrier.groupby(["a", "b"], sort=False)
        barrier = {pair: over_seeds(values) for pair, values in barriers}
        helps = sum(high < 0 for _, _, high in change.values())
        hinders = sum(low > 0 for _, low, _ in change.values())
        number = "; ".join(f"{b} {text(change[a, b])} (barrier {text(barrier[a, b])})" for a, b in change)
        verdict = holds(helps > 0 and hinders > 0, False)
        if helps == 0 or hinders == 0:
            verdict = "helps only" if helps else "hinders only" if hinders else "no effect shown"
        made.append(
            Row(
                f"F6, {grid}",
                f"{grid} can help or hinder",
                f"distance of UA, RA, TA from the retrained model's, against {first}, points, below 0: helps "
                f"(simultaneous intervals): {number}",
                verdict,
            )
        )
    return made


def f7(runs: Runs) -> Row:
    own = pairs(runs["methods"], "pair")
    gain = 100 * (own[["test_interior_score_a", "test_interior_score_b"]].min(axis=1) - own.test_interior_score)
    share, mean, gains = over_seeds(100.0 * (gain > 0)), over_seeds(gain), every_pair(gain)
    better = sorted((both for both in gains if gains[both][1] > 0), key=lambda both: -gains[both][0])
    best = "; ".join(f"{a} – {b} {text(gains[a, b])}" for a, b in better[:3])
    return Row(
        "F7",
        "some interior points beat both ends (chosen on D_v, reported on D_t; the half on D_f is the same in both)",
        f"{text(share, ' %', 0)} of the lines; mean gain over the better end {text(mean)} points; {len(better)} of "
        f"{len(gains)} pairs gain (simultaneous intervals above 0){': ' + best if better else ''}",
        holds(bool(better), not better and mean[2] < 0),
    )
