"""The numbers of the path explorer: every metric along t, over seeds and of each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from mcu_jax import rules
from mcu_jax.report import _results, _style, _table
from mcu_jax.report._page import _grids
from mcu_jax.report._results import Results


class _Metric(NamedTuple):
    """name: of the long table, or `split_metric`. most: what it cannot pass, None without such."""

    name: str
    short: str
    title: str
    best: str
    unit: str
    scale: float
    decimals: int
    most: float | None


METRICS = (
    _Metric("RA", "RA", "Retain accuracy, RA", "= retrained", "%", 100.0, 1, 100.0),
    _Metric("UA", "UA", "Unlearning accuracy, UA", "= retrained", "%", 100.0, 1, 100.0),
    _Metric("TA", "TA", "Test accuracy, TA", "= retrained", "%", 100.0, 1, 100.0),
    _Metric("MIA", "MIA", "Membership attack, MIA", "= retrained", "%", 100.0, 1, 100.0),
    _Metric("score_accuracy", "score by accuracy", "Gap by accuracy", "0", "points", 100.0, 2, None),
    _Metric("score_distribution", "score by distribution", "Gap by distribution", "0", "points", 100.0, 2, None),
    _Metric("unseen_distance", "W₁", "W₁, D_f from D_v", "= retrained", "points", 100.0, 2, None),
    _Metric("retain_loss", "loss on D_r", "Retain loss", "= retrained", "nats", 1.0, 3, None),
    _Metric("forget_loss", "loss on D_f", "Forget loss", "= retrained", "nats", 1.0, 3, None),
    _Metric("test_loss", "loss on D_t", "Test loss", "= retrained", "nats", 1.0, 3, None),
)


def along(results: Results) -> dict[str, Any] | None:
    """None where no path was trained."""
    trained = _table.trained_paths(results)
    rows = _results.named(results.table[results.table.role == "path"])
    if not trained or not len(rows[rows.subject == "mcu"]):
        return None
    seeds = [path["seed"] for path in trained]
    t = sorted(rows[rows.subject == "mcu"].t.unique())
    metrics = [made for metric in METRICS if (made := _metric(results, rows, metric, seeds, t)) is not None]
    return {
        "t": numbers(t),
        "seeds": seeds,
        "curve": trained[0]["curve"],
        "pre": results.summary["config"]["pre"],
        "rule": results.summary["config"]["rule"],
        "band": _style.banded(len(seeds)),
        "metrics": metrics,
        "rules": {rule: _rule(trained, rule) for rule in rules.NAMES if rule in trained[0]["chosen"]},
    }


def _rule(trained: Sequence[dict[str, Any]], rule: str) -> dict[str, Any]:
    regions = [path["effective_region"][rule] for path in trained]
    return {
        "best": numbers(path["chosen"][rule]["t"] for path in trained),
        "regions": regions,
        "common": common_regions(regions),
    }


def common_regions(regions: Sequence[Sequence[Sequence[float]]]) -> list[tuple[float, float]]:
    """Maximal intervals of t that lie in the regions of at least half the seeds."""
    edges = sorted({edge for seed in regions for interval in seed for edge in interval})
    common: list[tuple[float, float]] = []
    for low, high in itertools.pairwise(edges):
        middle = 0.5 * (low + high)
        inside = sum(any(a <= middle <= b for a, b in seed) for seed in regions)
        if 2 * inside < len(regions):
            continue
        if common and common[-1][1] == low:
            common[-1] = common[-1][0], high
        else:
            common.append((low, high))
    return common


def _metric(
    results: Results, rows: Any, metric: _Metric, seeds: Sequence[int], t: Sequence[float]
) -> dict[str, Any] | None:
    # Metrics without a prefix have the split of their own: their plain name is enough.
    of_metric = rows[(rows.metric == metric.name) | (rows.name == metric.name)]
    path, line = (
        metric.scale
        * of_metric[of_metric.subject == subject]
        .pivot(index="t", columns="replicate", values="value")
        .reindex(index=t, columns=seeds)
        for subject in ("mcu", "linear")
    )
    if not path.notna().any(axis=None):
        return None
    retrained = metric.scale * _table.values(results, "retrain", metric.name)
    made = {
        "name": metric.name,
        "short": metric.short,
        "title": metric.title,
        "best": metric.best,
        "unit": metric.unit,
        "decimals": metric.decimals,
        "most": metric.most,
        "path": _over_seeds(path),
        "line": _over_seeds(line) if line.notna().any(axis=None) else None,
        "retrained": None,
    }
    if len(retrained):
        (middle,), (low,), (high,) = _style.over_seeds(retrained.to_frame().T)
        by_seed = retrained.reindex(seeds)
        made["retrained"] = {
            **dict(zip(("middle", "low", "high"), numbers([middle, low, high]), strict=True)),
            "seeds": numbers(by_seed),
        }
    made["table"] = _as_table(made, t)
    return made


def _over_seeds(values: Any) -> dict[str, Any]:
    middle, low, high = _style.over_seeds(values)
    return {
        "middle": numbers(middle),
        "low": numbers(low),
        "high": numbers(high),
        "seeds": [numbers(values[seed]) for seed in values],
    }


def _as_table(made: dict[str, Any], t: Sequence[float]) -> dict[str, Any]:
    shown = lambda value: "–" if value is None else f"{value:.{made['decimals']}f}"  # noqa: E731
    path, line = made["path"], made["line"]
    several = len(path["seeds"]) > 1
    heads = [("path" + ", median" * several, made["best"])]
    heads += [("band, from", ""), ("band, to", "")] * several
    heads += [("straight line", made["best"])] * (line is not None)
    rows = []
    for i, at in enumerate(t):
        cells = [path["middle"][i], *([path["low"][i], path["high"][i]] if several else [])]
        cells += [line["middle"][i]] if line is not None else []
        rows.append([f"{at:.3g}", *map(shown, cells)])
    return _grids.numbers("t", heads, rows)


def numbers(values: Iterable[Any]) -> list[float | None]:
    """Five significant digits, which no chart can show more of; None for what is not finite."""
    return [number(value) for value in values]


def number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{float(value):.5g}")
