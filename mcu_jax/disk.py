"""What is written to disk: all or nothing, there after a loss of power, and never through a link.

Imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from typing import BinaryIO

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF)
"""What file systems say that have none, or none of a folder."""


@contextlib.contextmanager
def placing(file: pathlib.Path) -> Iterator[BinaryIO]:
    """What is written inside takes the place of `file`, be that a link; where it fails, nothing has changed.

    Of several that write one file at the same time, each writes it whole, and the last one's stays.
    """
    sweep(file.parent)
    part = workplace(file.parent)
    try:
        with part.open("xb") as opened:  # x follows no link
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        part.replace(file)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(part):
            error.filename = str(file)  # which one knows
        raise
    sync(file.parent)


def write(file: pathlib.Path, content: str) -> None:
    """Text as UTF-8."""
    with placing(file) as opened:
        opened.write(content.encode())


def sync(directory: pathlib.Path) -> None:
    """The names in a folder survive a loss of power, where its file system can see to that."""
    with contextlib.suppress(OSError), _opened(directory) as handle:
        os.fsync(handle)


@contextlib.contextmanager
def in_turn(directory: pathlib.Path) -> Iterator[None]:
    """One at a time, of threads and processes that use this for one folder; all at once where it cannot be locked."""
    with _opened(directory) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield  # closing it gives the lock back


@contextlib.contextmanager
def _opened(directory: pathlib.Path) -> Iterator[int]:
    handle = os.open(directory, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def lock(file: pathlib.Path, holder: str) -> int | None:
    """Takes a lock that ends with this process, or when the descriptor is closed that this gives; `holder` is told
    beside it. None where another has it. Raises OSError, also where the file system has no locks (`has_no_locks`).
    """
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        os.write(handle, holder.encode())
    except BlockingIOError:
        os.close(handle)
        return None
    except BaseException:
        os.close(handle)
        raise
    return handle


def holder(file: pathlib.Path) -> str | None:
    """Who has the lock `file`, as it told; None where nobody has it. Writes nothing."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.read(handle, 1000).decode(errors="replace")
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    finally:
        os.close(handle)
    return None


def has_no_locks(error: OSError) -> bool:
    """Whether a file system says by this that it has none."""
    return error.errno in _NO_LOCKS


_TOKEN = secrets.token_hex(4)
"""Of this process: its number may have been another's before, and is the same in every container."""
_PREFIX = ".saving-"
_SAVING = re.compile(re.escape(_PREFIX) + r"(?P<host>.+)-(?P<pid>[0-9]+)-(?P<token>[0-9a-f]{8})-[0-9a-f]{8}")


def workplace(directory: pathlib.Path) -> pathlib.Path:
    """Where to make a file or folder that is then moved to a place in `directory`; its maker removes it."""
    return directory / f"{_PREFIX}{socket.gethostname()}-{os.getpid()}-{_TOKEN}-{secrets.token_hex(4)}"


def is_workplace(place: pathlib.Path) -> bool:
    """By its name."""
    return place.name.startswith(_PREFIX)


def sweep(directory: pathlib.Path) -> None:
    """Removes the workplaces of killed processes of this machine; of other machines nothing is known."""
    for left in directory.glob(f"{_PREFIX}*"):
        saving = _SAVING.fullmatch(left.name)
        if saving and saving["host"] == socket.gethostname() and not _is_at_work(int(saving["pid"]), saving["token"]):
            shutil.rmtree(left, ignore_errors=True)
            with contextlib.suppress(OSError):  # a file, or a link
                left.unlink()


def _is_at_work(pid: int, token: str) -> bool:
    if pid == os.getpid():
        return token == _TOKEN
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def aside(place: pathlib.Path) -> pathlib.Path:
    """Renames what is damaged, so that its place is free and nothing is lost: to where."""
    number = 1
    while os.path.lexists(to := place.with_name(f"{place.name}.damaged-{number}")):
        number += 1
    place.rename(to)
    return to
