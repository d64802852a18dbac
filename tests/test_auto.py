"""A path that tunes itself: no worse than its ends and the line by its own score, within its budget."""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcu_jax import auto, connect, curves, paths, rules, trees
from mcu_jax.base import Path, Problem, UserError

KEY = jax.random.key(3)
TUNING = auto.Tuning(budget=4.0, steps=60, lr=0.02, batch_size=32)


@pytest.fixture(scope="module")
def found(problem: Problem, unlearned: Any) -> tuple[Path, auto.Found]:
    return auto.mcu(problem, unlearned, KEY, connect.mcu_mask(problem, KEY), TUNING)


def scores(problem: Problem, path: Path, rule: Any = rules.distribution) -> np.ndarray:
    standings = paths.standings(paths.evaluate(problem, path, paths.points(auto.POINTS)))
    return np.asarray(rule(standings, rules.targets(problem)))


def test_its_score_is_the_best_of_its_points(problem: Problem, found: tuple[Path, auto.Found]) -> None:
    path, info = found
    few = auto._some(problem, TUNING)
    assert float(info.score) == pytest.approx(float(scores(few, path).min()), abs=1e-5)
    line = scores(few, curves.straight(path.start, path.end))
    assert float(info.line) == pytest.approx(float(line.min()), abs=1e-5)


def test_it_is_no_worse_than_its_ends_and_the_line(problem: Problem, found: tuple[Path, auto.Found]) -> None:
    path, info = found
    ends = scores(auto._some(problem, TUNING), path)[[0, -1]]
    assert float(info.score) <= min(float(info.line), *ends.tolist()) + 1e-6
    assert bool(info.bent) == (not _is_straight(path))
    chex.assert_trees_all_equal(path.start, problem.params)


def _is_straight(path: Path) -> bool:
    line = curves.straight(path.start, path.end).inner
    return all(map(np.array_equal, jax.tree.leaves(line), jax.tree.leaves(path.inner)))


def test_where_no_path_is_better_it_takes_the_line(problem: Problem, found: tuple[Path, auto.Found]) -> None:
    """The original is told to be perfect: its own accuracies are the targets of a rule that sees nothing else."""
    still = TUNING._replace(rule=_as_the_original)
    path, info = auto.mcu(problem, found[0].end, KEY, None, still)
    assert not bool(info.bent)
    assert _is_straight(path)
    assert float(info.score) == float(info.line) == 0


def _as_the_original(standing: rules.Standing, targets: rules.Targets) -> Any:
    return jnp.maximum(targets.retain - standing.retain, 0)


def test_the_plain_path_is_the_first_candidate(problem: Problem) -> None:
    mask = connect.mcu_mask(problem, KEY)
    assert mask is not None
    made = trees.unstack(auto.candidates(problem, mask, 0.02))
    assert len(made) == auto.RUNGS[0]
    assert (float(made[0].lr), float(made[0].beta)) == (pytest.approx(0.02), -1.0)
    chex.assert_trees_all_equal(made[0].mask, mask.mask)
    # Here the gradients give the same mask: then the other one is of all weights.
    by_gradients = connect.mcu_mask(problem, KEY, kind="gradients")
    assert by_gradients is not None
    chex.assert_trees_all_equal(by_gradients.mask, mask.mask)
    assert all(jax.tree.leaves(made[-1].mask))
    other = auto.candidates(problem, None, 0.02)
    chex.assert_trees_all_equal(trees.unstack(other)[-1].mask, by_gradients.mask)
    assert len({(float(c.lr), float(c.beta), float(c.keep)) for c in made}) == len(made)


def test_the_budget_bounds_what_is_spent(problem: Problem, unlearned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In examples: a step is three times its batch, an evaluation one pass over what is looked at, and refreshed."""
    spent = {"training": 0.0, "scores": 0.0}
    train_on, score = connect.train_on, auto._score

    def counted(*arguments: Any, **settings: Any) -> Any:
        spent["training"] += 3 * settings["steps"] * settings["batch_size"]
        return train_on(*arguments, **settings)

    def scored(few: Problem, *arguments: Any) -> Any:
        spent["scores"] += auto._cost(few)
        return score(few, *arguments)

    monkeypatch.setattr(connect, "train_on", counted)
    monkeypatch.setattr(auto, "_score", scored)
    monkeypatch.setattr(auto, "_convolves", lambda problem: True)  # one by one: every call is seen
    tuning = TUNING._replace(steps=120)
    auto.mcu(problem, unlearned, KEY, connect.mcu_mask(problem, KEY), tuning)
    plain = 3 * tuning.steps * tuning.batch_size
    assert 0.3 * tuning.budget * plain < sum(spent.values()) <= tuning.budget * plain
    assert spent["scores"] > 0


def test_one_by_one_is_side_by_side(problem: Problem, unlearned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One rung of one part, where both do the same steps."""
    monkeypatch.setattr(auto, "RUNGS", (6,))
    mask = connect.mcu_mask(problem, KEY)
    together = auto.search(problem, unlearned, KEY, mask, TUNING)
    monkeypatch.setattr(auto, "_convolves", lambda problem: True)
    alone = auto.search(problem, unlearned, KEY, mask, TUNING)
    chex.assert_trees_all_close(alone.settings, together.settings)
    chex.assert_trees_all_close(alone.inner, together.inner, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_candidate_that_is_no_longer_finite_is_out(
    problem: Problem, unlearned: Any, monkeypatch: pytest.MonkeyPatch, one_by_one: bool
) -> None:
    monkeypatch.setattr(auto, "TRIED", ((1.0, -1.0, 0), *[(1e30, -1.0, 1)] * 5))
    monkeypatch.setattr(auto, "_convolves", lambda problem: one_by_one)
    path, info = auto.mcu(problem, unlearned, KEY, connect.mcu_mask(problem, KEY), TUNING)
    assert float(info.settings.lr) == pytest.approx(0.02)
    assert bool(trees.all_finite(path.inner))
    assert np.isfinite(float(info.score))


def test_seeds_side_by_side(problem: Problem, found: tuple[Path, auto.Found]) -> None:
    path, info = found
    mask = connect.mcu_mask(problem, KEY)
    ends = trees.stack([path.end, jax.tree.map(lambda a, b: (a + b) / 2, path.end, path.start)])
    mapped = jax.vmap(functools.partial(auto.mcu, problem, key=KEY, mask=mask, tuning=TUNING))(ends)
    first = jax.tree.map(lambda leaf: leaf[0], mapped)
    assert float(first[1].score) == pytest.approx(float(info.score), abs=2e-3)
    assert float(first[1].line) == pytest.approx(float(info.line), abs=1e-5)


def test_refused(problem: Problem, unlearned: Any) -> None:
    for budget in (0.0, 0.5, float("nan")):
        with pytest.raises(UserError, match="at least 1; given"):
            auto.search(problem, unlearned, KEY, None, TUNING._replace(budget=budget))
    weights = connect.mcu_mask(problem, KEY, kind="random")
    with pytest.raises(UserError, match="given one of single weights"):
        auto.search(problem, unlearned, KEY, weights, TUNING)
