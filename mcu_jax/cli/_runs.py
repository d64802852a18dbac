"""mcu-jax runs: the runs there are, one a line. Reads a few small files of each and imports no jax."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
import statistics
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from mcu_jax import disk, text
from mcu_jax.cli import _messages

CONFIG, SUMMARY, INDEX, LOCK = "config.yaml", "results.json", "stages.json", ".lock"
FILES = (CONFIG, SUMMARY, INDEX, "results.csv", "environment.json")
"""Of a run directory: a folder with two of them is one, whatever is wrong with it."""
KINDS = ("unlearn", "connect", "tune")
DEEPEST = 3
"""Folders below a given one in which runs are looked for."""
FEW = 4
"""From so many seeds on a mean has an interval, as in tables."""


class Found(NamedTuple):
    """A run. state: running, finished, unfinished or damaged; why: of a damaged one. finished, stages: of the stages,
    those of every seed counted. modified: seconds since the epoch. headline: numbers, as fractions.
    """

    directory: str
    kind: str | None
    dataset: str | None
    model: str | None
    forget: str | None
    seeds: Sequence[int]
    state: str
    why: str | None
    finished: int
    stages: int
    modified: float
    bytes: int
    headline: Mapping[str, Any] | None


@dataclasses.dataclass(frozen=True)
class Runs:
    json: Annotated[bool, "All that is known of them, as a JSON list."] = False


FLAGS = {"runs": (Runs,)}


class _DamagedError(ValueError):
    """What is wrong with a run's file."""


