"""Every method through every law, and each against its formula."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

from mcu_jax import (
    connect,
    curricula,
    curves,
    masks,
    methods,
    models,
    optimizers,
    paths,
    registry,
    rules,
    sharding,
    sources,
    training,
    trees,
)
from mcu_jax.base import Named, OneOf, Problem, Range, UserError
from mcu_jax.training import _loop

KEYS = jax.random.split(jax.random.key(21), 2)
FEW = {"epochs": 2, "batch_size": 16, "lr": 0.05}
QUICK: dict[str, dict] = {
    **dict.fromkeys(methods.NAMES, FEW),
    "sfron": {"steps": 6, "batch_size": 32, "alpha": 1.0, "forget_every": 2, "lr": 0.05},
    "ssd": {"alpha": 1.0, "fisher_batch": 32},
    "influence": {"samples": 40, "damping": 0.1},
    "fisher_noise": {"alpha": 0.01, "fisher_batch": 32},
    "mcu": {"steps": 10, "batch_size": 16, "lr": 0.05, "points": 5},
}
KEYLESS = {"ssd"}
DEFAULTS = {  # of the papers
    "retrain": {},
    "finetune": {"lr": 0.01, "epochs": 10},
    "l1_sparse": {"alpha": 5e-4},
    "gradient_ascent": {"lr": 1e-4, "epochs": 5},
    "neggrad_plus": {"beta": 0.15},
    "random_label": {"epochs": 10},
    "salun": {"keep": 0.5, "epochs": 10},
    "neg_tv": {"alpha": 0.9},
    "sfron": {
        "steps": 1500,
        "lr": 0.01,
        "weight_decay": 5e-4,
        "alpha": 25.0,
        "decay": 0.5,
        "gamma": 1.0,
        "forget_every": 5,
        "clip": 7.0,
    },
    "ssd": {"alpha": 10.0, "dampening": 1.0},
    "grad_diff": {"forget_weight": 1.0, "retain_weight": 1.0},
    "scrub": {"gamma": 0.99, "temperature": 4.0},
    "bad_teacher": {"temperature": 1.0},
    "npo": {"beta": 0.1, "retain_weight": 1.0},
    "simnpo": {"beta": 4.5, "margin": 0.0, "forget_weight": 0.125, "retain_weight": 1.0},
    "delete": {},
    "boundary_shrink": {"bound": 0.1, "lr": 1e-5},
    "boundary_expand": {"lr": 1e-5},
    "influence": {"samples": 1000},
    "fisher_noise": {},
    "mcu": {
        "steps": 2000,
        "lr": 0.01,
        "momentum": 0.9,
        "batch_size": 128,
        "beta": "adaptive",
        "keep": 0.5,
        "retain_filter": 0.1,
        "retain_fraction": 0.5,
        "curve": "bezier",
        "bends": 1,
    },
}
Run = Callable[..., Any]
every_method = pytest.mark.parametrize("name", methods.NAMES)


@pytest.fixture(scope="session")
def compiled() -> Iterator[list]:
    """Grows by one with everything that is compiled."""
    times: list = []
    listening = [True]

    def listen(event: str, seconds: float, **_: Any) -> None:
        if listening and event == "/jax/core/compile/backend_compile_duration":
            times.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield times
    listening.clear()


@pytest.fixture(scope="session")
def run(problem: Problem, unlearned: Any, compiled: list) -> Run:
    """(method's name, number of a key) -> its result; each is computed once."""

    @functools.cache
    def compute(name: str, key: int = 0) -> Any:
        return call(name, problem, KEYS[key], **options(name, unlearned))

    return compute


def call(name: str, problem: Problem, key: jax.Array, **given: Any) -> Any:
    """A method with its options flat, as a line of text gives them."""
    method = getattr(methods, name)
    return method(problem, key, **registry.arguments(method, given))


def options(name: str, pre: Any) -> dict:
    return {**QUICK[name], **({"pre": pre} if name == "mcu" else {})}


@every_method
def test_result_is_a_finite_model_of_the_same_tree_and_another_one(problem: Problem, run: Run, name: str) -> None:
    before = jax.tree.map(np.array, jax.tree.leaves(problem))
    result = run(name)
    chex.assert_trees_all_equal_shapes_and_dtypes(result, problem.params)
    chex.assert_tree_all_finite(result)
    assert float(optax.tree.norm(optax.tree.sub(result, problem.params))) > 1e-4, "a no-op"
    chex.assert_trees_all_equal(before, jax.tree.leaves(problem))


@every_method
def test_same_key_same_bits_and_another_key_others(
    problem: Problem, unlearned: Any, run: Run, name: str, compiled: list
) -> None:
    first, other = run(name), run(name, 1)
    before = len(compiled)
    assert before, "the listener is deaf"
    again = call(name, problem, KEYS[0], **options(name, unlearned))
    assert len(compiled) == before
    chex.assert_trees_all_equal(first, again)
    difference = float(optax.tree.norm(optax.tree.sub(first, other)))
    assert difference == 0 if name in KEYLESS else difference > 1e-5


@every_method
def test_new_values_compile_nothing(problem: Problem, unlearned: Any, run: Run, name: str, compiled: list) -> None:
    """Of the key, the models, and every number but shares of a set or mask, which are sizes."""
    run(name)
    schema = registry.schema(getattr(methods, name))
    numbers = {**schema, "beta": 0.2} if name == "mcu" else schema
    sizes = {"keep", "retain_filter", "retain_fraction"}
    new = {k: 0.9 * QUICK[name].get(k, v) for k, v in numbers.items() if isinstance(v, float) and k not in sizes}
    given = {**options(name, unlearned), **new}
    if name == "mcu":
        call(name, problem, KEYS[1], **{**given, "beta": 0.3})  # a fixed beta is another objective
    before = len(compiled)
    moved = dataclasses.replace(problem, params=jax.tree.map(lambda x: x * jnp.float32(1.01), problem.params))
    assert len(compiled) - before <= 4  # `moved` itself
    before = len(compiled)
    call(name, moved, KEYS[1], **given)
    assert len(compiled) == before


@every_method
def test_vmap_over_keys_is_a_loop(problem: Problem, unlearned: Any, run: Run, name: str) -> None:
    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def mapped(problem: Problem, key: jax.Array) -> Any:
        return call(name, problem, key, **options(name, unlearned))

    among = mapped(problem, KEYS)
    for i, result in enumerate(trees.unstack(among)):
        chex.assert_trees_all_close(result, run(name, i), rtol=1e-3, atol=1e-5)
    # Bit by bit, whoever else is there: one alone has a copy of itself for company.
    more = mapped(problem, KEYS[jnp.array([0, 1, 1])])
    for i in range(2):
        alone = mapped(problem, KEYS[jnp.array([i, i])])
        for others in (among, more):
            chex.assert_trees_all_equal(*(jax.tree.map(lambda leaf, i=i: leaf[i], each) for each in (alone, others)))


def test_each_device_of_a_mesh_computes_its_quarter_of_a_batch(problem: Problem) -> None:
    """Of 32 examples 8, from the pixels to the 10 logits; the state is given from segment to segment, not copied."""

    def terms(params: Any, batches: tuple, now: training.Now) -> tuple[training.Term]:
        ((x, y),) = (batch.values() for batch in batches)
        return (training.Term(by_definition(problem.model.apply(params, x)[0], y)),)

    objective = training.Objective(terms, (training.retain(problem),))
    chain = optimizers.make(optimizers.sgd, 0.1, 0.9)
    state = training.begin(objective, problem.params, problem.data, chain, None)
    start = training.Fit(state, jnp.zeros(8), jnp.asarray(-1, jnp.int32), {})
    arguments = (start, training.descend(objective.terms, chain), objective.streams, problem.data, KEYS[0], 0, 7, 7)
    for given, mine, others in ((None, 32, 8), (sharding.mesh("data=4"), 8, 32)):
        with sharding.use(given):
            text = _loop._compiled.lower(*arguments, batch_size=32).compile().as_text()
        for shape in ("f32[{},10]", "f32[{},64]", "f32[{},16]"):
            assert shape.format(mine) in text
            assert shape.format(others) not in text
        assert "all-reduce" in text if given else "all-reduce" not in text
        assert "input_output_alias" in text


@every_method
def test_signature_is_the_schema_with_the_papers_defaults(name: str) -> None:
    method = getattr(methods, name)
    parameters = list(inspect.signature(method).parameters.values())
    assert [p.name for p in parameters[:2]] == ["problem", "key"]
    assert all(p.kind == p.KEYWORD_ONLY and p.default is not p.empty for p in parameters[2:])
    assert DEFAULTS[name].items() <= registry.schema(method).items()
    assert name == "retrain" or re.search(r"\d{4}\.\d{4,5}", method.__doc__), "a paper"


SETTABLE = [
    (module, name)
    for module in (methods, optimizers, curricula, models)
    for name in module.NAMES
    if registry.schema(getattr(module, name))
]


@pytest.mark.parametrize(("module", "name"), SETTABLE, ids=[name for _, name in SETTABLE])
def test_every_hyper_parameter_is_marked_with_its_range_and_refused_outside(module: Any, name: str) -> None:
    """A Range holds its default and, as each of them starts at 0 or later, not −1."""
    function = getattr(module, name)
    hints = typing.get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters.values():
        if hasattr(parameter.default, "_fields"):
            hints |= typing.get_type_hints(type(parameter.default), include_extras=True)
    for option, default in registry.schema(function).items():
        marks = [m for m in getattr(hints[option], "__metadata__", ()) if isinstance(m, Range | OneOf | Named)]
        assert len(marks) == 1, f"{option}={default} is marked with {marks}"
        (mark,) = marks
        bad = -1 if isinstance(mark, Range) else "no such name"
        if isinstance(mark, Range):
            assert all(map(mark.holds, default if isinstance(default, tuple) else [default]))
            assert not mark.holds(bad)
        if option != "beta" or name != "mcu":  # a word or a number: see test_mcu_refuses_a_penalty_out_of_range
            with pytest.raises(UserError, match=re.escape(mark.words) if isinstance(mark, Range) else bad):
                registry.bind(function, {option: bad}, name)


@pytest.mark.parametrize("beta", [-1.0, float("nan"), float("inf"), "adaptiv"])
def test_mcu_refuses_a_penalty_out_of_range(problem: Problem, unlearned: Any, beta: Any) -> None:
    with pytest.raises(UserError, match=f"beta is {re.escape(methods._mcu.Penalty.words)}, given "):
        methods.mcu(problem, KEYS[0], pre=unlearned, beta=beta)
    assert not methods._mcu.Penalty.holds(beta)
    assert methods._mcu.Penalty.holds(0)


def test_mcus_path_settings_are_those_of_connect() -> None:
    theirs, ours = (inspect.signature(function).parameters for function in (connect.mcu, methods.mcu))
    settings = {name for name, parameter in theirs.items() if parameter.kind == parameter.KEYWORD_ONLY}
    assert settings == set(ours) - {"problem", "key", "pre", "points", "rule", "budget", "full"}
    assert all(theirs[name].default == ours[name].default for name in settings)


# Formulas, against plain loops over all of D_f and D_r in one batch: there their order does not matter.

LR, STEPS = 0.02, 3
WHOLE = {"epochs": STEPS, "lr": LR, "batch_size": 1000}


class Examples(NamedTuple):
    x: jax.Array
    y: jax.Array


def examples(problem: Problem, split: str) -> Examples:
    batch = sources.take(problem.data, getattr(problem, split))
    return Examples(batch["x"], batch["y"])


def replaced(problem: Problem, **splits: Examples) -> Problem:
    """The problem with other examples in some of its splits."""
    data, rows = problem.data, {}
    for name, split in splits.items():
        rows[name] = len(data["y"]) + np.arange(len(split.y))
        data = {"x": jnp.concatenate([data["x"], split.x]), "y": jnp.concatenate([data["y"], split.y])}
    return dataclasses.replace(problem, data=data, **rows)


def cross_entropy(problem: Problem, params: Any, split: Examples) -> jax.Array:
    """By its definition."""
    return jnp.mean(by_definition(problem.model.apply(params, split.x)[0], split.y))


gradient = jax.jit(jax.grad(cross_entropy, argnums=1))


def plain_sgd(slope: Callable, params: Any, decay: float = 0.0) -> Any:
    velocity, slope = optax.tree.zeros_like(params), jax.jit(slope)
    for step in range(STEPS):
        grads = slope(params, jnp.float32(step))
        velocity = jax.tree.map(lambda v, g, p: 0.9 * v + g + decay * p, velocity, grads, params)
        params = jax.tree.map(lambda p, v: p - LR * v, params, velocity)
    return params


def spread(logits: jax.Array, temperature: float = 1.0) -> jax.Array:
    """A softmax by its definition."""
    odds = jnp.exp(logits / temperature)
    return odds / jnp.sum(odds, 1, keepdims=True)


def divergence(p: jax.Array, q: jax.Array) -> jax.Array:
    """Mean of KL(p ‖ q); where p is 0, so is its part."""
    return jnp.mean(jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1.0) / q), 0.0), 1))


