"""Arrays of nested dicts as orbax keeps them: by one thread at a time, of one process, and without its log."""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import re
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax

_ALONE = threading.Lock()
"""Savers of one process share state inside orbax: at the same time in several threads they spoil each other's."""


def write(directory: pathlib.Path, tree: dict[str, Any]) -> None:
    """Raises OSError where the disk is full, say."""
    import orbax.checkpoint as ocp

    try:
        with _ALONE, _silent():
            try:
                with ocp.StandardCheckpointer(**_options()) as checkpointer:
                    checkpointer.save(directory.absolute(), tree)
                    checkpointer.wait_until_finished()
            except BaseException:
                time.sleep(0.2)  # its threads write on, for a moment, when it has given up
                raise
    except ValueError as error:
        # Tensorstore's way of telling an error of the system, as that a disk is full.
        if (code := re.search(r"os_error_code='([0-9]+)'", str(error))) is None:
            raise
        number = int(code[1])
        raise OSError(number, os.strerror(number), str(directory.parents[2])) from error


def read(directory: pathlib.Path, target: dict[str, Any]) -> dict[str, Any]:
    """target: arrays of the same shapes and dtypes. Raises whatever orbax does."""
    import orbax.checkpoint as ocp

    with _ALONE, ocp.StandardCheckpointer(**_options()) as checkpointer:
        return checkpointer.restore(directory.absolute(), target)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Orbax logs a traceback of what it raises, too, and its threads tell of that to an event loop that has ended."""
    logger, hook = logging.getLogger("absl"), sys.unraisablehook
    before, logger.disabled = logger.disabled, True

    def told(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    sys.unraisablehook = told
    try:
        yield
    finally:
        logger.disabled, sys.unraisablehook = before, hook


def _options() -> dict[str, Any]:
    """Of several processes each reads and writes by itself: orbax would wait for the others."""
    if jax.process_count() == 1:
        return {}
    import orbax.checkpoint as ocp

    own = jax.process_index()
    return {
        "multiprocessing_options": ocp.options.MultiprocessingOptions(
            primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process-{own}"
        )
    }
