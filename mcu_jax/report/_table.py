"""The table of one unlearning run, as text."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from mcu_jax import metrics, rules
from mcu_jax.report import _text
from mcu_jax.report._results import Results


class _Column(NamedTuple):
    name: str
    header: str
    best: str
    scale: float
    decimals: int
    interval: bool
    legend: str = ""


_COLUMNS = (
    _Column("UA", "UA", "= retrain", 100.0, 1, True, "UA: share of the forget set misclassified"),
    _Column("UA_test", "UA test", "= retrain", 100.0, 1, True,
            "UA test: the same on the forgotten class's test examples"),
    _Column("RA", "RA", "= retrain", 100.0, 1, True, "RA, TA: accuracy on the retain and test sets"),
    _Column("TA", "TA", "= retrain", 100.0, 1, True),
    _Column("MIA", "MIA", "= retrain", 100.0, 1, True,
            "MIA: share of the forget set that a membership attack takes for never seen"),
    _Column("avg_gap", "avg_gap", "0", 100.0, 2, True,
            "avg_gap: mean distance of UA, RA, TA and MIA from the retrained model's, in points"),
    _Column("score_accuracy", "score,\nacc.", "0", 100.0, 2, False),
    _Column("score_distribution", "score,\ndistr.", "0", 100.0, 2, False),
    _Column("seconds", "seconds", "low", 1.0, 1, False, "seconds: all parts but compilation"),
    _Column("t", "t", "none", 1.0, 2, False, "t: where on the path"),
)  # fmt: skip


SCORES = (
    "Scores, in points, need no retrained model. By accuracy: mean distance of retain and forget accuracy from "
    "their targets, the original's on the training data and on unseen examples (0 for a class). By distribution: half "
    "of what retain and validation accuracy are off, and the distance W1 of the confidences on the forget set from "
    "those on unseen examples (from 0 for a class)."
)
SMALL_MASK = 0.01
"""A mask that lets a smaller share of the parameters move is told of first."""


def unlearn_table(results: Results, width: int = _text.WIDTH) -> str:
    """What the results of an unlearning run say: the table, MCU paired with every other method, the path."""
    title = f"Unlearning on {describe(results)}"
    head = [title, *careful(results)]
    parts = (main_table, comparison, advice, path_and_mask)
    return _text.render([*head, *(line for part in parts for line in ("", *part(results)))], width)


def careful(results: Results) -> list[str]:
    """What a reader must know before the numbers."""
    shares = [("MCU", path["mask"]["keep"]) for path in trained_paths(results)]
    shares += [(row["method"], row["mask_keep"]) for row in results.summary["rows"] if "mask_keep" in row]
    least = {name: min(share for other, share in shares if other == name) for name, _ in shares}
    return [
        f"Careful: the mask of {name} leaves {100 * share:.2g} % of the parameters to train, so that its path is "
        "nearly the straight line. Lower retain-filter, raise keep, or ask for no mask (kind none)."
        for name, share in least.items()
        if share < SMALL_MASK
    ]


def seeds_of(results: Results) -> list[int]:
    """The seeds that have any row, in order."""
    return sorted({row["seed"] for row in results.summary["rows"]})


def describe(results: Results) -> str:
    """`digits, mlp, forget random:0.2, 5 seeds`."""
    return _text.describe(results.summary["config"], len(seeds_of(results)))


def trained_paths(results: Results) -> list[dict[str, Any]]:
    """The paths that MCU trained, by seed: every one but the straight lines."""
    return sorted((p for p in results.summary["paths"] if p["curve"] != "linear"), key=lambda p: p["seed"])


def values(results: Results, method: str, column: str) -> Any:
    """Of a method's models: a pandas `Series` by seed, without those that have no value.

    column: as the tidy table names a metric, or for a loss `split_loss`.
    """
    import pandas

    table = results.table
    of_method = (table.role == "model") & (table.subject == method)
    if column == "t":
        return table[of_method].groupby("replicate").t.first().dropna()
    if column == "seconds":
        counted = table.metric.str.startswith("seconds_") & (table.metric != "seconds_compile")
        return table[of_method & counted].groupby("replicate").value.sum()
    split, _, loss = column.partition("_")
    of_column = (table.split == split) & (table.metric == loss) if loss == "loss" else table.metric == column
    rows = table[of_method & of_column]
    return pandas.Series(rows.value.array, rows.replicate.array, name="value").dropna()


def methods_of(results: Results) -> list[str]:
    first = ["original", "retrain", results.summary["config"]["pre"], "linear", "mcu"]
    present = list(dict.fromkeys(row["method"] for row in results.summary["rows"]))
    return [m for m in first if m in present] + [m for m in present if m not in first]


def label(results: Results, method: str) -> str:
    if method == results.summary["config"]["pre"]:
        return f"{method} (pre-unlearned)"
    name, _, rule = method.partition(":rule=")
    known = {"linear": "straight line", "mcu": "MCU"}
    return f"{known[name]}, t by {rule}" if rule and name in known else known.get(method, method)


def main_table(results: Results) -> Iterator[str | _text.Grid]:
    methods, seeds = methods_of(results), seeds_of(results)
    found = {c: [c.scale * values(results, m, c.name) for m in methods] for c in _COLUMNS}
    columns = [c for c, each in found.items() if any(map(len, each))]
    yield _text.Grid(
        [label(results, m) + _stopped(results, m) for m in methods],
        [
            _text.Column(c.header, c.best, _text.cells(found[c], c.decimals, interval=c.interval))
            for c in columns
        ],
    )  # fmt: skip
    yield ""
    yield f"Per cent, {_text.spreading(len(seeds))}."
    yield "; ".join(c.legend for c in columns if c.legend) + "."
    yield SCORES
    for method in methods:
        if missing := sorted(set(seeds) - {r["seed"] for r in results.summary["rows"] if r["method"] == method}):
            yield f"{label(results, method)}: without seed {', '.join(map(str, missing))}."


def _stopped(results: Results, method: str) -> str:
    """A second line of a diverged method's name."""
    steps = values(results, method, "diverged_step")
    stops = ", ".join(f"{step:.0f} (seed {seed})" for seed, step in steps.items())
    return f"\nnot finite at step {stops}" if stops else ""