def npo(nll: jax.Array, beta: float) -> jax.Array:
    return -2 / beta * jnp.mean(jnp.log(1 / (1 + jnp.exp(-beta * nll))))


class Seen(NamedTuple):
    """What an objective may look at: losses of every example, probabilities, θ_o's of either, and the rest."""

    forget: jax.Array
    retain: jax.Array
    logits: jax.Array
    logits_retain: jax.Array
    original: "Seen"
    random: jax.Array
    labels: jax.Array
    norm: jax.Array
    left: jax.Array


def deleted(seen: Seen) -> jax.Array:
    others = jax.nn.one_hot(seen.labels, 10) == 0
    kept = jnp.where(others, spread(seen.original.logits), 0.0)
    return divergence(kept / kept.sum(1, keepdims=True), spread(seen.logits))


OBJECTIVES: dict[str, tuple[Callable[[Seen], jax.Array], dict, float]] = {
    "finetune": (lambda s: s.retain.mean(), {}, 5e-4),
    "gradient_ascent": (lambda s: -s.forget.mean(), {}, 0.0),
    "neggrad_plus": (lambda s: s.retain.mean() - 0.4 * s.forget.mean(), {"beta": 0.4}, 5e-4),
    "l1_sparse": (lambda s: s.retain.mean() + 0.01 * s.left * s.norm, {"alpha": 0.01}, 0.0),
    "npo": (
        lambda s: npo(s.forget - s.original.forget, 0.5) + 0.7 * s.retain.mean(),
        {"beta": 0.5, "retain_weight": 0.7},
        0.0,
    ),
    "simnpo": (
        lambda s: 0.3 * npo(s.forget - 0.2, 1.5) + 0.7 * s.retain.mean(),
        {"beta": 1.5, "margin": 0.2, "forget_weight": 0.3, "retain_weight": 0.7},
        0.0,
    ),
    "bad_teacher": (
        lambda s: (
            divergence(spread(s.original.logits_retain, 2.0), spread(s.logits_retain, 2.0))
            + divergence(spread(s.random, 2.0), spread(s.logits, 2.0))
        ),
        {"temperature": 2.0},
        0.0,
    ),
    "delete": (deleted, {}, 0.0),
}


