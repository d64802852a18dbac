"""What figures share: paper, colours, axes, numbers over seeds."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mcu_jax import disk, metrics
from mcu_jax.report import _text

# Okabe and Ito's palette, told apart by colour-blind readers and in grey.
BLUE, VERMILION, GREEN, PINK, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
BLACK, GREY = "#000000", "#7F7F7F"
RETRAIN = VERMILION
DASHED = (0, (5, 2))
SERIES = (BLUE, ORANGE, GREEN, PINK, SKY, BLACK)
"""Colours of things compared, none of them the retrained model's."""
MARKERS = "osD^vX"
"""One for every colour: colours need not be told apart, and of lines which coincide every one is seen."""

RESOLUTION = 1e-3
"""Nats below which a loss or a barrier is drawn as 0."""


@contextlib.contextmanager
def paper(file: str | os.PathLike[str], width: float, height: float) -> Iterator[Any]:
    """A figure of so many inches, 200 dots each, which is saved at the end.

    Names of methods and data sets are drawn as they are: a `$` in them begins no formula.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"text.parse_math": False, "text.usetex": False}):
        figure = Figure(figsize=(width, height), dpi=200, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        with disk.placing(pathlib.Path(file)) as opened:
            figure.savefig(opened, format=pathlib.Path(file).suffix[1:] or None)


def dress(axis: Any, along: str = "y") -> None:
    axis.grid(axis=along, color="0.88", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=9)


# Over seeds: along t medians, which one diverged seed does not move; of barriers means, as in the tables


def spread(seeds: int) -> str:
    """What a band is."""
    return "range" if seeds < _text.FEW else "middle half"


def banded(seeds: int) -> str:
    """What a line and its band are."""
    return "one seed" if seeds < 2 else f"median of seeds, band: their {spread(seeds)}"


def over_seeds(values: Any) -> tuple[Any, Any, Any]:
    """Median and edges of the band of a pandas `DataFrame` [t, seeds], by t; what is not finite counts as missing."""
    values = values.where(np.isfinite(values))
    low, high = (0.0, 1.0) if values.shape[1] < _text.FEW else (0.25, 0.75)
    return tuple(values.quantile(q, axis=1) for q in (0.5, low, high))


def draw_band(axis: Any, values: Any, colour: str) -> Any:
    """Median and band of a `DataFrame` [t, seeds]; the line."""
    middle, low, high = over_seeds(values)
    axis.fill_between(middle.index, low, high, color=colour, alpha=0.2, linewidth=0, zorder=3)
    return axis.plot(middle.index, middle, color=colour, linewidth=1.6, zorder=4)[0]


def draw_seeds(axis: Any, values: Any, place: int, places: int) -> tuple[Any, Any]:
    """Median of a `DataFrame` [t, seeds] and every seed as a thin line; the legend's handle, and what the axis shows.

    place: of so many lines in the panel, which have their markers at different t. The axis shows the median and the
    band of the seeds; a seed beyond them may leave the panel.
    """
    from matplotlib import collections

    colour, t = SERIES[place], np.asarray(values.index, float)
    middle, low, high = map(np.asarray, over_seeds(values))
    edges = np.concatenate([middle, low, high])
    edges = edges[np.isfinite(edges)]
    if values.shape[1] > 1:
        seeds = [np.column_stack([t, values[seed].where(np.isfinite(values[seed]))]) for seed in values]
        thin = collections.LineCollection(seeds, colors=colour, linewidths=0.6, alpha=0.45, zorder=3)
        axis.add_collection(thin, autolim=False)
    axis.update_datalim([(t[0], edge) for edge in edges])
    marked = np.unique(np.round((np.arange(4) + (place + 0.5) / places) * (len(t) - 1) / 4).astype(int))
    (line,) = axis.plot(t, middle, color=colour, linewidth=1.4, zorder=4)
    (points,) = axis.plot(t[marked], middle[marked], MARKERS[place], color=colour, markersize=5.0,
                          markeredgecolor="white", markeredgewidth=0.5, zorder=5)  # fmt: skip
    return (line, points), edges


def draw_retrained(axis: Any, values: Any) -> dict[str, Any]:
    """Median and band of a pandas `Series` over seeds across the panel; the legend's entry by its text."""
    if not len(values):
        return {}
    (middle,), (low,), (high,) = over_seeds(values.to_frame().T)
    axis.axhspan(low, high, color=RETRAIN, alpha=0.15, linewidth=0, zorder=1)
    return {"retrained model": axis.axhline(middle, color=RETRAIN, linewidth=1.4, linestyle=DASHED, zorder=2.5)}


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and its 95 % interval from 0 on, of few seeds their range; nan where no value is finite."""
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return np.nan, np.nan, np.nan
    mean, half = metrics.mean_interval(finite)
    if half is None or len(finite) < _text.FEW:
        return mean, min(finite), max(finite)
    return mean, max(mean - half, 0.0), mean + half


def intervals(seeds: int) -> str:
    return "" if seeds < 2 else "mean and range" if seeds < _text.FEW else "mean and 95 % interval"


# Axes


def write_none(axis: Any) -> None:
    """In a panel in which everything is 0."""
    axis.text(0.5, 0.5, "none", transform=axis.transAxes, ha="center", va="center", color=GREY, fontsize=9)


def limit(axis: Any, most: float) -> None:
    """The y-axis of a metric from 0 to `most`: a flat curve looks flat, and no tick is beyond what is possible."""
    low, high = axis.get_ylim()
    pad = max(0.0, 0.04 * most - (high - low)) / 2
    low, high = max(low - pad, -0.03 * most), high + pad
    axis.set_ylim(low, min(high, most + 0.03 * (most - low)))


def stretch(axis: Any, values: Any) -> None:
    """Make an x- or y-axis of nats logarithmic where they span two decades above the resolution; 0 stays on it.

    The label of a logarithmic axis says so.
    """
    from matplotlib import ticker

    values = np.asarray(values, float)
    top = max(values[np.isfinite(values)], default=0.0)
    horizontal = axis.axis_name == "x"
    bound = getattr(axis.axes, f"set_{axis.axis_name}lim")
    seen = values[np.isfinite(values) & (values >= RESOLUTION)]
    if top < 10 * RESOLUTION:
        bound(0.0, 10 * RESOLUTION)
        axis.set_ticks([0.0, 5 * RESOLUTION, 10 * RESOLUTION], ["0", f"{5 * RESOLUTION:g}", f"{10 * RESOLUTION:g}"])
        return
    if top < 100 * min(seen):
        return
    # Side by side, the labels of 0 and of the threshold need more room than one above the other.
    threshold = 10.0 ** np.floor(np.log10(min(seen)))
    getattr(axis.axes, f"set_{axis.axis_name}scale")("symlog", linthresh=threshold, linscale=1.0 if horizontal else 0.3)
    bound(0.0 if np.nanmin(values) < threshold else threshold, top * 1.6)
    decades = np.arange(np.log10(threshold), np.log10(top * 1.6))
    step = 2 if horizontal and len(decades) > 4 else 1
    axis.set_major_locator(ticker.FixedLocator([0.0, *10.0 ** decades[::step]]))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(ticker.NullLocator())
    axis.set_label_text(f"log scale from {threshold:g} on", fontsize=8.5)


def label_ends(axes: Sequence[Any], a: str, b: str) -> None:
    """t = 0 and t = 1 by name."""
    for axis in axes:
        axis.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0], [f"0\n= {a}", "0.25", "0.5", "0.75", f"1\n= {b}"])
        axis.get_xticklabels()[0].set_horizontalalignment("left")
        axis.get_xticklabels()[-1].set_horizontalalignment("right")
        # Between the second lines of the two outer labels.
        axis.set_xlabel("t", fontsize=10, labelpad=-9)
