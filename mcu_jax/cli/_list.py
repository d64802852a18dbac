"""mcu-jax list: every name there is."""

from __future__ import annotations

from typing import Any

from mcu_jax import (
    augmentations,
    curricula,
    curves,
    datasets,
    methods,
    metrics,
    models,
    optimizers,
    registry,
    rules,
)
from mcu_jax.cli import _messages

_LISTED = {
    "methods": methods,
    "optimizers": optimizers,
    "curricula": curricula,
    "curves": curves,
    "rules": rules,
    "models": models,
    "augmentations": augmentations,
    "metrics": metrics,
}


def names(arguments: list[str]) -> int:
    """Plain lines, name first."""
    if arguments:
        return _messages.fail(f"list takes no arguments, given {' '.join(arguments)}", 2)
    for title, module in _LISTED.items():
        print(f"{title}:")
        for name in module.NAMES:
            function = getattr(module, name)
            print(f"  {name:<20}{_first_line(function)}{_options(function, title)}")
    print("datasets:")
    for name in datasets.NAMES:
        print(f"  {name:<20}{_first_line(getattr(datasets, name))}")
    print("  NAME                any image-classification set prepared by tensorflow-datasets, with --data-dir")
    print("  folder:DIR          pictures in DIR/train/CLASS/… and DIR/test/CLASS/…; folder:DIR:size=64,classes=FILE")
    print("  FILE.npz            one's own arrays, with --data")
    print("completion in the shell: source <(mcu-jax --tyro-print-completion bash), or zsh, or fish.")
    return 0


def _first_line(function: Any) -> str:
    return (function.__doc__ or "").strip().partition("\n")[0]


def _options(function: Any, title: str) -> str:
    if title in ("curves", "rules", "metrics"):
        return ""
    options = [f"{name}={value}" for name, value in registry.schema(function).items()]
    return f" [{', '.join(options)}]" if options else ""
