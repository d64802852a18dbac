"""ImageNet-100, ViT-B/16: a fifth of the training images at random (Shi & Wang 2025, arXiv 2505.10859).

Shows: the methods that the paper compares beside MCU with a fixed penalty, an adaptive one, and one that tunes itself.
Run: python experiments/papers/imagenet100_vit_b16.py --scale paper --data DIR [--mesh data=8] [--minutes 9]
    DIR: ImageNet's folders, train/CLASS/… and val/CLASS/…; of all 1,000 classes, --classes FILE lists the 100.
Time and result: none at scales paper and small, which need a GPU; smoke, which the tests run on made-up pictures, takes
    7 s on a CPU, and shows that it runs and nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import scales

SCALES: dict[str, dict[str, Any]] = {
    "paper": {
        "model": "vit:size=B,patch=16,remat=true",
        "precision": "bfloat16",
        "train": {"epochs": 100, "lr": 0.03, "batch_size": 256},
        "steps": 4000,
        "size": 224,
    },
    "small": {
        "model": "vit:size=Ti,patch=16",
        "precision": "bfloat16",
        "train": {"epochs": 30, "lr": 0.03, "batch_size": 256},
        "size": 224,
    },
    "smoke": {"model": "mlp:hidden=8", "size": 16, "train": {"epochs": 1, "batch_size": 8}},
}


def main(arguments: Sequence[str] | None = None) -> int:
    requests = ("random:0.2",)
    return scales.main(__file__, __doc__ or "", SCALES, dataset=scales.FOLDER, requests=requests, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
