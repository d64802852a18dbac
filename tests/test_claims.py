"""Claims: their statistics on simulated nulls, their verdicts by hand, and that each file says what it must."""

from __future__ import annotations

import importlib
import json
import pathlib
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mcu_jax import report

CLAIMS = pathlib.Path(__file__).parents[1] / "experiments" / "claims"
FILES = sorted(file.stem for file in CLAIMS.glob("[cfmsx][0-9][0-9].py"))


@pytest.fixture(scope="module")
def load() -> Any:
    sys.path.insert(0, str(CLAIMS))
    yield importlib.import_module
    sys.path.remove(str(CLAIMS))


@pytest.fixture(scope="module")
def verdicts(load: Any) -> Any:
    return load("verdicts")


# Statistics


@pytest.mark.parametrize("together", [1, 5])
def test_of_simulated_nulls_one_in_twenty_is_missed(verdicts: Any, together: int) -> None:
    """So many means of 8 seeds, all 0: how often any interval is without it."""
    rng, trials = np.random.default_rng(0), 4000
    draws = rng.normal(size=(trials, together, 8))
    missed = 0
    for trial in draws:
        intervals = [verdicts.over_seeds(values, of=together) for values in trial]
        missed += any(one.low > 0 or one.high < 0 for one in intervals)
    assert 0.035 < missed / trials < 0.06


def test_an_interval_is_scipys(verdicts: Any) -> None:
    values = [3.1, 2.9, 4.4, 3.6, 2.2]
    low, high = stats.ttest_1samp(values, 0).confidence_interval(1 - 0.05 / 3)
    found = verdicts.over_seeds(values, of=3)
    np.testing.assert_allclose(found[:3], [np.mean(values), low, high])
    assert found.seeds == 5
    assert verdicts.over_seeds([1.0])[1:3] == (-np.inf, np.inf)


@pytest.mark.parametrize("truth", [0.5, 0.1])
def test_an_interval_of_a_share_is_never_too_narrow(verdicts: Any, truth: float) -> None:
    rng, trials = np.random.default_rng(1), 3000
    found = [verdicts.share(rng.random(20) < truth) for _ in range(trials)]
    assert np.mean([not one.low <= truth <= one.high for one in found]) <= 0.055
    exact = stats.binomtest(3, 20).proportion_ci(0.95, "exact")
    shown = verdicts.share([True] * 3 + [False] * 17)
    assert shown[1:3] == pytest.approx((exact.low, exact.high))
    assert verdicts.share([True] * 4)[2] == 1.0
    assert verdicts.share([False] * 4)[1] == 0.0


def test_of_jackknifed_ratios_one_in_twenty_is_missed(verdicts: Any) -> None:
    """The truth is 2, of two means of 8 seeds that vary by a third: the units' own noise is in the interval."""
    rng, trials = np.random.default_rng(2), 4000
    tops, bottoms = 2 + 0.6 * rng.normal(size=(trials, 8)), 1 + 0.3 * rng.normal(size=(trials, 8))
    found = [
        verdicts.over_seeds(verdicts.jackknife(lambda a, b: a.mean() / b.mean(), *both))
        for both in zip(tops, bottoms, strict=True)
    ]
    assert 0.03 < np.mean([not one.low <= 2 <= one.high for one in found]) < 0.075
    # Of a mean the pseudo-values are the values.
    np.testing.assert_allclose(verdicts.jackknife(np.mean, tops[0]), tops[0])


def test_lines_like_those_between_two_runs_have_no_barrier_beyond(load: Any) -> None:
    """F5's difference of shares, where pairs are drawn as floors are, skewed, and one metric depends on another."""
    rng, found = np.random.default_rng(3), []
    for _ in range(200):
        pairs, floors = (_barriers(rng, seeds=8, lines=lines) for lines in (10, 5))
        found.append(load("verdicts").over_seeds(load("f05").beyond(pairs, floors)))
    assert abs(np.mean([one.mean for one in found])) < 0.01
    assert np.mean([one.low > 0 for one in found]) < 0.04
    far = load("f05").beyond(_barriers(rng, 8, 10) + 10, _barriers(rng, 8, 5))
    assert load("verdicts").over_seeds(far).low > 0.5


def _barriers(rng: np.random.Generator, seeds: int, lines: int) -> Any:
    import pandas

    index = pandas.MultiIndex.from_product([[f"{i}" for i in range(lines)], ["b"], range(seeds)], names=KEYS)
    values = rng.exponential(size=(seeds * lines, 6))
    values[:, 1] = values[:, 0] + 0.1 * values[:, 1]
    return pandas.DataFrame(values, index=index)


