"""What charts share: colours, and numbers over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mcu_jax import metrics
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
    edges = values.quantile([0.5, low, high], axis=1)
    return edges.iloc[0], edges.iloc[1], edges.iloc[2]


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
