"""Machine unlearning through mode connectivity, in JAX."""

from mcu_jax import (
    alignment,
    checkpoint,
    connect,
    curricula,
    curves,
    datasets,
    losses,
    masks,
    methods,
    metrics,
    models,
    optimizers,
    paths,
    runs,
    splits,
    training,
    trees,
)
from mcu_jax.base import Model, Path, Problem, Split
from mcu_jax.runs import load

__all__ = [
    "Model",
    "Path",
    "Problem",
    "Split",
    "alignment",
    "checkpoint",
    "connect",
    "curricula",
    "curves",
    "datasets",
    "load",
    "losses",
    "masks",
    "methods",
    "metrics",
    "models",
    "optimizers",
    "paths",
    "runs",
    "splits",
    "training",
    "trees",
]
