"""The table and the figures of connections, from results made up in `connect_results`."""

import copy
import math
import re

import connect_results as made
import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from mcu_jax import report
from mcu_jax.report import _connect, _figures, _text
from mcu_jax.report._figures import _chart
from mcu_jax.runs import _tidy

ALSO = ("MIA", "continued", "relearning")
BARRIERS = ("retain_nats", "forget_nats", "accuracy")


@pytest.fixture(scope="session")
def pair():
    return made.one_pair(curves=("linear", "bezier"), also=ALSO)


@pytest.fixture(scope="session")
def grid():
    return made.methods_grid(seeds=range(3))


@pytest.fixture(scope="session")
def one_seed():
    return made.one_pair(seeds=[3])


@pytest.fixture(scope="session")
def drawn():
    """Gives the figure that is written beside the results, to look into its axes, without the time to paint it."""

    def draw(name, results):
        _, chart = _figures._alone(report.collect(results))[name]
        with _chart.drawn(chart, "page") as figure:
            figure.note = chart.note
            return figure

    return draw


def _table(results, width=150):
    return report.connect_table(report.collect(results), width)


def _groups(results, role="pair"):
    return _connect.groups(report.collect(results), role)


def _of(results, a, b, curve="linear"):
    return [e for e in results["pairs"] if (e["a"]["label"], e["b"]["label"], e["curve"]) == (a, b, curve)]


def _line(text, start):
    return next(line for line in text.splitlines() if line.startswith(start))


def _block(text, start):
    return next(part for part in text.split("\n\n") if part.startswith(start))


def _cells(line):
    return re.split(r"\s{2,}", line.strip())


def _lines(axis):
    return [np.asarray(line.get_ydata(), float) for line in axis.get_lines()]


# The table


def test_numbers_of_a_row(pair):
    entries = _of(pair, "finetune", "npo", "bezier")
    row = _line(_table(pair), "finetune – npo, bezier")
    cells = _cells(row)
    assert cells[0] == "finetune – npo, bezier"
    # Some of these are large, some small: three significant digits, but for accuracies, in tenths of a point.
    for cell, name, decimals in zip(cells[1:4], BARRIERS, (3, 4, 1), strict=True):
        values = [e["barriers"][name] for e in entries]
        low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
        assert cell == f"{np.mean(values):.{decimals}f} ±{(high - low) / 2:.{decimals}f}"
    mean = lambda read: np.mean([read(e) for e in entries])  # noqa: E731
    values = [e["barriers"]["unseen_distance"] for e in entries]
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert cells[4:] == [
        f"{sum(e['connected'] for e in entries)}/5",
        f"{np.mean(values):.1f} ±{(high - low) / 2:.1f}",
        f"{mean(lambda e: e['distance']['ab']):.2f}",
        f"{100 * mean(lambda e: e['disagreement']):.1f}",
        f"{mean(lambda e: e['cka']):.2f}",
        f"{mean(lambda e: e['task_cosine']):.2f}",
        f"{100 * mean(lambda e: e['interior']['share']):.0f}",
    ]


def test_rows_columns_and_best_values_in_order(pair):
    table = _table(pair)
    lines = table.splitlines()
    title = "Connectivity on digits, mlp, forget random:0.2, 5 seeds; one pair, linear, bezier, objective"
    assert table.replace("\n", " ").startswith(title + " neutral")
    best = _line(table, "best value")
    assert _cells(best) == ["best value", "0", "0", "0", "all", "0", "none", "0", "1", "1", "high"]
    header = lines[lines.index(best) - 2]
    assert header.split() == ["D_r", "D_f", "acc.", "conn.", "unseen", "dist.", "diff.", "CKA", "cos", "inside"]
    assert lines[lines.index(best) - 1].split() == ["nats", "nats", "points", "seeds", "points", "%", "0–1", "±1", "%"]
    starts = ["finetune – npo, linear", "finetune – npo, bezier", "finetune, two runs", "npo, two runs", "all methods"]
    places = [lines.index(_line(table, start)) for start in starts]
    assert places == sorted(places)
    rules = [i for i, line in enumerate(lines) if line.startswith("──")]
    assert rules[1] == places[2] - 1
    assert rules[2] == places[4] - 1
    legend = _block(table, "Mean over 5 seeds; ±")
    assert all(f"{name}:" in legend or f"{name}, " in legend for name in header.split())
    assert "all methods (linear)" in legend