def comparison(results: Results) -> Iterator[str | _text.Grid]:
    mcu, labels, rows = values(results, "mcu", "avg_gap"), [], []
    for other in methods_of(results):
        differences = 100.0 * (mcu - values(results, other, "avg_gap")).dropna()
        if other not in ("mcu", "retrain") and len(differences):
            labels.append(label(results, other))
            rows.append(_paired(list(differences)))
    if not rows:
        yield "MCU compared: no seed has both MCU and another model."
        return
    few = any(pairs < _text.FEW for *_, pairs, _ in rows)
    beside = "[95 % interval of it]" if not few else f"[95 % interval of it; of fewer than {_text.FEW} pairs the range]"
    yield f"MCU against every other method: difference of avg_gap in points, paired by seed, mean {beside}"
    difference = _text.aligned(row[0] for row in rows)
    yield _text.Grid(
        labels,
        [
            _text.Column("MCU − it", "below 0", difference),
            _text.Column("pairs", "all", [str(pairs) for _, pairs, _ in rows]),
            _text.Column("verdict", "", [verdict for *_, verdict in rows], left=True),
        ],
    )


def _paired(differences: list[float]) -> tuple[tuple[str, str], int, str]:
    """((mean, interval or range), pairs, verdict)."""
    (mean, half), n = metrics.mean_interval(differences), len(differences)
    if half is None:
        return (f"{mean:+.2f}", ""), n, "no verdict from one seed"
    if n < _text.FEW:
        return (f"{mean:+.2f}", f"[{min(differences):+.2f}, {max(differences):+.2f}]"), n, f"no verdict from {n} seeds"
    verdict = "MCU better" if mean + half < 0 else "MCU worse" if mean - half > 0 else "no difference shown"
    return (f"{mean:+.2f}", f"[{mean - half:+.2f}, {mean + half:+.2f}]"), n, verdict


