"""The types every other module speaks in. Imports nothing of the library."""

from __future__ import annotations

import dataclasses
import html
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

Params: TypeAlias = PyTree[Array]
"""A model's weights: any pytree of arrays."""

Mask: TypeAlias = PyTree[bool | Bool[Array, "..."]]
"""A boolean tree over parameters; a leaf broadcasts against its parameter. True = may move."""

Stats: TypeAlias = PyTree[Array]
"""BatchNorm statistics: every `mean` and `var` of a normalisation layer. Without such layers: an empty tree."""

RandomKey = Key[Array, ""]

Batch: TypeAlias = Mapping[str, Any]
"""Examples: arrays that share a leading axis. Labels under "y" or "labels", integers [n] of classes or [n, T] of
tokens, −1 where nothing counts; the rest is what the model is given: the array itself if it is one, else all by name.
"""

Rows: TypeAlias = Int[Any, "_"]
"""Indices of examples, as many as there are: sets of different sizes stand side by side."""

Augment = Callable[[Any, RandomKey], Any]
"""(inputs [b, ...], key) -> inputs of the same shape and dtype. Used in training only."""


class UserError(ValueError):
    """What was given cannot be used: the message says what was expected, what was given, what to do."""


class Range(NamedTuple):
    """What a setting may be, in words and as a test: stands in its annotation."""

    words: str
    holds: Callable[[Any], bool]


LARGEST = sys.float_info.max  # whole numbers above it are finite, and no floats

Real = Range("a finite number", lambda x: -LARGEST <= x <= LARGEST)
Positive = Range("a number above 0", lambda x: 0 < x <= LARGEST)
NonNegative = Range("a number from 0 on", lambda x: 0 <= x <= LARGEST)
Fraction = Range("a fraction in [0, 1]", lambda x: 0 <= x <= 1)
PositiveFraction = Range("a fraction in (0, 1]", lambda x: 0 < x <= 1)
Decay = Range("a number in [0, 1)", lambda x: 0 <= x < 1)
Count = Range("a whole number above 0 and below 2**31", lambda n: 0 < n < 2**31)
Whole = Range("a whole number from 0 on and below 2**31", lambda n: 0 <= n < 2**31)
Switch = Range("true or false", lambda value: isinstance(value, bool))


class OneOf(NamedTuple):
    """A hyper-parameter that is one of these words."""

    words: tuple[str, ...]


class Search(NamedTuple):
    """What a search draws a hyper-parameter from: a number between low and high, log-uniformly, or one of the words, or
    in half of the draws the one and in half the other; where the default is a whole number, rounded to one.
    """

    low: float | None = None
    high: float | None = None
    words: tuple[str, ...] = ()


class Named(NamedTuple):
    """A hyper-parameter that a line of text gives as NAME or NAME:key=value, an entry of `mcu_jax.<module>.NAMES`.

    none: what stands for None, if anything does.
    """

    module: str
    what: str
    none: str | None = None


class Path(NamedTuple):
    """A path in parameter space by its control points.

    start, end: parameter trees, frozen. inner: a tree of the same structure whose leaves are [bends, *leaf.shape].
    """

    start: Params
    inner: Params
    end: Params

    def _repr_html_(self) -> str:
        """For notebooks: what it is made of, not all of its numbers."""
        named = jax.tree_util.tree_leaves_with_path(self.start)
        bends = len(jax.tree.leaves(self.inner)[0]) if named else 0
        rows = "".join(
            f"<tr><td>{html.escape(jax.tree_util.keystr(place, simple=True, separator='/'))}</td><td>{leaf.shape}</td>"
            f"<td>{leaf.dtype}</td></tr>"
            for place, leaf in named
        )
        size = sum(leaf.size for _, leaf in named)
        told = f"Path of {bends} inner point{'s' * (bends != 1)} between two models of {size:,} parameters"
        return (
            f"<details><summary>{told}</summary><table><thead><tr><th>leaf</th><th>shape</th><th>dtype</th></tr></thead>"
            f"<tbody>{rows}</tbody></table></details>"
        )


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
        self,
        params: Params,
        inputs: Any,
        stats: Stats | None = None,
        key: RandomKey | None = None,
        frozen: Params | None = None,
    ) -> tuple[Float[Array, "n *positions classes"], Stats]: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A network as pure functions. Compared by identity: build a model once and share it.

    init(key, inputs) -> params, from inputs [n, ...] that give the shapes.
    apply(params, inputs, stats=None, key=None, frozen=None) -> (logits, stats): logits [n, classes], or [n, T, classes]
        of sequences. With `stats=None` normalisation layers use the batch and the returned stats are the moments of
        this batch; with stats given they are used and returned. A model without such layers returns an empty tree.
        `key` drives dropout and the like; None: none of it. `frozen`: `Problem.frozen`, where a problem has one.
    features(params, inputs, stats=None) -> [n, width], the last hidden layer. Optional.
    head: key path of the output layer's parameters. Optional.
    permutations: every set of hidden units that may be renamed, for `alignment`. Optional.
    """

    name: str
    init: Callable[[RandomKey, Any], Params]
    apply: Apply
    features: Callable[..., Float[Array, "n width"]] | None = None
    head: tuple[str, ...] | None = None
    permutations: tuple[Units, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Problem:
    """One unlearning problem: what every method is given.

    params: θ_o, trained on forget ∪ retain. data: all examples, once: a `Batch` of arrays, or a `sources.Host`.
    forget, retain, validation, test, forget_test: which of them, indices [n]. validation was never trained on; test is
    without the forgotten class where a class is forgotten, forget_test that class's test examples, else None.
    num_classes: of the logits. frozen: weights that `model.apply` needs and nothing trains, as those under adapters.
    augment: training augmentation. stats: running statistics that came with `params` (a user's own model), used where
    the parameters are `params` exactly; None: computed from retain data. `outputs.check` looks all of it over.
    """

    model: Model
    params: Params
    data: Any
    forget: Rows
    retain: Rows
    validation: Rows
    test: Rows
    num_classes: int
    augment: Augment | None = None
    forget_test: Rows | None = None
    stats: Stats | None = None
    frozen: Params | None = None


jax.tree_util.register_dataclass(
    Problem,
    data_fields=["params", "data", "forget", "retain", "validation", "test", "forget_test", "stats", "frozen"],
    meta_fields=["model", "num_classes", "augment"],
)


class Scores(NamedTuple):
    """What a model says of examples, in a few numbers each, however many classes there are.

    loss: −log p(label), nats; of a sequence the mean over its positions that count. correct: whether the largest logit
    is the label's, 0 or 1; of a sequence the share of such positions. confidence: p(label) = exp(−loss); of a sequence
    the geometric mean. prediction: the class of the largest logit, of a sequence at every position.
    """

    loss: Float[Array, "n"]
    correct: Float[Array, "n"]
    confidence: Float[Array, "n"]
    prediction: Int[Array, "n *positions"]


class Evaluation(NamedTuple):
    """The scores of a model, un-augmented, on every split of a problem. Every metric is a function of this.

    js: by the name of a reference, Jensen–Shannon divergences of the predictions on D_f from the reference's, [n] nats.
    """

    forget: Scores
    retain: Scores
    validation: Scores
    test: Scores
    forget_test: Scores | None
    js: Mapping[str, Float[Array, "n"]]


Method = Callable[..., Params]
"""(problem, key, *, hyper-parameters with the paper's defaults) -> params."""

Curve = Callable[[Path, Float[Array, ""]], Params]
"""(path, t) -> params at t."""

Metric = Callable[[Evaluation], Float[Any, ""]]
