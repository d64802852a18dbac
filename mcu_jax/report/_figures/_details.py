"""Figures of what `details.json` holds: confidences, pictures, the plane, the mask, the history of training."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mcu_jax.report import _style
from mcu_jax.report._figures import _chart
from mcu_jax.report._figures._chart import Chart

MOST_PICTURES = {"column": 6, "page": 12}


def confidence(
    views: Sequence[Mapping[str, Any]], along: Mapping[str, Any] | None, width: str, seed: int | None
) -> Chart:
    """Both distributions at the two ends and at t*, side by side. seed: None for the mean over all."""
    shown = views if seed is None else [_of_seed(views, seed)]
    t, bins = np.asarray(shown[0]["t"], float), np.asarray(shown[0]["bins"], float)
    best = None if along is None else _best_t(along, seed)
    middle = len(t) // 2 if best is None else int(np.abs(t - best).argmin())
    places = sorted({0, middle, len(t) - 1})
    shares = {
        name: np.mean([[_chart.floats(each[name][i]) for i in places] for each in shown], axis=0)
        for name in ("forget", "validation")
    }

    def draw(figure: Any) -> None:
        axes, _ = _chart.panels(figure, len(places), len(places), sharey=True)
        handles: dict[str, Any] = {}
        for k, (axis, place) in enumerate(zip(axes, places, strict=True)):
            handles["forgotten, D_f"] = axis.bar(
                bins[:-1], shares["forget"][k], np.diff(bins), align="edge", color=_style.ORANGE, linewidth=0
            )
            handles["unseen, D_v"] = axis.stairs(shares["validation"][k], bins, color=_style.BLUE, linewidth=1.1)
            what = {0: ", original", len(t) - 1: ", pre-unlearned"}.get(place, ", t*" * (best is not None))
            axis.set_title(f"t = {t[place]:.2g}{what if width == 'page' or place not in (0, len(t) - 1) else ''}")
            axis.set_xlim(bins[0], bins[-1])
            axis.set_xticks([0.0, 0.5, 1.0], ["0", "0.5", "1"])
            axis.set_yscale("function", functions=(lambda y: np.sqrt(np.maximum(y, 0.0)), np.square))
            _chart.dress(axis)
        highest = max(float(each.max()) for each in shares.values())
        ticks = [tick for tick in (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0) if tick <= highest]
        axes[0].set_yticks(ticks, [f"{100 * tick:g}" for tick in ticks])
        axes[0].set_ylim(0.0, highest * 1.05)
        axes[0].set_ylabel("examples (%), √ scale")
        axes[len(axes) // 2].set_xlabel("confidence in the right label")
        _chart.legend(figure, handles, [], columns=2)

    rows = [
        [t[place], bins[b], bins[b + 1], *(100.0 * shares[name][k][b] for name in shares)]
        for k, place in enumerate(places)
        for b in range(len(bins) - 1)
    ]
    return Chart(1.75, draw, ["t", "confidence from", "confidence to", "forgotten, D_f (%)", "unseen, D_v (%)"], rows)


def _best_t(along: Mapping[str, Any], seed: int | None) -> float | None:
    best = along["rules"][along["rule"]]["best"]
    known = [t for s, t in zip(along["seeds"], best, strict=True) if t is not None and seed in (None, s)]
    return float(np.median(known)) if known else None


def _of_seed(each: Sequence[Mapping[str, Any]], seed: int | None) -> Mapping[str, Any]:
    """The first where no seed is asked for."""
    return next(one for one in each if seed in (None, one["seed"]))


def pictures(views: Sequence[Mapping[str, Any]], width: str, seed: int | None) -> Chart:
    """Forgotten examples, and what the models along the path take them for."""
    view = _of_seed(views, seed)
    examples, t = view["examples"][: MOST_PICTURES[width]], np.asarray(view["t"], float)
    columns = 2 if width == "page" else 1
    rows = -(-len(examples) // columns)

    def draw(figure: Any) -> None:
        from matplotlib.patches import Patch

        grid = figure.subplots(
            rows, 3 * columns, squeeze=False, gridspec_kw={"width_ratios": [1.0, 3.2, 1.6] * columns}
        )
        for axis in grid.flat:
            axis.set_axis_off()
        for i, example in enumerate(examples):
            row, column = i % rows, 3 * (i // rows)
            picture, bars, said = grid[row, column : column + 3]
            _draw_picture(picture, example)
            _draw_bars(bars, t, example, told=row == rows - 1 or i == len(examples) - 1)
            said.set_title("is → at t = 1" if row == 0 else "")
            words = f"{_chart.short(example['label'], 9)} → {_chart.short(example['prediction'][-1], 9)}"
            said.text(0.0, 0.5, words.replace(" → ", "\n→ ") if len(words) > 13 else words, va="center",
                      transform=said.transAxes)  # fmt: skip
            if row == 0:
                bars.set_title("confidence along t")
        handles = {
            "right": Patch(facecolor=_style.BLUE),
            "wrong": Patch(facecolor="white", edgecolor=_style.VERMILION, linewidth=0.7),
        }
        _chart.legend(figure, handles, [], columns=2)

    data = [
        [
            example["index"],
            example["label"],
            at,
            example["prediction"][i],
            100.0 * _chart.floats(example["confidence"])[i],
        ]
        for example in examples
        for i, at in enumerate(view["t"])
    ]
    heads = ["example", "label", "t", "prediction", f"confidence in it, seed {view['seed']} (%)"]
    return Chart(0.6 + 0.42 * rows, draw, heads, data)


def _draw_picture(axis: Any, example: Mapping[str, Any]) -> None:
    image = _pixels(example["image"])
    if image is None:
        image = np.full((1, 1), 0.9)
    axis.imshow(image, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")


def _pixels(url: str | None) -> Any:
    """Of a picture's address, which holds it; None without one, or where it is no picture."""
    from matplotlib import image

    if url is None:
        return None
    try:
        return image.imread(io.BytesIO(base64.b64decode(url.partition(",")[2])), format="png")
    except (ValueError, OSError, SyntaxError):
        return None


