"""Writes torch_logits.json: what PyTorch says to the weights and images of arrays.py, and every tensor's shape.

Run:  python tests/golden/torch_logits.py MODE_CONNECTIVITY
with torch 1.13, torchvision 0.14, timm 0.9.16. MODE_CONNECTIVITY: a copy of the repository
github.com/timgaripov/dnn-mode-connectivity.
Networks are as the public ones but for their depth or width, so that they are small; all are in evaluation mode.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import arrays
import timm.models.swin_transformer
import timm.models.vision_transformer
import torch
from torchvision.models import resnet, swin_transformer, vgg, vision_transformer

CLASSES = 10


def cases(mode_connectivity: str) -> Iterator[tuple[str, torch.nn.Module, int]]:
    """(name, network, side of its images)."""
    basic = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], CLASSES)
    yield "resnet18 torchvision", basic, 64
    yield "resnet50 torchvision", resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], CLASSES), 64
    cifar = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], CLASSES)
    cifar.conv1, cifar.maxpool = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.nn.Identity()
    yield "resnet18 cifar", cifar, 16
    network = vgg.VGG(vgg.make_layers(vgg.cfgs["D"], batch_norm=True), CLASSES)
    network.avgpool = torch.nn.Identity()
    relu, dropout, linear = torch.nn.ReLU, torch.nn.Dropout, torch.nn.Linear
    parts = [linear(512 * 4, 512), relu(), dropout(), linear(512, 512), relu(), dropout(), linear(512, CLASSES)]
    network.classifier = torch.nn.Sequential(*parts)
    yield "vgg16_bn torchvision", network, 64
    yield "vit torchvision", vision_transformer.VisionTransformer(32, 16, 2, 3, 192, 768, num_classes=CLASSES), 32
    made = timm.models.vision_transformer.VisionTransformer(
        32, 16, num_classes=CLASSES, embed_dim=192, depth=2, num_heads=3
    )
    yield "vit timm", made, 32
    yield (
        "swin torchvision",
        swin_transformer.SwinTransformer([4, 4], 24, [2, 2], [3, 6], [7, 7], num_classes=CLASSES),
        72,
    )
    made = timm.models.swin_transformer.SwinTransformer(
        56, 4, num_classes=CLASSES, embed_dim=24, depths=(2, 2), num_heads=(3, 6), window_size=7
    )
    yield "swin timm", made, 56
    sys.path.insert(0, mode_connectivity)
    from models import preresnet

    yield "preresnet mode-connectivity", preresnet.PreResNetBase(CLASSES, depth=47), 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode_connectivity")
    found: dict[str, Any] = {}
    for name, network, side in cases(parser.parse_args().mode_connectivity):
        state = {key: torch.from_numpy(arrays.weight(key, value.shape)) for key, value in network.state_dict().items()}
        own = {key: value for key, value in network.state_dict().items() if key.endswith("relative_position_index")}
        network.load_state_dict({**state, **own})
        shape = (2, side, side, 3)
        with torch.no_grad():
            logits = network.eval()(torch.from_numpy(arrays.images(shape)).permute(0, 3, 1, 2))
        tensors = {key: list(value.shape) for key, value in state.items()}
        found[name] = {"images": shape, "logits": logits.double().tolist(), "tensors": tensors}
        print(f"{name}: {logits.std():.3g}")
    file = pathlib.Path(__file__).with_name("torch_logits.json")
    file.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
