"""Optimisers and curricula against their formulas."""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import lambertw

from mcu_jax import curricula, losses, methods, models, optimizers, training
from mcu_jax.base import Problem

KEY = jax.random.key(4)
START = {"w": jnp.array([1.0, -2.0, 0.5])}
CURVATURE = jnp.array([4.0, 0.5, 0.0])
DATA = {"x": jnp.zeros((6, 3)), "y": jnp.zeros(6, jnp.int32)}
EVERYTHING = (training.Stream(np.arange(6)),)


def bowl(params: dict, batches: tuple, now: training.Now) -> tuple[training.Term, ...]:
    """½ Σ cᵢ wᵢ² + Σ wᵢ: gradient c w + 1, Hessian diag(c), in which every Hutchinson estimate is exact."""
    return (training.Term(0.5 * jnp.sum(CURVATURE * params["w"] ** 2) + jnp.sum(params["w"])),)


def run(optimizer: Any, steps: int, lr: Any = 0.1, decay: float = 0.0, **options: Any) -> Any:
    make = optimizers.make(functools.partial(optimizer, **options) if options else optimizer, lr, 0.9, decay)
    objective = training.Objective(bowl, EVERYTHING)
    return training.fit(objective, START, DATA, KEY, optimizer=make, epochs=steps, batch_size=6).state


def test_adam_decays_apart_from_its_moments() -> None:
    w, m, v = np.array(START["w"]), np.zeros(3), np.zeros(3)
    for step in range(1, 5):
        g = CURVATURE * w + 1
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
        w = w - 0.1 * (m / (1 - 0.8**step) / (np.sqrt(v / (1 - 0.95**step)) + 1e-8) + 0.3 * w)
    np.testing.assert_allclose(run(optimizers.adam, 4, decay=0.3, b1=0.8, b2=0.95)["w"], w, rtol=1e-4)


def test_sophia_looks_at_the_curvature_every_interval() -> None:
    """The moments are corrected for their start; what a step looks at is the curvature known before it."""
    w, m, h = np.array(START["w"]), np.zeros(3), np.zeros(3)
    for step in range(5):
        g = CURVATURE * w + 1
        m = 0.9 * m + 0.1 * g
        move = np.clip(m / (1 - 0.9 ** (step + 1)) / np.maximum(2.0 * h, 1e-8), -1, 1)
        h = 0.8 * h + 0.2 * CURVATURE if step % 3 == 0 else h
        w = w - 0.05 * (move + 0.2 * w)
    result = run(optimizers.sophia, 5, lr=0.05, decay=0.2, b1=0.9, b2=0.8, gamma=2.0, interval=3)
    np.testing.assert_allclose(result["w"], w, rtol=1e-4)


# A problem of one weight, where the estimate of the Hessian's diagonal is the Hessian: logits (w² a, 0). Ascents on
# what it gets right have a curvature above 0, and so have descents on what it gets wrong: updates are not all clipped.
PULL = jnp.array([1.0, 2.0, -1.0, 0.5, 3.0, -2.0])
SCALAR = Problem(
    model=models.adapt(lambda params, x: jnp.concatenate([params["w"][None] ** 2 * x, 0.0 * x], 1)),
    params={"w": jnp.array([0.4])},
    data={"x": PULL[:, None], "y": jnp.array([0, 0, 0, 1, 1, 0])},
    forget=np.arange(2),
    retain=np.arange(2, 6),
    validation=np.arange(2),
    test=np.arange(2),
    num_classes=2,
)
SOPHIA = {"b1": 0.9, "b2": 0.8, "gamma": 20.0, "interval": 3}


class SlowSophia:
    """Of one weight; it counts its updates."""

    def __init__(self) -> None:
        self.updates, self.m, self.h, self.moves = 0, 0.0, 0.0, []

    def update(self, w: float, slope: float, curvature: float, lr: float, decay: float) -> float:
        self.m = 0.9 * self.m + 0.1 * slope
        move = np.clip(self.m / (1 - 0.9 ** (self.updates + 1)) / max(20.0 * self.h, 1e-8), -1, 1)
        self.moves.append(move)
        self.h = 0.8 * self.h + 0.2 * curvature if self.updates % 3 == 0 else self.h
        self.updates += 1
        return float(w - lr * (move + decay * w))


def slopes_of(loss: Any) -> Any:
    """(w, scale of the loss) -> (slope, curvature)."""
    both = jax.jit(lambda w: (jax.grad(loss)(w), jax.grad(jax.grad(loss))(w)))
    return lambda w, scale=1.0: [scale * float(value) for value in both(w)]