def by_definition(nll_logits: jax.Array, labels: jax.Array) -> jax.Array:
    return -jnp.take_along_axis(jax.nn.log_softmax(nll_logits), labels[:, None], 1)[:, 0]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective_is_the_formula(problem: Problem, name: str) -> None:
    """`left`: the share of steps to come, with which l1's penalty falls to 0."""
    objective, given, decay = OBJECTIVES[name]
    fresh = problem.model.init(jax.random.fold_in(KEYS[0], 1), examples(problem, "retain").x[:1])

    def look(params: Any, original: Any, left: Any) -> Seen:
        forget, retain = (problem.model.apply(params, examples(problem, name).x)[0] for name in ("forget", "retain"))
        norm = sum(jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(params))
        nll = by_definition(forget, examples(problem, "forget").y), by_definition(retain, examples(problem, "retain").y)
        random = problem.model.apply(fresh, examples(problem, "forget").x)[0]
        return Seen(*nll, forget, retain, original, random, examples(problem, "forget").y, norm, left)

    original = look(problem.params, None, None)

    def loss(params: Any, step: jax.Array) -> jax.Array:
        return objective(look(params, original, 1 - step / STEPS))

    expected = plain_sgd(jax.grad(loss), problem.params, decay)
    result = call(name, problem, KEYS[0], **WHOLE, **given)
    chex.assert_trees_all_close(result, expected, rtol=1e-3, atol=1e-5)


