from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from mcu_jax import Model, Problem, UserError, curves, methods, metrics, models, paths, trees
from mcu_jax.models import _conv, _norm

KEY = jax.random.key(0)
PARAMETERS = {  # for 32×32×3 images and 10 classes, added up by hand
    "mlp": 3072 * 64 + 64 + 650,
    "cnn": 27 * 16 + 32 + 144 * 32 + 64 + 288 * 64 + 128 + 1024 * 128 + 128 + 1290,
    "preresnet": 432 + 3 * 4672 + 14432 + 2 * 18560 + 57536 + 2 * 73984 + 128 + 650,
}


def images(n: int = 5, shape: tuple[int, ...] = (8, 8, 3)) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (n, *shape)).astype(np.uint8)


def small(name: str) -> Model:
    return getattr(models, name)(num_classes=7, **({"depth": 8} if name == "preresnet" else {}))


PADS = ((0, 0), (1, 1), (1, 1), (0, 0))
"""Of images, for a kernel of 3 × 3."""


def assert_close(a: jax.Array, b: jax.Array, tolerance: float = 2e-6) -> None:
    scale = float(jnp.abs(b).max())
    np.testing.assert_allclose(a, b, atol=tolerance * scale, rtol=0)


@pytest.mark.parametrize("name", models.NAMES)
def test_every_layer_has_a_name_of_its_own(name: str) -> None:
    made = jax.eval_shape(small(name).init, KEY, jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.uint8))
    assert not [leaf for leaf in trees.names(made) if leaf != leaf.lower()], "flax's own names count, as Conv_0"


@pytest.mark.parametrize("name", PARAMETERS)
def test_shapes_and_independence_of_batch_mates(name: str) -> None:
    model, x = small(name), images()
    params = model.init(KEY, x)
    apply = jax.jit(model.apply)
    logits, stats = apply(params, x)
    assert (logits.shape, logits.dtype) == ((5, 7), jnp.float32)
    assert bool(stats) == (name == "preresnet")

    logits, returned = apply(params, x, stats)
    jax.tree.map(np.testing.assert_array_equal, returned, stats)
    mixed, _ = apply(params, np.concatenate([x[:2], 255 - x[2:]]), stats)
    assert_close(mixed[:2], logits[:2])
    assert float(jnp.abs(mixed[2:] - logits[2:]).max()) > 1e-3

    hidden = jax.jit(model.features)(params, x, stats)
    assert model.head is not None
    head = params[model.head[0]]
    assert_close(hidden @ head["kernel"] + head["bias"][None], logits)


def test_uint8_is_centred_and_floats_pass() -> None:
    model, x = small("mlp"), images()
    params = model.init(KEY, x)
    assert_close(model.apply(params, x.astype(np.float32) / 127.5 - 1)[0], model.apply(params, x)[0])
    assert_close(
        model.apply(params, np.zeros((1, 8, 8, 3), np.uint8))[0],
        model.apply(params, -jnp.ones((1, 8, 8, 3)))[0],
    )


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count(name: str) -> None:
    assert count(getattr(models, name)(num_classes=10), 32) == PARAMETERS[name]


def sizes(model: Model, side: int) -> list[int]:
    params = jax.eval_shape(model.init, KEY, jnp.zeros((1, side, side, 3)))
    return [leaf.size for leaf in jax.tree.leaves(params)]


def count(model: Model, side: int) -> int:
    return sum(sizes(model, side))


@pytest.mark.parametrize(
    ("model", "side", "published"),
    [
        (models.resnet18(num_classes=1000, stem="imagenet"), 224, 11_689_512),
        (models.resnet50(num_classes=1000, stem="imagenet"), 224, 25_557_032),
        (models.resnet18(num_classes=10), 32, 11_173_962),
        (models.vgg16_bn(num_classes=200), 64, 16_137_480),
        (models.vit(num_classes=1000), 224, 5_717_416),
        (models.vit(num_classes=1000, size="S"), 224, 22_050_664),
        (models.vit(num_classes=100, size="B"), 224, 85_875_556),
        (models.swin(num_classes=1000), 224, 28_288_354),
        (models.swin(num_classes=1000, size="B"), 224, 87_768_224),
    ],
)
def test_public_networks_have_their_published_counts(model: Model, side: int, published: int) -> None:
    assert count(model, side) == published