def test_every_table_names_every_best_value(pair):
    blocks = [block for width in (80, 150) for block in _table(pair, width).split("\n\n") if "──" in block]
    assert len(blocks) > 12
    for block in blocks:
        lines = block.splitlines()
        best = next(line for line in lines if line.startswith("best value"))
        assert len(_cells(best)) == len(_cells(lines[lines.index(best) + 2])), block


@pytest.mark.parametrize("make", [made.methods_grid, made.sizes_grid, made.curriculum_grid, made.one_pair])
def test_never_wider_than_the_page(make):
    results = make(seeds=range(2), also=ALSO, curves=("linear", "bezier"))
    table = _table(results, 80)
    assert max(map(len, table.splitlines())) <= 80
    assert "\x1b" not in table
    numbers = [sorted(re.findall(r"\d\S* \[\S+\]", each)) for each in (table, _table(results, 400))]
    assert numbers[0] == numbers[1]
    assert numbers[0]


def test_the_floor_over_methods_is_over_seeds_of_their_mean(pair):
    floors = [[e["barriers"]["accuracy"] for e in _of(pair, m, f"{m}:run=1")] for m in ("finetune", "npo")]
    by_seed = np.mean(floors, axis=0)
    low, high = stats.t.interval(0.95, 4, by_seed.mean(), stats.sem(by_seed))
    assert _cells(_line(_table(pair), "all methods"))[3] == f"{by_seed.mean():.1f} ±{(high - low) / 2:.1f}"


def test_of_many_pairs_the_least_and_the_most_connected(grid):
    table = _table(grid).split("\n\n")[1]
    means = {}
    for entry in grid["pairs"]:
        if entry["role"] == "pair":
            means.setdefault(f"{entry['a']['label']} – {entry['b']['label']}", []).append(entry["barriers"]["accuracy"])
    order = sorted(means, key=lambda label: np.mean(means[label]))
    rows, floors = table.split("─\n")[1:3]
    # Names wrap onto lines that are indented.
    labels = re.sub(r"\n  +", " ", re.sub(r"  +[^\n]*\d[^\n]*", "", rows)).splitlines()
    assert [label for label in labels if " – " in label] == order[:5] + order[-5:]
    low, high = (f"{np.mean(means[order[i]]):.1f}" for i in (5, -6))
    assert f"Left out are 35 of accuracy barriers from {low} to {high} points" in _table(grid)
    assert rows.index("35 more") > rows.index(order[4])
    assert len(re.findall(r"\d/3", floors)) == 10


def test_twenty_rows_are_shown_whole():
    barriers = [-float(i) for i in range(21)]
    assert _connect.cut(barriers[:20], float) == (barriers[:20], [], [])
    first, left, last = _connect.cut(barriers, float)
    assert first == [-20, -19, -18, -17, -16]
    assert last == [-4, -3, -2, -1, 0]
    assert len(left) == 11


def test_one_seed_has_no_interval(one_seed):
    table = _table(one_seed)
    assert "One seed; an interval needs more." in table
    assert "±" not in re.sub("±1", "", table)
    assert _cells(_line(table, "finetune – npo"))[4] in ("0/1", "1/1")


def test_a_missing_seed_is_named(pair):
    results = copy.deepcopy(pair)
    results["pairs"].remove(_of(results, "finetune", "npo", "bezier")[2])
    table = _table(results)
    assert "finetune – npo, bezier: without seed 2." in table
    assert "linear: without" not in table