def test_grad_diff_takes_as_many_of_either_set(problem: Problem) -> None:
    """Of 24 forget examples and one class of retain examples, so that which of these are drawn is no matter."""
    retain = examples(problem, "retain")
    problem = replaced(problem, retain=Examples(retain.x * 0 + retain.x[:1], retain.y * 0 + retain.y[:1]))
    expected = plain_sgd(
        lambda params, step: jax.tree.map(
            lambda f, r: 0.6 * r - 0.5 * f,
            *(gradient(problem, params, examples(problem, split)) for split in ("forget", "retain")),
        ),
        problem.params,
    )
    result = call("grad_diff", problem, KEYS[0], forget_weight=0.5, retain_weight=0.6, **WHOLE)
    chex.assert_trees_all_close(result, expected, rtol=1e-3, atol=1e-5)
    seen = methods._grad_diff.objective(problem, KEYS[0], forget_weight=0.5, retain_weight=0.6)
    now = training.Now(jnp.asarray(0), jnp.asarray(1), KEYS[0], jnp.asarray(0))
    batches = tuple(sources.take(problem.data, rows) for rows in (problem.forget, problem.retain))
    terms = seen.terms(problem.params, batches, now)
    assert [len(term.values) for term in terms] == [len(examples(problem, "forget").y)] * 2


@pytest.mark.parametrize("max_epochs", [1, 3])
def test_scrub_is_the_slow_reference(problem: Problem, max_epochs: int) -> None:
    """One batch of either set: every epoch is one step, the first of them with an ascent before it."""
    splits = [examples(problem, name) for name in ("forget", "retain")]
    original = [spread(problem.model.apply(problem.params, split.x)[0], 2.0) for split in splits]

    def distance(params: Any, i: int) -> jax.Array:
        return 4 * divergence(original[i], spread(problem.model.apply(params, splits[i].x)[0], 2.0))

    away = jax.jit(jax.grad(lambda params: -distance(params, 0)))
    towards = jax.jit(
        jax.grad(lambda params: 0.9 * cross_entropy(problem, params, splits[1]) + 20 * distance(params, 1))
    )
    params, velocity = problem.params, optax.tree.zeros_like(problem.params)
    for step in range(STEPS):
        for slope in [away] * (step < max_epochs) + [towards]:
            velocity = jax.tree.map(lambda v, g, p: 0.9 * v + g + 5e-4 * p, velocity, slope(params), params)
            params = jax.tree.map(lambda p, v: p - LR * v, params, velocity)
    given = {"gamma": 0.9, "alpha": 20.0, "temperature": 2.0, "max_epochs": max_epochs}
    result = call("scrub", problem, KEYS[0], **given, **WHOLE)
    chex.assert_trees_all_close(result, params, rtol=1e-3, atol=1e-5)
    assert float(distance(result, 0)) > 0, "the student moved"


@pytest.mark.parametrize("floats", [False, True])
def test_boundary_shrink_teaches_the_nearest_wrong_class(problem: Problem, floats: bool) -> None:
    """One step away in pixels, which does not leave −1 to 1 of images, nor of floats the range of D_f."""
    low, high = -1.0, 1.0
    if floats:
        low, high = -2.0, 3.0
        bytes_ = problem.data["x"]
        problem = dataclasses.replace(problem, data={**problem.data, "x": bytes_.astype(jnp.float32) / 51 - 2})
        problem = dataclasses.replace(problem, data={**problem.data, "x": problem.data["x"].at[problem.test].set(99)})
    x, y = examples(problem, "forget")
    x = models.as_float(x)
    assert (float(x.min()), float(x.max())) == (low, high)
    slope = jax.grad(lambda x: jnp.sum(by_definition(problem.model.apply(problem.params, x)[0], y)))(x)
    step = x + 0.2 * (high - low) * jnp.sign(slope)

    def nearest_of(x: jax.Array) -> jax.Array:
        beyond = np.array(problem.model.apply(problem.params, x)[0])
        beyond[np.arange(len(y)), y] = -np.inf
        return jnp.asarray(beyond.argmax(1), y.dtype)

    nearest = Examples(examples(problem, "forget").x, nearest_of(jnp.clip(step, low, high)))
    assert float(jnp.mean((step < low) | (step > high))) > 0.1, "steps that would leave the range"
    assert bool(jnp.any(nearest.y != nearest_of(step))), "and matter"
    expected = plain_sgd(lambda params, step: gradient(problem, params, nearest), problem.params)
    result = call("boundary_shrink", problem, KEYS[0], bound=0.2, **WHOLE)
    chex.assert_trees_all_close(result, expected, rtol=1e-3, atol=1e-5)
    assert not bool(jnp.any(nearest.y == y))


