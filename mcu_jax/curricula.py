"""Curricula: how much each example of one term of an objective weighs. Any gradient-based method takes one."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float

from mcu_jax import losses, registry

NAMES = ("superloss",)
NONE = "none"


class Running(NamedTuple):
    """What a curriculum remembers of one term: the sum of its batches' mean losses, and their number."""

    total: Float[Array, ""]
    batches: Float[Array, ""]


def make(spec: str) -> Partial | None:
    """none, NAME or NAME:key=value to (values, where, running) -> (values, running); its numbers are leaves.

    Raises UnknownNameError for a curriculum or option there is not, ValueError for a strength that is not above 0.
    """
    if spec == NONE:
        return None
    name, options = registry.parse(spec)
    registry.check(name, (NONE, *NAMES), "curriculum")
    function = getattr(sys.modules[__name__], name)
    options = registry.bind(function, options, f"curriculum {name}")
    if not options.get("strength", 1) > 0:
        raise ValueError(f"the strength of curriculum {name} must be a number above 0, given {options['strength']}")
    return Partial(function, **options)


def start() -> Running:
    return Running(jnp.zeros(()), jnp.zeros(()))


def superloss(
    values: Float[Array, "n"], where: Bool[Array, "n"] | None, running: Running, *, strength: Any = 10.0
) -> tuple[Float[Array, "n"], Running]:
    """SuperLoss with τ = the mean loss of this term's batches so far, this one included.

    strength: λ; the smaller, the more easy examples outweigh hard ones (Castells et al. 2020, NeurIPS; λ 10 as Cheng &
    Amiri 2025, arXiv 2504.06407).
    """
    held = jax.lax.stop_gradient(values)
    present = jnp.ones(()) if where is None else jnp.any(where).astype(jnp.float32)
    mean = jnp.mean(held) if where is None else losses.masked_mean(held, where)
    running = Running(running.total + present * mean, running.batches + present)
    return losses.superloss(values, running.total / jnp.maximum(running.batches, 1.0), strength), running