def test_preresnet110_has_the_published_count_in_as_many_tensors() -> None:
    found = sizes(models.preresnet(num_classes=10, depth=110), 32)
    assert (sum(found), len(found)) == (1_146_842, 332)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda: models.resnet18(num_classes=2, stem="large"),
            "the stem of resnet18 is imagenet or cifar; got 'large'",
        ),
        (lambda: models.vit(num_classes=2, size="L"), "the size of vit is Ti, S, B; got 'L'"),
        (lambda: models.swin(num_classes=2, size="S"), "the size of swin is T, B; got 'S'"),
        (lambda: count(models.vit(num_classes=2), 40), "takes images whose sides it divides, given 40 × 40"),
        (lambda: count(models.swin(num_classes=2), 30), "takes images whose sides 4 divides, given 30 × 30"),
        (lambda: count(models.vgg16_bn(num_classes=2), 16), "images of 32 pixels or more, given 16 × 16"),
    ],
)
def test_what_a_network_does_not_take(ask: Callable, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ask()


def test_same_arguments_same_model() -> None:
    assert models.mlp(num_classes=3) is models.mlp(num_classes=3, hidden=64) is models.mlp(num_classes=3, hidden=[64])
    assert models.mlp(num_classes=3) is not models.mlp(num_classes=3, hidden=(64, 64))
    assert models.cnn(num_classes=3) is models.cnn(num_classes=3) is not models.cnn(num_classes=4)
    assert models.preresnet(num_classes=3) is models.preresnet(num_classes=3, depth=20)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"positive hidden widths.*got 0"):
        models.mlp(num_classes=3, hidden=0)
    for depth in (2, 21, 44, 50):
        with pytest.raises(ValueError, match=rf"20.*110.*got {depth}"):
            models.preresnet(num_classes=3, depth=depth)
    for depth in (8, 38, 47, 110):
        models.preresnet(num_classes=3, depth=depth)


