"""Weights that others have made, and ours for others: safetensors of PyTorch state dicts, and the public JAX ViT's npz.

A model of ours is known by its name; `DIALECTS` are the public codes whose names for its tensors are known.
"""

from __future__ import annotations

import math
import os
import pathlib
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mcu_jax import _archives, disk, text
from mcu_jax.base import Params, Stats, UserError

Names = Callable[[str, str], str]
"""(a module of ours, "" for the model itself; its leaf) -> their name of the tensor."""


class _Leaf(NamedTuple):
    """Where it is in our trees, and its shape there."""

    is_statistic: bool
    path: tuple[str, ...]
    shape: tuple[int, ...]


def read(file: str | os.PathLike[str], model: str, params: Any, stats: Any) -> tuple[Params, Stats]:
    """Weights and BatchNorm's running statistics in a .safetensors or .npz file, as the model of this name has them.

    params, stats: trees of its shapes. Raises UserError for a file that cannot be read, a pickle, a model whose names
    there are not known, and tensors that are missing, left over, of another shape or not finite: the first, and how
    many.
    """
    file = pathlib.Path(file)
    _refuse_pickle(file)
    dialects, found = _dialects(file, model), _content(file)
    wanted = {dialect: _wanted(names, params, stats) for dialect, names in dialects.items()}
    dialect = max(wanted, key=lambda each: len(wanted[each].keys() & found.keys()))
    _check_names(text.plain(file), f"{model}, by the names of {dialect}", wanted[dialect], found)
    trees: tuple[dict, dict] = ({}, {})
    for name, leaf in wanted[dialect].items():
        _check_tensor(f"{text.plain(file)}: {text.show(name)}", found[name], _theirs(_like(leaf), leaf, model).shape)
        value = _ours(found[name], leaf, model)
        _put(trees[leaf.is_statistic], leaf.path, jnp.asarray(value, jnp.float32))
    return trees


def write(file: str | os.PathLike[str], model: str, params: Params, stats: Stats) -> None:
    """Weights and BatchNorm's statistics to a .safetensors file, by the names of the first of the model's `DIALECTS`.

    Raises UserError for a model whose PyTorch names are not known.
    """
    from safetensors.numpy import save

    file = pathlib.Path(file)
    names = next(iter(_dialects(file, model).values()))
    values = {(False, *path): value for path, value in _flat(params)} | {
        (True, *path): value for path, value in _flat(stats)
    }
    made = {}
    for name, leaf in _wanted(names, params, stats).items():
        value = np.asarray(values[leaf.is_statistic, *leaf.path], np.float32)
        made[name] = np.ascontiguousarray(_theirs(value, leaf, model))
        if leaf.path[-1] == "mean":
            made[name.replace("running_mean", "num_batches_tracked")] = np.zeros((), np.int64)
    with disk.placing(file) as opened:
        opened.write(save(made))


FORMATS = (".safetensors", ".npz")
"""Endings of the files that are read."""
PICKLES = (".pth", ".pt", ".ckpt", ".bin", ".tar", ".pkl")
"""Endings of files that PyTorch pickles, which are refused."""
_BUFFERS = ("num_batches_tracked", "relative_position_index", "attn_mask")
"""What state dicts hold that no weight of ours is."""


def _refuse_pickle(file: pathlib.Path) -> None:
    """With the line that makes of it what is read."""
    if file.suffix in PICKLES:
        # Whole and quoted, as the line is to be copied: a name is no part of a program.
        made = file.with_name(file.name.partition(".")[0] + ".safetensors")
        given, to = (shlex.quote(text.printable(str(each))) for each in (file, made))
        raise UserError(
            f"the weights {text.plain(file)} are a pickle, which may run any program when it is opened, and is not "
            'read. Where you have PyTorch, and safetensors for it, this makes a file of it that is: python -c "import '
            "sys, torch, safetensors.torch as s; d = torch.load(sys.argv[1], map_location='cpu', weights_only=True); "
            "s.save_file({k: v.contiguous() for k, v in d.get('state_dict', d).items()}, sys.argv[2])\" "
            f"{given} {to}"
        )


