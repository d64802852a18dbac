"""What `details.json` adds to a run of unlearning: distributions, pictures, mask, history, the plane."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mcu_jax.report._page import _along, _grids

_PICTURE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]*")
TABLE_ROWS = 21
"""Of a chart with more points its table shows about so many."""


def sections(details: Mapping[str, Any] | None) -> dict[str, Any]:
    """By name; None for what the run has no data for."""
    if details is None:
        return dict.fromkeys(("views", "mask", "history", "plane"))
    names = [str(name) for name in details.get("classes", [])]
    return {
        "views": [_view(each, names) for each in details.get("explorer", [])] or None,
        "mask": _mask(details.get("mask", [])),
        "history": _history(details.get("history", [])),
        "plane": [_plane(each) for each in details.get("plane", [])] or None,
    }


def picture(url: Any) -> str | None:
    """The address of a picture, where it holds the picture itself and nothing else."""
    return url if isinstance(url, str) and _PICTURE.fullmatch(url) else None


def _view(each: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Distributions and pictures of one seed along t."""
    t = _along.numbers(each["t"])
    named = lambda label: names[label] if 0 <= label < len(names) else str(label)  # noqa: E731
    examples = [
        {
            "index": example["index"],
            "label": named(example["label"]),
            "image": picture(example["image"]),
            "prediction": [named(label) for label in example["prediction"]],
            "picked": example.get("picked"),
            "right": [label == example["label"] for label in example["prediction"]],
            "confidence": _along.numbers(example["confidence"]),
            "true_confidence": _along.numbers(example["true_confidence"]),
        }
        for example in each["examples"]
    ]
    shares = {name: [_along.numbers(at) for at in each["confidence"][name]] for name in ("forget", "validation")}
    return {
        "seed": each["seed"],
        "t": t,
        "bins": _along.numbers(each["bins"]),
        **shares,
        "examples": examples,
        "table": _distributions(t, each["bins"], shares),
        "pictures": _pictures(t, examples),
    }


def _distributions(t: Sequence[float | None], bins: Sequence[float], shares: Mapping[str, Any]) -> dict[str, Any]:
    heads = [(f"t = {t[i]:.3g}, {name}", "") for i in _ends(t) for name in ("D_f", "D_v")]
    rows = [
        [
            f"{bins[b]:.3g}–{bins[b + 1]:.3g}",
            *(f"{100 * (shares[name][i][b] or 0):.1f}" for i in _ends(t) for name in ("forget", "validation")),
        ]
        for b in range(len(bins) - 1)
    ]
    return _grids.numbers("confidence", heads, rows)


def _ends(t: Sequence[Any]) -> list[int]:
    return [0, len(t) // 2, len(t) - 1]


def _pictures(t: Sequence[float | None], examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    heads = [("label", "")] + [(f"t = {t[i]:.3g}", "") for i in _ends(t)]
    said = lambda example, i: f"{example['prediction'][i]} ({_per_cent(example['confidence'][i])})"  # noqa: E731
    rows = [[f"{each['index']}", each["label"], *(said(each, i) for i in _ends(t))] for each in examples]
    return _grids.numbers("example", heads, rows)


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _per_cent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _mask(given: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The share kept of every leaf, mean and range over seeds, in the network's order."""
    if not given:
        return None
    layers = []
    for place, layer in enumerate(given[0]["layers"]):
        kept = [100.0 * each["layers"][place]["kept"] for each in given]
        layers.append(
            {
                "name": _grids.short(layer["name"]),
                "shape": " × ".join(map(str, layer["shape"])) or "1",
                "count": math.prod(layer["shape"]),
                "kept": _along.number(sum(kept) / len(kept)),
                "low": _along.number(min(kept)),
                "high": _along.number(max(kept)),
            }
        )
    heads = [("shape", ""), ("parameters", ""), ("kept, mean %", "none"), ("from", ""), ("to", "")]
    rows = [
        [layer["name"], layer["shape"], f"{layer['count']:,}", *(f"{layer[n]:.1f}" for n in ("kept", "low", "high"))]
        for layer in layers
    ]
    return {"layers": layers, "seeds": len(given), "table": _grids.numbers("layer", heads, rows)}


def _history(given: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Loss, β and t along the steps of training, of every seed."""
    given = [each for each in given if each["step"]]
    if not given:
        return None
    seeds = [{"seed": each["seed"], **{name: _along.numbers(each[name]) for name in ("step", "loss", "beta", "t")}}
             for each in given]  # fmt: skip
    first = seeds[0]
    picked = range(0, len(first["step"]), max(1, len(first["step"]) // TABLE_ROWS))
    rows = [[f"{first['step'][i]:.0f}", *(_short(first[name][i]) for name in ("loss", "beta", "t"))] for i in picked]
    heads = [("loss", "low"), ("β", "none"), ("t", "none")]
    return {"seeds": seeds, "table": _grids.numbers(f"step, seed {first['seed']}", heads, rows)}


def _plane(each: Mapping[str, Any]) -> dict[str, Any]:
    """One seed's. Losses are flat, row after row of v, as a contour chart takes them."""
    flat = {
        name: _along.numbers(value for row in each[name] for value in row) for name in ("retain_loss", "forget_loss")
    }
    points = {name: _along.numbers(at) for name, at in each["points"].items()}
    retrained = each.get("retrained")
    made = {
        "seed": each["seed"],
        "u": _along.numbers(each["u"]),
        "v": _along.numbers(each["v"]),
        **flat,
        "path": {name: _along.numbers(each["path"][name]) for name in ("t", "u", "v")},
        "points": points,
        "retrained": None,
    }
    rows = [[name, *map(_short, place)] for name, place in points.items()]
    if retrained is not None and None not in retrained["at"]:
        at = _along.numbers(retrained["at"])
        inside = all(axis[0] <= x <= axis[-1] for axis, x in zip((each["u"], each["v"]), retrained["at"], strict=True))
        distances = {name: _along.number(retrained[name]) for name in ("distance", "norm")}
        made["retrained"] = {**distances, "at": at, "inside": inside}
        rows.append(["retrained, projected", *map(_short, at)])
    made["table"] = _grids.numbers("model", [("along the line", ""), ("across it", "")], rows)
    return made