def mean_nll(rows: np.ndarray, w: Any, weighted: bool = False) -> Any:
    nll = jax.nn.softplus(jnp.where(DATA_LABELS[rows] == 0, -1.0, 1.0) * w**2 * PULL[rows])
    weights = jax.lax.stop_gradient(nll**-0.5) if weighted else jnp.ones_like(nll)
    return jnp.mean(weights / jnp.mean(weights) * nll)


DATA_LABELS = SCALAR.data["y"]


@pytest.mark.parametrize("coupling", ["shared", "separate"])
def test_sophias_correction_counts_the_updates_of_its_optimiser_in_sfron(coupling: str) -> None:
    """Both share an optimiser, or each has one; an ascent comes every other step."""
    steps, lr, decay, alpha = 7, 0.02, 0.1, 0.3
    descent, w = SlowSophia(), 0.4
    ascent = descent if coupling == "shared" else SlowSophia()
    away, towards = (
        slopes_of(lambda w: mean_nll(SCALAR.forget, w, True)),
        slopes_of(lambda w: mean_nll(SCALAR.retain, w)),
    )
    for step in range(steps):
        factor = 0.5 * (1 + np.cos(np.pi * step / steps))
        rate = lr * factor if coupling == "shared" else lr
        if step % 2 == 0:
            w = ascent.update(w, *away(w, -alpha * factor), rate, decay if coupling == "shared" else 0.0)
        w = descent.update(w, *towards(w), rate, decay)
    assert descent.updates == (11 if coupling == "shared" else 7)
    settings = methods._sfron.Steps(steps, lr, 0.9, decay, 6, functools.partial(optimizers.sophia, **SOPHIA))
    result = methods.sfron(
        SCALAR, KEY, alpha=alpha, gamma=0.0, forget_every=2, clip=1e6, coupling=coupling, train=settings
    )
    np.testing.assert_allclose(result["w"], w, rtol=1e-4)
    assert min(sum(abs(move) < 1 for move in sophia.moves) for sophia in (ascent, descent)) >= 3


def test_sophias_correction_counts_both_directions_of_scrub() -> None:
    """One optimiser: in the first 2 of 6 epochs, of one step, an ascent goes before the descent."""
    lr, decay = 0.02, 0.1
    sophia, w = SlowSophia(), 0.4

    def divergence(rows: np.ndarray, w: Any) -> Any:
        logits = [jnp.stack([v**2 * PULL[rows], 0 * PULL[rows]], 1) for v in (0.4, w)]
        return jnp.mean(losses.kl(*logits))

    away = slopes_of(lambda w: -divergence(SCALAR.forget, w))
    towards = slopes_of(lambda w: 0.9 * mean_nll(SCALAR.retain, w) + 0.2 * divergence(SCALAR.retain, w))
    for epoch in range(6):
        w = sophia.update(w, *away(w), lr, decay) if epoch < 2 else w
        w = sophia.update(w, *towards(w), lr, decay)
    train = training.Training(6, lr, 0.9, decay, 6, functools.partial(optimizers.sophia, **SOPHIA))
    assert sum(abs(move) < 1 for move in sophia.moves) >= 3
    result = methods.scrub(SCALAR, KEY, gamma=0.9, alpha=0.2, temperature=1.0, max_epochs=2, train=train)
    np.testing.assert_allclose(result["w"], w, rtol=1e-4)


def test_sophias_hessian_products_are_skipped_under_vmap() -> None:
    """A batched `cond` would become a select that computes both sides: then no `cond` on a scalar were left."""

    def conds(jaxpr: Any) -> list[tuple]:
        shapes = []
        for equation in jaxpr.eqns:
            if equation.primitive.name == "cond":
                shapes.append(equation.invars[0].aval.shape)
            for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
                inner = getattr(inner, "jaxpr", inner)
                shapes += conds(inner) if hasattr(inner, "eqns") else []
        return shapes

    def alone(optimizer: Any, lr: Any) -> Any:
        return run(optimizer, 4, lr)

    def scrub(optimizer: Any, lr: Any) -> Any:
        return methods.scrub(SCALAR, KEY, train=training.Training(4, lr, batch_size=2, optimizer=optimizer))

    def sfron(coupling: str, optimizer: Any, lr: Any) -> Any:
        train = methods._sfron.Steps(4, lr, batch_size=2, optimizer=optimizer)
        return methods.sfron(SCALAR, KEY, coupling=coupling, train=train)

    couplings = [functools.partial(sfron, coupling) for coupling in methods._sfron.COUPLINGS]
    for method, optimisers in ((alone, 1), (scrub, 2), *((coupling, 2) for coupling in couplings)):

        def mapped(optimizer: Any, method: Any = method) -> list[tuple]:
            return conds(jax.make_jaxpr(jax.vmap(functools.partial(method, optimizer)))(jnp.array([0.1, 0.2])).jaxpr)

        assert len(mapped(optimizers.sophia)) == len(mapped(optimizers.sgd)) + optimisers
        assert set(mapped(optimizers.sophia)) == {()}


