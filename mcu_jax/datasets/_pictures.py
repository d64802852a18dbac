"""Encoded pictures to pixels, within limits: files of others are not trusted."""

from __future__ import annotations

import io
import pathlib
import warnings
from typing import Any

from mcu_jax import text

FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
"""Pillow tells what a file is by its content, and some of its decoders run a program, or read other files."""
LARGEST = 16_384
"""Pixels of a side."""


def decode(file: pathlib.Path | io.BytesIO, mode: str) -> Any:
    """A Pillow image of this mode ("RGB", "L"). Raises ValueError for what is none, damaged or too large to be one."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as opened:
                if max(opened.size) > LARGEST:
                    raise ValueError(f"it has {opened.size[0]} × {opened.size[1]} pixels")
                return opened.convert(mode)
    except UnidentifiedImageError as error:
        raise ValueError(f"it is none of {', '.join(FORMATS)}") from error
    except Exception as error:  # of a damaged file decoders raise whatever they run into
        raise ValueError(f"{type(error).__name__}: {text.plain(error)}") from error
