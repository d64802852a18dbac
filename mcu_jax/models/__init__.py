"""Networks as `base.Model`: pure functions of their parameters. The only place that imports Flax.

A constructor called twice with the same arguments gives the same object, because a model is compared by
identity. Each takes images as uint8, centred and scaled inside, or as floats, taken as they are.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from mcu_jax import base
from mcu_jax.models._adapt import adapt
from mcu_jax.models._cnn import cnn
from mcu_jax.models._mlp import mlp
from mcu_jax.models._preresnet import preresnet

NAMES = ("mlp", "cnn", "preresnet")

__all__ = ["NAMES", "adapt", "cnn", "get", "mlp", "preresnet"]


def get(name: str) -> Callable[..., base.Model]:
    """The constructor of a built-in model: `get("cnn")(num_classes=10)`. Else ValueError."""
    if name not in NAMES:
        nearest = difflib.get_close_matches(name, NAMES, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"No model {name!r}: the models are {', '.join(NAMES)}.{hint}")
    return globals()[name]
