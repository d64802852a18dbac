"""Curricula: how much each example of one term of an objective weighs. Any gradient-based method takes one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mcu_jax import losses
from mcu_jax.base import Positive

NAMES = ("superloss",)

Curriculum = Callable[..., tuple[Any, Any]]
"""(values, where, running) -> (values, running): see `superloss`; `Running` starts at `start()`."""


class Running(NamedTuple):
    """Running state of one term: the sum of its batches' mean losses, and the number of batches."""

    total: Float[Array, ""]
    batches: Float[Array, ""]


def start() -> Running:
    return Running(jnp.zeros(()), jnp.zeros(()))


def superloss(
    values: Float[Array, "n"],
    where: Bool[Array, "n"] | None,
    running: Running,
    *,
    strength: Annotated[Any, Positive] = 10.0,
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