def test_what_is_not_finite_is_counted_and_not_averaged(pair):
    results = copy.deepcopy(pair)
    entries = _of(results, "finetune", "npo")
    entries[0]["barriers"]["retain_nats"] = entries[3]["barriers"]["retain_nats"] = math.inf
    entries[1]["barriers"]["forget_nats"] = math.nan
    _of(results, "npo", "npo:run=1")[2]["barriers"]["retain_nats"] = math.inf
    table = _table(results)
    assert _cells(_line(table, "finetune – npo, linear"))[1:3] == ["not finite 2/5", "not finite 1/5"]
    assert _cells(_line(table, "all methods"))[1] == "not finite 1/5"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([43.0, 44.0, 46.0, 47.5], ("45.1", "±3.2")),
        ([0.0031], ("0.0031", "")),
        ([0.0] * 5, ("0", "±0")),
        ([-0.00001], ("0", "")),
        ([1134.5, 1334.5], ("1234", "[1134–1334]")),
        ([0.001, 0.02, 0.003], ("0.0080", "[0.0010–0.0200]")),
        ([3.2e7], ("3.2e+07", "")),
        ([1.0, math.nan, math.inf], ("not finite", "2/3")),
        ([], ("–", "")),
    ],
)
def test_numbers_have_three_digits_that_count(values, said):
    assert _text.spread(values) == said


def test_controls(pair):
    block = _block(_table(pair), "Controls:")
    cells = _cells(_line(block, "npo"))

    def both(entries, where="barriers"):
        points, nats = (np.mean([e[where][name] for e in entries]) for name in ("accuracy", "retain_nats"))
        return f"{points:.1f} / {_text.mean([nats])}"[:6]

    of = {kind: [e for e in pair["controls"][kind] if e["method"] == "npo"] for kind in pair["controls"]}
    assert cells[0] == "npo"
    assert cells[1] == f"{np.mean([e['distance']['a'] for e in of['perturbation']]):.2f}"
    expected = [_of(pair, "npo", "npo:run=1"), of["perturbation"], of["original"], of["retrain"]]
    assert [cell[:6] for cell in cells[2:]] == [*map(both, expected), both(of["retrain"], "unaligned")]


def test_stopping_times(pair):
    block = _block(_table(pair), "Stopping time of gradient ascent")
    assert "to finetune" in block.splitlines()[0]
    epochs = [line.split()[0] for line in block.splitlines() if re.match(r"\d+ epoch", line)]
    assert epochs == ["2", "5", "10", "15", "20"]
    cells = _cells(_line(block, "5 epochs"))
    entries = [e for e in pair["controls"]["stopping"] if e["epochs"] == 5]
    assert cells[1:3] == ["10.0 ±0.0", "95.0 ±0.0"]
    assert cells[4].split()[0] == f"{np.mean([e['barriers']['accuracy'] for e in entries]):.1f}"


