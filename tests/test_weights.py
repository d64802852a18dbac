"""Weights of PyTorch and of the public JAX ViT: our logits are theirs, on weights and images of golden/arrays.py."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import shlex
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mcu_jax import base, cli, models, trees, weights
from mcu_jax.models import _resnet, _swin, _vit

GOLDEN = pathlib.Path(__file__).parent / "golden"
CASES = json.loads((GOLDEN / "torch_logits.json").read_text())
CLASSES = 10
_spec = importlib.util.spec_from_file_location("golden_arrays", GOLDEN / "arrays.py")
assert _spec
assert _spec.loader
arrays = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(arrays)


def network(name: str) -> base.Model:
    """Of the depth and width that the golden one has."""
    kind, dialect = name.split(" ")
    ones = (1, 1, 1, 1)
    if kind.startswith("resnet"):
        stem = "cifar" if dialect == "cifar" else "imagenet"
        return _resnet._resnet(kind, CLASSES, ones, bottleneck=kind == "resnet50", stem=stem)
    if kind == "vit":
        return _vit._made(CLASSES, _vit._Size(192, 2, 3), 16)
    if kind == "swin":
        return _swin._made(CLASSES, _swin._Size(24, (2, 2), (3, 6)))
    return (
        models.preresnet(num_classes=CLASSES, depth=47) if kind == "preresnet" else models.vgg16_bn(num_classes=CLASSES)
    )


def shapes(model: base.Model, x: Any) -> tuple[Any, Any]:
    """Of weights and statistics."""
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    return params, jax.eval_shape(lambda p: model.apply(p, x)[1], params)


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The file of a case's state dict."""

    def state(name: str) -> pathlib.Path:
        file = tmp_path_factory.getbasetemp() / f"{name}.safetensors"
        if not file.exists():
            save_file({key: arrays.weight(key, shape) for key, shape in CASES[name]["tensors"].items()}, file)
        return file

    return state


@pytest.mark.parametrize("name", CASES)
def test_logits_are_pytorchs(states: Any, name: str) -> None:
    x, model = arrays.images(CASES[name]["images"]), network(name)
    params, stats = weights.read(states(name), model.name, *shapes(model, x))
    logits, _ = jax.jit(model.apply)(params, x, stats)
    np.testing.assert_allclose(logits, CASES[name]["logits"], atol=1e-4)


@pytest.mark.parametrize(
    "name", ["resnet18 cifar", "vgg16_bn torchvision", "vit timm", "swin torchvision", "preresnet mode-connectivity"]
)
def test_what_is_written_is_what_was_read(states: Any, tmp_path: pathlib.Path, name: str) -> None:
    x, model = arrays.images(CASES[name]["images"]), network(name)
    weights.write(tmp_path / "out.safetensors", model.name, *weights.read(states(name), model.name, *shapes(model, x)))
    given, made = load_file(states(name)), load_file(tmp_path / "out.safetensors")
    index = {key for key in given if key.endswith("relative_position_index")}
    assert made.keys() == given.keys() - index
    for key, value in made.items():
        np.testing.assert_array_equal(value, given[key], err_msg=key)


# What cannot be read


def change(state: pathlib.Path, file: pathlib.Path, **tensors: Any) -> pathlib.Path:
    """A state dict with other tensors; None: without that one."""
    made = {**load_file(state), **{name.replace("__", "."): value for name, value in tensors.items()}}
    save_file({name: value for name, value in made.items() if value is not None}, file)
    return file


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"fc__weight": None}, "is not of resnet18, by the names of torchvision: it lacks 'fc.weight'; give the state"),
        ({"fc__weight": None, "fc__bias": None}, "lacks 'fc.bias' and 1 further tensor; give the state dict"),
        ({"layer5__weight": np.zeros(3)}, "it has besides 'layer5.weight'; give the state dict of this very network"),
        (
            {"fc__weight": np.zeros((7, 512))},
            r"'fc.weight' has the shape \[7, 512\], expected \[10, 512\]: it is of another",
        ),
        ({"bn1__running_var": np.full(64, np.nan)}, "'bn1.running_var' is not finite"),
    ],
)
def test_weights_of_another_network_are_refused(
    states: Any, tmp_path: pathlib.Path, tensors: dict, message: str
) -> None:
    name = "resnet18 cifar"
    like = shapes(network(name), arrays.images(CASES[name]["images"]))
    with pytest.raises(base.UserError, match=message):
        weights.read(change(states(name), tmp_path / "other.safetensors", **tensors), "resnet18", *like)


@pytest.mark.parametrize(("dtype", "is_read"), [(np.int8, False), (np.float16, True), (np.float64, True)])
def test_weights_are_floats(tmp_path: pathlib.Path, dtype: Any, is_read: bool) -> None:
    shape = {"head": {"kernel": np.zeros((3, 2), np.float32)}}
    save_file({"fc.weight": np.ones((2, 3), dtype)}, tmp_path / "w.safetensors")
    if is_read:
        params, _ = weights.read(tmp_path / "w.safetensors", "resnet18", shape, {})
        np.testing.assert_array_equal(params["head"]["kernel"], np.ones((3, 2), np.float32))
    else:
        with pytest.raises(base.UserError, match=r"'fc.weight' is of int8, expected floats: quantised weights"):
            weights.read(tmp_path / "w.safetensors", "resnet18", shape, {})


