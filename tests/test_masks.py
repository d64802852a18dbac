"""Masks: counts are exact, MCU's two stages are a slow reference's, and nothing outside a mask moves by one bit."""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcu_jax import masks, trees
from mcu_jax.base import UserError

quick = settings(deadline=None, max_examples=25)
fractions = st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 0.9, 1.0])
PARAMS = {"b": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}, "a": jnp.ones(2)}


def test_by_name() -> None:
    assert masks.by_name(PARAMS, "bias") == {"b": {"kernel": False, "bias": True}, "a": False}
    assert masks.by_name(PARAMS, ["^a$", "b/k"]) == {"b": {"kernel": True, "bias": False}, "a": True}
    with pytest.raises(UserError, match=r"'embed.*' matches no parameter; the names are: a, b/bias, b/kernel"):
        masks.by_name(PARAMS, ["bias", "embed.*"])


@quick
@given(st.lists(st.integers(-3, 3), min_size=18, max_size=18), fractions)
def test_top_weights_keeps_exactly_so_many_and_the_first_of_equals(scores: list[int], keep: float) -> None:
    flat = jnp.asarray(scores, jnp.float32)
    tree = {"a": flat[:2], "b": {"bias": flat[2:6], "kernel": flat[6:].reshape(3, 4)}}
    mask = masks.top_weights(tree, keep)
    best = sorted(range(18), key=lambda i: (-scores[i], i))[: round(keep * 18)]
    found = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(mask)])
    assert np.flatnonzero(found).tolist() == sorted(best)
    assert int(masks.count(mask, tree)) == round(keep * 18)


def test_top_leaves_takes_whole_leaves_until_the_share_is_covered() -> None:
    scores = {"a": jnp.full(4, 1.0), "b": jnp.full(4, 3.0), "c": jnp.full(2, 2.0), "d": jnp.full(2, 2.0)}
    for keep, expected in ((0.0, ""), (0.1, "b"), (1 / 3, "b"), (0.4, "bc"), (0.5, "bc"), (0.6, "bcd"), (1.0, "abcd")):
        mask = masks.top_leaves(scores, keep)
        assert "".join(name for name in mask if bool(mask[name])) == expected, keep


def slow_mcu(retain: dict, forget: dict, keep: float, retain_filter: float) -> tuple[dict, dict]:
    """The two stages as one would tell them, with fractions of whole numbers."""
    total = sum(g.size for g in retain.values())

    def score(grad: np.ndarray) -> float:
        return float(np.float32(np.linalg.norm(grad.astype(np.float64)) / grad.size))

    dropped, covered = set(), 0
    *most, _ = sorted(retain, key=lambda name: (-score(retain[name]), name))
    for name in most:
        if covered < round(retain_filter * total, 6):
            dropped.add(name)
            covered += retain[name].size
    kept, covered = set(), 0
    for name in sorted(set(forget) - dropped, key=lambda name: (-score(forget[name]), name)):
        if covered < round(keep * total, 6):
            kept.add(name)
            covered += forget[name].size
    return {name: name in kept for name in retain}, {name: name in dropped for name in retain}


@st.composite
def gradients(draw: st.DrawFn) -> tuple[dict, dict]:
    """Leaves of few sizes and few values, so that scores tie; the names' order is not the sizes'."""
    names = draw(st.lists(st.sampled_from("hgfedcba"), min_size=1, max_size=6, unique=True))
    sizes = [draw(st.sampled_from([1, 4, 16])) for _ in names]

    def values() -> dict:
        return {
            name: np.full(size, draw(st.sampled_from([0.0, 1.0, 2.0])), np.float32)
            for name, size in zip(names, sizes, strict=True)
        }

    return values(), values()


@settings(deadline=None, max_examples=60)
@given(gradients(), fractions, fractions)
def test_mcu_is_the_slow_reference(grads: tuple[dict, dict], keep: float, retain_filter: float) -> None:
    retain, forget = grads
    given_grads = jax.tree.map(jnp.asarray, grads)
    mask, dropped = masks.mcu(*given_grads, keep=keep, retain_filter=retain_filter)
    expected = slow_mcu(retain, forget, keep, retain_filter)
    assert (jax.tree.map(bool, mask), jax.tree.map(bool, dropped)) == expected
    total = sum(g.size for g in retain.values())
    share = sum(g.size for name, g in retain.items() if expected[0][name]) / total
    np.testing.assert_allclose(masks.realised(mask, given_grads[0]), share, rtol=1e-6)


def test_mcu_by_hand() -> None:
    """Scores ‖G‖/size; k_r P = 1, so the filter takes w; k P = 5, so the reserve takes u and overshoots by v."""
    retain = {"u": jnp.ones(4), "v": jnp.ones(4), "w": 9 * jnp.ones(2)}  # scores .5, .5, 6.4
    forget = {"u": 2 * jnp.ones(4), "v": jnp.ones(4), "w": 9 * jnp.ones(2)}
    mask, dropped = masks.mcu(retain, forget, keep=0.5, retain_filter=0.1)
    assert jax.tree.map(bool, mask) == {"u": True, "v": True, "w": False}
    assert jax.tree.map(bool, dropped) == {"u": False, "v": False, "w": True}
    np.testing.assert_allclose([masks.realised(mask, retain), masks.realised(dropped, retain)], [0.8, 0.2])