def test_bottlenecks() -> None:
    model = models.preresnet(num_classes=10, depth=164)
    params = jax.eval_shape(model.init, KEY, jnp.zeros((1, 32, 32, 3)))

    def block(inputs: int, planes: int) -> int:
        return 2 * inputs + inputs * planes + 2 * planes + 9 * planes**2 + 2 * planes + 4 * planes**2

    stages = [(16, 16), (64, 32), (128, 64)]
    blocks = sum(
        block(inputs, planes) + inputs * 4 * planes + 17 * block(4 * planes, planes) for inputs, planes in stages
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 432 + blocks + 512 + 2570
    assert params["head"]["kernel"].shape == (256, 10)


def test_batchnorm_train_moments_are_the_batch_s() -> None:
    model, x = small("preresnet"), images(16)
    params = model.init(KEY, x)
    logits, stats = jax.jit(model.apply)(params, x)

    # The first normalisation sees the first convolution's output, which is known without it.
    first = lax.conv_general_dilated(
        x.astype(np.float32) / 127.5 - 1,
        params["conv1"]["kernel"],
        (1, 1),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    moments = stats["layer1_0"]["bn1"]
    np.testing.assert_allclose(moments["mean"], np.mean(first, (0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(moments["var"], np.var(first, (0, 1, 2)), rtol=1e-4)
    # Evaluated with its own moments a batch gives what it gave in training.
    assert_close(jax.jit(model.apply)(params, x, stats)[0], logits, 1e-5)


def convolution_facts(conv: Callable[..., jax.Array], x: jax.Array, w: jax.Array, thorough: bool) -> Any:
    """The value, and gradients of a scalar of it: plain, by vmap over kernels, and in a Hessian product."""

    def loss(x: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
        out = conv(x, w)
        weights = jax.random.normal(KEY, out.shape)
        return jnp.sum(jnp.tanh(0.2 * out) * weights), out

    grad = jax.grad(loss, argnums=(0, 1), has_aux=True)
    if not thorough:
        return grad(x, w)
    vmapped, _ = jax.vmap(grad, (None, 0))(x, jnp.stack([w, 2.0 * w]))
    return vmapped, jax.jvp(lambda x, w: grad(x, w)[0], (x, w), (jnp.flip(x), jnp.flip(w)))


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "thorough"),
    [
        ((7, 8, 4), (3, 3), 1, "SAME", True),
        ((9, 8, 4), (3, 2), 1, ((2, 0), (0, 3)), False),
        ((8, 7, 4), (3, 3), 2, "SAME", True),
        ((8, 7, 4), (3, 3), 2, ((1, 1), (1, 1)), False),
        ((8, 7, 4), (1, 1), 2, ((0, 0), (0, 0)), False),
        ((9, 8, 4), (3, 3), 2, ((2, 0), (0, 3)), False),
        ((8, 7, 1), (3, 3), 2, "SAME", True),
        ((9, 8, 3), (3, 2), 2, ((2, 0), (0, 3)), False),
    ],
)
def test_convolution_agrees_with_lax(
    size: tuple[int, int, int], kernel: tuple[int, int], stride: int, padding: Any, thorough: bool
) -> None:
    x = jax.random.normal(KEY, (3, *size))
    w = jax.random.normal(KEY, (*kernel, size[-1], 5))
    strides = (stride, stride)

    def plain(x: jax.Array, w: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def ours(x: jax.Array, w: jax.Array) -> jax.Array:
        return _conv.conv(x, w, strides, padding)

    a, b = (jax.jit(lambda x, w, f=f: convolution_facts(f, x, w, thorough))(x, w) for f in (ours, plain))
    jax.tree.map(assert_close, a, b)


@pytest.mark.parametrize("fit", [1, 4, 6])
def test_weight_gradients_of_some_examples_at_a_time_are_those_of_all(
    fit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, grad = (jax.random.normal(key, (6, 7, 5, 4)) for key in jax.random.split(KEY))
    monkeypatch.setattr(_conv, "_CACHED", fit * 4 * 9 * 5 * 3 * 4)
    scanned = jax.make_jaxpr(functools.partial(_conv._of_weights, window=(3, 3)))(jnp.pad(x, PADS), grad)
    (loop,) = (equation for equation in scanned.eqns if equation.primitive.name == "scan")
    assert loop.params["length"] == {1: 6, 4: 2, 6: 1}[fit]  # a divisor
    plain = functools.partial(_conv.plain, x, strides=(1, 1), pads=PADS[1:3])
    (expected,) = jax.vjp(plain, jnp.zeros((3, 3, 4, 4)))[1](grad)
    assert_close(_conv._of_weights(jnp.pad(x, PADS), grad, (3, 3)), expected)


def test_group_norm_agrees_with_flax() -> None:
    x, blank = 3 + 2 * jax.random.normal(KEY, (4, 5, 6, 16)), jnp.ones((2, 5, 6, 16))
    params = {"scale": jnp.linspace(0.5, 2, 16), "bias": jnp.linspace(-1, 1, 16)}

    @functools.partial(jax.jit, static_argnums=0)
    def facts(module: nn.Module, x: jax.Array, blank: jax.Array, params: dict[str, jax.Array]) -> Any:
        def scalar(x: jax.Array, params: dict[str, jax.Array]) -> jax.Array:
            return jnp.sum(jnp.sin(module.apply({"params": params}, x)))

        values = [module.apply({"params": params}, inputs) for inputs in (x, blank)]
        return values, jax.grad(scalar, argnums=(0, 1))(x, params)

    ours, flax = _norm.GroupNorm(8), nn.GroupNorm(8)
    assert jax.tree.map(jnp.shape, ours.init(KEY, x)) == jax.tree.map(jnp.shape, flax.init(KEY, x))
    (values, gradients), (expected, their_gradients) = (facts(m, x, blank, params) for m in (ours, flax))
    jax.tree.map(assert_close, values, expected)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-5), gradients, their_gradients)


def test_convolution_refuses_groups_and_dilation() -> None:
    x, w = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 2))
    for option in ({"feature_group_count": 2}, {"rhs_dilation": (2, 2)}):
        with pytest.raises(NotImplementedError, match="groups"):
            _conv.conv(x, w, (1, 1), "SAME", **option)


def test_hessian_product_of_a_network() -> None:
    model, x = small("cnn"), images(4)
    params = model.init(KEY, x)

    def loss(params: dict) -> jax.Array:
        return jnp.mean(jax.nn.logsumexp(model.apply(params, x)[0], axis=1))

    product = jax.jit(lambda p: jax.jvp(jax.grad(loss), (p,), (p,))[1])(params)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(product))


def plain_apply(params: dict, x: jax.Array) -> jax.Array:
    return jnp.dot(x, params["w"])


def full_apply(params: dict, x: jax.Array, stats: dict | None = None, key: jax.Array | None = None) -> tuple:
    mean = x.mean(0) if stats is None else stats["mean"]
    noise = 0.0 if key is None else jax.random.normal(key, (1, 1))
    return jnp.dot(x - mean[None], params["w"]) + noise, {"mean": mean}


def check_adapted(model: Model, params: object, x: jax.Array) -> None:
    logits, stats = model.apply(params, x)
    assert logits.shape == (3, 2)
    assert stats == {}

    @jax.jit
    def grad(params: object) -> object:
        return jax.grad(lambda p: jnp.sum(jnp.square(model.apply(p, x)[0])))(params)

    grads = grad(params)
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grads)) > 0


