"""Between models unlearned in different ways, CIFAR-100, ResNet-50 (Cheng & Amiri 2025, arXiv 2504.06407).

Shows: barriers and metrics along lines and curves between every two of six methods, and between two runs of each.
Run: python experiments/papers/connect_cifar100_resnet50.py --scale paper --data DIR [--mesh data=4] [--minutes 9]
    DIR: cifar100 as TensorFlow Datasets prepares it.
Time and result: none at scales paper and small, which need a GPU; smoke, which the tests run on made-up pictures, takes
    9 s on a CPU, and shows that it runs and nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import scales

METHODS = ("finetune", "gradient_ascent", "random_label", "salun", "npo", "scrub")
ALL: dict[str, Any] = {"grid": "methods", "methods": METHODS, "curve": ("linear", "bezier"), "also": ("mia",)}
SCALES: dict[str, dict[str, Any]] = {
    "paper": {
        **ALL,
        "model": "resnet50:stem=cifar",
        "train": {"epochs": 200, "lr": 0.1, "batch_size": 128},
        "steps": 1760,
    },
    "small": {**ALL, "model": "resnet18:stem=cifar", "train": {"epochs": 30, "lr": 0.1, "batch_size": 128}},
    "smoke": {
        "grid": "methods",
        "methods": ("gradient_ascent", "random_label"),
        "curve": ("bezier",),
        "model": "mlp:hidden=8",
        "train": {"epochs": 1, "batch_size": 8},
    },
}


def main(arguments: Sequence[str] | None = None) -> int:
    return scales.main(
        *(__file__, __doc__ or "", SCALES),
        dataset="cifar100",
        requests=("random:0.1",),
        defaults=scales.CONNECT,
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
