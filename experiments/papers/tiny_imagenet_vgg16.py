"""Tiny-ImageNet, VGG-16 with BatchNorm: a tenth of the training images at random (Shi & Wang 2025, arXiv 2505.10859).

Shows: the methods that the paper compares beside MCU with a fixed penalty, an adaptive one, and one that tunes itself.
Run: python experiments/papers/tiny_imagenet_vgg16.py --scale paper --data DIR [--mesh data=4] [--minutes 9]
    DIR: tiny-imagenet-200, unpacked as it is published, with val/val_annotations.txt.
Time and result: none at scales paper and small, which need a GPU; smoke, which the tests run on made-up pictures, takes
    6 s on a CPU, and shows that it runs and nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import scales

SCALES: dict[str, dict[str, Any]] = {
    "paper": {"model": "vgg16_bn", "train": {"epochs": 100, "lr": 0.05, "batch_size": 128}, "steps": 3520},
    "small": {"model": "vgg16_bn", "train": {"epochs": 30, "lr": 0.05, "batch_size": 128}},
    "smoke": {"model": "mlp:hidden=8", "train": {"epochs": 1, "batch_size": 8}},
}


def main(arguments: Sequence[str] | None = None) -> int:
    requests = ("random:0.1",)
    return scales.main(__file__, __doc__ or "", SCALES, dataset=scales.FOLDER, requests=requests, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
