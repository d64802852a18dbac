from __future__ import annotations

from jax.tree_util import Partial

from mcu_jax import training, trees
from mcu_jax.base import Params, Problem, RandomKey
from mcu_jax.methods._finetune import _loss


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
) -> Params:
    """Negated task vector: θ_o − α(θ_ft − θ_o), θ_ft fine-tuned on D_f (Ilharco et al. 2022, arXiv 2212.04089)."""
    tuned = training.fit(
        Partial(_loss, problem),
        problem.params,
        (problem.forget,),
        key,
        optimizer=Partial(training.sgd, lr, momentum, weight_decay),
        epochs=epochs,
        batch_size=batch_size,
    ).state
    return trees.sub(problem.params, trees.scale(alpha, trees.sub(tuned, problem.params)))
