"""What a figure for a paper is, and its house style: sizes, type, files that are the same every time."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mcu_jax import text
from mcu_jax.report import _style, _text

WIDTHS = {"column": 3.25, "page": 6.75}
"""Inches, of one column of a journal and of its whole page."""
FORMATS = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}
"""By ending; what of a file's own description is left out, so that equal data give equal files."""
DOTS = 400
"""Per inch, of pictures in dots."""
DOTS_ALONE = 200
"""Of those that a run writes beside its results."""
SMALL = 7.0
"""Points, of everything but what stands at an axis."""
_STYLE = {
    "axes.grid.axis": "y",
    "axes.labelpad": 2.5,
    "axes.labelsize": SMALL,
    "axes.linewidth": 0.6,
    "axes.titlelocation": "left",
    "axes.titlepad": 3.5,
    "axes.titlesize": 7.5,
    "figure.constrained_layout.h_pad": 0.02,
    "figure.constrained_layout.w_pad": 0.02,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that it is the same everywhere
    "font.size": SMALL,
    "hatch.linewidth": 0.6,
    "legend.borderaxespad": 0.0,
    "legend.borderpad": 0.1,
    "legend.columnspacing": 1.2,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.labelspacing": 0.35,
    "lines.linewidth": 1.2,
    "pdf.fonttype": 42,  # TrueType, which journals ask for
    "svg.fonttype": "path",  # letters as outlines: an SVG cannot hold their font
    "svg.hashsalt": "mcu-jax",
    "text.parse_math": False,  # a `$` in a name begins no formula
    "text.usetex": False,
    "xtick.labelsize": SMALL,
    "xtick.major.pad": 2.0,
    "xtick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.labelsize": SMALL,
    "ytick.major.pad": 2.0,
    "ytick.major.size": 2.5,
    "ytick.major.width": 0.6,
}


class Chart(NamedTuple):
    """height: inches. draw: on an empty matplotlib `Figure` of that height. heads: of its data's columns, with units.
    rows: of data, None for what there is none of. note: what a reader must be told beside it.
    """

    height: float
    draw: Callable[[Any], None]
    heads: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""


def painted(chart: Chart, width: str, ending: str) -> bytes:
    """The content of a file of one of the `FORMATS`, as a paper takes it."""
    with drawn(chart, width) as figure:
        return saved(figure, ending, DOTS)


def titled(chart: Chart, title: str) -> bytes:
    """As a PNG that stands alone: a page wide, with a title and the note above."""
    above = [line for words in (title, chart.note) for line in textwrap.wrap(drawable(words), 118)]
    with drawn(chart, "page", 0.15 * len(above) + 0.06) as figure:
        figure.suptitle("\n".join(above), fontsize=7.2, linespacing=1.3)
        return saved(figure, "png", DOTS_ALONE)


@contextlib.contextmanager
def drawn(chart: Chart, width: str, above: float = 0.0) -> Iterator[Any]:
    """A chart on a `Figure` of one of the `WIDTHS`. above: inches that are left for a title."""
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Whatever a user's matplotlibrc says.
    with style.context(_STYLE, after_reset=True):
        figure = Figure(figsize=(WIDTHS[width], chart.height + above), layout="constrained")
        FigureCanvasAgg(figure)
        chart.draw(figure)
        yield figure


def saved(figure: Any, ending: str, dots: int) -> bytes:
    """The content of a file of one of the `FORMATS`, of a figure that `drawn` gives."""
    content = io.BytesIO()
    figure.savefig(content, format=ending, dpi=dots, metadata=FORMATS[ending])
    return content.getvalue()