def test_fisher_sophia_applies_its_momentum_once() -> None:
    w, m, h = np.array(START["w"]), np.zeros(3), np.zeros(3)
    for _ in range(4):
        g = CURVATURE * w + 1
        m, h = 0.9 * m + 0.1 * g, 0.95 * h + 0.05 * g**2
        w = w - 0.1 * np.clip(m / np.maximum(0.5 * 4.0 * h, 1e-15), -1, 1)
    np.testing.assert_allclose(run(optimizers.sophia_fisher, 4, rho=0.5, scale=4.0)["w"], w, rtol=1e-4)


def test_lambert_w_is_scipys() -> None:
    z = np.concatenate([[-1 / np.e], -np.geomspace(1e-6, 0.36787, 50), [0.0], np.geomspace(1e-6, 1e3, 50)])
    z = z.astype(np.float32)
    expected = lambertw(np.maximum(z.astype(np.float64), -1 / np.e + 1e-12)).real
    # At −1/e the slope is infinite: half the digits are all there is.
    np.testing.assert_allclose(losses.lambert_w(jnp.asarray(z)), expected, rtol=1e-3, atol=2e-3)
    away = z > -0.3
    np.testing.assert_allclose(losses.lambert_w(jnp.asarray(z[away])), expected[away], rtol=1e-5, atol=1e-6)


def test_superloss_is_the_formula_and_the_best_confidence() -> None:
    values, tau, strength = jnp.array([-1.0, 0.0, 0.5, 1.0, 3.0, 40.0]), 1.0, 2.0
    depth = 0.5 * (np.float64(values) - tau) / strength
    sigma = np.where(depth > -1 / np.e, np.exp(-lambertw(np.maximum(-0.3, depth)).real), np.e)
    expected = (np.float64(values) - tau) * sigma + strength * np.log(sigma) ** 2
    np.testing.assert_allclose(losses.superloss(values, tau, strength), expected, rtol=1e-5, atol=1e-6)
    # The confidence minimises the loss over all others, unless held at its largest, e.
    grid = np.exp(np.linspace(-6, 1, 20001))[:, None]
    all_confidences = (np.float64(values)[None] - tau) * grid + strength * np.log(grid) ** 2
    np.testing.assert_allclose(expected, all_confidences.min(0), atol=1e-4)
    # It is held constant: the slope is the confidence.
    slopes = jax.vmap(jax.grad(lambda value: losses.superloss(value, tau, strength)))(values)
    np.testing.assert_allclose(slopes, sigma, rtol=1e-4)
    assert np.all(np.diff(slopes) < 0), "easy examples first"


def test_superloss_measures_against_the_running_mean_of_its_own_term() -> None:
    weigh, running = functools.partial(curricula.superloss, strength=2.0), curricula.start()
    batches = ([1.0, 3.0], [5.0, 7.0], [100.0, 0.0])
    for i, (batch, tau) in enumerate(zip(batches, (2.0, 4.0, 4.0), strict=True)):
        # Of the last batch nothing counts; it is weighed, and forgotten.
        where = jnp.array([False, False]) if i == 2 else None
        values, running = weigh(jnp.array(batch), where, running)
        np.testing.assert_allclose(values, losses.superloss(jnp.array(batch), tau, 2.0), rtol=1e-5)


def two(params: dict, batches: tuple, now: training.Now) -> tuple[training.Term, ...]:
    """Two terms with signs of their own, and a regulariser."""
    values = jnp.arange(6.0) * params["w"][0] ** 2
    return training.Term(values, 0.5), training.Term(10 * values, -0.1), training.Term(jnp.sum(params["w"] ** 2), 0.2)


def test_a_curriculum_weighs_each_term_by_itself_and_no_regulariser() -> None:
    objective = training.Objective(two, EVERYTHING)
    make, weigh = optimizers.make(optimizers.sgd, 1.0, 0.0), functools.partial(curricula.superloss, strength=3.0)
    result = training.fit(objective, START, DATA, KEY, optimizer=make, curriculum=weigh, epochs=1, batch_size=6)

    def loss(params: dict) -> jax.Array:
        a, b, penalty = two(params, (), None)
        means = [jnp.mean(losses.superloss(t.values, jax.lax.stop_gradient(t.values.mean()), 3.0)) for t in (a, b)]
        return 0.5 * means[0] - 0.1 * means[1] + 0.2 * penalty.values

    value, grads = jax.value_and_grad(loss)(START)
    chex.assert_trees_all_close(result.state, optax.tree.sub(START, grads), rtol=1e-5)
    np.testing.assert_allclose(result.losses[0], value, rtol=1e-5)


# What a mask lets move.

