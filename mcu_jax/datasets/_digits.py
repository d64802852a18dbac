from __future__ import annotations

import os

import numpy as np

from mcu_jax.datasets import _data

_TRAIN = 1200


def digits(data_dir: str | os.PathLike[str] | None = None) -> _data.Data:
    """1,797 handwritten digits of 8×8 pixels from scikit-learn, 1,200 of them for training."""
    from sklearn import datasets as sklearn_datasets

    bunch = sklearn_datasets.load_digits()
    x = np.rint(bunch.images[..., None] * (255 / 16)).astype(np.uint8)
    y = bunch.target.astype(np.int32)
    order = np.random.RandomState(0).permutation(len(y))  # this generator's stream is frozen; default_rng's is not
    train, test = ({"x": x[part], "y": y[part]} for part in (order[:_TRAIN], order[_TRAIN:]))
    class_names = tuple(str(digit) for digit in bunch.target_names)
    return _data.join("digits", train, test, class_names, _data.digest(train, test), augment=None)
