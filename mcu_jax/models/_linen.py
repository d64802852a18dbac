"""From a Linen module to a `base.Model`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from mcu_jax import base
from mcu_jax.models import _adapt, _conv

Conv = functools.partial(nn.Conv, use_bias=False, conv_general_dilated=_conv.conv)

_TRAINING = {"train": True, "training": True, "is_training": True, "deterministic": False, "use_running_average": False}
"""Arguments that switch a module between training and evaluation, and their values for training."""


def as_float(x: Shaped[Any, "n ..."]) -> Float[Array, "n ..."]:
    """uint8 0..255 to float32 -1..1; floats pass."""
    x = jnp.asarray(x)
    return x.astype(jnp.float32) / 127.5 - 1.0 if x.dtype == jnp.uint8 else x


def norm_axes(name: str) -> list[tuple[str, int]]:
    """Where a normalisation layer of this name counts its units, as `base.Units` has it."""
    return [(f"{name}/scale", 0), (f"{name}/bias", 0)]


def forgetful(block: Any, remat: bool) -> Any:
    """A class of modules, or a function of one: with `remat` the gradient computes anew what happens inside it."""
    return nn.remat(block) if remat else block


def linen(module: nn.Module, *, name: str | None = None, head: tuple[str, ...] | None = None) -> base.Model:
    """A Model from your own Linen module, BatchNorm and Dropout included. Its `params` are the module's "params".

    module: takes the inputs, one array or a dict of arrays, and optionally any of the arguments train, training,
        is_training, deterministic and use_running_average; returns logits. uint8 images are not scaled: `as_float`.
    BatchNorm's momentum counts as 0, so that the statistics are those of the batch; the running statistics of a trained
    original are `problem.stats`. Dropout drops where there is a key, in training. Two Models of equal modules are two
    models: build one and share it. Raises UserError for a module with other required arguments, and for one with
    custom normalisation layers whose statistics are running averages (`check`).
    """
    init, run = _functions(module)
    return _adapt.adapt(run, init=init, name=name or type(module).__name__, head=head)


@functools.cache  # Linen modules compare by their fields, so equal arguments give the identical Model
def model(module: nn.Module, name: str, permutations: tuple[base.Units, ...]) -> base.Model:
    """A built-in one: `module(x, train) -> (logits, features)`, its output layer named "head"."""
    init, run = _functions(module)

    def apply(
        params: base.Params,
        inputs: Any,
        stats: base.Stats | None = None,
        key: base.RandomKey | None = None,
        frozen: base.Params | None = None,
    ) -> tuple[Float[Array, "n classes"], base.Stats]:
        del frozen
        (logits, _), stats = run(params, inputs, stats, key)
        return logits, stats

    def features(
        params: base.Params, x: Shaped[Any, "n ..."], stats: base.Stats | None = None
    ) -> Float[Array, "n width"]:
        return run(params, x, stats, None)[0][1]

    return base.Model(name, init, apply, features, head=("head",), permutations=permutations)


class _Functions(NamedTuple):
    """init as in `base.Model`. run(params, inputs, stats, key) -> (what the module returns, statistics)."""

    init: Callable[[base.RandomKey, Any], base.Params]
    run: Callable[..., tuple[Any, base.Stats]]


def _functions(module: nn.Module) -> _Functions:
    training, evaluation = _flags(module, True), _flags(module, False)
    initialise = jax.jit(functools.partial(module.init, **training))  # compiled: the forward pass is left out

    def init(key: base.RandomKey, inputs: Any) -> base.Params:
        return initialise(key, jax.tree.map(lambda x: x[:1], inputs))["params"]

    def run(params: base.Params, inputs: Any, stats: base.Stats | None, key: base.RandomKey | None) -> Any:
        rngs = None if key is None else {"params": key}  # streams of other names draw from this one
        with nn.intercept_methods(functools.partial(_intercept, drop=key is not None)):
            if stats is not None:
                return module.apply({"params": params, "batch_stats": stats}, inputs, rngs=rngs, **evaluation), stats
            outputs, new = module.apply({"params": params}, inputs, rngs=rngs, mutable=["batch_stats"], **training)
            return outputs, new.get("batch_stats", {})

    return _Functions(init, run)


def _flags(module: nn.Module, training: bool) -> dict[str, Any]:
    """The module's arguments for training or evaluation. Raises UserError where it requires others."""
    _, *parameters = inspect.signature(type(module).__call__).parameters.values()
    required = [p.name for p in parameters[1:] if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    if not parameters or set(required) - set(_TRAINING):
        raise base.UserError(
            f"{type(module).__name__} takes ({', '.join(map(str, parameters))}); expected the inputs, and of other "
            f"required arguments only {', '.join(_TRAINING)}. Wrap it in a function for models.adapt."
        )
    return {p.name: _TRAINING[p.name] is training for p in parameters[1:] if p.name in _TRAINING}


def _intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any, *, drop: bool) -> Any:
    """Runs BatchNorm on the statistics of the batch alone, and without a key runs dropout at rate 0."""
    module = context.module
    dropping = () if drop else ((nn.Dropout, "rate"), (nn.MultiHeadDotProductAttention, "dropout_rate"))
    for layer, setting in ((nn.BatchNorm, "momentum"), *dropping):
        if isinstance(module, layer) and getattr(module, setting) != 0 and context.method_name == "__call__":
            # A copy bound to the same variables, with one setting changed.
            return module.clone(parent=module.scope, **{setting: 0.0})(*args, **kwargs)
    return call(*args, **kwargs)