def as_csv(chart: Chart) -> str:
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(map(text.printable, chart.heads))
    writer.writerows(map(_cell, row) for row in chart.rows)
    return content.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return text.printable(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


# Words


def short(name: str, most: int) -> str:
    """A name of at most so many characters, without its middle: names differ at their end as well."""
    name = drawable(name)
    if len(name) <= most:
        return name
    first = -(-3 * (most - 1) // 5)
    return f"{name[:first]}…{name[len(name) - max(most - 1 - first, 1) :]}"


def wrapped(name: str, width: int, lines: int = 2) -> str:
    """A name on so many lines of so many characters, between its options where there is room, or without its middle."""
    whole = _text.wrap_name(drawable(name), width)
    if len(whole) <= lines:
        return "\n".join(map(str.strip, whole))
    return "\n".join(textwrap.wrap(short(name, lines * width), width, break_on_hyphens=False)[:lines])


def drawable(name: str) -> str:
    """Without control characters; those that the font lacks by their number."""
    known = _letters()
    return "".join(c if ord(c) in known else c.encode("unicode_escape").decode() for c in text.printable(name))


@functools.cache
def _letters() -> frozenset[int]:
    from matplotlib import font_manager, ft2font

    return frozenset(ft2font.FT2Font(font_manager.findfont("DejaVu Sans")).get_charmap())


# Numbers and axes


def floats(values: Sequence[float | None]) -> Any:
    """None as nan."""
    return np.asarray([np.nan if value is None else value for value in values], float)


def finite(*values: Any) -> Any:
    """All that is finite of arrays, in one."""
    flat = np.concatenate([np.ravel(each) for each in values]) if values else np.zeros(0)
    return flat[np.isfinite(flat)]


def dress(axis: Any, along: str = "y") -> None:
    axis.grid(axis=along, color="0.88", linewidth=0.5)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def from_t(axis: Any, *, named: bool) -> None:
    """The x-axis of what lies along a path. named: whether its numbers are told."""
    axis.set_xlim(0.0, 1.0)
    axis.set_xticks([0.0, 0.5, 1.0], ["0", "0.5", "1"] if named else [""] * 3)
    if named:
        axis.tick_params(labelbottom=True)  # which shared axes hide above an empty place
        axis.set_xlabel("t")


def fit_y(axis: Any, seen: Any, most: float | None) -> None:
    """The y-axis of a metric, which is never below 0: a flat curve looks flat, and no tick is beyond what is possible.

    most: what the metric cannot pass, None without such.
    """
    if not len(seen):
        return
    low, high = float(seen.min()), float(seen.max())
    least = 0.04 * most if most is not None else max(0.05 * abs(high), 1e-3)
    pad = max(0.0, least - (high - low)) / 2 + 0.05 * (high - low)
    low, top = max(0.0, low - pad), high + pad
    if most is not None:
        top = min(top, most)
    # A line on the edge is seen whole.
    axis.set_ylim(low - 0.02 * (top - low), top + 0.02 * (top - low))
    axis.locator_params(axis="y", nbins=4)


def panels(figure: Any, count: int, columns: int, **how: Any) -> tuple[list[Any], list[Any]]:
    """(axes, those of empty places), row by row."""
    rows = -(-count // columns)
    axes = list(figure.subplots(rows, columns, squeeze=False, **how).flat)
    for axis in axes[count:]:
        axis.axis("off")
    return axes[:count], axes[count:]


def legend(figure: Any, handles: Mapping[str, Any], free: Sequence[Any], columns: int) -> None:
    """In an empty place, or below everything."""
    if free:
        told = free[0].legend(handles.values(), handles.keys(), loc="upper left", handlelength=1.2)
        told.set_in_layout(False)
    else:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)


def retrained(axis: Any, of: Mapping[str, Any] | None, seed: int | None) -> tuple[dict[str, Any], Any]:
    """The retrained model across a panel: (the legend's entry, what the axis must show). seed: by its place."""
    if of is None:
        return {}, np.zeros(0)
    whole = [of[name] for name in ("middle", "low", "high")]
    middle, low, high = whole if seed is None else [of["seeds"][seed]] * 3
    if middle is None:
        return {}, np.zeros(0)
    axis.axhspan(low, high, color=_style.RETRAIN, alpha=0.15, linewidth=0, zorder=1)
    line = axis.axhline(middle, color=_style.RETRAIN, linewidth=1.1, linestyle=_style.DASHED, zorder=2.5)
    return {"retrained model": line}, np.asarray([low, high], float)
