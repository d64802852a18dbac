from __future__ import annotations

from typing import Annotated, Any

import optax
from jax.tree_util import Partial

from mcu_jax import training
from mcu_jax.base import NonNegative, Params, Problem, RandomKey, Search


def l1_sparse(
    problem: Problem,
    key: RandomKey,
    *,
    alpha: Annotated[float, NonNegative, Search(1e-5, 0.01)] = 5e-4,
    train: training.Training = training.Training(),
) -> Params:
    """ℓ₁-sparse unlearning: min L_r + α_e ‖θ‖₁, α_e falling linearly to 0 (Jia et al. 2023, arXiv 2304.04934)."""
    return training.unlearn(problem, objective(problem, key, alpha=alpha), key, train)


def objective(problem: Problem, key: RandomKey, *, alpha: Any) -> training.Objective:
    del key
    return training.Objective(Partial(_terms, problem, alpha), (training.retain(problem),))


def _terms(problem: Problem, alpha: Any, params: Params, batches: tuple, now: training.Now) -> Any:
    norm = optax.tree.norm(params, ord=1)
    retain = training.Term(training.nll(problem, params, batches[0], now.key))
    return retain, training.Term(norm, alpha * (1 - now.progress))