def test_boundary_shrink_refuses_a_model_that_scales_its_images_otherwise(problem: Problem) -> None:
    """It would be given images from −1 to 1 where it expects 0 to 255, and teach nonsense."""

    def apply(params: Any, x: Any) -> Any:
        return problem.model.apply(params, x.astype(jnp.float32) / 255)[0]

    own = dataclasses.replace(problem, model=models.adapt(apply))
    with pytest.raises(UserError, match=r"takes uint8 images for something else .* models\.as_float"):
        methods.boundary_shrink(own, KEYS[0])


def test_boundary_shrink_needs_pixels(problem: Problem) -> None:
    model = models.adapt(lambda params, tokens: params["table"][tokens[:, 0, 0, 0]])
    data = {**problem.data, "x": problem.data["x"].astype(jnp.int32)}
    tokens = dataclasses.replace(problem, model=model, params={"table": jnp.zeros((256, 10))}, data=data)
    with pytest.raises(UserError, match="floats or uint8; given int32"):
        methods.boundary_shrink(tokens, KEYS[0])


def test_boundary_expand_teaches_a_class_of_its_own_and_drops_it(problem: Problem) -> None:
    """The network with one more output, from the same first column."""
    hidden = problem.params["head"]["kernel"].shape[0]
    column = jax.random.normal(jax.random.split(KEYS[0])[0], (hidden,)) / jnp.sqrt(hidden)
    wide = models.mlp(num_classes=11, hidden=(16,))
    head = problem.params["head"]
    start = {
        **problem.params,
        "head": {
            "kernel": jnp.concatenate([head["kernel"], column[:, None]], 1),
            "bias": jnp.append(head["bias"], 0.0),
        },
    }
    widened = dataclasses.replace(problem, model=wide, params=start, num_classes=11)
    extra = Examples(examples(problem, "forget").x, jnp.full_like(examples(problem, "forget").y, 10))
    expected = plain_sgd(lambda params, step: gradient(widened, params, extra), start)
    expected["head"] = {"kernel": expected["head"]["kernel"][:, :10], "bias": expected["head"]["bias"][:10]}
    result = call("boundary_expand", problem, KEYS[0], **WHOLE)
    chex.assert_trees_all_close(result, expected, rtol=1e-3, atol=1e-5)
    headless = dataclasses.replace(problem, model=models.adapt(biases))
    with pytest.raises(ValueError, match="features"):
        methods.boundary_expand(headless, KEYS[0])


def test_influence_is_the_slow_reference(problem: Problem) -> None:
    """With every retain example drawn, the Fisher matrix itself, inverted."""
    flat, _ = ravel_pytree(problem.params)
    retain = examples(problem, "retain")
    singles = [Examples(retain.x[i : i + 1], retain.y[i : i + 1]) for i in range(len(retain.y))]
    grads = [ravel_pytree(gradient(problem, problem.params, single))[0] for single in singles]
    g = np.stack(grads).astype(np.float64)
    fisher = g.T @ g / len(g) + 0.05 * np.eye(flat.size)
    forget_gradient = ravel_pytree(gradient(problem, problem.params, examples(problem, "forget")))[0]
    v = 0.2 * (np.float64(forget_gradient) - g.mean(0))
    expected = np.float64(flat) + 0.3 * np.linalg.solve(fisher, v)
    result = methods.influence(problem, KEYS[0], alpha=0.3, damping=0.05)
    np.testing.assert_allclose(ravel_pytree(result)[0], expected, rtol=1e-3, atol=1e-4)
    assert len(problem.forget) / 120 == 0.2


def test_fisher_noise_is_strong_where_the_retain_set_does_not_look(problem: Problem) -> None:
    fisher = squared(problem, examples(problem, "retain"), 48)
    result = methods.fisher_noise(problem, KEYS[0], alpha=0.02, limit=30.0, fisher_batch=48)
    scaled = jax.tree.map(
        lambda new, old, f: np.asarray(new - old) / (0.02 * np.minimum(np.asarray(f + 1e-30) ** -0.25, 30.0)),
        result,
        problem.params,
        fisher,
    )
    noise = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(scaled)])
    limited = np.concatenate([np.ravel(f) < 30.0**-4 for f in jax.tree.leaves(fisher)])
    assert 0.05 < limited.mean() < 0.95
    for part in (noise, noise[limited], noise[~limited]):
        assert abs(part.mean()) < 0.15
        assert part.std() == pytest.approx(1, abs=0.15)


# Curricula and optimisers, with any method that descends.

GRADIENT = [name for name in methods.NAMES if "optimizer" in registry.schema(getattr(methods, name))]


def test_methods_that_descend_take_both_and_the_others_neither() -> None:
    assert set(methods.NAMES) - set(GRADIENT) == {"retrain", "ssd", "influence", "fisher_noise", "mcu"}
    for name in methods.NAMES:
        assert ("curriculum" in registry.schema(getattr(methods, name))) == (name in GRADIENT)


@pytest.mark.parametrize(
    "given", [{"curriculum": "superloss:strength=0.5"}, {"optimizer": "sophia_fisher", "lr": 1e-3}]
)
@pytest.mark.parametrize("name", GRADIENT)
def test_a_curriculum_or_optimiser_changes_the_result(problem: Problem, run: Run, name: str, given: dict) -> None:
    result = call(name, problem, KEYS[0], **{**QUICK[name], **given})
    chex.assert_tree_all_finite(result)
    assert float(optax.tree.norm(optax.tree.sub(result, run(name)))) > 1e-4