def table(arguments: list[str]) -> int:
    """Prints a line for every run, the newest first."""
    parser = argparse.ArgumentParser("mcu-jax runs", description="List runs, the newest first.")
    parser.add_argument("directory", nargs="*", default=["runs"], help="runs, or folders of them (default: runs)")
    parser.add_argument("--json", action="store_true", help="all that is known of them, as a JSON list")
    try:
        given = parser.parse_args(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    if missing := [place for place in given.directory if not pathlib.Path(place).is_dir()]:
        raise text.TextError(f"there is no folder {text.plain(missing[0])}; list others, as `mcu-jax runs DIR`")
    places = dict.fromkeys(place for top in given.directory for place in _candidates(pathlib.Path(top), 0))
    found = sorted(filter(None, map(look, places)), key=lambda run: -run.modified)
    if given.json:
        print(json.dumps([_plain(run) for run in found], indent=1))
    else:
        print(_lines(found) if found else f"no runs in {', '.join(map(text.plain, given.directory))}")
    return 0


def look(place: pathlib.Path) -> Found | None:
    """What there is to tell of a run directory; None where the folder is none."""
    config: Mapping[str, Any] = {}
    results: Mapping[str, Any] | None = None
    headline, why = None, None
    finished = stages = 0
    try:
        results = _results(place)
        config = results["config"] if results else {}
        if not results or _is_older(place):
            config = _config(place)
            results = results if results and _is_same(config, results["config"]) else None
        finished, stages = _stages(place)
        headline = None if results is None else _HEADLINES[config["kind"]](results)
    except _DamagedError as error:
        why, config = str(error), config or _config_if_any(place)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"{SUMMARY} holds something else ({type(error).__name__}: {error})"
    if config.get("kind") not in KINDS and (why is None or sum((place / name).is_file() for name in FILES) < 2):
        return None
    modified, size = _extent(place)
    state = "damaged" if why else "unfinished" if results is None else "finished"
    if disk.holder(place / LOCK) is not None:
        state = "running"
    seeds = config.get("seeds")
    kind, dataset, model, forget = (_word(config.get(name)) for name in ("kind", "dataset", "model", "forget"))
    return Found(
        directory=str(place),
        kind=kind,
        dataset=dataset,
        model=model,
        forget=forget,
        seeds=seeds if isinstance(seeds, list) else [],
        state=state,
        why=why,
        finished=finished,
        stages=stages,
        modified=modified,
        bytes=size,
        headline=headline,
    )


def _word(value: Any) -> str | None:
    return None if value is None else str(value)


def _candidates(place: pathlib.Path, depth: int) -> Iterator[pathlib.Path]:
    """Folders that may be runs; what lies in a run is none."""
    if any((place / name).is_file() for name in (CONFIG, SUMMARY)):
        yield place
    elif depth < DEEPEST:
        for folder in sorted(map(place.joinpath, _names(place))):
            if not folder.name.startswith(".") and folder.is_dir() and not folder.is_symlink():
                yield from _candidates(folder, depth + 1)


def _results(place: pathlib.Path) -> dict[str, Any] | None:
    """Raises _DamagedError where they are not as they were written."""
    try:
        values = json.loads((place / SUMMARY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError, OSError) as error:
        raise _DamagedError(f"{SUMMARY} cannot be read ({type(error).__name__})") from error
    if not isinstance(values, dict) or not isinstance(values.get("config"), dict):
        raise _DamagedError(f"{SUMMARY} is not the results of a run")
    told = values.pop("sha256", None)  # as `runs` has it, whose import takes a second
    if told is not None and told != hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest():
        raise _DamagedError(f"{SUMMARY} is not as it was written")
    return values


def _config(place: pathlib.Path) -> dict[str, Any]:
    """Raises _DamagedError."""
    try:
        values = text.read_file(place / CONFIG)
    except text.TextError as error:
        raise _DamagedError(str(error)) from error
    if not isinstance(values, dict):
        raise _DamagedError(f"{CONFIG} is not the configuration of a run")
    return values


def _config_if_any(place: pathlib.Path) -> dict[str, Any]:
    """Of a run whose results are damaged."""
    try:
        return _config(place)
    except _DamagedError:
        return {}


def _is_older(place: pathlib.Path) -> bool:
    """Whether a command has begun after the results were written: it writes the configuration first."""
    config = place / CONFIG
    return config.is_file() and config.stat().st_mtime > (place / SUMMARY).stat().st_mtime


def _is_same(config: Mapping[str, Any], of_results: Mapping[str, Any]) -> bool:
    """Whether the results are of all that is asked for by now: a run is extended by more seeds, points, methods."""
    return all(config.get(name) == value for name, value in of_results.items() if name != "resolved")


def _stages(place: pathlib.Path) -> tuple[int, int]:
    """(finished, all) of the run's stages, which may lie elsewhere. Raises _DamagedError."""
    try:
        index = json.loads((place / INDEX).read_text(encoding="utf-8"))
        index.pop("sha256", None)
        stages = [place / folder for of_label in index.values() for folder in of_label.values()]
    except FileNotFoundError:
        return 0, 0
    except (ValueError, AttributeError, RecursionError, OSError) as error:
        raise _DamagedError(f"{INDEX} cannot be read ({type(error).__name__})") from error
    # A stage is moved to its place when it is finished.
    there = {parent: set(_names(parent)) for parent in {stage.parent for stage in stages}}
    return sum(stage.name in there[stage.parent] for stage in stages), len(stages)


def _progress(run: Found) -> str:
    made = f"{run.finished} of {run.stages} stages"
    return {"unfinished": made, "running": f"running, {made}"}.get(run.state, run.state)


def _names(folder: pathlib.Path) -> list[str]:
    """What lies in a folder; nothing of one that cannot be read."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _extent(place: pathlib.Path) -> tuple[float, int]:
    """(when it was last written to, bytes) of all files in a folder."""
    modified, size = place.stat().st_mtime, 0
    for folder, _, files in os.walk(place):
        for name in files:
            try:
                status = os.lstat(os.path.join(folder, name))
            except OSError:  # it went away meanwhile
                continue
            modified, size = max(modified, status.st_mtime), size + status.st_size
    return modified, size


# What came out


def interval(values: Sequence[float]) -> float | None:
    """Half-width of the 95 % confidence interval of the mean (Student t); None of few values."""
    if len(values) < FEW:
        return None
    from scipy import special

    return float(special.stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / len(values) ** 0.5


def _unlearned(results: Mapping[str, Any]) -> dict[str, Any]:
    """avg_gap of MCU and of the best of the methods beside it, which have no retrained model either."""
    gaps: dict[str, list[float]] = {}
    for row in results["rows"]:
        if row["avg_gap"] is not None:
            gaps.setdefault(row["method"], []).append(row["avg_gap"])
    config = results["config"]
    others = {name: statistics.fmean(gaps[name]) for name in (config["pre"], *config["baselines"]) if name in gaps}
    best = min(others, key=lambda name: others[name], default=None)
    return {
        name: None if method is None or method not in gaps else _mean(method, gaps[method])
        for name, method in (("mcu", "mcu"), ("best_other", best))
    }


def _mean(method: str, gaps: Sequence[float]) -> dict[str, Any]:
    return {"method": method, "avg_gap": statistics.fmean(gaps), "half_width": interval(gaps)}


def _connected(results: Mapping[str, Any]) -> dict[str, Any]:
    paths = [pair for pair in results["pairs"] if pair["role"] == "pair"] or results["pairs"]
    return {"paths": len(paths), "connected": sum(bool(pair["connected"]) for pair in paths)}


def _tuned(results: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: best["criterion"] for name, best in results["recipe"]["methods"].items()}
    best = min(found, key=lambda name: found[name], default=None)
    criterion = results["config"]["criterion"]
    return {"criterion": criterion, "method": best, "value": None if best is None else found[best]}


_HEADLINES = {"unlearn": _unlearned, "connect": _connected, "tune": _tuned}


def _headline(kind: str, found: Mapping[str, Any]) -> str:
    if kind == "connect":
        return f"{found['connected']} of {text.plural(found['paths'], 'path')} connected"
    if kind == "tune":
        if found["method"] is None:
            return "every try diverged"
        return f"{text.plain(found['method'])}: {found['criterion']} {100 * found['value']:.2f}"
    told = [
        f"{words} {100 * one['avg_gap']:.2f}" + (f" ±{100 * one['half_width']:.2f}" if one["half_width"] else "")
        for words, one in (("MCU", found["mcu"]), (_method(found["best_other"]), found["best_other"]))
        if one is not None
    ]
    return f"avg_gap: {', '.join(told)}" if told else "no avg_gap"


def _method(one: Mapping[str, Any] | None) -> str:
    return "" if one is None else text.plain(one["method"])


# How it is shown


def _plain(run: Found) -> dict[str, Any]:
    modified = datetime.datetime.fromtimestamp(run.modified, datetime.UTC).isoformat(timespec="seconds")
    return {**run._asdict(), "modified": modified.replace("+00:00", "Z")}


def _lines(found: Sequence[Found]) -> str:
    rows = [("run", "kind", "of", "seeds", "state", "age", "size", "")]
    rows += [
        (
            text.printable(run.directory),
            text.plain(run.kind or "?"),
            ", ".join(text.plain(part) for part in (run.dataset, run.model, run.forget) if part),
            str(len(run.seeds)),
            _progress(run),
            age(time.time() - run.modified),
            size(run.bytes),
            text.plain(run.why) if run.why else _headline(str(run.kind), run.headline) if run.headline else "",
        )
        for run in found
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if sys.stdout.isatty() and sum(widths) + 2 * len(widths) - 2 > _room():
        return "\n".join(line for name, *cells in rows[1:] for line in (name, *_below(*cells)))
    return "\n".join("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in rows)  # fmt: skip


def _below(kind: str, of: str, seeds: str, state: str, old: str, size: str, told: str) -> list[str]:
    """What is told of a run where a terminal has no room for a table: no line of it is broken by the terminal."""
    parts = [kind, of, text.plural(int(seeds), "seed"), state, old, size]
    words = "; ".join([*(part.replace(" ", "\xa0") for part in parts), *filter(None, [told])])
    lines = textwrap.wrap(words, _room(), initial_indent="  ", subsequent_indent="  ")
    return [line.replace("\xa0", " ") for line in lines]


def _room() -> int:
    return _messages.columns(1000)


def age(seconds: float | int) -> str:
    """`40 s`, `3 min`, `5 h`, `12 days`."""
    for unit, length, until in (("s", 1, 90), ("min", 60, 5400), ("h", 3600, 129_600)):
        if seconds < until:
            return f"{max(seconds, 0) / length:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def size(count: float | int) -> str:
    """`12 kB`, `3.4 MB`."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
