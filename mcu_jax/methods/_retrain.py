from __future__ import annotations

from mcu_jax import training
from mcu_jax.base import Params, Problem, RandomKey


def retrain(
    problem: Problem,
    key: RandomKey,
    *,
    epochs: int = 20,
    lr: float = 0.05,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    batch_size: int = 128,
) -> Params:
    """Retraining from scratch on D_r, as the original was trained: the yardstick."""
    return training.from_scratch(
        problem.model,
        problem.retain,
        key,
        augment=problem.augment,
        epochs=epochs,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        batch_size=batch_size,
    )