@pytest.mark.parametrize("name", methods.NAMES)
def test_what_a_method_minimises_can_train_a_path(problem: Problem, unlearned: Any, name: str) -> None:
    """At the start of the method its objective is finite, and so is its gradient."""
    objective = methods.objective(name, problem, KEYS[0], **{**QUICK[name], "epochs": 3})
    if name not in set(GRADIENT) - {"neg_tv", "boundary_expand"}:
        assert objective is None
        return
    path, seen = connect.train(
        objective, problem.params, unlearned, problem.data, KEYS[1], steps=2, lr=1e-3, batch_size=24
    )
    chex.assert_tree_all_finite((path.inner, seen))
    assert (
        float(optax.tree.norm(optax.tree.sub(path.inner, curves.straight(problem.params, unlearned, 1).inner))) > 1e-6
    )


@pytest.mark.parametrize(("name", "steps"), [("npo", 4), ("scrub", 12)])
def test_a_length_in_steps_is_that_in_epochs(problem: Problem, run: Run, name: str, steps: int) -> None:
    """Two epochs are of D_f, 24 in batches of 16, or of D_r, 96."""
    asked = {**QUICK[name], "epochs": 1, "steps": steps}
    chex.assert_trees_all_equal(call(name, problem, KEYS[0], **asked), run(name))


def test_unknown_curricula_and_optimisers_are_named() -> None:
    for given, near in (({"curriculum": "superlos"}, "superloss"), ({"optimizer": "sofia"}, "sophia")):
        with pytest.raises(registry.UnknownNameError, match=near):
            registry.bind(methods.finetune, given, "method finetune")


def test_an_optax_optimiser_given_twice_compiles_once(problem: Problem, compiled: list) -> None:
    given = (
        training.Training(2, optimizer=optax.lion(1e-4), batch_size=16),
        training.Training(2, 1e-4, optimizer=optax.lion, batch_size=16),
        training.Training(2, optax.cosine_decay_schedule(0.05, 4), batch_size=16),
    )
    for train in given:
        first = methods.npo(problem, KEYS[0], train=train)
        assert float(optax.tree.norm(optax.tree.sub(first, problem.params))) > 1e-4
        before = len(compiled)
        chex.assert_trees_all_equal(methods.npo(problem, KEYS[0], train=train), first)
        methods.npo(problem, KEYS[1], train=train)
        assert len(compiled) == before
    methods.npo(problem, KEYS[0], train=given[1]._replace(lr=2e-4))
    assert len(compiled) == before


def test_neg_tv_is_the_negated_task_vector(problem: Problem) -> None:
    tuned = plain_sgd(lambda params, step: gradient(problem, params, examples(problem, "forget")), problem.params)
    expected = jax.tree.map(lambda o, ft: o - 0.7 * (ft - o), problem.params, tuned)
    result = call("neg_tv", problem, KEYS[0], alpha=0.7, **WHOLE)
    chex.assert_trees_all_close(result, expected, rtol=1e-3, atol=1e-5)


def test_retrain_sees_neither_the_forget_set_nor_the_original(problem: Problem, run: Run) -> None:
    data = jax.tree.map(lambda leaf: leaf.at[problem.forget].set(0), problem.data)
    blind = dataclasses.replace(problem, params=jax.tree.map(lambda x: x * 100, problem.params), data=data)
    chex.assert_trees_all_equal(methods.retrain(blind, KEYS[0], **QUICK["retrain"]), run("retrain"))


def biases(params: dict, x: jax.Array) -> jax.Array:
    """A user's plain function, whose gradient tells which labels it was given."""
    return jnp.broadcast_to(params["bias"][None], (x.shape[0], params["bias"].size))


def bias_problem() -> Problem:
    """900 examples of label 3 to forget, 100 of label 5 to keep."""
    data = {"x": jnp.zeros((1000, 1)), "y": jnp.repeat(jnp.array([3, 5]), jnp.array([900, 100]))}
    forget, retain = np.split(np.arange(1000), [900])
    params = {"bias": jnp.zeros(10)}
    return Problem(models.adapt(biases), params, data, forget, retain, retain, retain, num_classes=10)


def test_random_labels_are_uniform_over_the_wrong_ones_and_redrawn() -> None:
    problem = bias_problem()

    def trained(epochs: int, lr: float) -> np.ndarray:
        train = training.Training(epochs, lr, momentum=0.0, batch_size=1000)
        return np.asarray(methods.random_label(problem, KEYS[0], train=train)["bias"])

    # Counts of labels: one step of gradient softmax(0) − counts / 1000, at lr 1.
    counts = 1000 * (trained(1, 1.0) + 0.1)
    np.testing.assert_allclose(counts, np.round(counts), atol=0.01)
    assert counts[3] == pytest.approx(0, abs=0.01), "the true label"
    others = np.delete(counts, 3) - 100 * (np.delete(np.arange(10), 3) == 5)
    assert others.min() > 60
    assert others.max() < 140
    # Two small steps: the labels of the second are not those of the first.
    second = 1e6 * (trained(2, 1e-3) + 2e-4) - counts
    assert abs(second[3]) < 1
    assert np.abs(second - counts).max() > 5


