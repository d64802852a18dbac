"""The table of a run and the picture beside it, from results made up here."""

import copy
import re

import matplotlib.image
import numpy as np
import pytest
from scipy import stats

from mcu_jax import metrics, report, rules
from mcu_jax.report import _figures
from mcu_jax.report._figures import _chart
from mcu_jax.report._page import _along
from mcu_jax.runs import _tidy

T = np.linspace(0.0, 1.0, 21)
PRE = "random_label:lr=0.1"


def _metrics(ua, ra, ta, mia, rt=None):
    values = {"UA": ua, "RA": ra, "TA": ta, "MIA": mia}
    gaps = [abs(values[name] - rt[name]) for name in values] if rt else [0.0]
    return {**values, "UA_test": None, "avg_gap": float(np.mean(gaps))}


def _curve(rng, start, middle, end):
    """From start through middle at t = 0.6 to end, with a little noise inside."""
    values = np.interp(T, [0.0, 0.6, 1.0], [start, middle, end])
    values[1:-1] += rng.normal(0.0, 0.006, len(T) - 2)
    return np.clip(values, 0.0, 1.0).tolist()


def _seed_results(seed):
    rng = np.random.default_rng(seed)
    near = lambda x, width=0.008: float(np.clip(rng.normal(x, width), 0.0, 1.0))  # noqa: E731
    rt = _metrics(near(0.13), 1.0, near(0.875), near(0.21))
    train = {"train": near(3.0), "compile": 4.0}
    path = {"pre": near(1.0), "mask": near(0.2), "path": near(2.0), "sweep": near(0.9), "compile": 7.5}
    t_star = near(0.58, 0.06)
    rows = [
        ("original", None, _metrics(near(0.005), 1.0, near(0.88), near(0.05), rt), train),
        ("retrain", None, rt, train),
        ("finetune", None, _metrics(near(0.02), 1.0, near(0.87), near(0.09), rt), {"train": near(0.8)}),
        (PRE, None, _metrics(near(0.45), near(0.96), near(0.79), near(0.70), rt), {"pre": near(1.0)}),
        ("mcu", t_star, _metrics(near(0.125), near(0.995), near(0.868), near(0.20), rt), path),
        ("linear", 0.7, _metrics(near(0.28), near(0.9), near(0.77), near(0.35), rt), {"sweep": near(0.9)}),
    ]
    row = {name: (t, metrics) for name, t, metrics, _ in rows}
    ends = {name: (row["original"][1][name], row[PRE][1][name]) for name in ("UA", "RA", "TA", "MIA")}
    common = {
        "seed": seed,
        "t": T.tolist(),
        "score_accuracy": np.linspace(0.04, 0.2, 21).tolist(),
        "score_distribution": np.linspace(0.05, 0.3, 21).tolist(),
        "targets": {"retain": 1.0, "forget": 0.87, "validation": 0.87},
    }
    curved = {name: _curve(rng, ends[name][0], row["mcu"][1][name], ends[name][1]) for name in ends}
    straight = {name: _curve(rng, ends[name][0], row["linear"][1][name], ends[name][1]) for name in ends}
    low = near(0.2, 0.05)
    paths = [
        {
            **common,
            **curved,
            "curve": "bezier",
            "chosen": _chosen(t_star, near(0.004, 0.001)),
            "effective_region": {"accuracy": [[low, 0.95]], "distribution": [[low, 0.7]]},
            "effective_region_retrain": [[0.3, 0.62], [0.7, 0.91]],
            "mask": {"keep": 0.523, "retain_filter": 0.112},
        },
        {
            **common,
            **straight,
            "curve": "linear",
            "chosen": _chosen(0.7, near(0.004, 0.001)),
            "effective_region": {"accuracy": [], "distribution": []},
            "effective_region_retrain": [],
            "mask": {"keep": 0.0, "retain_filter": 0.0},
        },
    ]
    scores = {"original": 0.07, "mcu": 0.004, "linear": 0.02}
    judged = {name: {f"score_{rule}": scores.get(name, 0.2) for rule in rules.NAMES} for name, *_ in rows}
    return [
        {"method": name, "seed": seed, "t": t, "rule": None if t is None else "accuracy", **judged[name],
         "seconds": s, **m}
        for name, t, m, s in rows
    ], paths  # fmt: skip