TWO_LAYERS = {"body": jnp.full((4, 3), 0.3), "head": {"kernel": jnp.array([1.0, -0.0, 2.0]), "bias": jnp.zeros(())}}
HEAD = {"body": False, "head": {"kernel": True, "bias": True}}
PART = {**HEAD, "head": {"kernel": jnp.array([True, False, False]), "bias": False}}


def affine(params: dict, batches: tuple, now: training.Now) -> tuple[training.Term, ...]:
    (batch,) = batches
    hidden = jnp.ones((len(batch["y"]), 4)) @ params["body"]
    return (training.Term((hidden @ params["head"]["kernel"] + params["head"]["bias"] - 1.0) ** 2),)


class Template:
    """A monitor that remembers what state the loop began with."""

    def start(self, template: training.Fit, steps: int) -> None:
        self.state = jax.tree.map(np.array, template.state)

    def segment(self, state: training.Fit, step: int, steps: int, loss: float) -> None:
        pass


CHAINS = {
    "sgd": optimizers.make(optimizers.sgd, 0.1, 0.9, 0.3),
    "adam": optimizers.make(optimizers.adam, 0.1, None, 0.3),
    "optax": optimizers.make(optax.adamw(0.1, weight_decay=0.3)),
}


@pytest.mark.parametrize(("name", "copies", "counts"), [("sgd", 1, 0), ("adam", 2, 1), ("optax", 2, 1)])
def test_an_optimiser_keeps_state_for_leaves_that_move_alone(name: str, copies: int, counts: int) -> None:
    for mask, moving in ((None, 16), (HEAD, 4), (PART, 3)):
        template = Template()
        with training.monitored(template):
            result = fit_affine(name, mask)
        assert optax.tree.size(template.state.params) == moving
        assert optax.tree.size(template.state.optimizer) == copies * moving + counts
        chex.assert_trees_all_equal_structs(result, TWO_LAYERS)


def fit_affine(name: str, mask: Any) -> Any:
    objective = training.Objective(affine, EVERYTHING)
    optimizer = CHAINS[name]
    return training.fit(objective, TWO_LAYERS, DATA, KEY, optimizer=optimizer, epochs=3, batch_size=6, mask=mask).state


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("name", CHAINS)
def test_what_is_outside_a_mask_keeps_its_bits(name: str, traced: bool) -> None:
    """Behind momentum, weight decay and Adam, leaf by leaf and within a leaf, where the mask is known or is not."""
    for mask in (HEAD, PART):
        if traced:
            result = jax.jit(lambda mask: fit_affine(name, mask))(jax.tree.map(jnp.asarray, mask))
        else:
            result = fit_affine(name, mask)

        def leaf(new: jax.Array, old: jax.Array, mask: Any) -> None:
            new, old, moving = np.atleast_1d(new), np.atleast_1d(old), np.broadcast_to(mask, np.atleast_1d(old).shape)
            assert new[~moving].tobytes() == old[~moving].tobytes()
            assert np.all(new[moving] != old[moving])

        jax.tree.map(leaf, result, TWO_LAYERS, mask)


def test_a_fit_leaves_its_start_and_its_data_as_they_were() -> None:
    """The loop gives the memory of its state from segment to segment, but not the caller's."""
    start, data = jax.tree.map(jnp.copy, (TWO_LAYERS, DATA))
    objective = training.Objective(affine, EVERYTHING)
    for mask in (None, HEAD):
        training.fit(objective, start, data, KEY, optimizer=CHAINS["sgd"], epochs=3, batch_size=6, mask=mask)
        chex.assert_trees_all_equal((start, data), (TWO_LAYERS, DATA))


# What optax has.


def test_any_optax_optimiser_and_schedule_will_do() -> None:
    """A function of the learning rate, a transformation with one of its own, a schedule: as optax itself."""

    def by_optax(optimizer: Any, steps: int = 5) -> Any:
        params, state = START, optimizer.init(START)
        for _ in range(steps):
            grads = {"w": CURVATURE * params["w"] + 1}
            with jax.numpy_dtype_promotion("standard"):
                updates, state = optimizer.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params

    schedule = optax.cosine_decay_schedule(0.1, 5)
    for ours, theirs in (
        ((optax.lion, 0.02), optax.lion(0.02, weight_decay=0.0)),
        ((optax.lion(0.03), 99.0), optax.lion(0.03)),
        ((optax.lion, schedule), optax.lion(schedule, weight_decay=0.0)),
        ((optimizers.adam, schedule), optax.adam(schedule)),
        ((optimizers.sgd, optimizers.cosine(0.1, 5)), optax.sgd(schedule, 0.9)),
    ):
        chex.assert_trees_all_close(run(ours[0], 5, ours[1]), by_optax(theirs), rtol=1e-5)
