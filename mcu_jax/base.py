"""The types every other module speaks in. Imports nothing of the library."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
from jaxtyping import Array, Bool, Float, Key, PyTree, Shaped

Params: TypeAlias = PyTree[Array]
"""A model's weights: any pytree of arrays."""

Mask: TypeAlias = PyTree[bool | Bool[Array, "..."]]
"""A boolean tree over parameters; a leaf broadcasts against its parameter. True = may move."""

Stats: TypeAlias = PyTree[Array]
"""BatchNorm statistics: every `mean` and `var` of a normalisation layer. Without such layers: an empty tree."""

RandomKey = Key[Array, ""]

Augment = Callable[[Array, RandomKey], Array]
"""(x [b, ...], key) -> x of the same shape and dtype. Used in training only."""


class Split(NamedTuple):
    """Examples and labels: x [n, ...], y [n] integer."""

    x: Shaped[Any, "n ..."]
    y: Shaped[Any, "n"]


class Path(NamedTuple):
    """A path in parameter space by its control points.

    start, end: parameter trees, frozen. inner: a tree of the same structure whose leaves are [bends, *leaf.shape].
    """

    start: Params
    inner: Params
    end: Params


class Units(NamedTuple):
    """Hidden units of a network that may change places without changing what it computes.

    axes: (leaf as `trees.names` gives it, axis) wherever these units are counted; also a flattened axis of which they
    are the last index. groups: units next to each other that must stay together, as under GroupNorm.
    """

    axes: tuple[tuple[str, int], ...]
    groups: int = 1


@runtime_checkable
class Apply(Protocol):
    def __call__(
        self, params: Params, x: Array, stats: Stats | None = None, key: RandomKey | None = None
    ) -> tuple[Float[Array, "n classes"], Stats]: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A network as pure functions. Compared by identity: build a model once and share it.

    init(key, x) -> params, from a batch x [n, ...] that gives the shapes.
    apply(params, x, stats=None, key=None) -> (logits [n, classes], stats). With `stats=None` normalisation layers use
        the batch and the returned stats are the moments of this batch; with stats given they are used and returned.
        A model without such layers returns an empty tree. `key` drives dropout and the like; None: none of it.
    features(params, x, stats=None) -> [n, width], the last hidden layer. Optional.
    head: key path of the output layer's parameters. Optional.
    permutations: every set of hidden units that may be renamed, for `alignment`. Optional.
    """

    name: str
    init: Callable[[RandomKey, Array], Params]
    apply: Apply
    features: Callable[..., Float[Array, "n width"]] | None = None
    head: tuple[str, ...] | None = None
    permutations: tuple[Units, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Problem:
    """One unlearning problem: what every method is given.

    params: θ_o, trained on forget ∪ retain. validation: never trained on. test: without the forgotten class where a
    class is forgotten; forget_test: that class's test examples, else None. augment: training augmentation or None.
    stats: running statistics that came with `params` (a user's own model); None: computed from retain data.
    """

    model: Model
    params: Params
    forget: Split
    retain: Split
    validation: Split
    test: Split
    num_classes: int
    augment: Augment | None = None
    forget_test: Split | None = None
    stats: Stats | None = None


jax.tree_util.register_dataclass(
    Problem,
    data_fields=["params", "forget", "retain", "validation", "test", "forget_test", "stats"],
    meta_fields=["model", "num_classes", "augment"],
)


class Outputs(NamedTuple):
    """What a model says about one split: logits [n, classes], labels [n]."""

    logits: Float[Array, "n classes"]
    labels: Shaped[Array, "n"]


class Predictions(NamedTuple):
    """What a model says, un-augmented, about every split of a problem. Every metric is a function of this."""

    forget: Outputs
    retain: Outputs
    validation: Outputs
    test: Outputs
    forget_test: Outputs | None = None


Method = Callable[..., Params]
"""(problem, key, *, hyper-parameters with the paper's defaults) -> params."""

Curve = Callable[[Path, Float[Array, ""]], Params]
"""(path, t) -> params at t."""

Metric = Callable[[Predictions], Float[Any, ""]]
