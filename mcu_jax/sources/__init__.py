"""Where examples are: arrays on the device, or anything on the host that gives examples by their indices.

`take` is the only function that knows. Off the device it is a call from inside the compiled program to the host, so
that training, gradients and sweeps are the same functions wherever the data lies, also under vmap; `ahead` tells the
host what they will ask for, so that it is read while they compute.
"""

from mcu_jax.sources._host import (
    SHARE,
    Host,
    ahead,
    first,
    largest_batch,
    length,
    memory_mapped,
    placed,
    read,
    take,
)

__all__ = [
    "SHARE",
    "Host",
    "ahead",
    "first",
    "largest_batch",
    "length",
    "memory_mapped",
    "placed",
    "read",
    "take",
]
