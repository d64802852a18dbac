from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float

from mcu_jax import base
from mcu_jax.models import _check

_OPTIONAL = ("stats", "key", "frozen")


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
    """A Model from your own `apply(params, inputs)`: Equinox, plain JAX, whatever is a pure function.

    For a Flax module there are `linen` and `nnx`, which see to BatchNorm and Dropout.
    apply: returns logits [n, classes], or [n, positions, classes], alone or as (logits, stats). It may also take
        `stats`, `key` and `frozen`, by these names, with the meaning of `base.Model.apply`, and is given only those it
        takes. inputs: one array or a dict of arrays, as the data set holds them: uint8 images are not scaled.
    init: (key, inputs) -> params; needed only where the model is trained from the start.
    features, head, permutations: as in `base.Model`.
    The same function adapted twice with the same arguments gives the same Model. Raises UserError for a signature it
    cannot call and, when called, for logits of fewer than two dimensions, running averages as statistics (`check`), and
    frozen weights that apply does not take.
    """
    name = name or str(getattr(apply, "__name__", type(apply).__name__))
    taken = _taken(apply, name)

    def run(
        params: base.Params,
        inputs: Any,
        stats: base.Stats | None = None,
        key: base.RandomKey | None = None,
        frozen: Any = None,
    ) -> tuple[Float[Array, "n *positions classes"], base.Stats]:
        if frozen is not None and "frozen" not in taken:
            raise base.UserError(
                f"the problem has frozen weights, and {name} does not take them: add an argument `frozen`"
            )
        given = {"stats": stats, "key": key, "frozen": frozen}
        result = apply(params, inputs, **{argument: given[argument] for argument in taken})
        if not isinstance(result, tuple):
            result = (result, {} if stats is None else stats)
        logits, stats = result
        if logits.ndim < 2:
            raise base.UserError(f"{name} must return logits [n, classes]; got shape {logits.shape}.")
        return logits, stats

    return base.Model(name, init or _no_init(name), _check.checked(name, run), features, head, permutations)


def _taken(apply: Callable[..., Any], name: str) -> list[str]:
    """Which of the optional arguments a function takes."""
    parameters = list(inspect.signature(apply).parameters.values())
    taken = [parameter.name for parameter in parameters if parameter.name in _OPTIONAL]
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
        raise base.UserError(
            f"adapt needs apply(params, inputs), optionally with stats, key and frozen; {name} takes ({given}). Wrap "
            "it, as in `def apply(params, x): return module.apply({'params': params}, x)`."
        )
    return taken


def _no_init(name: str) -> Callable[..., base.Params]:
    def no_init(key: base.RandomKey, inputs: Any) -> base.Params:
        raise base.UserError(
            f"{name} cannot be initialised: it was adapted without init. Give models.adapt(apply, init=...) "
            "a function (key, inputs) -> params, or models.nnx(module, init=...) one of rngs -> module, or bring "
            "trained parameters."
        )

    return no_init