def test_beyond(pair):
    table = _table(pair)
    entries = _of(pair, "finetune", "npo")
    before = [e["barriers"]["accuracy"] for e in entries]
    half = stats.t.ppf(0.975, 4) * stats.sem(before)
    block = _block(table, "Stability:")
    # Made up: of a path's barrier the line has 0.9 before and 0.6 after. It is shown for the straight line alone.
    expected = [f"{f * np.mean(before):.1f} ±{abs(f) * half:.1f}" for f in (0.9, 0.6, -0.3)]
    assert _cells(_line(block, "finetune – npo, linear"))[1:4] == expected
    assert "bezier" not in block
    cells = _cells(_line(_block(table, "Ensembles:"), "finetune – npo"))
    tests = [
        np.mean([e["ensemble"]["all"]["test_accuracy"] for e in entries]),
        np.mean([e["ensemble"]["ends"]["test_accuracy"] for e in entries]),
        np.mean([e["metrics"]["test_accuracy"][i] for e in entries for i in (0, -1)]),
    ]
    assert [cell.split()[0] for cell in cells[1:4]] == [f"{100 * value:.1f}" for value in tests]
    cells = _cells(_line(_block(table, "Relearning:"), "finetune – npo, linear"))
    assert cells[1].split()[0] == f"{np.mean([e['relearning']['steps'][0] for e in entries]):.1f}"
    # Made up: at t = 1 the steps are 40, 60, 80, 100 and 120, of a limit of 100.
    assert cells[5] == "≥80.0"
    # 30 + 2 seed + run.
    assert f"The retrained models need 35.0 ±{2 * stats.t.ppf(0.975, 4) * stats.sem(range(5)):.1f} steps." in table
    correlation = _cells(_line(table, "accuracy barrier, MIA between them"))
    assert correlation[1:] == ["+0.41 [+0.12, +0.70]", "5"]


def test_what_was_not_measured_is_left_out(one_seed):
    results = copy.deepcopy(one_seed)
    results["controls"] = {kind: [] for kind in results["controls"]}
    results["pairs"] = [e for e in results["pairs"] if e["role"] == "pair"]
    table = _table(results)
    for start in ("Controls", "Stopping", "Stability", "Relearning", "Membership", "all methods", "Two runs"):
        assert start not in table
    results["controls"]["retrain"] = one_seed["controls"]["retrain"]
    block = _block(_table(results), "Controls")
    assert "aligned" in block
    assert "random" not in block


# The figures


def test_curves_show_the_median_and_the_retrained_model(pair, drawn):
    figure = drawn("curves", pair)
    axes = {axis.get_title(loc="left"): axis for axis in figure.axes}
    metrics = {metric.title: metric for metric in _connect.METRICS}
    assert list(axes) == list(metrics)
    for title, axis in axes.items():
        name, scale = metrics[title].name, metrics[title].scale
        name = name if name.endswith(("loss", "accuracy")) else name.removeprefix("forget_")
        for curve, band in zip(("linear", "bezier"), axis.collections, strict=True):
            by_seed = scale * np.array([e["metrics"][name] for e in _of(pair, "finetune", "npo", curve)])
            low, median, high = np.quantile(by_seed, [0.25, 0.5, 0.75], axis=0)
            assert any(len(y) == 31 and np.allclose(y, median, rtol=1e-4) for y in _lines(axis))
            edges = band.get_paths()[0].vertices[:, 1]
            assert [edges.min(), edges.max()] == pytest.approx([low.min(), high.max()], rel=1e-4)
        by_seed = [np.mean([r[name] for r in pair["retrained"] if r["seed"] == seed]) for seed in range(5)]
        retrained = scale * np.median(by_seed)
        assert any(len(y) == 2 and np.allclose(y, retrained, rtol=1e-4) for y in _lines(axis))
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["finetune – npo, linear", "finetune – npo, bezier", "retrained model"]
    assert figure.note == "A – B: from A at t = 0 to B at t = 1; median of seeds, band: their middle half"


def test_no_curve_hides_another(drawn):
    """Of curves which coincide the markers of every one are seen: above all lines, and at different t."""
    results = made.one_pair(curves=("linear", "bezier"))
    for straight, bent in zip(_of(results, "finetune", "npo"), _of(results, "finetune", "npo", "bezier"), strict=True):
        bent["metrics"] = straight["metrics"]
    axis = drawn("curves", results).axes[0]
    markers = [line for line in axis.get_lines() if line.get_linestyle() == "None"]
    lines = [line for line in axis.get_lines() if line not in markers]
    assert len({(line.get_color(), line.get_marker()) for line in markers}) == 2
    assert not set(markers[0].get_xdata()) & set(markers[1].get_xdata())
    assert min(line.get_zorder() for line in markers) > max(line.get_zorder() for line in lines)


