"""mcu-jax diff: two runs side by side."""

from __future__ import annotations

import argparse

from mcu_jax import report
from mcu_jax.cli import _messages


def compare(arguments: list[str]) -> int:
    """Prints what differs in what two runs were asked, made with, and came to."""
    parser = argparse.ArgumentParser("mcu-jax diff", description="Compare two runs of one kind.")
    parser.add_argument("a", help="run directory")
    parser.add_argument("b", help="another")
    try:
        given = parser.parse_args(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    print(report.difference(given.a, given.b, _messages.columns()))
    return 0