def _draw_bars(axis: Any, t: Any, example: Mapping[str, Any], *, told: bool) -> None:
    axis.set_axis_on()
    right = np.asarray(example["right"], bool)
    heights = np.nan_to_num(_chart.floats(example["confidence"]))
    each = 0.8 / max(len(t) - 1, 1)
    axis.bar(t[right], heights[right], each, color=_style.BLUE, linewidth=0)
    axis.bar(t[~right], heights[~right], each, facecolor="white", edgecolor=_style.VERMILION, linewidth=0.7)
    axis.set_xlim(-0.6 * each, 1.0 + 0.6 * each)
    axis.set_ylim(0.0, 1.05)
    axis.set_yticks([])
    axis.set_xticks([0.0, 0.5, 1.0], ["0", "t = 0.5", "1"] if told else [""] * 3)
    axis.spines[["top", "right", "left"]].set_visible(False)


def plane(planes: Sequence[Mapping[str, Any]], width: str, seed: int | None) -> Chart:
    """Retain and forget loss in the plane of original, control point and pre-unlearned model."""
    of = _of_seed(planes, seed)
    u, v = np.asarray(of["u"], float), np.asarray(of["v"], float)
    shape = (v[-1] - v[0]) / (u[-1] - u[0])
    titles = {"retain_loss": "Retain loss", "forget_loss": "Forget loss"}
    losses = {name: _chart.floats(of[name]).reshape(len(v), len(u)) for name in titles}

    def draw(figure: Any) -> None:
        axes, _ = _chart.panels(figure, 2, 2, sharey=True)
        handles: dict[str, Any] = {}
        for axis, (name, title) in zip(axes, titles.items(), strict=True):
            if (image := _draw_losses(axis, u, v, losses[name])) is not None:
                _draw_key(figure, axis, image, title)
            handles |= _draw_plane_path(axis, of)
            axis.set_aspect("equal")
            axis.set_xlabel("along the straight line")
        axes[0].set_ylabel("across it")
        _chart.legend(figure, handles, [], columns=4 if width == "page" else 3)

    inner = (_chart.WIDTHS[width] - 0.5) / 2 - 0.1
    rows = [["loss", x, y, *(losses[name][j, i] for name in titles)] for j, y in enumerate(v) for i, x in enumerate(u)]
    rows += [[f"path, t = {t:.5g}", x, y, None, None] for t, x, y in zip(*of["path"].values(), strict=True)]
    rows += [[name, *at, None, None] for name, at in of["points"].items()]
    if of["retrained"] is not None:
        rows.append(["retrained, projected", *of["retrained"]["at"], None, None])
    heads = ["what", "distance along the line", "distance across it", "retain loss (nats)", "forget loss (nats)"]
    return Chart(min(inner * shape, 3.2) + (1.15 if width == "page" else 1.2), draw, heads, rows)