def test_adapt_plain_linen_and_nnx() -> None:
    x = jax.random.normal(KEY, (3, 4))
    check_adapted(models.adapt(plain_apply), {"w": jnp.ones((4, 2))}, x)

    module = nn.Dense(2)
    params = module.init(KEY, x)["params"]
    linen = models.adapt(lambda params, x: module.apply({"params": params}, x), init=lambda key, x: params)
    check_adapted(linen, linen.init(KEY, x), x)

    graph, state = nnx.split(nnx.Linear(4, 2, rngs=nnx.Rngs(0)))
    check_adapted(models.adapt(lambda params, x: nnx.merge(graph, params)(x), name="nnx"), state, x)


def test_adapt_passes_stats_and_key() -> None:
    model = models.adapt(full_apply)
    x, params = jax.random.normal(KEY, (3, 4)), {"w": jnp.ones((4, 2))}
    logits, stats = model.apply(params, x)
    np.testing.assert_allclose(stats["mean"], x.mean(0))
    np.testing.assert_allclose(logits.sum(0), 0.0, atol=1e-5)
    zero = {"mean": jnp.zeros(4)}
    np.testing.assert_array_equal(model.apply(params, x, zero)[0], plain_apply(params, x))
    assert not np.allclose(model.apply(params, x, zero, KEY)[0], model.apply(params, x, zero)[0])

    # Logits alone from an apply that takes statistics: those given are returned.
    only_logits = models.adapt(lambda params, x, stats: plain_apply(params, x))
    assert only_logits.apply(params, x, zero)[1] is zero


def test_adapt_is_by_identity_and_refuses_clearly() -> None:
    model = models.adapt(plain_apply)
    assert model is models.adapt(plain_apply)
    assert model.name == "plain_apply"
    with pytest.raises(ValueError, match=r"models.adapt\(apply, init="):
        model.init(KEY, jnp.ones((1, 4)))
    with pytest.raises(ValueError, match=r"takes \(params, x, mask\)"):
        models.adapt(lambda params, x, mask: x)
    with pytest.raises(ValueError, match=r"takes \(params\)"):
        models.adapt(lambda params: params)
    with pytest.raises(ValueError, match=r"logits \[n, classes\]; got shape \(3,\)"):
        models.adapt(lambda params, x: x[:, 0]).apply({}, jnp.ones((3, 4)))
    with pytest.raises(ValueError, match=r"frozen weights, and plain_apply does not take them"):
        model.apply({"w": jnp.ones((4, 2))}, jnp.ones((3, 4)), frozen={"w": jnp.ones(4)})


def test_adapt_passes_frozen_weights_and_dicts_of_inputs() -> None:
    def apply(params: dict, inputs: dict, frozen: dict) -> jax.Array:
        return (inputs["a"] + inputs["b"]) @ (frozen["w"] + params["w"])

    x, frozen = jnp.ones((3, 4)), {"w": jnp.full((4, 2), 2.0)}
    logits, stats = models.adapt(apply).apply({"w": jnp.ones((4, 2))}, {"a": x, "b": x}, frozen=frozen)
    np.testing.assert_array_equal(logits, jnp.full((3, 2), 24.0))
    assert stats == {}


class LinenNet(nn.Module):
    """BatchNorm with Flax's default momentum, and Dropout, both switched by one argument."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(x)))
        x = nn.remat(Attend)(not train)(nn.Dropout(0.5, deterministic=not train)(x))
        return nn.Dense(3)(x)


class Attend(nn.Module):
    deterministic: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.MultiHeadDotProductAttention(2, dropout_rate=0.5, deterministic=self.deterministic)(x[:, None])[:, 0]


class NnxNet(nnx.Module):
    """The same with layers in a list, without attention."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.List([nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 8, rngs=rngs)])
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.hidden:
            x = layer(x)
        return self.head(self.dropout(nnx.relu(self.norm(x))))


