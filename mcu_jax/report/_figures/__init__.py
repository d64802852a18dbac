"""Run directories -> figures for papers, from the numbers of the page; beside each of them its data."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mcu_jax import disk, registry, runs, text
from mcu_jax.report import _connect as _connections
from mcu_jax.report import _page, _table
from mcu_jax.report._figures import _along, _chart, _connect, _curves, _details, _spent
from mcu_jax.report._figures._chart import Chart
from mcu_jax.report._page import _read, _several
from mcu_jax.report._results import Results
from mcu_jax.runs import _directory, _files

Sections = Mapping[str, Any]
"""Of a run's page, by name."""


class _Choice(NamedTuple):
    width: str
    seed: int | None
    pair: str | None


class _Figure(NamedTuple):
    """says: what it shows. seeds: those that it can be of, none where it is of all. data: what makes it, None or empty
    where a run has none. chart: of the sections of a run that has.
    """

    says: str
    data: Callable[[Sections], Any]
    chart: Callable[[Sections, _Choice], Chart]
    seeds: Callable[[Sections], list[int]] | None = None


def _along_path(says: str, names: Sequence[str]) -> _Figure:
    def chart(sections: Sections, choice: _Choice) -> Chart:
        along = sections["explorer"]
        place = None if choice.seed is None else along["seeds"].index(choice.seed)
        return _along.chart(along, names, choice.width, place)

    return _Figure(
        says,
        lambda sections: _along.metrics_of(sections.get("explorer"), names),
        chart,
        lambda sections: sections["explorer"]["seeds"],
    )


def _of(section: str, says: str, chart: Callable[..., Chart]) -> _Figure:
    """What shows all seeds of a section of the page."""
    return _Figure(
        says, lambda sections: sections.get(section), lambda sections, choice: chart(sections[section], choice.width)
    )


def _paths(sections: Sections, choice: _Choice) -> Chart:
    """Of one pair, or of the run's pairs, or where it has none of the two runs of every method."""
    of = sections["curves"]
    paths = [path for path in of["paths"] if path["role"] == "pair"] or of["paths"]
    if choice.pair is not None:
        by_label = {path["label"]: path for path in reversed(of["paths"])}
        # The dash between two names is on few keyboards.
        asked = (label for label in reversed(by_label) if choice.pair in (label, label.replace("–", "-")))
        label = next(asked, choice.pair)
        registry.check(label, reversed(by_label), "pair")
        paths = [by_label[label]]
    return _curves.curves(of, paths, choice.width)


_FIGURES = {
    "path": _along_path("RA, UA, TA and the membership attack along the path", _along.PATH),
    "losses": _along_path("losses along the path", _along.LOSSES),
    "gap": _along_path("both scores and W1 along the path", _along.GAP),
    "confidence": _Figure(
        "confidences of forgotten and unseen examples at both ends and at t*",
        lambda sections: sections.get("views"),
        lambda sections, choice: _details.confidence(
            sections["views"], sections.get("explorer"), choice.width, choice.seed
        ),
        lambda sections: [each["seed"] for each in sections["views"]],
    ),
    "pictures": _Figure(
        "forgotten pictures, and what they are taken for along the path",
        lambda sections: [each for each in sections.get("views") or () if each["examples"]],
        lambda sections, choice: _details.pictures(
            [each for each in sections["views"] if each["examples"]], choice.width, choice.seed
        ),
        lambda sections: [each["seed"] for each in sections["views"] if each["examples"]],
    ),
    "plane": _Figure(
        "losses in the plane of the path's control points",
        lambda sections: sections.get("plane"),
        lambda sections, choice: _details.plane(sections["plane"], choice.width, choice.seed),
        lambda sections: [each["seed"] for each in sections["plane"]],
    ),
    "mask": _of("mask", "share of every layer that is trained", _details.mask),
    "history": _Figure(
        "loss, penalty and t along the steps of training",
        lambda sections: sections.get("history"),
        lambda sections, choice: _details.history(sections["history"], choice.width, choice.seed),
        lambda sections: [each["seed"] for each in sections["history"]["seeds"]],
    ),
    "matrix": _of("matrix", "barriers between all methods, with their tree", _connect.matrix),
    "curves": _Figure("metrics along the paths of pairs, or of one", lambda sections: sections.get("curves"), _paths),
    "barriers": _of("barriers", "barriers of every pair", _connect.barriers),
    "sizes": _of("sizes", "barriers by the size of the forget set", _connect.sizes),
    "controls": _of("controls", "barriers by what a line connects", _connect.controls),
    "seconds": _of("seconds", "where the seconds went", _spent.seconds),
}
SEVERAL = "pareto"
NAMES = (*_FIGURES, SEVERAL)


def write(directory: pathlib.Path, results: Results) -> None:
    """Puts the charts by which a run is known beside its results, as PNG with a title: NAME.png."""
    for name, (title, chart) in _alone(results).items():
        with disk.placing(directory / f"{name}.png") as opened:
            opened.write(_chart.titled(chart, title))


def _alone(results: Results) -> dict[str, tuple[str, Chart]]:
    """(title, chart) by name; of a run of tuning none."""
    kind = results.summary["kind"]
    if kind == "unlearn":
        sections = {"explorer": _page.along(results)}
        titles = {"path": f"Along the path: {_table.describe(results)}"}
    elif kind == "connect":
        grid = results.summary["config"]["grid"]
        of = _connections.describe(results, request=grid != "sizes")
        titles = {"curves": f"Along the paths: {of}", "matrix": f"Barriers between methods: {of}"}
        if grid == "sizes":
            titles["sizes"] = f"Barriers by the size of a random forget set: {of}"
        elif grid != "methods":
            titles["barriers"] = f"Barriers: {of}"
        sections = _page.charts(results, titles)
    else:
        return {}
    choice = _Choice("page", None, None)
    return {
        name: (title, _FIGURES[name].chart(sections, choice))
        for name, title in titles.items()
        if _FIGURES[name].data(sections)
    }


