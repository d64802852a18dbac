"""Machine unlearning through mode connectivity, in JAX."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcu_jax import (
        alignment,
        augmentations,
        auto,
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
        outputs,
        paths,
        planes,
        report,
        rules,
        runs,
        sharding,
        sources,
        splits,
        training,
        trees,
    )
    from mcu_jax.base import Batch, Model, Path, Problem, UserError
    from mcu_jax.runs import load

__all__ = [
    "Batch",
    "Model",
    "Path",
    "Problem",
    "UserError",
    "alignment",
    "augmentations",
    "auto",
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
    "outputs",
    "paths",
    "planes",
    "report",
    "rules",
    "runs",
    "sharding",
    "sources",
    "splits",
    "training",
    "trees",
]

_HOMES = {**dict.fromkeys(("Batch", "Model", "Path", "Problem", "UserError"), "base"), "load": "runs"}


def __getattr__(name: str) -> Any:
    """Every module is imported when it is first asked for: the command line heeds Ctrl-C before jax is there."""
    if name not in __all__:
        raise AttributeError(f"module 'mcu_jax' has no attribute {name!r}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"mcu_jax.{_HOMES[name]}"), name)
    return importlib.import_module(f"mcu_jax.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
