"""What figures share: paper, colours, axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcu_jax import metrics

# Okabe and Ito's palette, told apart by colour-blind readers and in grey.
BLUE, VERMILION, GREEN, PINK, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
BLACK, GREY = "#000000", "#7F7F7F"
RETRAIN = VERMILION
SERIES = (BLUE, ORANGE, GREEN, PINK, SKY, BLACK)
"""Colours of things compared, none of them the retrained model's."""


def paper(width: float, height: float) -> Any:
    """A figure of so many inches, 200 dots each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def dress(axis: Any, along: str = "y") -> None:
    axis.grid(axis=along, color="0.88", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=9)


def draw_retrained(axis: Any, values: Sequence[float], most: float = float("inf")) -> dict[str, Any]:
    """Mean and interval across the panel, from 0 to `most`; the legend's entry by its text."""
    if not values:
        return {}
    mean, half = metrics.mean_interval(values)
    if half is not None:
        band = max(0.0, mean - half), min(most, mean + half)
        axis.axhspan(*band, color=RETRAIN, alpha=0.15, linewidth=0, zorder=1)
    line = axis.axhline(mean, color=RETRAIN, linewidth=1.4, linestyle=(0, (5, 2)), zorder=2.5)
    return {"retrained model" + (", mean and 95 % interval" if half is not None else ""): line}


def stretch(axis: Any, values: Any) -> None:
    """Make an x- or y-axis of values from 0 on logarithmic where they span two decades; 0 stays on it."""
    import numpy as np
    from matplotlib import ticker

    values = np.asarray(values, float)
    seen = values[np.isfinite(values) & (values > 0)]
    if not seen.size or seen.max() < 100 * seen.min():
        return
    # Linear below a size that says nothing: 0 is what is near it.
    threshold = 10.0 ** np.floor(np.log10(max(seen.min(), 1e-4 * seen.max())))
    name = axis.axis_name
    # Side by side, the labels of 0 and of the threshold need more room than one above the other.
    getattr(axis.axes, f"set_{name}scale")("symlog", linthresh=threshold, linscale=1.0 if name == "x" else 0.3)
    low = 0.0 if np.nanmin(values) < threshold else threshold
    top = seen.max() * 1.6
    getattr(axis.axes, f"set_{name}lim")(low, top)
    axis.set_major_locator(ticker.FixedLocator([0.0, *10.0 ** np.arange(np.log10(threshold), np.log10(top))]))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(ticker.NullLocator())
