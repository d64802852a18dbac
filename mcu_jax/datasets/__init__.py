"""Image-classification sets as arrays: embedded digits, and any prepared tensorflow-datasets directory."""

from __future__ import annotations

import os

from mcu_jax.augmentations import crop_and_flip
from mcu_jax.datasets import _folder, _tfds
from mcu_jax.datasets._cache import cache_directory
from mcu_jax.datasets._data import Data, arrays, check
from mcu_jax.datasets._digits import digits
from mcu_jax.datasets._folder import folder
from mcu_jax.datasets._npz import npz
from mcu_jax.datasets._tfds import prepared

NAMES = ("digits",)
FOLDER = "folder:"
"""What the name of a folder of pictures begins with, as `folder:DIR`; see `folder`."""

__all__ = ["FOLDER", "NAMES", "Data", "absolute", "arrays", "cache_directory", "check", "crop_and_flip", "digits",
           "folder", "load", "npz", "prepared"]  # fmt: skip


def absolute(name: str) -> str:
    """The same data set by a name that holds in every working directory. Raises UserError for no folder of pictures."""
    return f"{FOLDER}{_folder.absolute(name.removeprefix(FOLDER))}" if name.startswith(FOLDER) else name


def load(name: str, data_dir: str | os.PathLike[str] | None = None) -> Data:
    """A data set by name: one of NAMES, `folder:DIR` (see `folder`), or one that tensorflow-datasets prepared under
    data_dir.

    data_dir: default $TFDS_DATA_DIR, else ~/tensorflow_datasets; the others do not need it. Nothing is downloaded.
    Decoded images are kept in $MCU_JAX_CACHE (default ~/.cache/mcu_jax) and verified when read back.
    Raises ValueError for a set that is unknown, not prepared, or not one of equally sized, labelled images.
    """
    if name.startswith(FOLDER):
        return folder(name.removeprefix(FOLDER))
    if name in NAMES:
        return globals()[name](data_dir)
    return _tfds.load(name, data_dir, known=NAMES)