def _chosen(t, score):
    return {"accuracy": {"t": t, "score": score}, "distribution": {"t": t / 2, "score": 3 * score}}


def _results(seeds):
    parts = [_seed_results(seed) for seed in seeds]
    return {
        "kind": "unlearn",
        "config": {"dataset": "digits", "model": "mlp", "forget": "random:0.2", "pre": PRE, "rule": "accuracy"},
        "rows": [row for rows, _ in parts for row in rows],
        "paths": [path for _, paths in parts for path in paths],
    }


@pytest.fixture(scope="session")
def five_seeds():
    return _results(range(5))


@pytest.fixture(scope="session")
def one_seed():
    return _results([3])


def test_a_mask_that_leaves_next_to_nothing_is_told_of_first(five_seeds):
    results = copy.deepcopy(five_seeds)
    assert "Careful" not in report.unlearn_table(report.collect(results))
    results["paths"][2]["mask"] = {"keep": 0.004, "retain_filter": 0.99}
    first = " ".join(report.unlearn_table(report.collect(results)).split("\n\n")[0].split())
    assert "the mask of MCU leaves 0.4 % of the parameters to train" in first
    results["paths"][2]["mask"]["keep"] = 0.5
    results["rows"].append({**results["rows"][0], "method": "mcu:keep=0", "mask_keep": 0.0})
    first = " ".join(report.unlearn_table(report.collect(results)).split("\n\n")[0].split())
    assert "the mask of mcu:keep=0 leaves 0 % of the parameters" in first


@pytest.fixture(scope="session")
def class_wise(five_seeds):
    results = copy.deepcopy(five_seeds)
    results["config"]["forget"] = "class:3"
    for row in results["rows"]:
        row["UA_test"] = row["UA"]
    return results


def _table(results, width=110):
    return report.unlearn_table(report.collect(results), width)


def _of(results, method, name):
    return [100 * row[name] for row in results["rows"] if row["method"] == method]


def _line(table, start):
    return next(line for line in table.splitlines() if line.startswith(start))


def _rows(table):
    """Of the paired comparison."""
    after = table.split("MCU against every other method")[1].split("─\n")[1]
    return after.split("\n\n")[0].splitlines()


def _paired(table, start):
    return next(line for line in _rows(table) if line.startswith(start))


def test_mean_and_interval_are_scipys():
    values = [3.1, 2.9, 4.4, 3.6, 2.2]
    mean, half = metrics.mean_interval(values)
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    np.testing.assert_allclose([mean, mean - half, mean + half], [np.mean(values), low, high], rtol=1e-12)
    # By hand: 1 and 3 have mean 2 and standard error 1; the 0.975 quantile at one degree of freedom.
    assert metrics.mean_interval([1.0, 3.0]) == pytest.approx((2.0, 12.7062), abs=1e-4)
    assert metrics.mean_interval([1.5]) == (1.5, None)
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(1 - 0.05 / 6)
    mean, half = metrics.mean_interval(values, of=6)
    np.testing.assert_allclose([mean - half, mean + half], [low, high])


def test_rows_and_columns_in_order(five_seeds):
    table = _table(five_seeds)
    lines = table.splitlines()
    assert lines[0] == "Unlearning on digits, mlp, forget random:0.2, 5 seeds"
    assert lines[2].split() == ["UA", "RA", "TA", "MIA", "avg_gap", "score,", "score,", "seconds", "t"]
    assert lines[3].split() == ["acc.", "distr."]
    assert re.split(r"\s{2,}", lines[4]) == ["best value", *["= retrain"] * 4, "0", "0", "0", "low", "none"]
    starts = ["original", "retrain", "random_label:lr=0.1", "straight line", "MCU", "finetune"]
    places = [lines.index(_line(table, start)) for start in starts]
    assert places == sorted(places)
    assert "(pre-unlearned)" in "".join(lines[places[2] : places[2] + 2])


def test_class_wise_shows_the_forgotten_class_in_the_test_set(class_wise):
    table = _table(class_wise)
    assert re.split(r"\s{2,}", table.splitlines()[2].strip())[:3] == ["UA", "UA test", "RA"]