INPUTS = 1 + 2 * jax.random.normal(KEY, (12, 4))


def flax_model(kind: str) -> tuple[Model, Any]:
    if kind == "linen":
        model = models.linen(LinenNet())
        return model, model.init(KEY, INPUTS)
    model, params, _ = models.nnx(NnxNet(nnx.Rngs(0)), init=NnxNet)
    return model, params


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_flax_modules_with_batchnorm_and_dropout(kind: str) -> None:
    model, params = flax_model(kind)
    apply = jax.jit(model.apply)
    logits, stats = apply(params, INPUTS)
    # The statistics are those of the batch, and without a key nothing is dropped.
    assert_close(apply(params, INPUTS, stats)[0], logits, 1e-5)
    (norm,) = stats.values()
    assert set(norm) == {"mean", "var"}
    shifted = {name: {"mean": values["mean"] + 1, "var": values["var"]} for name, values in stats.items()}
    assert not np.allclose(apply(params, INPUTS, shifted)[0], logits)
    jax.tree.map(np.testing.assert_array_equal, apply(params, INPUTS, shifted)[1], shifted)

    dropped, again, other = (apply(params, INPUTS, None, jax.random.key(i))[0] for i in (1, 1, 2))
    np.testing.assert_array_equal(dropped, again)
    assert not np.allclose(dropped, logits)
    assert not np.allclose(dropped, other)

    grads = jax.jit(jax.grad(lambda p: jnp.sum(jnp.square(model.apply(p, INPUTS, None, KEY)[0]))))(params)
    assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, params)
    fresh = model.init(jax.random.key(5), INPUTS)
    assert jax.tree.structure(fresh) == jax.tree.structure(params)
    assert not all(jax.tree.leaves(jax.tree.map(np.array_equal, fresh, params)))
    assert all(type(key) is str for path, _ in jax.tree.leaves_with_path(params) for key in (p.key for p in path))


def test_flax_modules_give_what_flax_gives() -> None:
    module, (model, params) = LinenNet(), flax_model("linen")
    stats = {"BatchNorm_0": {"mean": jnp.linspace(-1, 1, 8), "var": jnp.linspace(0.5, 2, 8)}}
    expected = module.apply({"params": params, "batch_stats": stats}, INPUTS, train=False)
    assert_close(model.apply(params, INPUTS, stats)[0], expected)
    # In training mode too, whatever the momentum: it is about what is remembered.
    rngs = {"params": jax.random.key(1)}
    train, _ = module.apply({"params": params}, INPUTS, train=True, mutable=["batch_stats"], rngs=rngs)
    assert_close(model.apply(params, INPUTS, None, rngs["params"])[0], train)

    network = NnxNet(nnx.Rngs(0))
    network(INPUTS)  # moves the running statistics
    model, params, stats = models.nnx(network)
    assert network.norm.momentum == 0.99
    network.eval()
    assert_close(model.apply(params, INPUTS, stats)[0], network(INPUTS))
    with pytest.raises(ValueError, match=r"models\.nnx\(module, init="):
        model.init(KEY, INPUTS)


def test_flax_modules_take_a_dict_of_inputs() -> None:
    class Net(nn.Module):
        @nn.compact
        def __call__(self, inputs: dict[str, jax.Array]) -> jax.Array:
            return nn.Dense(3)(nn.Embed(9, 4)(inputs["tokens"]) * inputs["mask"][..., None])

    inputs = {"tokens": jnp.arange(8).reshape(2, 4), "mask": jnp.ones((2, 4))}
    model = models.linen(Net())
    logits, stats = model.apply(model.init(KEY, inputs), inputs)
    assert logits.shape == (2, 4, 3)
    assert stats == {}


def test_a_module_that_cannot_be_called_is_refused() -> None:
    class Masked(nn.Module):
        def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
            return x

    with pytest.raises(ValueError, match=r"Masked takes \(x.*, mask.*\).*models\.adapt"):
        models.linen(Masked())


