"""Ctrl-C and SIGTERM, heeded by a thread of its own: at once, while the main thread is inside compiled code too.

Python runs its signal handlers between two of its own instructions, in the main thread, and two signals before that
become one. What is written to the wake-up socket is neither late nor lost. Imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

STATUS = 130
NUMBERS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def heeded(act: Callable[[], None]) -> Iterator[None]:
    """While inside, `act()` is called in a thread of its own for every SIGINT and SIGTERM, in place of their handlers.

    From the main thread alone. May be nested: the innermost acts.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def listen() -> None:
        while received := reader.recv(64):
            for number in received:
                if number in NUMBERS:
                    act()

    thread = threading.Thread(target=listen, name="interrupts", daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    handlers = {number: signal.signal(number, _nothing) for number in NUMBERS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        writer.close()
        thread.join(1.0)
        reader.close()


def end(message: str) -> NoReturn:
    """Ends the process with status 130, whatever its other threads do."""
    end_within(1.0, STATUS)  # a flush may wait for a lock whose holder never comes back
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    with contextlib.suppress(OSError):
        os.write(2, f"mcu-jax: {message}\n".encode())
    os._exit(STATUS)


def end_within(seconds: float, status: int) -> None:
    """Ends the process after so many seconds, whatever its threads do, unless it has ended by itself."""
    last = threading.Timer(seconds, os._exit, [status])
    last.daemon = True
    last.start()


def _nothing(*_: object) -> None:
    """The wake-up socket has the signal already."""
