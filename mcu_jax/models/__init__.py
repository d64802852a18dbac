"""Networks as `base.Model`: pure functions of their parameters. The only place that imports Flax.

A constructor called twice with the same arguments gives the same object, because a model is compared by
identity. All take images as uint8, which are centred and scaled inside, or as floats, which are not; `normalized`
scales them otherwise. `linen`, `nnx` and, for anything else, `adapt` make a Model of a custom network; `in_bfloat16`
makes of any Model a cheaper one.
"""

from __future__ import annotations

from mcu_jax.models._adapt import adapt
from mcu_jax.models._check import check, check_floats
from mcu_jax.models._cnn import cnn
from mcu_jax.models._linen import as_float, linen
from mcu_jax.models._mlp import mlp
from mcu_jax.models._nnx import nnx
from mcu_jax.models._normalize import NORMALIZATIONS, normalized
from mcu_jax.models._precision import in_bfloat16
from mcu_jax.models._preresnet import preresnet
from mcu_jax.models._resnet import resnet18, resnet50
from mcu_jax.models._swin import swin
from mcu_jax.models._vgg import vgg16_bn
from mcu_jax.models._vit import vit

NAMES = ("mlp", "cnn", "preresnet", "resnet18", "resnet50", "vgg16_bn", "vit", "swin")

__all__ = ["NAMES", "NORMALIZATIONS", "adapt", "as_float", "check", "check_floats", "cnn", "in_bfloat16", "linen",
           "mlp", "nnx", "normalized", "preresnet", "resnet18", "resnet50", "swin", "vgg16_bn", "vit"]  # fmt: skip
