"""mcu-jax report: one HTML file of one run or several."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from mcu_jax import report as reports
from mcu_jax.cli import _flags, _messages


@dataclasses.dataclass(frozen=True)
class Report:
    """Write one HTML file that shows a run, or several side by side. It needs no network and no other file."""

    runs: Annotated[tuple[str, ...], "Run directories; they may stand right after `report` too."] = ()
    to: Annotated[
        str | None, "Where to write it: FILE.html (default: report.html in the directory of a single run)."
    ] = None


FLAGS = {"report": (Report,)}


def report(arguments: list[str]) -> int:
    leading = next((i for i, each in enumerate(arguments) if each.startswith("-")), len(arguments))
    if leading:
        arguments = ["--runs", *arguments]
    given = _flags.parse(arguments, "report", Report)
    if isinstance(given, int):
        return given
    if not given.get("runs"):
        return _messages.fail(
            "report on which run? As in `mcu-jax report RUN`, or `mcu-jax report RUN RUN --to FILE`", 2
        )
    place = reports.page(given["runs"], given.get("to"))
    print(f"Written to {place} ({place.stat().st_size / 1e6:.1f} MB): open it in a browser.")
    return 0
