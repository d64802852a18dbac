"""Networks as `base.Model`: pure functions of their parameters. The only place that imports Flax.

A constructor called twice with the same arguments gives the same object, because a model is compared by
identity. Each takes images as uint8, centred and scaled inside, or as floats, taken as they are. One's own network
becomes a Model by `linen`, `nnx` or, any other, by `adapt`.
"""

from __future__ import annotations

from mcu_jax.models._adapt import adapt
from mcu_jax.models._check import check
from mcu_jax.models._cnn import cnn
from mcu_jax.models._linen import as_float, linen
from mcu_jax.models._mlp import mlp
from mcu_jax.models._nnx import nnx
from mcu_jax.models._preresnet import preresnet

NAMES = ("mlp", "cnn", "preresnet")

__all__ = ["NAMES", "adapt", "as_float", "check", "cnn", "linen", "mlp", "nnx", "preresnet"]
