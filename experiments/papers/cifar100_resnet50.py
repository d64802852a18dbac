"""CIFAR-100, ResNet-50 with the stem for small images: a tenth of the training images at random.

Shows: the methods that are compared on CIFAR-100 (Shi & Wang 2025, arXiv 2505.10859; Cheng & Amiri 2025, arXiv
    2504.06407) beside MCU with a fixed penalty, an adaptive one, and one that tunes itself.
Run: python experiments/papers/cifar100_resnet50.py --scale paper --data DIR [--mesh data=4] [--minutes 9]
    DIR: cifar100 as TensorFlow Datasets prepares it.
Time and result: none at scales paper and small, which need a GPU; smoke, which the tests run on made-up pictures, takes
    10 s on a CPU, and shows that it runs and nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import scales

SCALES: dict[str, dict[str, Any]] = {
    "paper": {
        "model": "resnet50:stem=cifar",
        "train": {"epochs": 200, "lr": 0.1, "batch_size": 128},
        "steps": 1760,
    },
    "small": {"model": "resnet18:stem=cifar", "train": {"epochs": 30, "lr": 0.1, "batch_size": 128}},
    "smoke": {"model": "mlp:hidden=8", "train": {"epochs": 1, "batch_size": 8}},
}


def main(arguments: Sequence[str] | None = None) -> int:
    requests = ("random:0.1",)
    return scales.main(__file__, __doc__ or "", SCALES, dataset="cifar100", requests=requests, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
