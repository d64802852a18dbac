from __future__ import annotations

from typing import Any

from jax.tree_util import Partial

from mcu_jax import training, trees
from mcu_jax.base import Params, Problem, RandomKey


def l1_sparse(
    problem: Problem,
    key: RandomKey,
    *,
    alpha: float = 5e-4,
    epochs: int = 10,
    lr: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    batch_size: int = 128,
    optimizer: str = "sgd",
    curriculum: str = "none",
) -> Params:
    """ℓ₁-sparse unlearning: min L_r + α_e ‖θ‖₁, α_e falling linearly to 0 (Jia et al. 2023, arXiv 2304.04934)."""
    return training.unlearn(
        problem,
        objective(problem, key, alpha=alpha),
        key,
        epochs=epochs,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        batch_size=batch_size,
        optimizer=optimizer,
        curriculum=curriculum,
    )


def objective(problem: Problem, key: RandomKey, *, alpha: Any) -> training.Objective:
    del key
    return training.Objective(Partial(_terms, problem, alpha), (problem.retain,))


def _terms(problem: Problem, alpha: Any, params: Params, batches: tuple, now: training.Now) -> Any:
    norm = trees.l1_norm(params)
    retain = training.Term(training.nll(problem, params, batches[0], now.key))
    return retain, training.Term(norm, alpha * (1 - now.progress))
