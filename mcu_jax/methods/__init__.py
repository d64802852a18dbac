"""Unlearning methods: (problem, key, *, hyper-parameters) -> params. Signatures carry the papers' defaults.

A method is one file here and its lines below; `NAMES` is the registry, a signature the schema.
"""

from mcu_jax.methods._finetune import finetune
from mcu_jax.methods._gradient_ascent import gradient_ascent
from mcu_jax.methods._l1_sparse import l1_sparse
from mcu_jax.methods._mcu import mcu
from mcu_jax.methods._neg_tv import neg_tv
from mcu_jax.methods._neggrad_plus import neggrad_plus
from mcu_jax.methods._random_label import random_label
from mcu_jax.methods._retrain import retrain
from mcu_jax.methods._salun import salun
from mcu_jax.methods._sfron import sfron
from mcu_jax.methods._ssd import ssd

NAMES = (
    "retrain",
    "finetune",
    "l1_sparse",
    "gradient_ascent",
    "neggrad_plus",
    "random_label",
    "salun",
    "neg_tv",
    "sfron",
    "ssd",
    "mcu",
)

__all__ = [
    "NAMES",
    "finetune",
    "gradient_ascent",
    "l1_sparse",
    "mcu",
    "neg_tv",
    "neggrad_plus",
    "random_label",
    "retrain",
    "salun",
    "sfron",
    "ssd",
]
