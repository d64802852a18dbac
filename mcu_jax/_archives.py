"""Arrays in .npz files that others made: read within the machine's memory, without pickles."""

from __future__ import annotations

import os
import pathlib
import zipfile
from collections.abc import Iterable

import numpy as np

from mcu_jax import base, memory, text


def read(file: str | os.PathLike[str], what: str, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of these names, all by default. what: of the file, in messages, as `the data file`.

    Raises UserError for a file that cannot be read, lacks an array, holds Python objects, or more than fits the memory.
    """
    shown = f"{what} {text.plain(file)}"
    try:
        with pathlib.Path(file).open("rb") as content:
            if content.read(2) != b"PK":
                raise base.UserError(f"{shown} cannot be used: it is no .npz file; write it by numpy.savez")
            content.seek(0)
            with np.load(content, allow_pickle=False) as opened:
                there = list(opened.files)
                wanted = there if names is None else list(names)
                if missing := [name for name in wanted if name not in there]:
                    raise base.UserError(
                        f"{shown} cannot be used: it needs the arrays {', '.join(wanted)}; it lacks "
                        f"{', '.join(missing)}"
                    )
                _check_size(shown, opened.zip)
                return {name: _array(opened, name, shown) for name in wanted}
    except base.UserError:
        raise
    except OSError as error:
        raise base.UserError(f"{shown} cannot be read: {error.strerror or text.plain(error)}") from error
    except Exception as error:  # of a damaged file zipfile and NumPy raise whatever they run into
        why = f"{type(error).__name__}: {text.plain(error)}"
        raise base.UserError(f"{shown} cannot be used, it is damaged or no .npz file ({why})") from error


def _check_size(shown: str, archive: zipfile.ZipFile) -> None:
    size, most = sum(member.file_size for member in archive.infolist()), memory.host()
    if size > most:
        raise base.UserError(
            f"{shown} cannot be used: its arrays take {size / 1e9:.1f} GB, this machine has {most / 1e9:.1f} GB"
        )


def _array(opened: np.lib.npyio.NpzFile, name: str, shown: str) -> np.ndarray:
    try:
        array = opened[name]
    except MemoryError as error:  # a header that tells more than there is
        raise base.UserError(f"{shown} cannot be used: {text.plain(name)} takes more memory than there is") from error
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise base.UserError(
            f"{shown} cannot be used: {text.plain(name)} holds Python objects; expected an array of numbers"
        ) from error
    if not isinstance(array, np.ndarray):
        raise base.UserError(f"{shown} cannot be used: {text.plain(name)} is no array")
    return array
