"""Networks as `base.Model`: pure functions of their parameters. The only place that imports Flax.

A constructor called twice with the same arguments gives the same object, because a model is compared by
identity. Each takes images as uint8, centred and scaled inside, or as floats, taken as they are.
"""

from __future__ import annotations

from mcu_jax.models._adapt import adapt
from mcu_jax.models._cnn import cnn
from mcu_jax.models._linen import as_float
from mcu_jax.models._mlp import mlp
from mcu_jax.models._preresnet import preresnet

NAMES = ("mlp", "cnn", "preresnet")

__all__ = ["NAMES", "adapt", "as_float", "cnn", "mlp", "preresnet"]
