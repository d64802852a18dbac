from __future__ import annotations

from typing import Annotated, Any

import jax
from jax.tree_util import Partial

from mcu_jax import outputs, training
from mcu_jax.base import NonNegative, Params, Positive, Problem, RandomKey, Search


def npo(
    problem: Problem,
    key: RandomKey,
    *,
    beta: Annotated[float, Positive, Search(0.01, 1.0)] = 0.1,
    retain_weight: Annotated[float, NonNegative, Search(0.1, 10.0)] = 1.0,
    train: training.Training = training.Training(epochs=5),
) -> Params:
    """Negative preference optimisation: min −(2/β) E log σ(β(ℓ − ℓ_o)) on D_f + α L_r.

    Zhang et al. 2024, arXiv 2404.05868. ℓ, ℓ_o: negative log-likelihoods under the model and under θ_o, of a sequence
    the sum over its tokens. As β → 0 this is gradient ascent; unlike it, it is bounded below. α: `retain_weight`. An
    epoch is one pass over D_f.
    """
    return training.unlearn(problem, objective(problem, key, beta=beta, retain_weight=retain_weight), key, train)


def objective(problem: Problem, key: RandomKey, *, beta: Any, retain_weight: Any) -> training.Objective:
    del key
    terms = Partial(_terms, problem, training.original(problem), beta, retain_weight)
    return training.Objective(terms, (training.forget(problem), training.retain(problem)))


def _terms(
    problem: Problem,
    teacher: training.Teacher,
    beta: Any,
    retain_weight: Any,
    params: Params,
    batches: tuple,
    now: training.Now,
) -> Any:
    forget, retain = batches
    forget_key, retain_key = jax.random.split(now.key)
    student, original = training.with_teacher(problem, params, teacher, forget, forget_key)
    labels = outputs.labels(forget)
    excess = outputs.nll(student, labels, total=True) - outputs.nll(original, labels, total=True)
    return (
        training.Term(2 / beta * jax.nn.softplus(-beta * excess)),
        training.Term(training.nll(problem, params, retain, retain_key), retain_weight),
    )