def test_two_runs_of_a_method_are_told_as_such(drawn):
    note = drawn("curves", made.seeds_grid(seeds=[0])).note
    assert note == "from the first run at t = 0 to the second at t = 1; one seed"


def test_many_curves_have_a_panel_each(drawn):
    results = made.methods_grid(6, seeds=range(3))
    figure = drawn("curves", results)
    groups = _groups(results)
    titles = [" ".join(axis.get_title(loc="left").split()) for axis in figure.axes]
    assert titles == [group.label for group in groups]
    for axis, group in zip(figure.axes, groups, strict=True):
        for name in ("retain_accuracy", "forget_accuracy", "test_accuracy"):
            seeds = [100 * np.asarray(e["metrics"][name]) for e in _of(results, group.a, group.b)]
            assert any(len(y) == 31 and np.allclose(y, np.median(seeds, axis=0), rtol=1e-4) for y in _lines(axis))
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [
        "retain accuracy (%)",
        "forget accuracy (%)",
        "test accuracy (%)",
        "retrained model, by colour",
    ]


def test_of_very_many_curves_the_smallest_and_the_largest(grid, drawn):
    figure = drawn("curves", grid)
    groups = sorted(_groups(grid), key=lambda group: group.accuracy_barrier)
    titles = [" ".join(axis.get_title(loc="left").split()) for axis in figure.axes]
    assert titles == [group.label for group in groups[:5] + groups[-5:]]
    assert figure.note.endswith("the 5 smallest and the 5 largest accuracy barriers")


def test_a_logarithmic_axis_says_so(drawn):
    results = made.one_pair()
    for entry in _of(results, "finetune", "npo"):
        entry["barriers"]["retain_nats"] = 2.0 / 10 ** entry["seed"]
    accuracy, retain, _ = drawn("barriers", results).axes
    assert retain.get_xscale() == "symlog"
    assert re.fullmatch(r"log scale from 0.0*1 on", retain.get_xlabel())
    assert (accuracy.get_xscale(), accuracy.get_xlabel()) == ("linear", "")


def test_matrix_is_in_clustered_order(grid, drawn):
    figure = drawn("matrix", grid)
    tree, heat, bar = figure.axes
    order, labels = grid["order"], grid["clusters"]["labels"]
    assert order != labels
    assert [t.get_text() for t in heat.get_xticklabels()] == order
    assert [t.get_text() for t in heat.get_yticklabels()] == order
    matrix = np.asarray(grid["clusters"]["matrix"])
    texts = {tuple(map(round, t.get_position())): t.get_text() for t in heat.texts}
    for i, a in enumerate(order):
        for j, b in enumerate(order):
            assert texts[j, i] == f"{matrix[labels.index(a), labels.index(b)]:.1f}"
    assert len(heat.patches) == len(order)
    assert "points" in bar.get_ylabel()
    assert "framed: the seed floor" in figure.note
    # The first merge joins the two that are nearest, which are neighbours.
    first, second, height, _ = grid["clusters"]["linkage"][0]
    places = sorted(order.index(labels[int(i)]) for i in (first, second))
    low = min(tree.get_lines(), key=lambda line: max(line.get_ydata()))
    assert sorted({round(x) for x in low.get_xdata()}) == places
    assert max(low.get_ydata()) == pytest.approx(height, rel=1e-4)


def test_matrix_without_a_floor(grid, drawn):
    results = copy.deepcopy(grid)
    for i, row in enumerate(results["clusters"]["matrix"]):
        row[i] = None
    assert [t.get_text() for t in drawn("matrix", results).axes[1].texts].count("–") == 10