def remembering(momentum: float, dropout: float = 0.0) -> Callable[..., tuple]:
    """An `apply` of one's own around a Linen module with BatchNorm."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool, drop: bool) -> jax.Array:
            x = nn.BatchNorm(use_running_average=not train, momentum=momentum)(nn.Dense(8)(x))
            return nn.Dense(3)(nn.Dropout(dropout, deterministic=not drop)(nn.relu(x)))

    module = Net()

    def apply(params: Any, x: jax.Array, stats: Any = None, key: jax.Array | None = None) -> tuple:
        variables = {"params": params} if stats is None else {"params": params, "batch_stats": stats}
        rngs = None if key is None else {"dropout": key}
        logits, new = module.apply(
            variables, x, train=stats is None, drop=key is not None, mutable=["batch_stats"], rngs=rngs
        )
        return logits, new["batch_stats"] if stats is None else stats

    return apply


def params_of_remembering() -> Any:
    return {
        "Dense_0": {"kernel": jax.random.normal(KEY, (4, 8)), "bias": jnp.zeros(8)},
        "BatchNorm_0": {"scale": jnp.ones(8), "bias": jnp.zeros(8)},
        "Dense_1": {"kernel": jax.random.normal(KEY, (8, 3)), "bias": jnp.zeros(3)},
    }


def test_statistics_with_a_memory_are_refused() -> None:
    params, refusal = params_of_remembering(), r"not those of its batch.*momentum=0\.0"
    for momentum in (0.99, 0.1):
        model = models.adapt(remembering(momentum))
        with pytest.raises(ValueError, match=refusal):
            model.apply(params, INPUTS)
        with pytest.raises(ValueError, match=refusal):  # under a trace as well
            jax.jit(jax.vmap(model.apply, (None, 0)))(params, INPUTS[None])
        model.apply(params, INPUTS, {"BatchNorm_0": {"mean": jnp.zeros(8), "var": jnp.ones(8)}})

    # Nothing can be said of an apply that closes over values of a trace, and it is left alone.
    scaled = remembering(0.99)
    jax.jit(lambda c: models.adapt(lambda p, x, stats=None: scaled(p, c * x, stats)).apply(params, INPUTS)[0])(2.0)

    # A deep one neither, whose random weights must not overflow.
    class Deep(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool, drop: bool = False) -> jax.Array:
            for _ in range(60):
                x = nn.BatchNorm(use_running_average=not train, momentum=0.99)(nn.Dense(4)(x))
            return x

    deep = Deep()
    variables = deep.init(KEY, INPUTS, train=True)

    def apply(params: Any, x: jax.Array, stats: Any = None) -> tuple:
        everything = {"params": params, "batch_stats": variables["batch_stats"] if stats is None else stats}
        logits, new = deep.apply(everything, x, train=stats is None, mutable=["batch_stats"])
        return logits, new["batch_stats"]

    with pytest.raises(ValueError, match=refusal):
        models.adapt(apply).apply(variables["params"], INPUTS)

    custom = Model("custom", lambda key, x: params, remembering(0.99))
    with pytest.raises(ValueError, match=refusal):
        models.check(custom, params, INPUTS)

    # Dropout is no memory: without a key there is none.
    fine = models.adapt(remembering(0.0, dropout=0.5))
    fine.apply(params, INPUTS)
    fine.apply(params, INPUTS, None, KEY)
    models.check(fine, params, INPUTS)
    preresnet = small("preresnet")
    models.check(preresnet, preresnet.init(KEY, images()), images())


def test_metrics_methods_and_paths_refuse_a_memory(normed: Callable[..., Problem]) -> None:
    problem = normed(24)
    whole = problem.model.apply

    def apply(params: dict, x: jax.Array, stats: dict | None = None) -> tuple[jax.Array, dict]:
        logits, new = whole(params, x, stats)
        return logits, jax.tree.map(lambda moment: 0.01 * moment, new) if stats is None else new

    problem = dataclasses.replace(problem, model=models.adapt(apply))
    path = curves.straight(problem.params, jax.tree.map(jnp.negative, problem.params))
    for use in (
        lambda: metrics.evaluate(problem, problem.params),
        lambda: methods.finetune(problem, KEY),
        lambda: paths.evaluate(problem, path, [0.0, 1.0]),
    ):
        with pytest.raises(ValueError, match="not those of its batch"):
            use()


def test_a_model_is_checked_once() -> None:
    calls = []
    apply = remembering(0.0)

    def counted(params: Any, x: jax.Array, stats: Any = None) -> tuple:
        calls.append(x.shape)
        return apply(params, x, stats)

    model, params = models.adapt(counted), params_of_remembering()
    model.apply(params, INPUTS)
    first = len(calls)
    for _ in range(3):
        jax.jit(lambda p: model.apply(p, INPUTS)[0])(params)
    assert len(calls) == first + 3
