"""How wide what is printed may be; and what goes wrong, in one paragraph on standard error."""

from __future__ import annotations

import shutil
import sys

from mcu_jax import text

LONGEST = 1500
WIDEST = 120
"""Columns of a table."""


def columns(widest: int = WIDEST) -> int:
    """Those of the terminal, at most so many."""
    return min(shutil.get_terminal_size().columns, widest)


def fail(message: str, status: int) -> int:
    """The last look at every message: one paragraph, no control characters. Gives the exit status back."""
    message = text.printable(" ".join(message.split()))
    shown = message if len(message) <= LONGEST else f"{message[:LONGEST]}…"
    print(f"mcu-jax: {shown}", file=sys.stderr)
    return status