def path_and_mask(results: Results) -> Iterator[str | _text.Grid]:
    paths = trained_paths(results)
    if not paths:
        yield "Path: none."
        return
    rule = results.summary["config"]["rule"]
    best = [p["chosen"][rule]["t"] for p in paths]
    span = f"mean {sum(best) / len(best):.2f}, {min(best):.2f}–{max(best):.2f}" if len(best) > 1 else f"{best[0]:.2f}"
    yield f"Path ({paths[0]['curve']}), t* chosen by {rule}, without the retrained model: {span}"
    yield _text.Grid(
        [f"seed {p['seed']}" for p in paths],
        [
            _text.Column("\nt*", "none", [f"{t:.3f}" for t in best]),
            _text.Column("\nscore(t*)", "0", [f"{100.0 * p['chosen'][rule]['score']:.2f}" for p in paths]),
            _text.Column("\neffective region", "long",
                         [_regions(p["effective_region"][rule]) for p in paths], left=True),
            _text.Column("effective region\nagainst retrain", "long",
                         [_regions(p["effective_region_retrain"]) for p in paths], left=True),
        ],
    )  # fmt: skip
    yield ""
    yield (
        "Effective region: the t where the score is below the pre-unlearned model's; against retrain by accuracy, with "
        "the retrained model's accuracies as targets."
    )
    yield _mask([p["mask"] for p in paths])
    yield from _tuned(paths)


def advice(results: Results) -> Iterator[str]:
    """What a user without a retrained model would take: of equals the simplest."""
    config = results.summary["config"]
    words = {"original": "the original as it is", config["pre"]: "the pre-unlearned model as it is"}
    words |= {"linear": "the straight line", "mcu": "the path"}
    for rule in sorted(rules.NAMES, key=lambda rule: rule != config["rule"]):
        suffix = "" if rule == config["rule"] else f":rule={rule}"
        columns = {name: name + suffix * (name in ("linear", "mcu")) for name in words}
        scores = {name: values(results, column, f"score_{rule}") for name, column in columns.items()}
        taken: collections.Counter[str] = collections.Counter()
        for seed in seeds_of(results):
            if known := {name: of_seed[seed] for name, of_seed in scores.items() if seed in of_seed}:
                taken[min(known, key=lambda name: known[name])] += 1
        if taken:
            found = ", ".join(f"{words[name]} in {count}" for name, count in taken.most_common())
            yield f"Lowest score by {rule}, of {_text.plural(taken.total(), 'seed')}: {found}."


def _tuned(paths: Sequence[dict[str, Any]]) -> Iterator[str | _text.Grid]:
    """What paths that tuned themselves chose."""
    own = [(p["seed"], p["mask"], p["tuned"]) for p in paths if "tuned" in p]
    if not own:
        return
    yield ""
    yield "The path tuned itself, by the score by distribution of its best point, without the retrained model"
    yield _text.Grid(
        [f"seed {seed}" for seed, *_ in own],
        [
            _text.Column("taken", "", ["path" if t["bent"] else "straight line" for *_, t in own], left=True),
            _text.Column("score", "0", [f"{100.0 * t['score']:.2f}" for *_, t in own]),
            _text.Column("of the line", "0", [f"{100.0 * t['line']:.2f}" for *_, t in own]),
            _text.Column("lr", "none", [f"{t['lr']:.2g}" for *_, t in own]),
            _text.Column("beta", "none", [_penalty(t["beta"]) for *_, t in own]),
            _text.Column("trained %", "none", [f"{100.0 * mask['keep']:.1f}" for _, mask, _ in own]),
            _text.Column("steps", "low", [str(t["steps"]) for *_, t in own]),
        ],
    )


def _penalty(beta: float | str) -> str:
    return beta if isinstance(beta, str) else f"{beta:.2g}"


def _regions(regions: Sequence[Sequence[float]]) -> str:
    intervals = [f"{a:.2f}–{b:.2f}" for a, b in regions] or ["none"]
    return ",\n".join(", ".join(intervals[i : i + 2]) for i in range(0, len(intervals), 2))


def _mask(masks: Sequence[dict[str, float]]) -> str:
    if all(mask["keep"] == 1 for mask in masks):
        return "Mask: none, every parameter of the path is trained."

    def share(name: str) -> str:
        shares = [100.0 * m[name] for m in masks]
        low, high = f"{min(shares):.1f}", f"{max(shares):.1f}"
        return f"{low} %" if low == high else f"{sum(shares) / len(shares):.1f} % ({low}–{high})"

    return (
        f"Mask, as realised: {share('keep')} of the parameters trained, {share('retain_filter')} set aside "
        "for the retain set."
    )