@pytest.mark.parametrize("width", [80, 110])
def test_a_number_is_never_broken(class_wise, width, monkeypatch):
    """What does not fit goes to a second table; and no colours, whatever the environment says of the terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "30")
    table = _table(class_wise, width)
    assert max(map(len, table.splitlines())) <= width
    assert "\x1b" not in table
    cells = [cell for line in table.splitlines() for cell in re.split(r"\s{2,}", line) if "±" in cell]
    numbers = [cell for cell in cells if not cell.startswith("Per cent")]
    assert len(numbers) == 6 * 6
    assert all(re.fullmatch(r"\d+\.\d+ ±\d+\.\d+", cell) for cell in numbers)
    wide = re.findall(r"\S+ ±\S+", _table(class_wise, 200))
    assert sorted(re.findall(r"\S+ ±\S+", table)) == sorted(wide)


def test_few_seeds_have_a_range_and_no_interval(five_seeds):
    results = _results([0, 1, 2])
    table = _table(results)
    assert "±" not in table
    assert "mean over 3 seeds [smallest–largest]; an interval needs at least 4" in table
    values = _of(results, "mcu", "UA")
    assert f"{np.mean(values):.1f} [{min(values):.1f}–{max(values):.1f}]" in _line(table, "MCU ")
    differences = np.subtract(_of(results, "mcu", "avg_gap"), _of(results, "original", "avg_gap"))
    line = _paired(table, "original")
    assert f"{differences.mean():+.2f} [{differences.min():+.2f}, {differences.max():+.2f}]" in line
    assert line.endswith("no verdict from 3 seeds")


def test_a_diverged_method_says_where(five_seeds):
    results = copy.deepcopy(five_seeds)
    for row in results["rows"]:
        if row["method"] == "finetune":
            row |= dict.fromkeys(("UA", "RA", "TA", "MIA", "avg_gap")) | {"diverged": 88 + row["seed"]}
    for row in results["rows"]:
        if row["method"] == "original" and row["seed"] == 2:
            row |= dict.fromkeys(("UA", "RA", "TA", "MIA", "avg_gap")) | {"diverged": 7}
    lines = _table(results, 120).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("finetune"))
    assert lines[start].split()[1:5] == ["–"] * 4
    said = " ".join(" ".join(lines[start + 1 : start + 4]).split())
    assert said.startswith("not finite at step 88 (seed 0), 89 (seed 1), 90 (seed 2)")
    start = next(i for i, line in enumerate(lines) if line.startswith("original"))
    assert lines[start + 1].strip() == "not finite at step 7 (seed 2)"
    assert _paired("\n".join(lines), "original").endswith("  4  MCU better")


def test_numbers_of_a_row(five_seeds):
    row = _line(_table(five_seeds), "MCU ")
    for name, decimals in [("UA", 1), ("RA", 1), ("TA", 1), ("MIA", 1), ("avg_gap", 2)]:
        values = _of(five_seeds, "mcu", name)
        low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
        assert f"{np.mean(values):.{decimals}f} ±{(high - low) / 2:.{decimals}f}" in row
    rows = [r for r in five_seeds["rows"] if r["method"] == "mcu"]
    seconds = np.mean([sum(r["seconds"].values()) - r["seconds"]["compile"] for r in rows])
    assert row.split()[-2:] == [f"{seconds:.1f}", f"{np.mean([r['t'] for r in rows]):.2f}"]


def test_paired_interval_is_scipys(five_seeds):
    table = _table(five_seeds)
    rivals = [("original", "original"), (PRE, PRE), ("linear", "straight line"), ("finetune", "finetune")]
    for rival, label in rivals:
        paired = stats.ttest_rel(_of(five_seeds, "mcu", "avg_gap"), _of(five_seeds, rival, "avg_gap"))
        low, high = paired.confidence_interval(0.95)
        line = _paired(table, label)
        mean = np.mean(_of(five_seeds, "mcu", "avg_gap")) - np.mean(_of(five_seeds, rival, "avg_gap"))
        assert f"{mean:+.2f}" in line
        assert f"[{low:+.2f}, {high:+.2f}]" in line
        assert line.endswith("  5  MCU better")
    assert [label for _, label in rivals] == [
        line.split("  ")[0].removesuffix(" (pre-unlearned)") for line in _rows(table)
    ]


@pytest.mark.parametrize(
    ("shifts", "verdict"),
    [
        ([0.02, 0.021, 0.019, 0.02, 0.02], "MCU worse"),
        ([0.03, -0.02, 0.03, -0.02, 0.01], "no difference shown"),
        ([-0.03, 0.02, -0.03, 0.02, -0.01], "no difference shown"),
        ([-0.02, -0.021, -0.019, -0.02, -0.02], "MCU better"),
        ([0.0] * 5, "no difference shown"),
    ],
)
def test_verdict(five_seeds, shifts, verdict):
    results = copy.deepcopy(five_seeds)
    other = {row["seed"]: row["avg_gap"] for row in results["rows"] if row["method"] == "original"}
    for row in results["rows"]:
        if row["method"] == "mcu":
            row["avg_gap"] = other[row["seed"]] + shifts[row["seed"]]
    assert _paired(_table(results), "original").endswith(verdict)


def test_one_seed_has_no_interval(one_seed):
    table = _table(one_seed)
    assert "Per cent, one seed; an interval needs more." in table
    assert "±" not in table
    assert _paired(table, "original").endswith("  1  no verdict from one seed")


def test_missing_seeds_are_named_and_left_out_of_pairs(five_seeds):
    results = copy.deepcopy(five_seeds)
    gone = {("original", 1), ("original", 4), ("mcu", 2)}
    results["rows"] = [row for row in results["rows"] if (row["method"], row["seed"]) not in gone]
    table = _table(results)
    assert "original: without seed 1, 4." in table
    assert "MCU: without seed 2." in table
    by_seed = {(row["method"], row["seed"]): 100 * row["avg_gap"] for row in results["rows"]}
    differences = [by_seed["mcu", seed] - by_seed["original", seed] for seed in (0, 3)]
    assert f"[{min(differences):+.2f}, {max(differences):+.2f}]      2  " in _paired(table, "original")


def test_path_lines(five_seeds):
    table = _table(five_seeds)
    best = [p["chosen"]["accuracy"]["t"] for p in five_seeds["paths"] if p["curve"] == "bezier"]
    assert f"Path (bezier), t* chosen by accuracy, without the retrained model: mean {np.mean(best):.2f}" in table
    first = five_seeds["paths"][0]
    seed_line = re.split(r"\s{2,}", _line(table, "seed 0 "))
    low = first["effective_region"]["accuracy"][0][0]
    assert seed_line == [
        "seed 0",
        f"{best[0]:.3f}",
        f"{100 * first['chosen']['accuracy']['score']:.2f}",
        f"{low:.2f}–0.95",
        "0.30–0.62, 0.70–0.91",
    ]
    assert "52.3 % of the parameters trained, 11.2 % set aside" in " ".join(table.split())
    plain = copy.deepcopy(five_seeds)
    for path in plain["paths"]:
        path["mask"], path["effective_region"] = {"keep": 1.0, "retain_filter": 0.0}, {"accuracy": []}
    table = _table(plain)
    assert "Mask: none" in table
    assert "none" in _line(table, "seed 0 ")


def test_the_score_says_what_to_take(five_seeds):
    """Of equals the simplest; the ends of the path are candidates like its points."""
    assert "Lowest score by accuracy, of 5 seeds: the path in 5." in " ".join(_table(five_seeds).split())
    results = copy.deepcopy(five_seeds)
    for row in results["rows"]:
        taken = {0: "original", 1: PRE}.get(row["seed"], "mcu")
        row["score_accuracy"] = 0.004 if row["method"] in (taken, "mcu") else 0.3
    said = " ".join(_table(results).split())
    assert (
        "Lowest score by accuracy, of 5 seeds: the path in 3, the original as it is in 1, the pre-unlearned model as "
        "it is in 1."
    ) in said


def test_common_region_is_of_at_least_half_the_seeds():
    regions = [[[0.1, 0.5]], [[0.3, 0.9]], [], [[0.4, 0.6], [0.8, 1.0]]]
    assert _along.common_regions(regions) == [(0.3, 0.6), (0.8, 0.9)]
    assert _along.common_regions([[[0.2, 0.4], [0.6, 0.7]]]) == [(0.2, 0.4), (0.6, 0.7)]
    assert _along.common_regions([[], []]) == []


def test_figure_shows_the_median_on_right_axes(five_seeds):
    title, chart = _figures._alone(report.collect(five_seeds))["path"]
    assert title == "Along the path: digits, mlp, forget random:0.2, 5 seeds"
    assert chart.note.startswith(f"t = 0: the original; t = 1: {PRE}; ")
    with _chart.drawn(chart, "page") as figure:
        axes = figure.axes
    assert len(axes) == 4
    for axis, name in zip(axes, ("RA", "UA", "TA", "MIA"), strict=True):
        assert name in axis.get_title(loc="left")
        assert axis.get_xlim() == (0.0, 1.0)
        low, high = axis.get_ylim()
        assert -3.0 <= low < high <= 103.0
        median = 100 * np.median([p[name] for p in five_seeds["paths"] if p["curve"] == "bezier"], axis=0)
        assert low <= median.min() <= median.max() <= high
        drawn = [line.get_ydata() for line in axis.get_lines() if len(line.get_ydata()) == len(median)]
        assert any(np.allclose(y, median, rtol=1e-4) for y in drawn)
        retrain = np.median(_of(five_seeds, "retrain", name))
        assert any(np.allclose(line.get_ydata(), retrain, rtol=1e-4) for line in axis.get_lines())
        chosen = np.median([p["chosen"]["accuracy"]["t"] for p in five_seeds["paths"] if p["curve"] == "bezier"])
        assert any(np.allclose(line.get_xdata(), chosen, rtol=1e-4) for line in axis.get_lines())
    assert "t*, a tick a seed" in [t.get_text() for t in figure.legends[0].get_texts()]


@pytest.mark.parametrize("name", ["five_seeds", "one_seed", "class_wise"])
def test_write_gives_the_table_and_a_picture(name, request, tmp_path):
    results = request.getfixturevalue(name)
    _tidy.write(tmp_path, results)
    assert report.write(tmp_path) == _table(results, 80)
    picture = matplotlib.image.imread(tmp_path / "path.png")
    assert picture.shape[1] == 1350
    # White paper with ink in every quarter.
    for rows in np.array_split(picture[..., :3], 2, axis=0):
        for quarter in np.array_split(rows, 2, axis=1):
            assert 0.01 < np.mean(quarter < 0.9) < 0.9


def test_write_refuses_what_is_not_results(tmp_path):
    with pytest.raises(FileNotFoundError):
        report.write(tmp_path)
    (tmp_path / "results.json").write_text('{"schema": 2, "kind": "unlearn"}')
    with pytest.raises(ValueError, match="expected schema 3, found 2"):
        report.write(tmp_path)
    (tmp_path / "results.json").write_text("[")
    with pytest.raises(ValueError, match="not the results of a run"):
        report.write(tmp_path)


def test_a_run_whose_start_diverged_has_a_table(one_seed, tmp_path):
    results = copy.deepcopy(one_seed)
    results["paths"], results["rows"] = [], [row for row in results["rows"] if row["method"] not in ("mcu", "linear")]
    results["rows"][-1] |= dict.fromkeys(("UA", "RA", "TA", "MIA", "avg_gap")) | {"diverged": 3}
    _tidy.write(tmp_path, results)
    table = report.write(tmp_path)
    assert "Path: none." in table
    assert "not finite at step 3 (seed 3)" in " ".join(table.split())


def test_names_are_text_and_no_formulas(one_seed, tmp_path):
    results = copy.deepcopy(one_seed)
    results["config"] |= {"dataset": r"$\frac{$", "forget": "class:$x_1$ [bold]"}
    _tidy.write(tmp_path, results)
    table = report.write(tmp_path)
    assert r"$\frac{$" in table
    assert "[bold]" in table
    assert (tmp_path / "path.png").stat().st_size > 10_000


def test_a_path_that_tuned_itself_says_what_it_chose(five_seeds):
    assert "tuned itself" not in _table(five_seeds)
    results = copy.deepcopy(five_seeds)
    for path in results["paths"]:
        if path["curve"] != "linear":
            bent = path["seed"] != 1
            beta = "adaptive" if bent else 0.2
            path["tuned"] = {"score": 0.021, "line": 0.07, "lr": 0.15, "beta": beta, "steps": 1925, "bent": bent}
    lines = _table(results).split("The path tuned itself")[1].splitlines()
    rows = [re.split(r"\s{2,}", line) for line in lines if line.startswith("seed ")]
    assert rows[0] == ["seed 0", "path", "2.10", "7.00", "0.15", "adaptive", "52.3", "1925"]
    assert rows[1][1:] == ["straight line", "2.10", "7.00", "0.15", "0.2", "52.3", "1925"]