def test_files_that_are_no_weights_are_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "text.safetensors").write_text("no tensors")
    (tmp_path / "text.npz").write_text("no arrays")
    np.savez(tmp_path / "pickled.npz", head=np.array([{}]))
    for file, message in (
        ("text.safetensors", "cannot be read as safetensors of plain floats"),
        ("none.safetensors", "cannot be read: No such file"),
        ("none.npz", "cannot be read: No such file"),
        ("text.npz", "cannot be used: it is no .npz file"),
        ("pickled.npz", "head holds Python objects; expected an array of numbers"),
    ):
        with pytest.raises(base.UserError, match=message):
            weights.read(tmp_path / file, "vit", {}, {})
    with pytest.raises(
        base.UserError, match=r"the names of mlp in \.safetensors files are not known; known are those of"
    ):
        weights.read(tmp_path / "text.safetensors", "mlp", {}, {})
    with pytest.raises(
        base.UserError, match=r"the names of swin in \.npz files are not known; known are those of vit\."
    ):
        weights.read(tmp_path / "text.npz", "swin", {}, {})


HOSTILE = 'a\'); print("$(touch executed)").pth'


@pytest.mark.parametrize("name", ["model.pth", "checkpoint-300.pt", "model_best.pth.tar", "pytorch_model.bin", HOSTILE])
def test_pickles_are_refused_with_the_line_that_converts_them(
    tmp_path: pathlib.Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is in them; as --pre they are no method's name."""
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")
    for flag, given in (("--original", tmp_path / name), ("--pre", tmp_path / name), ("--pre", name)):
        assert cli.run(["unlearn", "--model", "resnet18", flag, str(given), "--out", str(tmp_path / "run")]) == 2
        said = capsys.readouterr().err
        assert said.startswith("mcu-jax: the weights ")
        assert "are a pickle, which may run any program when it is opened, and is not read" in said
        python, flag, line, *places = shlex.split(said[said.index("python -c") :])
        assert (python, flag) == ("python", "-c")
        compile(line, "line", "exec")
        assert "torch.load(sys.argv[1], map_location='cpu', weights_only=True)" in line
        assert line.endswith(", sys.argv[2])")
        assert places == [str(given), f"{str(given).partition('.')[0]}.safetensors"]
    assert not (tmp_path / "run").exists()


def test_a_file_of_another_kind_is_no_checkpoint(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.h5").write_text("")
    assert cli.run(["unlearn", "--original", str(tmp_path / "model.h5"), "--out", str(tmp_path / "run")]) == 2
    assert "is no checkpoint: weights are a folder, as `mcu-jax export` writes it, or a" in capsys.readouterr().err


# The public JAX ViT


class _Jax(nn.Module):
    """As it is published: flax's own attention, positions and names; with the exact GELU, as ours."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.Conv(24, (4, 4), (4, 4), padding="VALID", name="embedding")(x)
        token = self.param("cls", nn.initializers.zeros, (1, 1, 24))
        x = jnp.concatenate([jnp.tile(token, (len(x), 1, 1)), x.reshape(len(x), -1, 24)], axis=1)
        return nn.Dense(CLASSES, name="head")(_Encoder(name="Transformer")(x)[:, 0])


class _Encoder(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = _Positions(name="posembed_input")(x)
        for i in range(2):
            x = _EncoderBlock(name=f"encoderblock_{i}")(x)
        return nn.LayerNorm(name="encoder_norm")(x)


class _Positions(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return x + self.param("pos_embedding", nn.initializers.zeros, (1, *x.shape[1:]))


class _EncoderBlock(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        y = nn.LayerNorm(name="LayerNorm_0")(x)
        x = x + nn.MultiHeadDotProductAttention(3, name="MultiHeadDotProductAttention_1")(y, y)
        return x + _Mlp(name="MlpBlock_3")(nn.LayerNorm(name="LayerNorm_2")(x))


class _Mlp(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(24, name="Dense_1")(nn.gelu(nn.Dense(96, name="Dense_0")(x), approximate=False))


def test_the_public_jax_vit_is_read(tmp_path: pathlib.Path) -> None:
    x, theirs, ours = arrays.images((2, 8, 8, 3)), _Jax(), _vit._made(CLASSES, _vit._Size(24, 2, 3), 4)
    blank = jax.eval_shape(lambda: theirs.init(jax.random.key(0), x))["params"]
    names = trees.names(blank)
    leaves = [
        arrays.weight(f"{name}.weight", leaf.shape) for name, leaf in zip(names, jax.tree.leaves(blank), strict=True)
    ]
    np.savez(tmp_path / "vit.npz", **dict(zip(names, leaves, strict=True)))
    expected = theirs.apply({"params": jax.tree.unflatten(jax.tree.structure(blank), leaves)}, x)
    params, _ = weights.read(tmp_path / "vit.npz", "vit", *shapes(ours, x))
    np.testing.assert_allclose(ours.apply(params, x)[0], expected, atol=1e-5)
    with np.load(tmp_path / "vit.npz") as opened:
        fewer = {name: opened[name] for name in opened.files if "encoderblock_1/LayerNorm_2/bias" not in name}
    np.savez(tmp_path / "fewer.npz", **fewer)
    with pytest.raises(base.UserError, match=r"it lacks 'blocks\.1\.norm2\.bias'; give"):
        weights.read(tmp_path / "fewer.npz", "vit", *shapes(ours, x))
