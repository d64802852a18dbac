"""What tables share: rows and columns as text."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mcu_jax import metrics

WIDTH = 108
SPREAD = "± is the half-width of the mean's 95 % confidence interval (Student t)"
NO_INTERVAL = "An interval needs at least two seeds"
RULE = None
"""In place of a row: a line across the table."""


class _Names(textwrap.TextWrapper):
    """Breaks names of methods between their options too."""

    wordsep_re = re.compile(r"(\s+|(?<=[:,])(?=\S))")


def describe(config: Mapping[str, Any], seeds: int) -> str:
    """`digits, mlp, forget random:0.2, 5 seeds`."""
    told = f"{seeds} seed{'s' if seeds != 1 else ''}"
    return f"{config['dataset']}, {config['model']}, forget {config['forget']}, {told}"


def lay_out(rows: Sequence[Sequence[str] | str | None]) -> list[str]:
    """Lines of rows (a label, then cells set to the right). None is a rule, a text by itself a line across the table.

    All rows have as many cells.
    """
    full = [row for row in rows if row is not None and not isinstance(row, str)]
    widths = [max(map(len, column)) for column in zip(*(row[1:] for row in full), strict=True)]
    # Long names wrap, so that the numbers always fit the line.
    room = max(16, WIDTH - sum(w + 2 for w in widths))
    labels = [wrap_name(row[0], room) or [""] for row in full]
    first = max(len(line) for lines in labels for line in lines)
    out, wrapped = [], iter(labels)
    for row in rows:
        if row is None:
            out.append("─" * (first + sum(w + 2 for w in widths)))
        elif isinstance(row, str):
            out += wrap([row])
        else:
            head, *more = next(wrapped)
            cells = (c.rjust(w) for c, w in zip(row[1:], widths, strict=True))
            out += ["  ".join([head.ljust(first), *cells]), *more]
    return out


def aligned(parts: Iterable[tuple[str, str]]) -> list[str]:
    """Cells of (mean, ± half-width or nothing), the means above each other."""
    parts = list(parts)
    width = max((len(spread) for _, spread in parts), default=0)
    return [f"{mean} {spread.ljust(width)}" if width else mean for mean, spread in parts]


def wrap_name(name: str, width: int) -> list[str]:
    return _Names(width, subsequent_indent="  ").wrap(name)


def wrap(notes: Iterable[str]) -> list[str]:
    return [line for note in notes for line in textwrap.wrap(note, WIDTH)]


def spread(values: Sequence[float | int], decimals: int | None = None) -> tuple[str, str]:
    """Mean and ± half-width as text; decimals: None for three significant digits.

    Values that are not finite have no mean: how many they are is told instead.
    """
    if not values:
        return "–", ""
    for name, test in (("nan", math.isnan), ("∞", math.isinf)):
        if bad := sum(map(test, values)):
            return name, f"in {bad}/{len(values)}"
    return of_interval(*metrics.mean_interval([float(value) for value in values]), decimals)


def of_interval(mean: float, half: float | None, decimals: int | None = None) -> tuple[str, str]:
    """The same of a mean and a half-width already taken."""
    if not math.isfinite(mean):
        return str(mean).replace("inf", "∞"), ""
    if decimals is None:
        decimals = _decimals(max(abs(mean), half or 0.0))
    return plain(mean, decimals), "" if half is None else f"±{plain(half, decimals)}"


def mean(values: Sequence[float | int], decimals: int | None = None) -> str:
    return spread(values, decimals)[0]


def plain(value: float, decimals: int) -> str:
    """Never -0.0; from a million on as 1.2e+06."""
    if abs(value) >= 1e6:
        return f"{value:.1e}"
    return f"{round(value, decimals) + 0.0:.{decimals}f}"


def _decimals(size: float) -> int:
    """Those that show three significant digits, four at most: less than 0.0001 is nothing here."""
    return 0 if size < 5e-5 else min(max(2 - math.floor(math.log10(size)), 0), 4)