def _draw_losses(axis: Any, u: Any, v: Any, values: Any) -> Any:
    """Filled by factors, from the smallest loss that is drawn to the largest; light is low."""
    from matplotlib import colors

    known = values[np.isfinite(values)]
    if not len(known):
        return None
    top = float(known.max())
    low = max(float(known.min()), top / 1000.0, 1e-6)
    if not top > low:
        return None
    levels = np.geomspace(low, top, 12)
    filled = np.clip(np.where(np.isfinite(values), values, top), low, top)
    norm = colors.BoundaryNorm(levels, 256)
    axis.contour(u, v, filled, levels=levels[1:-1], colors="black", linewidths=0.25, alpha=0.35)
    return axis.contourf(u, v, filled, levels=levels, cmap="YlGnBu", norm=norm)


def _draw_key(figure: Any, axis: Any, image: Any, title: str) -> None:
    levels = image.levels
    bar = figure.colorbar(image, ax=axis, location="top", shrink=0.9, aspect=22, pad=0.02, spacing="uniform")
    places = levels[[0, len(levels) // 2, -1]]
    bar.set_ticks(places, labels=[f"{place:.2g}" for place in places])
    bar.set_label(f"{title} (nats)", labelpad=3.0, size=7.5)
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)


def _draw_plane_path(axis: Any, of: Mapping[str, Any]) -> dict[str, Any]:
    from matplotlib import patheffects

    halo = [patheffects.withStroke(linewidth=3.6, foreground="white", alpha=0.9)]
    ends = np.asarray([of["points"]["original"], of["points"]["pre-unlearned"]], float)
    handles = {
        "path": axis.plot(of["path"]["u"], of["path"]["v"], color=_style.BLUE, linewidth=2.0, path_effects=halo)[0],
        "straight line": axis.plot(*ends.T, color="0.3", linewidth=1.1, path_effects=halo)[0],
    }
    points = {"original": "o", "control": "D", "pre-unlearned": "s"}
    for name, marker in points.items():
        if name in of["points"]:
            at = [[x] for x in of["points"][name]]
            handles[name] = axis.plot(*at, marker, color="black", markersize=4, markeredgecolor="white",
                                      markeredgewidth=0.6, linestyle="none", zorder=5, clip_on=False)[0]  # fmt: skip
    if of["retrained"] is not None and of["retrained"]["inside"]:
        at = [[x] for x in of["retrained"]["at"]]
        handles["retrained, projected"] = axis.plot(
            *at, "x", color=_style.VERMILION, markersize=5, markeredgewidth=1.6, path_effects=halo, zorder=5
        )[0]
    return handles


def mask(of: Mapping[str, Any], width: str) -> Chart:
    """The share of every layer's weights that the path trains."""
    layers = of["layers"]
    most = 18 if width == "column" else 40

    def draw(figure: Any) -> None:
        from matplotlib.lines import Line2D

        # As high as the logarithm of what a layer holds, so that a small one is still seen.
        thick = 0.25 + 0.12 * np.log10([max(layer["count"], 1) for layer in layers])
        middles = np.cumsum(thick + 0.15) - thick / 2
        kept, low, high = (_chart.floats([layer[name] for layer in layers]) for name in ("kept", "low", "high"))
        axis = figure.subplots()
        axis.barh(middles, 100.0, thick, color="0.93", linewidth=0)
        axis.barh(middles, kept, thick, color=_style.BLUE, linewidth=0)
        for y, a, b in zip(middles, low, high, strict=True):
            if b > a:
                axis.plot([a, b], [y, y], color=_style.BLACK, linewidth=0.9, solid_capstyle="butt", clip_on=False)
        axis.set_yticks(middles, [_chart.short(layer["name"], most) for layer in layers])
        axis.tick_params(axis="y", length=0)
        axis.set_ylim(middles[-1] + thick[-1] / 2 + 0.15, 0.0)
        axis.set_xlim(0.0, 100.0)
        axis.set_xlabel("share trained (%)")
        axis.spines[["top", "right", "left"]].set_visible(False)
        for y, layer in zip(middles, layers, strict=True):
            shape = f"{_chart.short(layer['shape'], 20)}: " if width == "page" else ""
            axis.annotate(f"{shape}{layer['kept']:.1f} %", (100.0, y), (3, 0), textcoords="offset points", va="center",
                          annotation_clip=False)  # fmt: skip
        if of["seeds"] > 1 and (high > low).any():
            handle = Line2D([], [], color=_style.BLACK, linewidth=0.9)
            _chart.legend(figure, {f"range of {of['seeds']} seeds": handle}, [], columns=1)

    heads = ["layer", "shape", "parameters", "trained, mean (%)", "trained, least (%)", "trained, most (%)"]
    rows = [[layer[name] for name in ("name", "shape", "count", "kept", "low", "high")] for layer in layers]
    return Chart(0.55 + 0.17 * len(layers), draw, heads, rows)


def history(of: Mapping[str, Any], width: str, seed: int | None) -> Chart:
    """Loss, β and t along the steps of training: a line a seed."""
    shown = [each for each in of["seeds"] if seed in (None, each["seed"])]
    titles = {"loss": "loss", "beta": "β", "t": "t drawn"}
    known = [name for name in titles if any(value is not None for each in shown for value in each[name])]
    columns = len(known) if width == "page" else 1

    def draw(figure: Any) -> None:
        axes, _ = _chart.panels(figure, len(known), columns, sharex=True)
        for i, (axis, name) in enumerate(zip(axes, known, strict=True)):
            for k, each in enumerate(shown):
                points = {"marker": ".", "markersize": 1.6, "linestyle": "none"} if name == "t" else {"linewidth": 0.8}
                colour = _style.SERIES[k % len(_style.SERIES)]
                axis.plot(_chart.floats(each["step"]), _chart.floats(each[name]), color=colour, **points)
            if width == "page":
                axis.set_title(titles[name])
            else:
                axis.set_ylabel(titles[name])
            if name == "t":
                axis.set_ylim(-0.03, 1.03)
            elif name == "beta":
                axis.set_ylim(bottom=0.0)
            axis.locator_params(axis="y", nbins=4)
            axis.margins(x=0.02)
            if i + columns >= len(known):
                axis.set_xlabel("step")
            _chart.dress(axis)
        figure.align_ylabels(axes)

    rows = [
        [each["seed"], *at] for each in shown for at in zip(each["step"], *(each[name] for name in known), strict=True)
    ]
    units = {"loss": "loss (nats)", "beta": "beta", "t": "t"}
    height = 1.6 if width == "page" else 0.3 + 0.95 * len(known)
    return Chart(height, draw, ["seed", "step", *(units[name] for name in known)], rows)