def figures(directory: str | os.PathLike[str]) -> dict[str, str]:
    """The names of the figures that a run has data for, and what each shows. Raises ConfigError as `figure` does."""
    return {name: _FIGURES[name].says for name in _known(_sections(directory)[1])}


def figure(
    name: str,
    run: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    file: str | os.PathLike[str] | None = None,
    *,
    width: str = "column",
    seed: int | None = None,
    pair: str | None = None,
    overwrite: bool = False,
) -> pathlib.Path:
    """Writes one figure of a run directory, and its data beside it as CSV, and gives its place.

    run: several for `pareto`. file: PDF, SVG or PNG by its ending, default NAME.pdf in the working directory. width:
    `column` (3.25 inches) or `page` (6.75). seed: one in place of all, or of the first. pair: of `curves`, by its label
    (default: all). Equal data give equal files. Raises UnknownNameError, and ConfigError for what is no run, an
    unfinished or damaged one, one without data for the figure, a choice that has no effect, and a file that is there.
    """
    registry.check(name, NAMES, "figure")
    registry.check(width, _chart.WIDTHS, "width")
    place = _place(f"{name}.pdf" if file is None else file, overwrite=overwrite)
    directories = [run] if isinstance(run, str | os.PathLike) else list(run)
    choice = _Choice(width, seed, pair)
    if pair is not None and name != "curves":
        raise runs.ConfigError(f"figure {name} is of no pair; leave --pair out")
    chart = _of_several(directories, choice) if name == SEVERAL else _of_one(name, directories, choice)
    content = _chart.painted(chart, width, place.suffix[1:].lower())
    with disk.placing(place) as opened:
        opened.write(content)
    disk.write(place.with_suffix(".csv"), _chart.as_csv(chart))
    return place


def _place(file: str | os.PathLike[str], *, overwrite: bool) -> pathlib.Path:
    place = _files.place(file, "to")
    if place.suffix[1:].lower() not in _chart.FORMATS:
        raise runs.ConfigError(
            f"a figure is a .pdf, .svg or .png file, given {text.plain(place)}; choose one with --to"
        )
    if not place.parent.is_dir():
        raise runs.ConfigError(f"there is no folder {text.plain(place.parent)}; make it, or choose another with --to")
    _directory.check_writable(place.parent, "--to")
    for each in (place, place.with_suffix(".csv")):
        if each.is_dir():
            raise runs.ConfigError(f"{text.plain(each)} is a folder; choose another with --to")
        if os.path.lexists(each) and not overwrite:
            raise runs.ConfigError(
                f"{text.plain(each)} is there already; choose another with --to, or replace it with --overwrite"
            )
    return place


def _of_one(name: str, directories: Sequence[str | os.PathLike[str]], choice: _Choice) -> Chart:
    if len(directories) != 1:
        raise runs.ConfigError(f"figure {name} is of one run, given {len(directories)}; of several there is {SEVERAL}")
    run, sections = _sections(directories[0])
    wanted, known = _FIGURES[name], _known(sections)
    if name not in known:
        has = f"it has {', '.join(known)}" if known else "it has none for any"
        why = " ".join(run.missing)
        raise runs.ConfigError(
            f"{text.plain(run.directory)} has no data for figure {name}: {has}. {_HINTS.get(name, '')}{why}"
        )
    if choice.seed is not None:
        seeds = wanted.seeds(sections) if wanted.seeds is not None else None
        if seeds is None:
            raise runs.ConfigError(f"figure {name} is of all seeds; leave --seed out")
        if choice.seed not in seeds:
            raise runs.ConfigError(
                f"figure {name} has no seed {choice.seed}; there are: {', '.join(map(str, dict.fromkeys(seeds)))}"
            )
    return wanted.chart(sections, choice)


_HINTS = {"plane": "The run's command with `--plane 25` adds it. "}


def _of_several(directories: Sequence[str | os.PathLike[str]], choice: _Choice) -> Chart:
    if choice.seed is not None:
        raise runs.ConfigError(f"figure {SEVERAL} is of all seeds; leave --seed out")
    read = [_read.read_run(directory) for directory in directories]
    for run in read:
        if run.results is None or run.kind != "unlearn":
            raise runs.ConfigError(
                f"figure {SEVERAL} is of runs of `mcu-jax unlearn`; {text.plain(run.directory)} is "
                + (f"one of {run.kind}" if run.results is not None else f"without results. {' '.join(run.missing)}")
            )
    try:
        several = _several.several(read)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise runs.ConfigError(f"the results are not as runs write them ({type(error).__name__}: {error})") from error
    if several is None:
        raise runs.ConfigError(f"figure {SEVERAL} is of at least two runs, given {len(read)}")
    return _spent.pareto(several, choice.width)


def _sections(directory: str | os.PathLike[str]) -> tuple[_read.Run, Sections]:
    """What the page shows of a run. Raises ConfigError where it has no results."""
    run = _read.read_run(directory)
    if run.results is None:
        raise runs.ConfigError(f"{text.plain(run.directory)} has nothing to draw. {' '.join(run.missing)}")
    shown = _page.model([run])["runs"][0]
    return run._replace(missing=shown["missing"]), shown["sections"]


def _known(sections: Sections) -> list[str]:
    return [name for name, each in _FIGURES.items() if each.data(sections)]