def test_salun_moves_exactly_the_weights_of_largest_forget_gradient(problem: Problem) -> None:
    result = call("salun", problem, KEYS[0], keep=0.3, **{**FEW, "weight_decay": 0.1})
    stats = training.evaluation_stats(problem, problem.params)
    saliency = jax.tree.map(jnp.abs, training.gradient(problem, problem.params, problem.forget, stats))
    mask = masks.top_weights(saliency, 0.3)
    outside = jax.tree.map(lambda x, y, m: np.asarray(x != y)[~np.asarray(m)].any(), result, problem.params, mask)
    assert not any(jax.tree.leaves(outside))
    inside = jax.tree.map(lambda x, y, m: np.asarray(x != y)[np.asarray(m)].all(), result, problem.params, mask)
    assert all(jax.tree.leaves(inside))
    assert int(masks.count(mask, problem.params)) == round(0.3 * optax.tree.size(problem.params))


def squared(problem: Problem, split: Examples, size: int = 10**6) -> Any:
    """Mean of the squared gradients of batches, one by one."""
    batches = [Examples(split.x[i : i + size], split.y[i : i + size]) for i in range(0, len(split.y), size)]
    grads = [gradient(problem, problem.params, batch) for batch in batches]
    return jax.tree.map(lambda *g: sum(x**2 for x in g) / len(g), *grads)


def test_ssd_is_the_slow_reference(problem: Problem) -> None:
    """All of D is [forget, retain]: 120 examples in 3 batches; D_f in one."""
    forget, retain = examples(problem, "forget"), examples(problem, "retain")
    whole = Examples(*(jnp.concatenate(both) for both in zip(forget, retain, strict=True)))
    fisher_forget, fisher_all = squared(problem, forget, 40), squared(problem, whole, 40)

    def dampen(theta: float, forget: float, everything: float) -> float:
        return theta * min(0.5 * everything / forget, 1) if forget > 1.5 * everything else theta

    result = methods.ssd(problem, KEYS[0], alpha=1.5, dampening=0.5, fisher_batch=40)
    expected = jax.tree.map(np.vectorize(dampen, otypes=[np.float32]), problem.params, fisher_forget, fisher_all)
    agree = jax.tree.map(lambda x, y: np.isclose(x, y, rtol=1e-3, atol=1e-6).mean(), result, expected)
    assert min(jax.tree.leaves(agree)) > 0.99  # a weight at the very threshold may fall either way
    damped = jax.tree.map(lambda x, y: int((x != y).sum()), result, problem.params)
    assert 0 < sum(jax.tree.leaves(damped)) < optax.tree.size(problem.params) / 2


