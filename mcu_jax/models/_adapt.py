from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float, Shaped

from mcu_jax import base


@functools.cache
def adapt(
    apply: Callable[..., Any],
    *,
    init: Callable[..., base.Params] | None = None,
    name: str | None = None,
    features: Callable[..., Any] | None = None,
    head: tuple[str, ...] | None = None,
    permutations: tuple[base.Units, ...] | None = None,
) -> base.Model:
    """A Model from your own `apply(params, x)`: Linen, NNX (split and merge inside), Equinox or plain JAX.

    apply: a pure function that returns logits [n, classes], or (logits, stats). It may also take `stats`
        and `key`, by these names, with the meaning of `base.Model.apply`. x arrives as the data set holds it:
        uint8 images are not scaled.
    init: (key, x) -> params; needed only where the model is trained from the start.
    features, head, permutations: as in `base.Model`.
    The same function adapted twice with the same arguments gives the same Model. Raises ValueError for a
    signature it cannot call, or when logits are not two-dimensional.
    """
    name = name or str(getattr(apply, "__name__", type(apply).__name__))
    parameters = list(inspect.signature(apply).parameters.values())
    taken = {"stats", "key"} & {parameter.name for parameter in parameters}
    required = [
        parameter
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.name not in taken
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    variadic = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    if len(required) > 2 or (len(required) < 2 and not variadic):
        given = ", ".join(map(str, parameters))
        raise ValueError(
            f"adapt needs apply(params, x), optionally with stats and key; {name} takes ({given}). Wrap it, "
            "as in `def apply(params, x): return module.apply({'params': params}, x)`."
        )

    def adapted_apply(
        params: base.Params,
        x: Shaped[Any, "n ..."],
        stats: base.Stats | None = None,
        key: base.RandomKey | None = None,
    ) -> tuple[Float[Array, "n classes"], base.Stats]:
        extra = {"stats": stats, "key": key}
        result = apply(params, x, **{argument: extra[argument] for argument in taken})
        if not isinstance(result, tuple):
            result = (result, {} if stats is None else stats)
        logits, stats = result
        if logits.ndim != 2:
            raise ValueError(f"{name} must return logits [n, classes]; got shape {logits.shape}.")
        return logits, stats

    def no_init(key: base.RandomKey, x: Shaped[Any, "n ..."]) -> base.Params:
        raise ValueError(
            f"{name} cannot be initialised: it was adapted without init. Give models.adapt(apply, init=...) "
            "a function (key, x) -> params, or bring trained parameters."
        )

    return base.Model(name, init or no_init, adapted_apply, features, head, permutations)
