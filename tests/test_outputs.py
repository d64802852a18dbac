"""What a model's output means for an example: classes and sequences by the same functions; bad input by its name."""

from __future__ import annotations

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcu_jax import losses, methods, metrics, models, outputs, sources, training
from mcu_jax.base import Problem, UserError
from mcu_jax.runs import _timing

KEY = jax.random.key(0)
LOGITS = jax.random.normal(jax.random.key(1), (3, 4, 5))
LABELS = jnp.array([[0, 1, 2, 3], [4, -1, -1, 0], [-1, -1, -1, -1]])


def test_labels_and_inputs_of_a_batch() -> None:
    x, y = jnp.ones((2, 3)), jnp.array([0, 1])
    for name in ("y", "labels"):
        batch = {"x": x, name: y}
        assert outputs.inputs(batch) is x
        np.testing.assert_array_equal(outputs.labels(batch), y)
        assert outputs.with_labels(batch, 1 - y)[name].tolist() == [1, 0]
        assert outputs.with_inputs(batch, 2 * x)["x"].tolist() == (2 * x).tolist()
    several = {"tokens": x, "mask": 2 * x, "labels": y}
    assert set(outputs.inputs(several)) == {"tokens", "mask"}
    changed = outputs.with_inputs(several, {"tokens": 3 * x, "mask": x})
    assert float(changed["tokens"][0, 0]) == 3
    assert changed["labels"] is y
    for batch, listed in (({"x": x}, "this one has 'x'"), ({}, "nothing"), ({"y": y, "labels": y}, "'y', 'labels'")):
        with pytest.raises(UserError, match=f"labels under one of 'y' or 'labels'; .*{listed}"):
            outputs.labels(batch)


def test_a_sequence_is_one_example_and_what_does_not_count_counts_nothing() -> None:
    scores = outputs.scores(LOGITS, LABELS)
    log_p = np.asarray(jax.nn.log_softmax(LOGITS))
    counted = [[(0, 0), (1, 1), (2, 2), (3, 3)], [(0, 4), (3, 0)], []]
    expected = [[-log_p[i, t, y] for t, y in pairs] for i, pairs in enumerate(counted)]
    means = np.array([np.mean(values) if values else 0 for values in expected])
    np.testing.assert_allclose(scores.loss, means, rtol=1e-5)
    np.testing.assert_allclose(scores.confidence, np.exp(-means), rtol=1e-5)
    np.testing.assert_allclose(outputs.nll(LOGITS, LABELS, total=True), [sum(v) for v in expected], rtol=1e-5)
    hits = [[log_p[i, t].argmax() == y for t, y in pairs] for i, pairs in enumerate(counted)]
    np.testing.assert_allclose(scores.correct, [np.mean(values) if values else 0 for values in hits], rtol=1e-6)
    np.testing.assert_array_equal(scores.prediction, log_p.argmax(-1))
    for function in (outputs.kl, outputs.js):
        given = function(LOGITS, -LOGITS, LABELS)
        each = np.asarray(getattr(losses, function.__name__)(LOGITS, -LOGITS))
        np.testing.assert_allclose(given, [each[0].mean(), each[1, [0, 3]].mean(), 0], rtol=1e-5)


def test_an_example_does_not_depend_on_the_others_nor_on_what_does_not_count() -> None:
    whole = outputs.scores(LOGITS, LABELS)
    for i in range(3):
        alone = outputs.scores(LOGITS[i : i + 1], LABELS[i : i + 1])
        chex.assert_trees_all_close(alone, jax.tree.map(lambda x, i=i: x[i : i + 1], whole), rtol=1e-6)
    other = LOGITS.at[1, 1:3].add(7.0)
    for before, after in zip(whole[:3], outputs.scores(other, LABELS)[:3], strict=True):
        np.testing.assert_array_equal(before, after)
    grads = jax.grad(lambda logits: jnp.sum(outputs.nll(logits, LABELS)))(LOGITS)
    assert not np.asarray(grads)[np.asarray(LABELS) < 0].any()


def test_classes_are_sequences_of_one() -> None:
    chex.assert_trees_all_close(
        outputs.scores(LOGITS[:, 0], jnp.array([1, 0, 2]))[:3],
        outputs.scores(LOGITS[:, :1], jnp.array([[1], [0], [2]]))[:3],
    )


@pytest.mark.parametrize("logits", [LOGITS.reshape(12, 5), LOGITS[:, 0], LOGITS[:2], LOGITS[:, :3]])
def test_tokens_are_not_mixed_up_with_examples(logits: jax.Array) -> None:
    for function in (outputs.scores, outputs.nll, lambda logits, labels: outputs.js(logits, logits, labels)):
        with pytest.raises(
            UserError, match=r"or \[n, T, classes\] for labels \[n, T\]; given logits .* labels \[3, 4\]"
        ):
            function(logits, LABELS)
    with pytest.raises(UserError, match="labels"):
        outputs.scores(LOGITS, LABELS[:, 0])


