from __future__ import annotations

from typing import Annotated, Any

from mcu_jax import training
from mcu_jax.base import Count, Decay, NonNegative, Params, Positive, Problem, RandomKey


def retrain(
    problem: Problem,
    key: RandomKey,
    *,
    epochs: Annotated[int, Count] = 20,
    lr: Annotated[Any, Positive] = 0.05,
    momentum: Annotated[float, Decay] = 0.9,
    weight_decay: Annotated[float, NonNegative] = 5e-4,
    batch_size: Annotated[int, Count] = 128,
) -> Params:
    """Retraining from scratch on D_r, as the original was trained: the yardstick."""
    return training.train(
        problem.model,
        problem.data,
        key,
        rows=problem.retain,
        augment=problem.augment,
        frozen=problem.frozen,
        epochs=epochs,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        batch_size=batch_size,
    )
