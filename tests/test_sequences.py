"""Language through the same functions as pictures: all weights over arrays of tokens, adapters over dicts of inputs."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import qwix
from flax import traverse_util

from mcu_jax import base, connect, curves, methods, metrics, models, outputs, paths, training
from mcu_jax.base import Model, Problem

# qwix 0.1.8 asks flax for a name that flax 0.12 has only as a deprecated alias.
pytestmark = pytest.mark.filterwarnings("ignore:'VariableState' was removed:DeprecationWarning")

WORDS, LENGTH, WIDTH = 11, 6, 8
SIZES = {"forget": 8, "retain": 22, "validation": 8, "test": 9}
TS = paths.points(4)
KEY = jax.random.key(7)

FEW = training.Training(epochs=3, batch_size=10, lr=0.05)
RELABELLED = functools.partial(methods.random_label, train=FEW)  # compiled already
QUICK: dict[str, dict[str, Any]] = {
    **{name: {"train": FEW} for name in methods.NAMES},
    "retrain": {"epochs": 1, "batch_size": 10},
    "sfron": {"alpha": 1.0, "forget_every": 2, "train": methods._sfron.Steps(steps=4, batch_size=10)},
    "ssd": {"alpha": 1.0, "fisher_batch": 10},
    "influence": {"samples": 10, "damping": 0.1},
    "fisher_noise": {"alpha": 0.01, "fisher_batch": 10},
    "mcu": {"pre": RELABELLED, "steps": 6, "batch_size": 10, "points": len(TS)},
}
BOUNDARY = ("boundary_shrink", "boundary_expand")
"""Methods that ask for more than logits and weights."""
every_method = pytest.mark.parametrize("name", [name for name in methods.NAMES if name not in BOUNDARY])


class Decoder(nn.Module):
    """One block of causal attention: (tokens [n, T], which of them are words [n, T]) -> logits [n, T, WORDS]."""

    def setup(self) -> None:
        self.place = self.param("place", nn.initializers.normal(0.5), (LENGTH, WIDTH))
        self.embed = nn.Embed(WORDS, WIDTH)
        self.attend, self.mix = nn.Dense(3 * WIDTH), nn.Dense(WIDTH)
        self.out = nn.Dense(WORDS)

    def features(self, tokens: jax.Array, words: jax.Array) -> jax.Array:
        x = self.embed(tokens) + self.place[None]
        seen = jnp.tril(jnp.ones((LENGTH, LENGTH), bool))[None] & (words == 1)[:, None, :]
        query, key, value = jnp.split(self.attend(x), 3, -1)
        attention = jax.nn.softmax(jnp.where(seen, query @ key.mT, -1e9))
        return nn.relu(x + self.mix(attention @ value))

    def __call__(self, tokens: jax.Array, words: jax.Array) -> jax.Array:
        return self.out(self.features(tokens, words))


@functools.cache
def plain() -> Model:
    """Of tokens alone, all of them words; every weight is trained."""
    module = Decoder()

    def apply(params: Any, tokens: jax.Array) -> jax.Array:
        return module.apply({"params": params}, tokens, jnp.ones_like(tokens))

    def features(params: Any, tokens: jax.Array) -> jax.Array:
        return module.apply({"params": params}, tokens, jnp.ones_like(tokens), method="features")

    def init(key: jax.Array, tokens: jax.Array) -> Any:
        return module.init(key, tokens, jnp.ones_like(tokens))["params"]

    return models.adapt(apply, init=init, features=features, head=("out",))


@functools.cache
def lora() -> Model:
    """Of tokens with their mask; low-rank adapters are its parameters, the base weights are `frozen`."""
    module = qwix.apply_lora_to_model(Decoder(), qwix.LoraProvider(module_path="attend|mix|out", rank=3, alpha=3.0))

    def apply(adapters: Any, inputs: dict[str, jax.Array], *, frozen: Any) -> jax.Array:
        params = traverse_util.unflatten_dict({**frozen, **adapters}, sep="/")
        return module.apply({"params": params}, inputs["tokens"], inputs["attention_mask"])

    def init(key: jax.Array, inputs: dict[str, jax.Array]) -> Any:
        params = module.init(key, inputs["tokens"], inputs["attention_mask"])["params"]
        return {name: leaf for name, leaf in flat(params).items() if "_lora_" in name}

    return models.adapt(apply, init=init)


def flat(params: Any) -> dict[str, jax.Array]:
    return traverse_util.flatten_dict(params, sep="/")


@pytest.fixture(scope="session")
def text() -> dict[str, np.ndarray]:
    """Sequences of 3 to 6 words, then padding; the word that follows is asked for behind the first two."""
    rng = np.random.default_rng(5)
    count = sum(SIZES.values())
    lengths = rng.integers(3, LENGTH + 1, (count, 1))
    words = np.arange(LENGTH)[None] < lengths
    tokens = np.where(words, rng.integers(1, WORDS, (count, LENGTH)), 0)
    following = np.concatenate([tokens[:, 1:], np.zeros((count, 1), int)], 1)
    asked = (np.arange(LENGTH) >= 1)[None] & (np.arange(LENGTH)[None] < lengths - 1)
    arrays = {"tokens": tokens, "attention_mask": words, "labels": np.where(asked, following, -1)}
    return {name: array.astype(np.int32) for name, array in arrays.items()}


@pytest.fixture(scope="session")
def tokens(text: dict[str, np.ndarray]) -> Problem:
    """All weights of a model of plain arrays of tokens."""
    data = {name: jnp.asarray(text[name]) for name in ("tokens", "labels")}
    return _problem(plain(), data, None)


@pytest.fixture(scope="session")
def adapters(text: dict[str, np.ndarray]) -> Problem:
    """Adapters over frozen weights that were not trained on these examples; inputs are a dict."""
    data = jax.tree.map(jnp.asarray, text)
    return _problem(lora(), data, flat(plain().init(jax.random.key(2), data["tokens"][:1])))


def _problem(model: Model, data: Any, frozen: Any) -> Problem:
    ends = np.cumsum(list(SIZES.values()))
    rows = dict(zip(SIZES, np.split(np.arange(ends[-1]), ends[:-1]), strict=True))
    seen = np.concatenate([rows["forget"], rows["retain"]])
    params = training.train(
        model, data, jax.random.key(1), rows=seen, frozen=frozen, epochs=300, lr=0.02, weight_decay=0.0, batch_size=10
    )
    return Problem(model=model, params=params, data=data, num_classes=WORDS, frozen=frozen, **rows)


@pytest.fixture(scope="session", params=["tokens", "adapters"])
def problem(request: pytest.FixtureRequest) -> Problem:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def unlearned(problem: Problem) -> Callable[[str], Any]:
    """A method's name -> the model it gives; each is computed once."""

    @functools.cache
    def compute(name: str) -> Any:
        return run(problem, name)

    return compute


