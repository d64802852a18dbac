"""CIFAR-10, PreResNet-110: a tenth of the training images at random, and one class (Shi & Wang 2025, arXiv 2505.10859).

Shows: the methods that the paper compares beside MCU with a fixed penalty, an adaptive one, and one that tunes itself.
Run: python experiments/papers/cifar10_preresnet110.py --scale paper --data DIR [--mesh data=4] [--minutes 9]
    DIR: cifar10 as TensorFlow Datasets prepares it.
Time and result: small, 79 minutes for both requests on 2 cores of an AMD EPYC, jax 0.10.2. Distance from the retrained
    model, avg_gap in points, mean of three seeds, too few for an interval. A tenth at random: original 27.1, random
    labels 10.5, the best point of the line to them 7.9, MCU 3.0 (2.9 with the fixed penalty, 2.9 where it tunes
    itself), the nearest other method at its paper's values, SalUn, 7.0. A class: random labels, the line and SalUn
    0.5, MCU 0.6 (0.5 and 0.5): nothing is left to gain, and retain accuracy falls to 75 % along one seed's path.
    Paper: not run; it needs a GPU. The tests run smoke, which shows that it runs and nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import scales

SCALES: dict[str, dict[str, Any]] = {
    "paper": {
        "model": "preresnet:depth=110",
        "train": {"epochs": 200, "lr": 0.1, "batch_size": 128},
        "steps": 1760,
    },
    # A CPU can do it; few images, not augmented, are known by heart after it, so that there is something to forget.
    "small": {
        **{"model": "preresnet:depth=8", "train_size": 3000, "augment": "none", "steps": 200},
        "train": {"epochs": 30, "lr": 0.1, "batch_size": 128},
    },
    "smoke": {"model": "mlp:hidden=8", "train": {"epochs": 1, "batch_size": 8}},
}


def main(arguments: Sequence[str] | None = None) -> int:
    requests = ("random:0.1", "class:0")
    return scales.main(__file__, __doc__ or "", SCALES, dataset="cifar10", requests=requests, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
