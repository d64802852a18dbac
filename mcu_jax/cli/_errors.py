"""Errors of users and of machines, told without a traceback."""

from __future__ import annotations

import os

import jax

from mcu_jax import base, interrupts, runs, sharding, text
from mcu_jax.checkpoint import DamagedCheckpointError
from mcu_jax.cli import _messages

LONGEST_CAUSE = 200
PATIENCE = 5.0
"""Seconds that a process which failed has for an orderly end, together with the others."""


def told(error: Exception) -> int | None:
    """Tells an error and gives the exit status; None, and nothing is told, where it is a mistake of the program."""
    status = _told(error)
    if jax.distributed.is_initialized():
        # It waits for the others, and they wait for this one, unless they failed too.
        interrupts.end_within(PATIENCE, 1 if status is None else status)
    return status


def _told(error: Exception) -> int | None:
    if isinstance(error, base.UserError | text.TextError | DamagedCheckpointError):
        return _messages.fail(str(error), 2)
    if isinstance(error, runs.InterruptedRunError):
        return _messages.fail(f"{error}: give the same command again to go on", 130)
    if isinstance(error, OSError):  # a full disk, a directory that went away
        return _messages.fail(f"{error}; what was finished is kept: give the same command again to go on", 1)
    if isinstance(error, MemoryError) or _is_of_memory(error):
        why = " ".join(str(error).split())[:LONGEST_CAUSE] or "MemoryError"
        return _messages.fail(
            f"the memory is too small ({why}). Ask for a smaller model, fewer seeds at a time or smaller batches; on a "
            "GPU or TPU also for --precision bfloat16, or a deep network with remat=true, and on several for --mesh "
            "fsdp=N, which shares the parameters out (unasked where they alone do not fit); what was finished is kept",
            1,
        )
    if isinstance(error, jax.errors.JaxRuntimeError) and sharding.are_several():
        _lost(error)
    return None


def _is_of_memory(error: Exception) -> bool:
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def _lost(error: Exception) -> None:
    """What computes with a process that is gone fails; so would an orderly end, which waits for it."""
    _messages.fail(
        f"another process of this run is gone ({' '.join(str(error).split())[:LONGEST_CAUSE]}). What was finished is "
        "kept, and the state of training of the last seconds: give the same command again to every process to go on",
        1,
    )
    os._exit(1)
