from __future__ import annotations

from mcu_jax import training, trees
from mcu_jax.base import Params, Problem, RandomKey
from mcu_jax.methods import _finetune


def neg_tv(
    problem: Problem,
    key: RandomKey,
    *,
    alpha: float = 0.9,
    epochs: int = 10,
    lr: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    batch_size: int = 128,
    optimizer: str = "sgd",
    curriculum: str = "none",
) -> Params:
    """Negated task vector: θ_o − α(θ_ft − θ_o), θ_ft fine-tuned on D_f (Ilharco et al. 2022, arXiv 2212.04089)."""
    tuned = training.unlearn(
        problem,
        _finetune.objective(problem, key)._replace(streams=(problem.forget,)),
        key,
        epochs=epochs,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        batch_size=batch_size,
        optimizer=optimizer,
        curriculum=curriculum,
    )
    return trees.sub(problem.params, trees.scale(alpha, trees.sub(tuned, problem.params)))