def test_barriers_have_a_row_each_and_the_floor(pair, drawn):
    figure = drawn("barriers", pair)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles == ["accuracy barrier (points)", "barrier on D_r (nats)", "barrier on D_f (nats)"]
    rows = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert rows == ["finetune – npo, linear", "finetune – npo, bezier"]
    for axis, short in zip(figure.axes, ("accuracy", "retain_nats", "forget_nats"), strict=True):
        at = [np.asarray(line.get_xdata(), float) for line in axis.get_lines()]
        for curve in ("linear", "bezier"):
            values = [e["barriers"][short] for e in _of(pair, "finetune", "npo", curve)]
            assert any(len(x) == 5 and np.allclose(x, values, rtol=1e-4) for x in at)
            assert any(len(x) == 1 and np.allclose(x, np.mean(values), rtol=1e-4) for x in at)
        floor = np.mean([[e["barriers"][short] for e in _of(pair, m, f"{m}:run=1")] for m in ("finetune", "npo")], 0)
        shown = np.array([floor.mean(), *stats.t.interval(0.95, 4, floor.mean(), stats.sem(floor))])
        mean, low, high = np.where(shown < (0.0 if short == "accuracy" else 1e-3), 0.0, shown)
        assert any(np.allclose(x, mean, rtol=1e-4) for x in at)
        (band,) = axis.patches
        assert [band.get_x(), band.get_x() + band.get_width()] == pytest.approx([low, high], rel=1e-4)


def test_two_runs_are_the_rows_where_there_are_no_pairs(drawn):
    results = made.seeds_grid(seeds=range(2))
    figure = drawn("barriers", results)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == [f"{m}, two runs" for m in made.METHODS[:4]]
    assert "finetune, two runs" in _table(results)


def test_sizes(drawn):
    results = made.sizes_grid(seeds=range(3))
    figure = drawn("sizes", results)
    assert len(figure.axes) == 6
    assert figure.axes[3].get_title(loc="left") == "accuracy barrier (points),\nthis size and the largest"
    assert "%" in figure.axes[5].get_xlabel()
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert legend == list(made.METHODS[:3])
    for axis, role, sizes in ((figure.axes[1], "floor", [2, 4, 6, 8, 10]), (figure.axes[4], "pair", [2, 4, 6, 8])):
        # Of every method a line, and from every point the range of its seeds.
        line, ends = axis.get_lines()[1], axis.collections[1].get_segments()
        np.testing.assert_allclose(line.get_xdata(), sizes)
        entries = [e for e in results["pairs"] if e["role"] == role and e["a"]["method"] == made.METHODS[1]]
        means = [
            np.mean([e["barriers"]["retain_nats"] for e in entries if e["a"]["forget"] == f"random:{s / 100:g}"])
            for s in sizes
        ]
        np.testing.assert_allclose(line.get_ydata(), means, rtol=1e-4)
        of_seeds = [e["barriers"]["retain_nats"] for e in entries]
        drawn_ends = [y for segment in ends for y in segment[:, 1]]
        assert [min(drawn_ends), max(drawn_ends)] == pytest.approx([min(of_seeds), max(of_seeds)], rel=1e-4)


def test_sizes_without_a_barrier(drawn):
    """What is 0 everywhere says so; a mean below the resolution is drawn as 0, as a seed is."""
    results = made.sizes_grid(1)
    for entry in results["pairs"]:
        entry["barriers"] |= {"retain_nats": 1e-8, "forget_nats": 2e-3 * (entry["seed"] == 0)}
    figure = drawn("sizes", results)
    assert [text.get_text() for text in figure.axes[1].texts] == ["none"]
    assert not figure.axes[2].texts
    (line,) = figure.axes[2].get_lines()
    assert not np.any(line.get_ydata())
    assert max(segment[1, 1] for segment in figure.axes[2].collections[0].get_segments()) > 1e-3


