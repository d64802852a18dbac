from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx as flax_nnx
from flax.nnx.nn import dtypes
from jaxtyping import Array, Float

from mcu_jax import base
from mcu_jax.models import _adapt


def nnx(
    module: flax_nnx.Module, *, init: Callable[[flax_nnx.Rngs], flax_nnx.Module] | None = None, name: str | None = None
) -> tuple[base.Model, base.Params, base.Stats]:
    """(Model, params, stats) from your own NNX module, BatchNorm and Dropout included.

    module: takes the inputs, one array or a dict of arrays; returns logits. It is not changed. params and stats: its
        weights and its BatchNorm's running statistics (none: an empty dict) as dicts nested as its attributes are. They
        are for `Problem(params=…, stats=…)` where the module is trained; an untrained one's statistics mean nothing.
    init: rngs -> a fresh module like this one; needed only where the model is trained from the start.
    BatchNorm's momentum counts as 0, so that the statistics are those of the batch; Dropout drops where there is a key,
    in training. Raises UserError for custom normalisation layers whose statistics are running averages (`check`).
    """
    copy = flax_nnx.clone(module)
    copy.set_attributes(flax_nnx.BatchNorm, momentum=0.0, raise_if_not_found=False)
    for _, layer in flax_nnx.iter_modules(copy):
        if isinstance(layer, flax_nnx.BatchNorm) and layer.promote_dtype is dtypes.promote_dtype:
            layer.promote_dtype = _promote
    kinds = (flax_nnx.Param, flax_nnx.BatchStat, flax_nnx.RngState)
    parts: tuple[Any, ...] = flax_nnx.split(copy, *kinds, ...)
    graph, weights, moments, random, others = parts
    name = name or type(module).__name__

    def apply(
        params: base.Params, inputs: Any, stats: base.Stats | None = None, key: base.RandomKey | None = None
    ) -> tuple[Float[Array, "n *positions classes"], base.Stats]:
        states = (
            _filled(weights, params),
            moments if stats is None else _filled(moments, stats),
            random if key is None else _reseeded(random, key),
            others,
        )
        network = flax_nnx.merge(graph, *states, copy=True)
        network.set_attributes(
            use_running_average=stats is not None, deterministic=key is None, raise_if_not_found=False
        )
        logits = network(inputs)
        return logits, _as_dict(flax_nnx.state(network, flax_nnx.BatchStat)) if stats is None else stats

    def fresh(key: base.RandomKey, inputs: Any) -> base.Params:
        assert init is not None
        return _as_dict(flax_nnx.state(init(flax_nnx.Rngs(key)), flax_nnx.Param))

    model = _adapt.adapt(apply, init=None if init is None else fresh, name=name)
    return model, _as_dict(weights), _as_dict(moments)


def _promote(values: Any, /, *, dtype: Any = None, **options: Any) -> Any:
    """Without a dtype each as it is, as in Linen: moments in float32 would make all of a cheaper layer float32."""
    return values if dtype is None else dtypes.promote_dtype(values, dtype=dtype, **options)


def _as_dict(state: Any) -> dict[str, Any]:
    """Nested dicts of arrays. Keys are strings, positions in lists too, as checkpoints need them."""
    nested: dict[str, Any] = {}
    for path, variable in flax_nnx.to_flat_state(state):
        inner = nested
        for part in path[:-1]:
            inner = inner.setdefault(str(part), {})
        inner[str(path[-1])] = variable.get_value()
    return nested


def _filled(state: Any, values: Any) -> Any:
    """A state with its values from nested dicts."""

    def value(path: tuple) -> Any:
        inner = values
        for part in path:
            inner = inner[str(part)]
        return inner

    flat = [(path, variable.replace(value(path))) for path, variable in flax_nnx.to_flat_state(state)]
    return flax_nnx.from_flat_state(flat)


def _reseeded(state: Any, key: base.RandomKey) -> Any:
    """The state with its random streams restarted, stream i from key folded with i."""

    def restart(i: int, variable: Any) -> Any:
        old = variable.get_value()
        if isinstance(variable, flax_nnx.RngKey):
            fresh = jax.random.fold_in(key, i)
            return variable.replace(
                fresh if jnp.issubdtype(old.dtype, jax.dtypes.prng_key) else jax.random.key_data(fresh)
            )
        return variable.replace(jnp.zeros_like(old))

    flat = flax_nnx.to_flat_state(state)
    return flax_nnx.from_flat_state([(path, restart(i, variable)) for i, (path, variable) in enumerate(flat)])