KEYS = ["a", "b", "replicate"]


def test_a_floor_is_the_mean_of_both_methods_in_the_same_seed(load: Any) -> None:
    """So that between equal methods nothing exceeds it in the mean, as the larger of two would be exceeded."""
    import pandas

    def series(values: dict) -> Any:
        return pandas.Series(values).rename_axis(KEYS)

    floors = series({("x", "x2", 0): 1.0, ("y", "y2", 0): 3.0, ("x", "x2", 1): 5.0, ("y", "y2", 1): 0.0})
    pairs = series({("x", "y", 0): 9.0, ("x", "y", 1): 8.0})
    lines = load("lines")
    assert lines.floor(floors, pairs).tolist() == [2.0, 2.5]
    assert {pair: values.to_dict() for pair, values in lines.by_pair(pairs).items()} == {"x – y": {0: 9.0, 1: 8.0}}
    assert lines.by_seed(floors).tolist() == [2.0, 2.5]


# Verdicts


@pytest.mark.parametrize(
    ("rule", "low", "high", "verdict"),
    [
        ("larger", 0.1, 2.0, "holds"),
        ("larger", -0.1, 2.0, "undecided"),
        ("larger", -0.1, 0.2, "fails"),
        ("larger", 0.1, 0.2, "fails"),  # an effect too small to matter
        ("no_worse", -1.0, 0.2, "holds"),
        ("no_worse", -1.0, 0.3, "undecided"),
        ("no_worse", 0.1, 0.3, "fails"),
        ("no_worse", 0.1, 0.2, "holds"),
        ("alike", -0.2, 0.2, "holds"),
        ("alike", -0.3, 0.2, "undecided"),
        ("alike", 0.3, 0.4, "fails"),
        ("alike", -0.4, -0.3, "fails"),
        ("differs", 0.1, 0.4, "holds"),
        ("differs", -0.4, -0.1, "holds"),
        ("differs", -0.1, 0.4, "undecided"),
        ("differs", -0.1, 0.2, "fails"),
        ("differs", 0.1, 0.2, "fails"),
    ],
)
def test_verdicts_by_hand(verdicts: Any, rule: str, low: float, high: float, verdict: str) -> None:
    effect = verdicts.Interval((low + high) / 2, low, high, 8)
    assert getattr(verdicts, rule)(effect, 0.25) == verdict


def test_a_claim_about_all_needs_all(verdicts: Any) -> None:
    assert verdicts.every(["holds", "holds"]) == "holds"
    assert verdicts.every(["holds", "undecided"]) == "undecided"
    assert verdicts.every(["holds", "undecided", "fails"]) == "fails"
    assert verdicts.some(["fails", "holds"]) == "holds"
    assert verdicts.some(["fails", "undecided"]) == "undecided"
    assert verdicts.some(["fails", "fails"]) == "fails"
    assert verdicts.some([]) == "undecided"
    half = verdicts.Interval(0.5, 0.4, 0.6, 20)
    assert [verdicts.most(half._replace(low=low, high=high)) for low, high in ((0.6, 1), (0, 0.4), (0.4, 0.6))] == [
        "holds", "fails", "undecided",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "readings", "verdict"),
    [
        ("f02", ["holds"] * 3 + ["fails", "holds", "holds"], "holds"),
        ("f02", ["holds"] * 3 + ["undecided", "holds", "holds"], "undecided"),
        ("f02", ["holds"] * 6, "fails"),
        ("f02", ["holds", "holds", "fails"] * 2, "fails"),
        ("f02", ["undecided"] * 6, "undecided"),
        ("f06", ["", "helps", "hinders", "undecided"], "holds"),
        ("f06", ["", "helps", "neither"], "fails"),
        ("f06", ["", "helps", "undecided"], "undecided"),
        ("f06", ["", ""], "undecided"),
        ("x01", ["fails", "holds"], "holds"),
        ("f05", ["holds", "", ""], "holds"),
    ],
)
def test_claims_that_say_otherwise(load: Any, name: str, readings: list[str], verdict: str) -> None:
    reading = load("reading").Reading
    assert load(name).verdict([reading("", None, one) for one in readings]) == verdict