def test_the_retain_filter_leaves_something_to_train() -> None:
    """One leaf holds over 90 % of the weights and ranks last: the small ones do not fill the filter's share."""
    grads = {"big": 0.001 * jnp.ones((40, 25)), "bias": jnp.ones(25), "head": jnp.ones((25, 3))}
    mask, dropped = masks.mcu(grads, grads, keep=0.5, retain_filter=0.1)
    assert jax.tree.map(bool, mask) == {"big": True, "bias": False, "head": False}
    assert jax.tree.map(bool, dropped) == {"big": False, "bias": True, "head": True}
    alone = {"w": jnp.ones(3)}
    assert jax.tree.map(bool, masks.mcu(alone, alone, keep=0.5, retain_filter=1.0)) == ({"w": True}, {"w": False})


class Unsorted(NamedTuple):
    """Dicts come sorted by name; this does not."""

    b: jax.Array
    a: jax.Array


def test_ties_go_by_name_not_by_place() -> None:
    equal = Unsorted(b=jnp.ones(4), a=jnp.ones(4))
    mask, dropped = masks.mcu(equal, equal, keep=0.5, retain_filter=0.0)
    assert jax.tree.map(bool, mask) == Unsorted(b=False, a=True)
    assert jax.tree.map(bool, masks.mcu(equal, equal, keep=0.0, retain_filter=0.5)[1]) == Unsorted(b=False, a=True)
    assert jax.tree.map(bool, masks.top_leaves(equal, 0.5)) == Unsorted(b=False, a=True)
    assert not any(map(bool, dropped))


def test_mcu_without_filter_or_keep_and_under_vmap() -> None:
    retain = {"u": jnp.ones(4), "w": 9 * jnp.ones(2)}
    everything, nothing = {"u": True, "w": True}, {"u": False, "w": False}
    assert jax.tree.map(bool, masks.mcu(retain, retain, keep=1.0, retain_filter=0.0)) == (everything, nothing)
    assert jax.tree.map(bool, masks.mcu(retain, retain, keep=0.0, retain_filter=0.0)) == (nothing, nothing)
    strict = jax.tree.map(bool, masks.mcu(retain, retain, keep=1.0, retain_filter=1.0))
    assert strict == ({"u": True, "w": False}, {"u": False, "w": True})
    many = jax.tree.map(lambda g: jnp.stack([g, 0 * g]), retain)
    mapped = jax.vmap(lambda r, f: masks.mcu(r, f, keep=0.5, retain_filter=0.3))(many, many)
    for i, one in enumerate(trees.unstack(many)):
        chex.assert_trees_all_equal(trees.unstack(mapped)[i], masks.mcu(one, one, keep=0.5, retain_filter=0.3))


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_fractions_outside_are_refused(bad: float) -> None:
    for call in (
        lambda: masks.top_weights(PARAMS, bad),
        lambda: masks.top_leaves(PARAMS, bad),
        lambda: masks.mcu(PARAMS, PARAMS, keep=bad),
        lambda: masks.mcu(PARAMS, PARAMS, retain_filter=bad),
    ):
        with pytest.raises(UserError, match=r"fraction in \[0, 1\]"):
            call()


def test_random_mask_has_the_exact_count_and_follows_its_key() -> None:
    for count in (0, 1, 7, 18):
        mask = masks.random(jax.random.key(0), PARAMS, count)
        chex.assert_trees_all_equal_shapes(mask, PARAMS)
        assert int(masks.count(mask, PARAMS)) == count
    drawn = [masks.random(jax.random.key(seed), PARAMS, jnp.asarray(9)) for seed in (0, 0, 1)]
    chex.assert_trees_all_equal(drawn[0], drawn[1])
    with pytest.raises(AssertionError):
        chex.assert_trees_all_equal(drawn[0], drawn[2])
    # Every weight is as likely as any other.
    keys = jax.random.split(jax.random.key(1), 400)
    share = jax.vmap(lambda key: masks.random(key, PARAMS, 9)["b"]["kernel"])(keys).mean(0)
    np.testing.assert_allclose(share, 0.5, atol=0.12)


def test_what_is_known_of_a_mask_before_compiling() -> None:
    whole = {"b": {"kernel": jnp.asarray(True), "bias": False}, "a": jnp.zeros(2, bool)}
    assert masks.moving_leaves(whole) == {"b": {"kernel": True, "bias": False}, "a": False}
    assert masks.moves_whole_leaves(whole)
    part = {**whole, "a": jnp.array([True, False])}
    assert masks.moving_leaves(part) == {"b": {"kernel": True, "bias": False}, "a": True}
    assert not masks.moves_whole_leaves(part)
    seen = []
    jax.jit(lambda mask: seen.append((masks.moving_leaves(mask), masks.moves_whole_leaves(mask))))(whole)
    assert seen == [({"b": {"kernel": True, "bias": True}, "a": True}, False)]