def run(problem: Problem, name: str, **changes: Any) -> Any:
    """The model of a method; of MCU the inner point of its path, for t* may be 0, where the original is best."""
    result = getattr(methods, name)(problem, KEY, **QUICK[name], **changes, **({"full": True} if name == "mcu" else {}))
    return jax.tree.map(lambda leaf: leaf[0], result.path.inner) if name == "mcu" else result


@contextlib.contextmanager
def compilations() -> Iterator[list[float]]:
    """Grows by one with everything that is compiled."""
    seconds: list[float] = []

    def listen(event: str, duration: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seconds
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@every_method
def test_every_method_gives_another_model_of_the_same_tree(problem: Problem, unlearned: Callable, name: str) -> None:
    result = unlearned(name)
    chex.assert_trees_all_equal_shapes_and_dtypes(result, problem.params)
    chex.assert_tree_all_finite(result)
    assert float(optax.tree.norm(optax.tree.sub(result, problem.params))) > 1e-4, "a no-op"


@every_method
def test_same_key_same_bits(problem: Problem, unlearned: Callable, name: str) -> None:
    first = unlearned(name)
    with compilations() as seconds:
        again = run(problem, name)
    assert not seconds
    chex.assert_trees_all_equal(first, again)


@every_method
def test_frozen_weights_are_an_input_and_stay(adapters: Problem, name: str) -> None:
    """No constant of the compiled program: other ones compile nothing and count; no method changes or gives them up."""
    # Which leaves a mask lets move is compiled, and may change with the frozen weights.
    changes = {"mask": "none"} if name == "mcu" else {}
    first = run(adapters, name, **changes)
    other = dataclasses.replace(adapters, frozen=jax.tree.map(lambda leaf: leaf * 1.001, adapters.frozen))
    before = jax.tree.map(np.array, other.frozen)
    with compilations() as seconds:
        moved = run(other, name, **changes)
    assert not seconds
    assert float(optax.tree.norm(optax.tree.sub(first, moved))) > 0
    chex.assert_trees_all_equal(before, jax.tree.map(np.array, other.frozen))


def test_boundary_shrink_says_that_tokens_are_no_pixels(problem: Problem) -> None:
    with pytest.raises(base.UserError, match=r"boundary_shrink perturbs pixels: .*given .*int32.*another method"):
        run(problem, "boundary_shrink")


def test_boundary_expand_of_sequences_needs_features_and_a_head(tokens: Problem, adapters: Problem) -> None:
    result = run(tokens, "boundary_expand")
    chex.assert_trees_all_equal_shapes_and_dtypes(result, tokens.params)
    assert float(optax.tree.norm(optax.tree.sub(result, tokens.params))) > 1e-4
    with pytest.raises(base.UserError, match=r"boundary_expand .* frozen weights. Choose another method"):
        run(adapters, "boundary_expand")
    for change, message in (
        ({"features": None}, "features and head: give models.adapt both"),
        ({"head": ("embed",)}, "a dense layer of kernel and bias; apply has none at 'embed'"),
        ({"head": ("in", "out")}, "a dense layer of kernel and bias; apply has none at 'in/out'"),
    ):
        model = dataclasses.replace(tokens.model, **change)
        with pytest.raises(base.UserError, match=message):
            run(dataclasses.replace(tokens, model=model), "boundary_expand")


def by_hand(problem: Problem, params: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(−log p(label), whether it counts, whether it is the likeliest) of every token, [n, T]."""
    labels = np.asarray(problem.data["labels"])[rows]
    logits = np.asarray(jax.jit(outputs.forward)(problem, params, problem.data)[0], np.float64)[rows]
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    picked = np.take_along_axis(log_p, np.maximum(labels, 0)[..., None], -1)[..., 0]
    return -picked, labels >= 0, logits.argmax(-1) == labels


def test_scores_are_means_over_the_tokens_that_count(problem: Problem, unlearned: Callable) -> None:
    params = unlearned("finetune")
    evaluation = metrics.evaluate(problem, params)
    for name in SIZES:
        nll, counts, hits = by_hand(problem, params, getattr(problem, name))
        loss = (nll * counts).sum(1) / counts.sum(1)
        scores = getattr(evaluation, name)
        np.testing.assert_allclose(scores.loss, loss, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(scores.confidence, np.exp(-loss), rtol=1e-4)
        np.testing.assert_allclose(scores.correct, (hits & counts).sum(1) / counts.sum(1), rtol=1e-6)


def test_npo_sums_over_an_example_and_simnpo_means(tokens: Problem) -> None:
    params = jax.tree.map(lambda leaf: leaf * 1.1, tokens.params)
    rows = np.asarray(tokens.forget)
    batches = tuple({name: leaf[given] for name, leaf in tokens.data.items()} for given in (rows, tokens.retain))
    now = training.Now(jnp.asarray(0), jnp.asarray(9), KEY, jnp.asarray(0))
    (nll, counts, _), (nll_original, *_) = (by_hand(tokens, p, rows) for p in (params, tokens.params))
    assert len(set(counts.sum(1))) > 1
    summed, original = ((values * counts).sum(1) for values in (nll, nll_original))
    for name, excess, beta in (
        ("npo", summed - original, 0.5),
        ("simnpo", summed / counts.sum(1) - 0.3, 2.0),
    ):
        given = {"margin": 0.3} if name == "simnpo" else {}
        objective = methods.objective(name, tokens, KEY, beta=beta, **given)
        term = jax.jit(objective.terms)(params, batches, now)[0]
        np.testing.assert_allclose(term.values, 2 / beta * np.log1p(np.exp(-beta * excess)), rtol=1e-4)


@pytest.mark.parametrize("name", ["neutral", "npo"])
def test_path_between_two_unlearned_models(problem: Problem, unlearned: Callable, name: str) -> None:
    a, b = unlearned("neggrad_plus"), unlearned("random_label")
    objective = connect.neutral(problem) if name == "neutral" else methods.objective(name, problem, KEY)
    path, losses = connect.train(objective, a, b, problem.data, KEY, steps=6, batch_size=10)
    chex.assert_tree_all_finite((path, losses))
    assert float(optax.tree.norm(optax.tree.sub(path.inner, curves.straight(a, b).inner))) > 1e-3
    along = paths.evaluate(problem, path, TS)
    assert along.forget.prediction.shape == (len(TS), SIZES["forget"], LENGTH)
    for place, end in ((0, a), (-1, b)):
        there = jax.tree.map(lambda leaf, place=place: leaf[place], along)
        chex.assert_trees_all_close(there, metrics.evaluate(problem, end), rtol=1e-4, atol=1e-5)
    barriers = paths.barriers(TS, paths.measures(along))
    assert all(np.isfinite(value) for value in barriers.values())