@pytest.mark.parametrize(
    ("items", "verdict"),
    [
        ({"method: a − b": "holds", "size, 9 steps: a": "holds", "size, as far: a": "holds"}, "holds"),
        ({"method: a − b": "holds", "size, 9 steps: a": "fails", "size, 8 steps: a": "holds"}, "holds"),
        ({"method: a − b": "holds", "size, 9 steps: a": "fails", "size, as far: a": "holds"}, "fails"),
        ({"method: a − b": "holds", "size, as far: a": "undecided", "task: minus x": "holds"}, "undecided"),
    ],
)
def test_smoothness_depends_on_each(load: Any, items: dict[str, str], verdict: str) -> None:
    reading = load("reading").Reading
    assert load("f04").verdict([reading(item, None, one) for item, one in items.items()]) == verdict


def test_points_between_are_better_on_either_kind_of_line(load: Any) -> None:
    reading, claim = load("reading").Reading, load("f07")
    kinds = [(f"{kind}: a – b", None) for kind in claim.KINDS]

    def verdict(*found: str) -> str:
        parts = [reading(*kind, one) for kind, one in zip(kinds, found, strict=True)]
        return claim.verdict([*parts, reading("one side, all lines", None, "")])

    assert [verdict(*found) for found in (("holds", "holds"), ("holds", "fails"), ("holds", "undecided"))] == [
        "holds", "fails", "undecided",
    ]  # fmt: skip


# Files


@pytest.mark.parametrize("name", FILES)
def test_a_claim_says_everything_beforehand(load: Any, name: str) -> None:
    module = load(name)
    claim = module.CLAIM
    assert claim.name.lower() == f"{name[0]}{int(name[1:])}"
    assert all(len(text) > 10 for text in (claim.source, claim.hypothesis, claim.statistic, claim.rule))
    assert claim.smallest > 0
    assert claim.rule.startswith(("holds: ", "of the mean"))


def test_seeds_are_used_once(load: Any) -> None:
    settings = load("settings")
    for dataset in settings.DATASETS.values():
        assert not set(dataset.seeds) & {*settings.TUNING_SEEDS, *settings.PILOT_SEEDS, *range(5)}
        assert len(dataset.seeds) >= 8


def test_claims_that_are_not_committed_are_not_decided(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    main = load("decide")
    monkeypatch.setattr(main, "git", lambda *_: " M experiments/claims/c01.py\n")
    with pytest.raises(SystemExit, match=r"c01\.py\nCommit them first"):
        main.refuse_uncommitted()


@pytest.mark.parametrize("directory", sorted(CLAIMS.parent.glob("results/claims_*")), ids=lambda path: path.name)
def test_stored_verdicts_are_what_the_stored_runs_say(load: Any, directory: pathlib.Path) -> None:
    decide = load("decide")
    found = {run.name: report.read(run) for run in directory.iterdir() if run.is_dir()}
    stored = json.loads((directory / "claims.json").read_text())
    assert [claim["file"] for claim in stored] == [f"{name}.py" for name in FILES]
    for claim in stored:
        readings = load(claim["file"].removesuffix(".py")).read(found)
        assert [decide.told(reading) for reading in readings] == claim["readings"]
    assert "\n".join(decide.table(stored, found)) + "\n" == (directory / "table.md").read_text()


def test_a_result_says_that_its_file_has_changed(load: Any) -> None:
    decide = load("decide")
    claim = {"name": "C1", "hypothesis": "…", "verdict": "holds", "readings": [], "smallest": 0.25, "commit": "a" * 40}
    claim |= {"statistic": "…"}
    config = {"dataset": "digits", "model": "mlp", "train_size": 300, "seeds": [1000, 1001]}
    found = dict.fromkeys(load("settings").STARTS, report.Results({"config": config}, None))
    same, other = (
        decide.table([{**claim, "file": "c01.py", "sha256": sha256}], found)[4]
        for sha256 in (decide.digest("c01"), "0" * 64)
    )
    assert "changed since" not in same
    assert other.endswith("| aaaaaaa, **file changed since** |")


def test_ties_by_hand(load: Any) -> None:
    """Trimmed to their largest half: [4, 0, −3, 0] and [2, 0, 5, 0]; in the third place the second weighs more."""
    merging = load("merging")
    original = {"w": jnp.array([1.0, 1.0, 1.0, 1.0])}
    a, b = {"w": original["w"] + jnp.array([4.0, 1.0, -3.0, 0.5])}, {"w": original["w"] + jnp.array([2.0, 1, 5, 0.5])}
    np.testing.assert_allclose(merging.ties(a, b, original, keep=0.5)["w"], [4.0, 1.0, 6.0, 1.0])
    np.testing.assert_allclose(merging.average(a, b)["w"], [4.0, 2.0, 2.0, 1.5])
