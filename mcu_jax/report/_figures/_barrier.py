"""Axes of barriers: what is next to nothing looks so, and what spans decades is seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mcu_jax.report import _style


def small(value: float | None, name: str) -> float | None:
    """A value of the barrier `name`: nats below the resolution are 0, what is not finite is None."""
    if value is None or not np.isfinite(value):
        return None
    return 0.0 if name != "accuracy_barrier" and value < _style.RESOLUTION else value


def bound(axis: Any, name: str, values: Sequence[float | None]) -> None:
    """Scale an x- or y-axis of these values: at least a point, or ten times the resolution; all 0 are told as none."""
    seen = [each for each in (small(value, name) for value in values) if each is not None]
    if not any(seen):
        middle = {"transform": axis.axes.transAxes, "ha": "center", "va": "center"}
        axis.axes.text(0.5, 0.5, "none", color=_style.GREY, **middle)
    if name != "accuracy_barrier":
        _stretch(axis, seen)
        return
    low, high = axis.get_view_interval()
    getattr(axis.axes, f"set_{axis.axis_name}lim")(low, max(high, 1.0))


def _stretch(axis: Any, values: Any) -> None:
    """Make an x- or y-axis of nats logarithmic where they span two decades above the resolution; 0 stays on it.

    The label of a logarithmic axis says so.
    """
    from matplotlib import ticker

    values = np.asarray(values, float)
    top = max(values[np.isfinite(values)], default=0.0)
    horizontal = axis.axis_name == "x"
    bound = getattr(axis.axes, f"set_{axis.axis_name}lim")
    seen = values[np.isfinite(values) & (values >= _style.RESOLUTION)]
    if top < 10 * _style.RESOLUTION:
        bound(0.0, 10 * _style.RESOLUTION)
        axis.set_ticks(
            [0.0, 5 * _style.RESOLUTION, 10 * _style.RESOLUTION],
            ["0", f"{5 * _style.RESOLUTION:g}", f"{10 * _style.RESOLUTION:g}"],
        )
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
    axis.set_label_text(f"log scale from {threshold:g} on")