@pytest.mark.parametrize("coupling", ["shared", "separate"])
@pytest.mark.parametrize(("clip", "gamma"), [(7.0, 1.0), (0.05, 100.0)])
def test_sfron_is_the_slow_reference(problem: Problem, coupling: str, clip: float, gamma: float) -> None:
    """Shared, as the authors' code: one SGD with its decay and momentum, and a cosine over the steps, for both."""
    steps, every, alpha, decay = 5, 2, 20.0, 5e-2
    forget, retain = examples(problem, "forget"), examples(problem, "retain")
    fisher_forget, fisher_retain = squared(problem, forget), squared(problem, retain)
    mask = jax.tree.map(lambda f, r: np.float32(f >= gamma * r), fisher_forget, fisher_retain)
    everything = jax.tree.map(np.ones_like, mask)

    @jax.jit
    def ascent(params: Any, step: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            nll = by_definition(problem.model.apply(params, forget.x)[0], forget.y)
            weights = jax.lax.stop_gradient(1 / jnp.sqrt(nll))
            return -alpha * 0.5 * (1 + jnp.cos(jnp.pi * step / steps)) * jnp.mean(weights / weights.mean() * nll)

        grads = jax.tree.map(lambda g, m: g * m, jax.grad(loss)(params), mask)
        return jax.tree.map(lambda g: g * jnp.minimum(1.0, clip / optax.tree.norm(grads)), grads)

    def sgd(params: Any, velocity: Any, grads: Any, lr: float, decay: float, moving: Any) -> tuple[Any, Any]:
        velocity = jax.tree.map(lambda v, g, p: 0.9 * v + g + decay * p, velocity, grads, params)
        return jax.tree.map(lambda p, v, m: p - lr * v * m, params, velocity, moving), velocity

    params = problem.params
    up = down = optax.tree.zeros_like(params)
    for step in range(steps):
        lr = LR * 0.5 * (1 + np.cos(np.pi * step / steps)) if coupling == "shared" else LR
        if step % every == 0:
            grads = ascent(params, jnp.float32(step))
            if coupling == "shared":
                params, down = sgd(params, down, grads, lr, decay, everything)
            else:
                params, up = sgd(params, up, grads, lr, 0.0, mask)
        params, down = sgd(params, down, gradient(problem, params, retain), lr, decay, everything)
    given = {"steps": steps, "lr": LR, "alpha": alpha, "forget_every": every, "clip": clip, "gamma": gamma}
    result = call("sfron", problem, KEYS[0], **given, weight_decay=decay, batch_size=1000, coupling=coupling)
    # Not leaf by leaf: a weight at the mask's very threshold may fall either way.
    error, distance = (optax.tree.norm(optax.tree.sub(params, other)) for other in (result, problem.params))
    assert float(distance) > 1e-3
    assert float(error) < 0.01 * float(distance)


def test_sfron_names_its_couplings(problem: Problem) -> None:
    assert registry.schema(methods.sfron)["coupling"] == "shared"
    with pytest.raises(ValueError, match="coupling is one of shared, separate; given 'none'"):
        methods.sfron(problem, KEYS[0], coupling="none")


# MCU as a method.


def whole_mcu(problem: Problem, **given: Any) -> Any:
    """All of it, from options as text gives them or as objects."""
    return methods.mcu(problem, KEYS[0], **registry.arguments(methods.mcu, {**QUICK["mcu"], **given}), full=True)


def test_mcu_gives_the_model_at_t_and_on_demand_the_whole_path(problem: Problem, unlearned: Any, run: Run) -> None:
    full = whole_mcu(problem, pre=unlearned)
    chex.assert_trees_all_equal((full.path.start, full.path.end), (problem.params, unlearned))
    assert 0 <= float(full.choice.t) <= 1
    chex.assert_trees_all_equal(full.params, curves.bezier(full.path, full.choice.t))
    chex.assert_trees_all_equal(full.params, run("mcu"))
    # The choice is that of the path's own accuracies, without a retrained model.
    ts = paths.points(5)
    standings = paths.standings(paths.evaluate(problem, full.path, ts))
    expected = paths.choose(problem, full.path, ts, standings, rules.targets(problem))
    chex.assert_trees_all_equal(full.choice, expected)
    assert float(full.choice.score) >= 0
    other = whole_mcu(problem, pre=unlearned, rule="distribution")
    judged = paths.choose(problem, full.path, ts, standings, rules.targets(problem), rule=rules.distribution)
    chex.assert_trees_all_equal(other.choice, judged)
    assert full.info.losses.shape == (2 * 5,)


def test_mcu_takes_functions_and_text_becomes_functions(problem: Problem) -> None:
    end = call("gradient_ascent", problem, jax.random.split(KEYS[0])[0], epochs=1, lr=1e-3)
    few = functools.partial(methods.gradient_ascent, train=training.Training(epochs=1, lr=1e-3))
    full = whole_mcu(problem, pre=few, curve=curves.polychain, bends=2)
    chex.assert_trees_all_equal((full.path.start, full.path.end), (problem.params, end))
    assert curves.bends(full.path) == 2
    chex.assert_trees_all_equal(full.params, curves.polychain(full.path, full.choice.t))
    text = whole_mcu(problem, pre="gradient_ascent:epochs=1,lr=1e-3", curve="polychain", bends=2)
    chex.assert_trees_all_equal(text, full)


def test_a_users_numpy_arrays_map_over_keys(problem: Problem) -> None:
    host = dataclasses.replace(problem, data=jax.tree.map(np.asarray, problem.data))
    keys = jax.random.split(KEYS[0], 2)
    given = registry.arguments(methods.mcu, {"pre": "finetune:epochs=1", "steps": 2, "points": 4})
    chex.assert_tree_all_finite(jax.vmap(lambda key: methods.mcu(host, key, **given))(keys))


def test_mcu_refuses_names_that_are_none(problem: Problem, unlearned: Any) -> None:
    for bad, near in (({"pre": "random_lable"}, "random_label"), ({"curve": "bezir"}, "bezier")):
        with pytest.raises(registry.UnknownNameError, match=f"did you mean '{near}'"):
            registry.bind(methods.mcu, bad, "method mcu")
    with pytest.raises(ValueError, match="at least 4 points"):
        methods.mcu(problem, KEYS[0], pre=unlearned, points=3, steps=1)


# A user's own model.


def flat(x: jax.Array) -> jax.Array:
    return x.reshape(x.shape[0], -1).astype(jnp.float32) / 255


def plain_network(x: jax.Array) -> tuple[Any, Any]:
    params = {"w": 0.1 * jax.random.normal(KEYS[0], (64, 10)), "b": jnp.zeros(10)}
    return lambda params, x: flat(x) @ params["w"] + params["b"][None], params


def linen_network(x: jax.Array) -> tuple[Any, Any]:
    module = nn.Dense(10)
    return lambda params, x: module.apply({"params": params}, flat(x)), module.init(KEYS[0], flat(x))["params"]


def nnx_network(x: jax.Array) -> tuple[Any, Any]:
    graph, state = nnx.split(nnx.Linear(64, 10, rngs=nnx.Rngs(0)))
    return lambda params, x: nnx.merge(graph, params)(flat(x)), state


@pytest.mark.parametrize("make", [plain_network, linen_network, nnx_network])
def test_a_users_own_model_works_like_a_built_in_one(problem: Problem, make: Callable) -> None:
    apply, params = make(examples(problem, "test").x[:1])
    custom = dataclasses.replace(problem, model=models.adapt(apply), params=params)
    end = jax.tree.map(lambda x: x + 0.05, params)
    # The matrix is 640 of 650 weights, so the mask is one of the two leaves.
    full = methods.mcu(custom, KEYS[1], pre=end, keep=0.01, retain_filter=0.0, points=4, full=True, steps=4, lr=0.05)
    chex.assert_trees_all_equal_structs(full.params, full.path.end, full.path.inner, params)
    straight = curves.straight(params, end).inner
    moved = [bool((x != y).any()) for x, y in zip(*map(jax.tree.leaves, (full.path.inner, straight)), strict=True)]
    assert moved == [bool(m) for m in jax.tree.leaves(full.info.mask.mask)]
    assert sorted(moved) == [False, True]
    tuned = call("finetune", custom, KEYS[0], **FEW)
    chex.assert_trees_all_equal_structs(tuned, params)
    assert all(bool((x != y).any()) for x, y in zip(*map(jax.tree.leaves, (tuned, params)), strict=True))