def next_token(params: dict, inputs: dict, frozen: dict) -> jax.Array:
    """Logits of the next token from this one and from the language of the text."""
    return (
        frozen["base"][inputs["tokens"]] + params["token"][inputs["tokens"]] + params["kind"][inputs["kind"]][:, None]
    )


@pytest.fixture(scope="module")
def language() -> Problem:
    """Sequences of four tokens of five, of two kinds; half of the labels count."""
    tokens = np.random.default_rng(0).integers(0, 5, (30, 5)).astype(np.int32)
    labels = np.where(np.arange(4) < 2, -1, tokens[:, 1:]).astype(np.int32)
    data = {"tokens": tokens[:, :-1], "kind": np.arange(30) % 2, "labels": labels}
    return Problem(
        model=models.adapt(next_token),
        params={"token": jnp.zeros((5, 5)), "kind": jnp.zeros((2, 5))},
        data=jax.tree.map(jnp.asarray, data),
        forget=np.arange(4),
        retain=np.arange(4, 16),
        validation=np.arange(16, 20),
        test=np.arange(20, 30),
        num_classes=5,
        frozen={"base": 0.1 * jax.random.normal(KEY, (5, 5))},
    )


def test_sequences_with_several_inputs_go_the_same_way(language: Problem) -> None:
    outputs.check(language)

    def terms(params: Any, batches: tuple, now: training.Now) -> tuple[training.Term]:
        return (training.Term(training.nll(language, params, batches[0], now.key)),)

    objective = training.Objective(terms, (training.retain(language),))
    trained = training.unlearn(language, objective, KEY, training.Training(epochs=30, lr=1.0, batch_size=12))
    before, after = (metrics.evaluate(language, params) for params in (language.params, trained))
    assert float(jnp.mean(after.retain.loss)) < 0.8 * float(jnp.mean(before.retain.loss))
    assert after.retain.loss.shape == after.retain.correct.shape == (12,)
    assert after.retain.prediction.shape == (12, 4)
    # A sample of examples, not of tokens: metrics and batches see as many as there are sequences.
    batch = sources.take(language.data, language.retain)
    logits, _ = outputs.forward(language, trained, batch)
    token_loss = losses.nll(logits[:, 2:], batch["labels"][:, 2:]).mean(1)
    np.testing.assert_allclose(after.retain.loss, token_loss, rtol=1e-4)
    assert float(metrics.mia(after)) >= 0
    reference = metrics.logits(language, language.params, language.forget)
    js = metrics.evaluate(language, trained, references={"retrained": reference}).js["retrained"]
    assert js.shape == (4,)
    # The statistics over batches are those of examples too.
    mean = training.mean_gradient(language, trained, language.retain, {}, batch_size=5)

    def loss(params: Any) -> jax.Array:
        return jnp.mean(outputs.nll(outputs.forward(language, params, batch)[0], batch["labels"]))

    chex.assert_trees_all_close(mean, jax.grad(loss)(trained), rtol=1e-4, atol=1e-6)


# Bad input.


def with_data(**leaves: Any) -> Any:
    return lambda problem: {"data": {**problem.data, **leaves}}


def nan_pixel(problem: Problem) -> dict:
    x = np.array(problem.data["x"], np.float32)
    x[int(problem.retain[3]), 2, 1, 0] = np.nan
    return {"data": {**problem.data, "x": x}}


def label(value: int) -> Any:
    def change(problem: Problem) -> dict:
        y = np.array(problem.data["y"])
        y[int(problem.test[5])] = value
        return {"data": {**problem.data, "y": y}}

    return change


def with_nan(params: Any) -> Any:
    leaves, form = jax.tree.flatten(params)
    return jax.tree.unflatten(form, [leaves[0].at[0].set(jnp.nan), *leaves[1:]])


