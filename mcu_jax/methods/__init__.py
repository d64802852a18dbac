"""Unlearning methods: (problem, key, *, hyper-parameters) -> params. Signatures carry the papers' defaults.

A method is one file here and its lines below; `NAMES` is the registry, a signature the schema.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

from mcu_jax import registry, training
from mcu_jax.base import Problem, RandomKey
from mcu_jax.methods._bad_teacher import bad_teacher
from mcu_jax.methods._boundary_expand import boundary_expand
from mcu_jax.methods._boundary_shrink import boundary_shrink
from mcu_jax.methods._delete import delete
from mcu_jax.methods._finetune import finetune
from mcu_jax.methods._fisher_noise import fisher_noise
from mcu_jax.methods._grad_diff import grad_diff
from mcu_jax.methods._gradient_ascent import gradient_ascent
from mcu_jax.methods._influence import influence
from mcu_jax.methods._l1_sparse import l1_sparse
from mcu_jax.methods._mcu import mcu
from mcu_jax.methods._neg_tv import neg_tv
from mcu_jax.methods._neggrad_plus import neggrad_plus
from mcu_jax.methods._npo import npo
from mcu_jax.methods._random_label import random_label
from mcu_jax.methods._retrain import retrain
from mcu_jax.methods._salun import salun
from mcu_jax.methods._scrub import scrub
from mcu_jax.methods._sfron import sfron
from mcu_jax.methods._simnpo import simnpo
from mcu_jax.methods._ssd import ssd

NAMES = (
    "retrain",
    "finetune",
    "l1_sparse",
    "gradient_ascent",
    "neggrad_plus",
    "grad_diff",
    "random_label",
    "salun",
    "neg_tv",
    "sfron",
    "scrub",
    "bad_teacher",
    "npo",
    "simnpo",
    "delete",
    "boundary_shrink",
    "boundary_expand",
    "ssd",
    "influence",
    "fisher_noise",
    "mcu",
)


def objective(name: str, problem: Problem, key: RandomKey, **options: Any) -> training.Objective | None:
    """What the method `name` minimises, to train a path with (`connect.train`); None where it minimises nothing.

    options: hyper-parameters of the method, also those that its objective does not depend on. Raises UnknownNameError
    where there is no such method.
    """
    method = registry.get(sys.modules[__name__], name, "method")
    if not has_objective(name):
        return None
    function = sys.modules[method.__module__].objective
    used = {**registry.schema(method), **options}
    return function(
        problem, key, **{name: used[name] for name in inspect.signature(function).parameters if name in used}
    )


def has_objective(name: str) -> bool:
    """Whether the method `name` minimises something that a path can be trained with."""
    method = registry.get(sys.modules[__name__], name, "method")
    return hasattr(sys.modules[method.__module__], "objective")


__all__ = [
    "NAMES",
    "bad_teacher",
    "boundary_expand",
    "boundary_shrink",
    "delete",
    "finetune",
    "fisher_noise",
    "grad_diff",
    "gradient_ascent",
    "has_objective",
    "influence",
    "l1_sparse",
    "mcu",
    "neg_tv",
    "neggrad_plus",
    "npo",
    "objective",
    "random_label",
    "retrain",
    "salun",
    "scrub",
    "sfron",
    "simnpo",
    "ssd",
]
