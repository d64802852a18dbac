from __future__ import annotations

from typing import Annotated

import optax

from mcu_jax import training
from mcu_jax.base import NonNegative, Params, Problem, RandomKey, Search
from mcu_jax.methods import _finetune


def neg_tv(
    problem: Problem,
    key: RandomKey,
    *,
    alpha: Annotated[float, NonNegative, Search(0.1, 2.0)] = 0.9,
    train: training.Training = training.Training(),
) -> Params:
    """Negated task vector: θ_o − α(θ_ft − θ_o), θ_ft fine-tuned on D_f (Ilharco et al. 2022, arXiv 2212.04089)."""
    tuned = training.unlearn(
        problem, _finetune.objective(problem, key)._replace(streams=(training.forget(problem),)), key, train
    )
    return optax.tree.add_scale(problem.params, -alpha, optax.tree.sub(tuned, problem.params))