OPTIMIZERS = {
    "plain": lambda: optax.sgd(0.1),
    "momentum and decay": lambda: optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, momentum=0.9)),
    "adam": lambda: optax.adam(0.1),
    "adam and decay": lambda: optax.adamw(0.1, weight_decay=0.1),
}
MASKS = {
    "whole leaves": {"b": {"kernel": True, "bias": False}, "a": False},
    "weights": {
        "b": {"kernel": jnp.arange(12).reshape(3, 4) % 2 == 0, "bias": jnp.arange(4) < 1},
        "a": jnp.array([True, False]),
    },
    "rows": {"b": {"kernel": jnp.array([[True], [False], [True]]), "bias": jnp.asarray(False)}, "a": True},
    "nothing": {"b": {"kernel": False, "bias": False}, "a": False},
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_nothing_outside_a_mask_moves_by_one_bit(optimizer: object, mask: dict) -> None:
    chain = optax.chain(optimizer(), masks.freeze(mask))
    params = jax.tree.map(
        lambda k, p: jax.random.normal(k, p.shape), optax.tree.split_key_like(jax.random.key(0), PARAMS), PARAMS
    )

    def loss(params: dict) -> jax.Array:
        return sum(jnp.sum(jnp.square(leaf - 3.0)) for leaf in jax.tree.leaves(params))

    def train(params: dict) -> dict:
        def step(carry: tuple, _: None) -> tuple:
            params, state = carry
            updates, state = chain.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, chain.init(params)), None, length=5)[0][0]

    several = trees.stack([params, jax.tree.map(jnp.negative, params)])
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes integers and floats
        alone, mapped = jax.jit(train)(params), jax.jit(jax.vmap(train))(several)
    for before, after in [(params, alone), *zip(trees.unstack(several), trees.unstack(mapped), strict=True)]:
        chex.assert_trees_all_equal_shapes_and_dtypes(before, after)
        moved = jax.tree.map(lambda x, y: x != y, before, after)
        chex.assert_trees_all_equal(moved, jax.tree.map(lambda m, p: jnp.broadcast_to(m, p.shape), mask, params))


def test_each_replicate_may_have_its_own_mask() -> None:
    many = {"a": jnp.array([True, False])}

    def step(mask: dict) -> dict:
        frozen = masks.freeze(mask)
        params = {"a": jnp.ones(3)}
        return frozen.update(params, frozen.init(params))[0]

    np.testing.assert_array_equal(jax.vmap(step)(many)["a"], [[1.0] * 3, [0.0] * 3])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"a": jnp.ones((5, 2), bool)}, r"'a' of shape \(5, 2\) does not broadcast"),
        ({"a": jnp.ones((1, 2), bool)}, r"'a' of shape \(1, 2\)"),
        ({"a": jnp.ones(3, bool)}, r"'a' of shape \(3,\) does not broadcast"),
        ({"b": jnp.ones(2, bool)}, "structure"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask: dict, message: str) -> None:
    params = {"a": jnp.ones(2)}
    with pytest.raises(UserError, match=message):
        masks.freeze(mask).init(params)


def slow_upper_class(scores: dict[str, float]) -> set[str]:
    """Every way to cut the ranking in two, by the variance between the classes."""
    names = sorted(scores, key=lambda name: -scores[name])
    logs = np.log([scores[name] for name in names])
    if len(names) == 1:
        return set(names)
    cuts = range(1, len(names))
    between = [cut * (len(names) - cut) * (logs[:cut].mean() - logs[cut:].mean()) ** 2 for cut in cuts]
    return set(names[: cuts[int(np.argmax(between))]])


@quick
@given(st.integers(0, 10_000))
def test_shares_by_gradients_are_the_two_classes_of_the_scores(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = {"a": 7, "b": 2, "c": 30, "d": 5}
    retain, forget = (
        {name: np.exp(rng.normal(0, 3)) * rng.normal(size=n).astype(np.float32) for name, n in sizes.items()}
        for _ in range(2)
    )
    mask, dropped = masks.by_gradients(*(jax.tree.map(jnp.float32, tree) for tree in (retain, forget)))

    def score(tree: dict) -> dict[str, float]:
        return {name: float(np.linalg.norm(g)) / g.size for name, g in tree.items()}

    out = slow_upper_class(score(retain))
    assert {name for name in sizes if bool(dropped[name])} == out
    left = {name: value for name, value in score(forget).items() if name not in out}
    assert {name for name in sizes if bool(mask[name])} == slow_upper_class(left)


def test_shares_by_gradients_leave_something_to_train() -> None:
    one = {"a": jnp.ones(3)}
    mask, dropped = masks.by_gradients(one, one)
    assert (bool(mask["a"]), bool(dropped["a"])) == (True, False)
    none = {"a": jnp.zeros(3), "b": jnp.zeros(2)}
    mask, _ = masks.by_gradients(none, none)
    assert any(map(bool, mask.values()))
