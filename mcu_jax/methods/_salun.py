from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp

from mcu_jax import masks, training
from mcu_jax.base import Fraction, Params, Problem, RandomKey, Search
from mcu_jax.methods._random_label import objective


def salun(
    problem: Problem,
    key: RandomKey,
    *,
    keep: Annotated[float, Fraction, Search(0.1, 1.0)] = 0.5,
    train: training.Training = training.Training(),
) -> Params:
    """SalUn: random labels on the `keep` weights of largest |Σ∇L_f| at θ_o only (Fan et al. 2023, arXiv 2310.12508)."""
    stats = training.evaluation_stats(problem, problem.params)
    saliency = jax.tree.map(jnp.abs, training.gradient(problem, problem.params, problem.forget, stats))
    return training.unlearn(problem, objective(problem, key), key, train, mask=masks.top_weights(saliency, keep))