@pytest.mark.parametrize(
    ("make", "files"),
    [
        (lambda: made.methods_grid(3, seeds=range(2)), {"curves.png", "matrix.png"}),
        (lambda: made.methods_grid(2, seeds=range(2)), {"curves.png"}),
        (lambda: made.one_pair(seeds=[0]), {"curves.png", "barriers.png"}),
        (lambda: made.curriculum_grid(1, seeds=range(2)), {"curves.png", "barriers.png"}),
        (lambda: made.sizes_grid(1, seeds=range(2)), {"curves.png", "sizes.png"}),
    ],
)
def test_write_draws_what_applies_and_gives_the_table(make, files, tmp_path, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **_: file.write(b""))
    results = make()
    _tidy.write(tmp_path, results)
    assert report.write(tmp_path) == _table(results, 80)
    assert {file.name for file in tmp_path.glob("*.png")} == files


def test_next_to_nothing_looks_like_nothing(drawn):
    """Barriers of 1e-8 nats are the rounding of float32, and no axis shows them large."""
    results = made.curriculum_grid(1)
    for entry in results["pairs"]:
        entry["barriers"] |= {"retain_nats": 1e-8 * (1 + entry["seed"]), "accuracy": 1e-5}
    accuracy, retain, _ = drawn("barriers", results).axes
    assert accuracy.get_xlim()[1] >= 1.0
    assert retain.get_xlim() == (0.0, 0.01)
    assert [text.get_text() for text in retain.texts] == ["none"]
    assert all(not np.any(line.get_xdata()) for line in retain.get_lines())


def test_an_outlier_does_not_cover_the_panels(grid, drawn):
    results = made.one_pair()
    worst = _of(results, "finetune", "npo")[2]["metrics"]
    worst["forget_accuracy"], worst["js"] = [0.0] * 31, [0.69] * 31
    axes = drawn("curves", results).axes
    rest = [e["metrics"] for e in _of(results, "finetune", "npo") if e["seed"] != 2]
    assert axes[4].get_ylim()[0] > 50 * np.min([m["forget_accuracy"] for m in rest])
    assert axes[2].get_ylim()[1] < 1.5 * np.max([m["js"] for m in rest])


def test_a_diverged_end_says_where(pair):
    results = copy.deepcopy(pair)
    entry = _of(results, "finetune", "npo")[1]
    for name in set(entry) - {"a", "b", "role", "seed", "curve", "forget", "objective"}:
        entry[name] = None
    entry["diverged"] = 88
    table = _table(results)
    assert "finetune – npo, linear: not finite at step 88 (seed 1)." in table
    assert _cells(_line(table, "finetune – npo, linear"))[4].endswith("/4")


def test_pictures_even_of_what_is_not_finite(pair, tmp_path):
    results = copy.deepcopy(pair)
    entry = _of(results, "finetune", "npo")[0]
    entry["metrics"]["retain_loss"][15] = math.inf
    entry["metrics"]["js"][15] = math.nan
    entry["barriers"] |= {"retain_nats": math.inf, "js_nats": math.nan}
    _tidy.write(tmp_path, results)
    report.write(tmp_path)
    for name in ("curves", "barriers"):
        picture = matplotlib.image.imread(tmp_path / f"{name}.png")
        assert picture.shape[1] == 1350
        for half in np.array_split(picture[..., :3], 2, axis=1):
            assert 0.01 < np.mean(half < 0.9) < 0.9


def test_write_refuses_another_kind(tmp_path):
    (tmp_path / "results.json").write_text('{"schema": 3, "kind": "lunch"}')
    with pytest.raises(ValueError, match="expected results of kind unlearn, connect, tune, found 'lunch'"):
        report.write(tmp_path)


def test_a_long_legend_stays_on_the_page(drawn):
    figure = drawn("curves", made.curriculum_grid(2, seeds=range(2), also=ALSO))
    figure.draw_without_rendering()
    page, (legend,) = figure.bbox, figure.legends
    box = legend.get_window_extent()
    assert page.x0 <= box.x0 < box.x1 <= page.x1
    assert page.y0 <= box.y0 < box.y1 <= page.y1