def _content(file: pathlib.Path) -> dict[str, np.ndarray]:
    """Every tensor by its name in PyTorch, but buffers."""
    found = _npz(file) if file.suffix == ".npz" else _safetensors(file)
    return {name: value for name, value in found.items() if not name.endswith(_BUFFERS)}


def _safetensors(file: pathlib.Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    shown = f"the weights {text.plain(file)}"
    try:
        file.open("rb").close()
        return load_file(file)
    except OSError as error:
        raise UserError(f"{shown} cannot be read: {error.strerror}") from error
    except Exception as error:  # the reader's own class, and what NumPy makes of a dtype it does not have
        raise UserError(f"{shown} cannot be read as safetensors of plain floats: {text.plain(error)}") from error


def check(model: str, suffix: str = ".safetensors") -> None:
    """Raises UserError for a model whose names in such files are not known: those that are."""
    known = NPZ if suffix == ".npz" else DIALECTS
    if model not in known:
        raise UserError(
            f"the names of {text.plain(model)} in {suffix} files are not known; known are those of {', '.join(known)}. "
            "A checkpoint of ours is a folder, as `mcu-jax export RUN --to DIR` writes it"
        )


def _dialects(file: pathlib.Path, model: str) -> Mapping[str, Names]:
    check(model, file.suffix)
    return (NPZ if file.suffix == ".npz" else DIALECTS)[model]


def _wanted(names: Names, params: Any, stats: Any) -> dict[str, _Leaf]:
    return {
        names("/".join(path[:-1]), path[-1]): _Leaf(is_statistic, path, tuple(np.shape(leaf)))
        for is_statistic, tree in ((False, params), (True, stats))
        for path, leaf in _flat(tree)
    }


def _flat(tree: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    if not isinstance(tree, Mapping):
        return [(path, tree)]
    return [leaf for name, child in tree.items() for leaf in _flat(child, (*path, name))]


def _put(tree: dict, path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = value


def _like(leaf: _Leaf) -> np.ndarray:
    """Of its shape, without its memory."""
    return np.broadcast_to(np.float32(0), leaf.shape)


def _check_names(shown: str, what: str, wanted: Mapping[str, _Leaf], found: Mapping[str, np.ndarray]) -> None:
    missing, left = ([name for name in a if name not in b] for a, b in ((wanted, found), (found, wanted)))
    for verb, names in (("lacks", missing), ("has besides", left)):
        if names:
            more = f" and {text.plural(len(names) - 1, 'further tensor')}" if len(names) > 1 else ""
            raise UserError(
                f"{shown} is not of {what}: it {verb} {text.show(names[0])}{more}; give the state dict of this very "
                "network, of the same depth and options"
            )


def _check_tensor(shown: str, value: np.ndarray, expected: tuple[int, ...]) -> None:
    if value.shape != expected:
        raise UserError(
            f"{shown} has the shape {list(value.shape)}, expected {list(expected)}: it is of another size, of other "
            "images, or of another number of classes"
        )
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise UserError(f"{shown} is of {value.dtype}, expected floats: quantised weights are not read")
    if not np.isfinite(value).all():
        raise UserError(f"{shown} is not finite")


# From our layout to theirs, and back. Kernels are [height, width, in, out] here and [out, in, height, width] there.

_VGG_CHANNELS = 512
"""Of the last convolution, whose output is flattened."""


def _theirs(value: np.ndarray, leaf: _Leaf, model: str) -> np.ndarray:
    if leaf.path[-1] != "kernel":
        return value
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1)
    if leaf.path[0] == "patch_embed":
        return value.reshape(*_patch(leaf.shape[0]), leaf.shape[1]).transpose(3, 2, 0, 1)
    if (model, leaf.path[0]) == ("vgg16_bn", "dense0"):
        return value.reshape(*_vgg(leaf.shape[0]), leaf.shape[1]).transpose(3, 2, 0, 1).reshape(leaf.shape[1], -1)
    return value.T


def _ours(value: np.ndarray, leaf: _Leaf, model: str) -> np.ndarray:
    if leaf.path[-1] != "kernel":
        return value
    if (model, leaf.path[0]) == ("vgg16_bn", "dense0"):
        height, width, channels = _vgg(leaf.shape[0])
        value = value.reshape(-1, channels, height, width)
    return value.transpose(2, 3, 1, 0).reshape(leaf.shape) if value.ndim == 4 else value.T


def _patch(size: int) -> tuple[int, int, int]:
    """Height, width and channels, 3 or 1, of patches of so many numbers."""
    channels = 3 if size % 3 == 0 and math.isqrt(size // 3) ** 2 * 3 == size else 1
    side = math.isqrt(size // channels)
    return side, side, channels


def _vgg(size: int) -> tuple[int, int, int]:
    side = math.isqrt(size // _VGG_CHANNELS)
    return side, side, _VGG_CHANNELS


# Names

_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def _tensor(module: str, leaf: str) -> str:
    return f"{module}.{_LEAVES.get(leaf, leaf)}"


def _renamed(module: str, *rules: tuple[str, str]) -> str:
    """By every rule in turn, (pattern of a part of the name, what is there instead); the rest joined by dots."""
    for pattern, instead in rules:
        module = re.sub(pattern, instead, module)
    return module.replace("/", ".")


def _resnet(module: str, leaf: str) -> str:
    rules = (r"^layer(\d)_", r"layer\1."), ("downsample_conv", "downsample.0"), ("downsample_bn", "downsample.1")
    return _tensor(_renamed(module, *rules, ("^head$", "fc")), leaf)


def _vgg16_bn(module: str, leaf: str) -> str:
    """Layers are counted, activations and pools among them."""
    dense = {"dense0": "classifier.0", "dense1": "classifier.3", "head": "classifier.6"}
    if module in dense:
        return _tensor(dense[module], leaf)
    match = re.fullmatch(r"(conv|bn)(\d)_(\d)", module)
    assert match
    before = sum(3 * count + 1 for count in (2, 2, 3, 3, 3)[: int(match[2])])
    return _tensor(f"features.{before + 3 * int(match[3]) + (match[1] == 'bn')}", leaf)


def _vit_timm(module: str, leaf: str) -> str:
    if not module:
        return leaf
    return _tensor(_renamed(module, ("^patch_embed$", "patch_embed.proj"), (r"^block(\d+)", r"blocks.\1")), leaf)


def _vit_torchvision(module: str, leaf: str) -> str:
    if not module:
        return {"cls_token": "class_token", "pos_embed": "encoder.pos_embedding"}[leaf]
    if module.endswith("attn/qkv"):
        return _renamed(module, *_ENCODER, ("attn/qkv", f"self_attention.in_proj_{_LEAVES.get(leaf, leaf)}"))
    rules = ("attn/proj", "self_attention.out_proj"), ("norm([12])$", r"ln_\1"), ("fc1", "0"), ("fc2", "3")
    ends = ("^patch_embed$", "conv_proj"), ("^norm$", "encoder.ln"), ("^head$", "heads.head")
    return _tensor(_renamed(module, *_ENCODER, *rules, *ends), leaf)


_ENCODER = ((r"^block(\d+)", r"encoder.layers.encoder_layer_\1"),)


def _swin_torchvision(module: str, leaf: str) -> str:
    def stage(match: re.Match[str], shift: int, rest: str) -> str:
        return f"features.{2 * int(match[1]) + shift}.{rest}"

    module = re.sub(r"^stage(\d)_block(\d+)", lambda match: stage(match, 1, match[2]), module)
    module = re.sub(r"^merge(\d)_(\w+)", lambda match: stage(match, 0, match[2]), module)
    module = _renamed(
        module, ("^patch_embed$", "features.0.0"), ("^patch_norm$", "features.0.2"), ("fc1", "0"), ("fc2", "3")
    )
    return _windows(module, leaf)


def _swin_timm(module: str, leaf: str) -> str:
    blocks = (r"^stage(\d)_block(\d+)", r"layers.\1.blocks.\2"), (r"^merge(\d)_", r"layers.\1.downsample.")
    rest = ("^patch_embed$", "patch_embed.proj"), ("^patch_norm$", "patch_embed.norm"), ("^head$", "head.fc")
    return _windows(_renamed(module, *blocks, *rest), leaf)


def _swin_timm_before(module: str, leaf: str) -> str:
    """Up to timm 0.8: a stage ends with its merging, and the head is a layer by itself."""
    module = re.sub(r"^merge(\d)_", lambda match: f"layers.{int(match[1]) - 1}.downsample.", module)
    return _swin_timm(module, leaf).replace("head.fc", "head")


def _windows(module: str, leaf: str) -> str:
    if leaf == "relative_position_bias_table":
        return f"{module.replace('.window', '.attn')}.{leaf}"
    return _tensor(module.replace(".window.attn", ".attn"), leaf)


DIALECTS: dict[str, dict[str, Names]] = {
    "resnet18": {"torchvision": _resnet},
    "resnet50": {"torchvision": _resnet},
    "preresnet": {"dnn-mode-connectivity": _resnet},
    "vgg16_bn": {"torchvision": _vgg16_bn},
    "vit": {"timm": _vit_timm, "torchvision": _vit_torchvision},
    "swin": {"torchvision": _swin_torchvision, "timm": _swin_timm, "timm up to 0.8": _swin_timm_before},
}
"""By model and public code; timm's resnets are named as torchvision's. What is written has the names of the first."""
NPZ: dict[str, dict[str, Names]] = {"vit": {"the public JAX ViT": _vit_timm}}
"""The same of .npz files, which are read into the names given here."""


# The public JAX ViT (Dosovitskiy et al. 2021, arXiv 2010.11929)

_JAX_MODULES = {
    "LayerNorm_0": "norm1",
    "LayerNorm_2": "norm2",
    "MlpBlock_3/Dense_0": "mlp.fc1",
    "MlpBlock_3/Dense_1": "mlp.fc2",
}
_JAX_WHOLE = {
    "cls": "cls_token",
    "Transformer/posembed_input/pos_embedding": "pos_embed",
    "embedding/kernel": "patch_embed.proj.weight",
    "embedding/bias": "patch_embed.proj.bias",
    "Transformer/encoder_norm/scale": "norm.weight",
    "Transformer/encoder_norm/bias": "norm.bias",
    "head/kernel": "head.weight",
    "head/bias": "head.bias",
}


def _npz(file: pathlib.Path) -> dict[str, np.ndarray]:
    found = _archives.read(file, "the weights")
    try:
        return _of_timm(found)
    except (KeyError, ValueError, IndexError) as error:
        shown, why = text.plain(file), f"{type(error).__name__}: {text.plain(error)}"
        raise UserError(f"the weights {shown} cannot be read as arrays of a vision transformer: {why}") from error


def _of_timm(left: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By timm's names and in its layout; tensors of other names keep these. Its GELU is the approximate one, ours the
    exact.
    """
    made: dict[str, np.ndarray] = {}
    while True:
        block = f"Transformer/encoderblock_{len([name for name in made if name.endswith('qkv.weight')])}"
        attention = f"{block}/MultiHeadDotProductAttention_1"
        if f"{attention}/query/kernel" not in left:
            break
        there = f"blocks.{block.rpartition('_')[2]}"
        parts = [
            (left.pop(f"{attention}/{part}/kernel"), left.pop(f"{attention}/{part}/bias"))
            for part in ("query", "key", "value")
        ]
        width = parts[0][0].shape[0]
        made[f"{there}.attn.qkv.weight"] = np.concatenate([kernel.reshape(width, -1).T for kernel, _ in parts])
        made[f"{there}.attn.qkv.bias"] = np.concatenate([bias.reshape(-1) for _, bias in parts])
        made[f"{there}.attn.proj.weight"] = left.pop(f"{attention}/out/kernel").reshape(-1, width).T
        made[f"{there}.attn.proj.bias"] = left.pop(f"{attention}/out/bias")
        for name, module in _JAX_MODULES.items():
            for leaf in ("kernel", "scale", "bias"):
                if f"{block}/{name}/{leaf}" in left:
                    value = left.pop(f"{block}/{name}/{leaf}")
                    made[_tensor(f"{there}.{module}", leaf)] = value.T if leaf == "kernel" else value
    for name, there in _JAX_WHOLE.items():
        if name in left:
            value = left.pop(name)
            made[there] = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T if "kernel" in name else value
    return made | left
