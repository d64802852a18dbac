"""What tables share: columns, numbers over seeds, and their layout as plain text."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mcu_jax import metrics, text

WIDTH = 80
BEST = "best value"
"""The name of the row below the headers, where any column has one."""
LABEL = 28
"""Names are wrapped to so many characters where the columns do not fit beside them."""
FEW = 4
"""From so many seeds on a mean has an interval; of fewer the range says what there is."""


class Column(NamedTuple):
    """Of a table. header: may have several lines. cells: one a row; may have several lines."""

    header: str
    best: str
    cells: Sequence[str]
    left: bool = False


class Grid(NamedTuple):
    """A table. labels: of its rows. sections: rows after which a line is drawn."""

    labels: Sequence[str]
    columns: Sequence[Column]
    sections: Sequence[int] = ()


class _Names(textwrap.TextWrapper):
    """Breaks names of methods between their options too."""

    wordsep_re = re.compile(r"(\s+|(?<=[:,])(?=\S))")


def describe(config: Mapping[str, Any], seeds: int, *, request: bool = True) -> str:
    """`digits, mlp, forget random:0.2, 5 seeds`; the precision too, where it is not float32."""
    asked = [config["precision"]] if "precision" in config else []
    asked += [described_request(config)] if request else []
    return ", ".join([config["dataset"], described_model(config), *asked, plural(seeds, "seed")])


def described_request(config: Mapping[str, Any]) -> str:
    return f"forget {_file_name(config['forget'])}"


def described_model(config: Mapping[str, Any]) -> str:
    return _file_name(config["model"])


def _file_name(given: str) -> str:
    """What a user brings by a file, without the folders it lies in."""
    return given.rpartition("/")[2] if ".py:" in given or given.endswith(".json") else given


def plural(n: int, word: str) -> str:
    return f"{n} {word}{'s' if n != 1 else ''}"


def render(parts: Iterable[str | Grid], width: int) -> str:
    """Paragraphs and tables as plain text of at most `width` columns, wherever a number does not need more."""
    lines: list[str] = []
    for part in parts:
        if isinstance(part, Grid):
            lines += _lay_out(_printable(part), width)
        else:
            lines += textwrap.wrap(text.printable(part), width) or [""]
    return "\n".join(line.rstrip() for line in lines)


def _printable(grid: Grid) -> Grid:
    """Without control characters, whatever files of results call their methods."""

    def clean(lines: str) -> str:
        return "\n".join(map(text.printable, lines.split("\n")))

    columns = [c._replace(header=clean(c.header), cells=list(map(clean, c.cells))) for c in grid.columns]
    return grid._replace(labels=list(map(clean, grid.labels)), columns=columns)


def _lay_out(grid: Grid, width: int) -> list[str]:
    """What does not fit beside the names goes on in a second table: a number is never broken."""
    needs = [2 + max(map(_width, (c.header, c.best, *c.cells))) for c in grid.columns]
    room = width - sum(needs)
    # A name is broken between its options, and where one of them is longer than any room.
    words = (word for label in grid.labels for word in _Names.wordsep_re.split(label))
    least = min(max(map(len, words), default=0) + 2, LABEL)
    labels = ["\n".join(wrap_name(label, room if room >= max(least, 16) else LABEL)) for label in grid.labels]
    first = max(map(_width, [*labels, BEST]))
    tables: list[list[Column]] = [[]]
    used = first
    for column, need in zip(grid.columns, needs, strict=True):
        if tables[-1] and used + need > width:
            tables.append([])
            used = first
        tables[-1].append(column)
        used += need
    out: list[str] = []
    for columns in tables:
        out += [*[""] * bool(out), *_print(labels, first, columns, grid.sections)]
    return out


def _print(labels: Sequence[str], first: int, columns: Sequence[Column], sections: Sequence[int]) -> list[str]:
    from rich import box, console, table

    plain = box.Box("    \n    \n ── \n    \n ── \n ── \n    \n    \n".replace(" ── ", "────"))
    out = table.Table(box=plain, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="")
    lines = max(column.header.count("\n") for column in columns) + 1
    told = any(column.best for column in columns)
    out.add_column("\n" * lines + BEST if told else "", no_wrap=True, min_width=first)
    for column in columns:
        head = column.header + ("\n" * (lines - column.header.count("\n")) + column.best) * told
        out.add_column(head, no_wrap=True, justify="left" if column.left else "right")
    for i, label in enumerate(labels):
        cells = [column.cells[i] for column in columns]
        if any(cells) or label.startswith("…"):
            out.add_row(label, *cells, end_section=i in sections)
    # Wide enough for everything, without colours whatever the environment says, and brackets are no markup.
    paper = console.Console(file=io.StringIO(), width=10_000, color_system=None, force_terminal=False,
                            legacy_windows=False, markup=False, emoji=False, highlight=False)  # fmt: skip
    with paper.capture() as printed:
        paper.print(out)
    return printed.get().splitlines()


def _width(lines: str) -> int:
    return max(map(len, lines.split("\n")))


def wrap_name(name: str, width: int) -> list[str]:
    return [line for part in name.split("\n") for line in _Names(width, subsequent_indent="  ").wrap(part)]


# Numbers over seeds


def spreading(seeds: int) -> str:
    """What stands beside a mean."""
    if seeds < 2:
        return "one seed; an interval needs more"
    if seeds < FEW:
        return f"mean over {seeds} seeds [smallest–largest]; an interval needs at least {FEW}"
    return f"mean over {seeds} seeds; ± is the half-width of its 95 % confidence interval (Student t)"


def spread(values: Iterable[float | int], decimals: int | None = None) -> tuple[str, str]:
    """Mean and ± half-width, or of few seeds the range, as text; decimals: None for three significant digits.

    Values that are not finite have no mean: of how many seeds they are is said instead.
    """
    numbers = [float(value) for value in values]
    if not numbers:
        return "–", ""
    if bad := sum(not math.isfinite(value) for value in numbers):
        return "not finite", f"{bad}/{len(numbers)}"
    mean, half = metrics.mean_interval(numbers)
    if decimals is None:
        decimals = _decimals(max(abs(mean), half if half and len(numbers) >= FEW else max(map(abs, numbers))))
    if half is None:
        return plain(mean, decimals), ""
    if len(numbers) < FEW:
        return plain(mean, decimals), f"[{plain(min(numbers), decimals)}–{plain(max(numbers), decimals)}]"
    return plain(mean, decimals), f"±{plain(half, decimals)}"


def cells(values: Iterable[Iterable[float]], decimals: int | None = None, *, interval: bool = True) -> list[str]:
    """Of every row's seeds."""
    parts = [spread(seeds, decimals) for seeds in values]
    return aligned((mean, beside if interval else "") for mean, beside in parts)


def aligned(parts: Iterable[tuple[str, str]]) -> list[str]:
    """Cells of (mean, what stands beside it or nothing), the means above each other."""
    parts = list(parts)
    width = max((len(beside) for _, beside in parts), default=0)
    return [f"{mean} {beside.ljust(width)}" if width else mean for mean, beside in parts]


def mean(values: Iterable[float], decimals: int | None = None) -> str:
    return spread(values, decimals)[0]


def plain(value: float, decimals: int) -> str:
    """Never -0.0; from a million on as 1.2e+06."""
    if abs(value) >= 1e6:
        return f"{value:.1e}"
    return f"{round(value, decimals) + 0.0:.{decimals}f}"


def _decimals(size: float) -> int:
    """Those that show three significant digits, four at most: less than 0.0001 is nothing here."""
    return 0 if size < 5e-5 else min(max(2 - math.floor(math.log10(size)), 0), 4)
