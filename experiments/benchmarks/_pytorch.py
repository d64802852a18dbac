"""The networks and loops of `against_pytorch.py` in straightforward PyTorch, as reference codes write them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

State = dict[str, torch.Tensor]


class Block(nn.Module):
    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(width_in), nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, 1, 1, bias=False)
        changes = stride != 1 or width_in != width
        self.downsample = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False)) if changes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(functional.relu(self.bn1(x)))
        y = self.conv2(functional.relu(self.bn2(y)))
        return y + (x if self.downsample is None else self.downsample(x))


class PreResNet20(nn.Module):
    def __init__(self, classes: int = 10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        widths = (16, 16, 32, 64)
        for i, (before, width) in enumerate(itertools.pairwise(widths), 1):
            blocks = [Block(before if j == 0 else width, width, 2 if i > 1 and j == 0 else 1) for j in range(3)]
            setattr(self, f"layer{i}", nn.Sequential(*blocks))
        self.bn, self.fc = nn.BatchNorm2d(64), nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return self.fc(functional.relu(self.bn(x)).mean((2, 3)))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, count, width = x.shape
        q, k, v = self.qkv(x).reshape(n, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(n, count, width))


class Mlp(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class Layer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, eps=1e-6), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width, eps=1e-6), Mlp(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VitTi(nn.Module):
    def __init__(self, side: int, patch: int, classes: int = 10, width: int = 192, depth: int = 12, heads: int = 3):
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, patch, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (side // patch) ** 2, width))
        self.blocks = nn.Sequential(*(Layer(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


def mlp(hidden: int = 64, classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def images(x: np.ndarray, *, channels_last: bool) -> torch.Tensor:
    """uint8 [n, h, w, c] as floats of −1 to 1, [n, c, h, w]."""
    scaled = torch.from_numpy(x.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
    return scaled.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def bezier(start: State, inner: State, end: State, t: float) -> State:
    return {k: (1 - t) ** 2 * start[k] + 2 * t * (1 - t) * inner[k] + t**2 * end[k] for k in start}


def refresh(model: nn.Module, x: torch.Tensor, batch: int) -> None:
    """BatchNorm's statistics by one pass in training mode, the mean of the batches'."""
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    with torch.inference_mode():
        for part in x.split(batch) if norms else ():
            model(part)


def evaluate(
    model: nn.Module, ends: Sequence[State], ts: np.ndarray, x: torch.Tensor, retain: int, batch: int
) -> list[torch.Tensor]:
    """Logits of all images at every t; the first so many are D_r."""
    found = []
    for t in ts.tolist():
        model.load_state_dict(bezier(ends[0], ends[1], ends[2], t), strict=False)
        refresh(model, x[:retain], batch)
        model.eval()
        with torch.inference_mode():
            found.append(torch.cat([model(part) for part in x.split(batch)]))
    return found


def batches(x: torch.Tensor, y: torch.Tensor, size: int, generator: torch.Generator) -> Iterator[tuple]:
    """For ever, in an order that is drawn anew each time."""
    while True:
        order = torch.randperm(len(x), generator=generator)
        for rows in order.split(size):
            yield x[rows], y[rows]


def mean(losses: torch.Tensor) -> torch.Tensor:
    """0 of none."""
    return losses.sum() / max(len(losses), 1)


def path_steps(
    model: nn.Module,
    ends: Sequence[State],
    retain: tuple[torch.Tensor, torch.Tensor],
    forget: tuple[torch.Tensor, torch.Tensor],
    *,
    batch: int,
    lr: float = 0.01,
    beta: float = 0.2,
) -> Callable[[int], State]:
    """Training of the control point by the objective of MCU with a fixed penalty: how many steps -> where it is."""
    start, end = ends
    inner = {k: (0.5 * (start[k] + end[k])).requires_grad_() for k in start}
    optimizer = torch.optim.SGD(inner.values(), lr, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    half = torch.randperm(len(retain[0]), generator=generator)[: len(retain[0]) // 2]
    mixed, y = (torch.cat([new, old[half]]) for new, old in zip(forget, retain, strict=True))
    stream = batches(mixed, torch.stack([y, (torch.arange(len(y)) < len(forget[1])).long()], 1), batch, generator)
    model.train()

    def run(steps: int) -> State:
        for _ in range(steps):
            params = bezier(start, inner, end, float(torch.rand((), generator=generator)))
            x, told = next(stream)
            labels, is_forget = told.unbind(1)
            losses = functional.cross_entropy(functional_call(model, params, (x,)), labels, reduction="none")
            forgotten = is_forget.bool()
            optimizer.zero_grad()
            (mean(losses[~forgotten]) - beta * mean(losses[forgotten])).backward()
            optimizer.step()
        return inner

    return run


def train(model: nn.Module, data: list[tuple], weights: list[float], *, epochs: int, lr: float, batch: int) -> None:
    """SGD with momentum, its rate along half a cosine, down the weighted sum of the losses on batches of each part."""
    steps = epochs * -(-len(data[0][0]) // batch)
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(0)
    streams = [batches(part[0], part[1], min(batch, len(part[0])), generator) for part in data]
    model.train()
    for _ in range(steps):
        losses = [functional.cross_entropy(model(x), y) for x, y in (next(stream) for stream in streams)]
        loss = sum(weight * each for weight, each in zip(weights, losses, strict=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
