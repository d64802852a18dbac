from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Any

import flax.linen as nn
from jaxtyping import Array, Shaped

from mcu_jax import base
from mcu_jax.models import _linen

Widths = base.Range("one or more positive hidden widths, such as 64 or [128, 64]", base.Count.holds)


def mlp(*, num_classes: int, hidden: Annotated[int | Sequence[int], Widths] = (64,)) -> base.Model:
    """Dense layers with relu. hidden: the width of each hidden layer; an integer is one layer."""
    widths = (hidden,) if isinstance(hidden, int) else tuple(hidden)
    if not widths or not all(map(Widths.holds, widths)):
        raise base.UserError(f"mlp needs {Widths.words}; got {hidden!r}.")
    names = [*(f"dense{i}" for i in range(len(widths))), "head"]
    units = (
        base.Units(((f"{layer}/kernel", 1), (f"{layer}/bias", 0), (f"{following}/kernel", 0)))
        for layer, following in itertools.pairwise(names)
    )
    return _linen.model(_Mlp(num_classes, widths), "mlp", tuple(units))


class _Mlp(nn.Module):
    num_classes: int
    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Shaped[Any, "n ..."], train: bool) -> tuple[Array, Array]:
        x = _linen.as_float(x)
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.hidden):
            x = nn.relu(nn.Dense(width, name=f"dense{i}")(x))
        return nn.Dense(self.num_classes, name="head")(x), x
