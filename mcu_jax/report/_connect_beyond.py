"""What `mcu-jax connect` measures beyond barriers, as text: ensembles, further training, relearning, correlation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mcu_jax.report import _connect, _text
from mcu_jax.report._connect import Group

Entry = dict[str, Any]


class _Column(NamedTuple):
    headers: tuple[str, str]
    best: str
    cell: Callable[[Sequence[Entry]], tuple[str, str]]


def blocks(results: dict[str, Any]) -> list[list[str]]:
    """Those that were measured."""
    main = _connect.main_groups(results)
    found = [
        ("ensemble", _ensembles, _ENSEMBLES),
        ("continued", _continued, _CONTINUED),
        ("relearning", _relearning, _RELEARNING),
    ]
    out = []
    for name, columns, text in found:
        groups = [g._replace(entries=[e for e in g.entries if name in e]) for g in main]
        # The line between ends trained further has a straight line before it, whatever else connects them.
        groups = [g for g in groups if g.entries and (name != "continued" or g.curve == "linear")]
        if groups:
            more = _relearned(results, groups) if name == "relearning" else []
            out.append([text[0], *_table(groups, columns(groups)), *more, *_text.wrap(text[1:])])
    return out + ([_correlation(results["correlation"])] if results["correlation"] else [])


def _table(groups: Sequence[Group], columns: Sequence[_Column]) -> list[str]:
    first, left, last = _connect.cut(groups, lambda group: _connect.mean(group.barriers("accuracy")))
    between = [f"… {len(left)} more, by accuracy barrier between these: results.json holds all …"] if left else []
    shown = [*first, *last]
    cells = [[*c.headers, c.best, *_text.aligned(c.cell(g.entries) for g in shown)] for c in columns]
    rows = list(zip(["", "", "best value", *(group.label for group in shown)], *cells, strict=True))
    head, n = rows[:3], 3 + len(first)
    return _text.lay_out([*head, _text.RULE, *rows[3:n], *between, *rows[n:], _text.RULE])


def _column(
    headers: tuple[str, str], best: str, read: Callable[[Entry], float], decimals: int | None = None
) -> _Column:
    return _Column(headers, best, lambda entries: _text.spread([read(entry) for entry in entries], decimals))


_ENSEMBLES = (
    "Ensembles: predictions averaged along the whole path, or over its two ends, against the ends by themselves",
    "Test accuracy, and Jensen–Shannon divergence to the retrained model on D_f; each end: mean of both.",
)


def _ensembles(groups: Sequence[Group]) -> list[_Column]:
    def of(metric: str, scale: float, which: str) -> Callable[[Entry], float]:
        if which == "each end":
            return lambda e: scale * (e["metrics"][metric][0] + e["metrics"][metric][-1]) / 2
        return lambda e: scale * e["ensemble"][{"path": "all", "both ends": "ends"}[which]][metric]

    return [
        _column((f"{title}, {unit}", which), best, of(metric, scale, which), decimals)
        for metric, title, unit, best, scale, decimals in (
            ("test_accuracy", "test acc.", "%", "= retrain", 100.0, 1),
            ("js", "JS", "nats", "0", 1.0, None),
        )
        for which in ("path", "both ends", "each end")
    ]


_CONTINUED = (
    "Stability: barriers of the line between the ends, before and after both were trained further on D_r",
    "Both at 11 t, both ends on the same batches; change: after − before, paired by seed.",
)


def _continued(groups: Sequence[Group]) -> list[_Column]:
    def of(name: str, when: str) -> Callable[[Entry], float]:
        before, after = (lambda e: e["continued"]["before"][name]), (lambda e: e["continued"]["barriers"][name])
        return {"before": before, "after": after, "change": lambda e: after(e) - before(e)}[when]

    return [
        _column((f"{title}, {unit}", when), "0", of(name, when), decimals)
        for name, title, unit, decimals in (("accuracy", "acc.", "points", 1), ("retain_nats", "D_r", "nats", None))
        for when in ("before", "after", "change")
    ]


_RELEARNING = (
    "Relearning: steps on D_f until its loss is back at the original model's, from points of the path",
    "Best value: as many as the retrained model needs. ≥: in a seed the attack gave up first.",
)


def _relearning(groups: Sequence[Group]) -> list[_Column]:
    def at(i: int) -> Callable[[Sequence[Entry]], tuple[str, str]]:
        def cell(entries: Sequence[Entry]) -> tuple[str, str]:
            attacks = [entry["relearning"] for entry in entries]
            mean, spread = _text.spread([attack["steps"][i] for attack in attacks], 1)
            # A mean over attacks that were cut short is a lower bound, and has no interval.
            bound = any(attack["steps"][i] >= attack["limit"] for attack in attacks)
            return (f"≥{mean}", "") if bound else (mean, spread)

        return cell

    ts = groups[0].entries[0]["relearning"]["t"]
    return [_Column((f"t = {t:g}", "steps"), "= retrain", at(i)) for i, t in enumerate(ts)]


def _relearned(results: dict[str, Any], groups: Sequence[Group]) -> list[str]:
    """What is best, by request: the retrained models', mean over runs and then over seeds."""
    requests = dict.fromkeys(entry["forget"] for group in groups for entry in group.entries)
    limit = groups[0].entries[0]["relearning"]["limit"]
    out = []
    for request in requests:
        by_seed: dict[int, list[int]] = {}
        for entry in results["retrained"]:
            if entry["forget"] == request:
                by_seed.setdefault(entry["seed"], []).append(entry["relearning_steps"])
        mean, spread = _text.spread([_connect.mean(steps) for steps in by_seed.values()], 1)
        told = f"≥{mean}" if any(max(steps) >= limit for steps in by_seed.values()) else f"{mean} {spread}".rstrip()
        asked = f" of {request}" if len(requests) > 1 else ""
        out.append(f"The retrained models{asked} need {told} steps.")
    return out


def _correlation(found: Sequence[dict[str, Any]]) -> list[str]:
    out = ["Membership attacks: Spearman's ρ over pairs of a barrier and MIA's distance to the retrained model's"]
    for entry in found:
        interval = entry["interval"]
        span = f" [{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else ""
        seeds = f"{entry['seeds']} seed{'s' if entry['seeds'] != 1 else ''}"
        out += _text.wrap(
            [f"  {_BARRIERS[entry['barrier']]}, MIA {entry['attack']}: {entry['mean']:+.2f}{span}, {seeds}"]
        )
    return [*out, *_text.wrap(["ρ within every seed, its mean over seeds and 95 % interval. 0: no relation."])]


_BARRIERS = {"retain_nats": "barrier on D_r", "forget_nats": "barrier on D_f", "accuracy": "accuracy barrier"}