BAD = {
    "lengths": (lambda p: {"data": {**p.data, "x": p.data["x"][:-3]}}, r"'x' has 1794, 'y' has 1797"),
    "no axis": (with_data(x=jnp.zeros(())), "leading axis of examples"),
    "no labels": (lambda p: {"data": {"x": p.data["x"]}}, "labels under one of"),
    "too large": (lambda p: {"test": np.array([3, 1797])}, "test has indices from 3 to 1797; the data has 1797"),
    "negative": (lambda p: {"forget": np.array([-1, 3])}, "forget has indices from -1 to 3"),
    "twice": (lambda p: {"retain": np.append(p.retain, p.retain[:2])}, "retain has 2 indices more than once"),
    "empty": (lambda p: {"validation": np.zeros(0, int)}, "validation is empty"),
    "empty class": (lambda p: {"forget_test": np.zeros(0, int)}, "forget_test is empty"),
    "overlap": (lambda p: {"retain": np.append(p.retain, p.forget[:2])}, "forget and retain share 2 examples"),
    "validation": (lambda p: {"validation": np.append(p.validation, p.retain[0])}, "validation shares 1 example with"),
    "test of training": (lambda p: {"test": np.append(p.test, p.retain[:2])}, "test shares 2 examples with the traini"),
    "test of validation": (
        lambda p: {"test": np.append(p.test, p.validation[0])},
        "test shares 1 example with validat",
    ),
    "class of training": (lambda p: {"forget_test": p.forget[:1]}, "forget_test shares 1 example with the training"),
    "weights": (lambda p: {"params": with_nan(p.params)}, "params holds NaN or infinity in leaf 'dense0/bias'"),
    "frozen": (
        lambda p: {"frozen": {"base": jnp.array([0.0, jnp.inf])}},
        "frozen holds NaN or infinity in leaf 'base'",
    ),
    "a list": (lambda p: {"data": [p.data["x"], p.data["y"]]}, "data is a dict of arrays .* given a list of ArrayImpl"),
    "lists": (lambda p: {"data": {"x": [1, 2], "y": [1, 2]}}, "data is a dict of arrays .* given a dict of int"),
    "nothing": (lambda p: {"data": {}}, "given a dict of no arrays"),
    "large label": (label(10), r"num_classes − 1 = 9, .*given int32 from 0 to 10"),
    "low label": (label(-2), "from -2 to 9"),
    "real labels": (lambda p: {"data": {**p.data, "y": p.data["y"].astype(jnp.float32)}}, "labels are integers"),
    "classes": (lambda p: {"num_classes": 12}, r"10.*12|12.*10"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_named(problem: Problem, name: str) -> None:
    change, message = BAD[name]
    with pytest.raises(UserError, match=message):
        outputs.check(dataclasses.replace(problem, **change(problem)))


NOT_THERE = ("lengths", "too large", "negative", "empty", "empty class", "a list")
"""Of those, what is seen wherever it is used, because jax would take other examples in their place."""


@pytest.mark.parametrize("name", NOT_THERE)
def test_examples_that_are_not_there_are_not_evaluated(problem: Problem, name: str) -> None:
    change, message = BAD[name]
    with pytest.raises(UserError, match=message):
        metrics.evaluate(dataclasses.replace(problem, **change(problem)), problem.params)


@pytest.mark.parametrize("name", ["lengths", "a list", "retain"])
def test_examples_that_are_not_there_are_not_trained_on(problem: Problem, name: str) -> None:
    change, message = {**BAD, "retain": (lambda p: {"retain": p.retain + 1797}, "rows of stream 0 has indices fr")}[
        name
    ]
    with pytest.raises(UserError, match=message):
        methods.finetune(dataclasses.replace(problem, **change(problem)), KEY, train=training.Training(epochs=1))


def test_looking_at_rows_compiles_nothing(problem: Problem) -> None:
    rows = {"forget": problem.forget, "test": jnp.asarray(problem.test)}
    with _timing.timed() as spent:
        outputs.check_rows(problem.data, rows)
    assert spent.compile_seconds == 0


def test_indices_are_whole_numbers_in_a_row() -> None:
    # Not by `check`: in tests `Problem` itself, whose fields are typed, refuses them.
    for bad, given in ((np.ones((3, 2), int), r"int64\[3, 2\]"), (np.ones(9, bool), r"bool\[9\]")):
        with pytest.raises(UserError, match=rf"retain is an array of indices \[n\], given {given}"):
            outputs._check_rows("retain", bad, 9)


def test_a_pixel_that_is_no_number_is_found_by_its_example(problem: Problem) -> None:
    where = int(problem.retain[3])
    with pytest.raises(UserError, match=f"'x' of example {where} holds NaN"):
        outputs.check(dataclasses.replace(problem, **nan_pixel(problem)))
    # Elsewhere than in what is used it does no harm, and neither does a good problem.
    unused = np.setdiff1d(np.arange(1797), np.concatenate([problem.forget, problem.retain]))
    x = np.array(problem.data["x"], np.float32)
    x[np.setdiff1d(unused, np.concatenate([problem.validation, problem.test]))[0]] = np.nan
    outputs.check(dataclasses.replace(problem, data={**problem.data, "x": x}))
    outputs.check(problem)


def test_weights_that_the_model_lacks_are_named(language: Problem, problem: Problem) -> None:
    for bad in ({}, {"bass": language.frozen["base"]}):
        with pytest.raises(UserError, match="base"):
            outputs.check(dataclasses.replace(language, frozen=bad))
    with pytest.raises(UserError, match="does not run"):
        outputs.check(dataclasses.replace(problem, params={}))
