"""Figures for papers: their files, their data, what they refuse, and what a notebook shows. Nothing is trained."""

import base64
import csv
import io
import re
import shutil
import xml.etree.ElementTree

import connect_results
import numpy as np
import page_runs
import pytest

from mcu_jax import base, cli, registry, report, runs
from mcu_jax.report import _figures
from mcu_jax.report._figures import _chart, _details, _spent
from mcu_jax.runs import _files

STARTS = {"pdf": b"%PDF-", "svg": b"<?xml", "png": b"\x89PNG"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Run directories by kind."""
    at, unlearned = tmp_path_factory.mktemp("figures"), page_runs.unlearned(range(2))
    unlearned["config"]["seeds"] = [0, 1]
    for path in unlearned["paths"]:
        for name in ("retain_loss", "forget_loss", "test_loss"):
            path[name] = [3.0 * value for value in path["UA"]]
    return {
        "unlearn": page_runs.write(at / "unlearn", unlearned, page_runs.details(range(2))),
        "connect": page_runs.write(at / "connect", page_runs.connected()),
        "sizes": page_runs.write(at / "sizes", connect_results.sizes_grid(2, seeds=range(2))),
        "tune": page_runs.write(at / "tune", page_runs.tuned()),
    }


@pytest.fixture(scope="module")
def sections(made):
    """What the pages of these runs show."""
    return {kind: _figures._sections(directory)[1] for kind, directory in made.items()}


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def chart(sections, name, *, width="column", seed=None, pair=None):
    return _figures._FIGURES[name].chart(sections, _figures._Choice(width, seed, pair))


def numbers(rows, name):
    return [float(row[name]) if row[name] else None for row in rows]


def test_runs_have_the_figures_of_their_kind(sections):
    known = {kind: _figures._known(each) for kind, each in sections.items()}
    assert known["unlearn"] == [
        *("path", "losses", "gap", "confidence", "pictures", "plane", "mask", "history", "seconds")
    ]
    assert known["tune"] == ["seconds"]
    assert {"matrix", "curves", "barriers"} <= set(known["connect"])
    assert "sizes" in known["sizes"]
    assert set(report.FIGURES) == {name for names in known.values() for name in names} | {"pareto"}


KINDS = {"matrix": "connect", "curves": "connect", "barriers": "connect", "controls": "connect", "sizes": "sizes"}


@pytest.mark.parametrize(("place", "name"), list(enumerate(sorted(_figures._FIGURES))))
def test_every_figure_is_painted_in_every_format(sections, place, name):
    """Of one width, in turn, drawn once and laid out once, which takes time; its data for both."""
    for i, width in enumerate(_chart.WIDTHS):
        each = chart(sections[KINDS.get(name, "unlearn")], name, width=width)
        assert {len(row) for row in each.rows} == {len(each.heads)}
        if place % 2 == i:
            with _chart.drawn(each, width) as figure:
                for ending, start in STARTS.items():
                    assert _chart.saved(figure, ending, 40).startswith(start)
                    figure.set_layout_engine("none")


def test_equal_data_give_equal_files_whatever_matplotlibrc_says(sections, monkeypatch):
    import matplotlib

    monkeypatch.setattr(_chart, "DOTS", 40)
    each = chart(sections["unlearn"], "mask")
    for ending, start in STARTS.items():
        first = _chart.painted(each, "column", ending)
        with matplotlib.rc_context({"font.size": 20.0, "axes.facecolor": "red", "svg.hashsalt": None}):
            assert _chart.painted(each, "column", ending) == first
        assert first.startswith(start)
        assert not re.search(rb"CreationDate|<dc:date>|Software", first)
    pdf = _chart.painted(each, "column", "pdf")
    assert b"/MediaBox [ 0 0 234 " in pdf
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf


def test_data_are_the_numbers_of_the_page(sections):
    explorer = sections["unlearn"]["explorer"]
    rows = rows_of(_chart.as_csv(chart(sections["unlearn"], "path")))
    for metric in explorer["metrics"][:4]:
        path = [row for row in rows if row["metric"] == metric["name"] and row["series"] == "path"]
        assert numbers(path, "t") == explorer["t"]
        for head, name in (("median (%)", "middle"), ("band from (%)", "low"), ("band to (%)", "high")):
            assert numbers(path, head) == metric["path"][name]
    one = rows_of(_chart.as_csv(chart(sections["unlearn"], "losses", seed=1)))
    (retain,) = [metric for metric in explorer["metrics"] if metric["name"] == "retain_loss"]
    path = [row for row in one if row["metric"] == "retain_loss" and row["series"] == "path"]
    assert numbers(path, "value (nats)") == retain["path"]["seeds"][1]
    matrix = rows_of(_chart.as_csv(chart(sections["connect"], "matrix")))
    shown = sections["connect"]["matrix"]
    value = next(name for name in matrix[0] if name.endswith("(points)"))
    assert numbers(matrix, value) == [cell for row in shown["values"] for cell in row]
    path = sections["connect"]["curves"]["paths"][2]
    curves = rows_of(_chart.as_csv(chart(sections["connect"], "curves", pair=path["label"])))
    assert numbers(curves, "retain loss (nats), median") == path["metrics"]["retain_loss"]["middle"]
    assert {row["path"] for row in curves} == {path["label"]}
    seconds = rows_of(_chart.as_csv(chart(sections["tune"], "seconds")))
    assert [(row["of"], float(row["time (s)"])) for row in seconds] == [("npo", 6.0), ("mcu", 6.0)]


def test_pareto_front():
    points = [tuple(p) for p in np.random.default_rng(0).integers(0, 12, (60, 2)).astype(float)]
    kept = _spent.front(points)
    dominates = lambda a, b: a[0] >= b[0] and a[1] >= b[1] and a != b  # noqa: E731
    assert set(kept) == {p for p in points if not any(dominates(q, p) for q in points)}
    assert kept == sorted(kept)


def test_several_runs(made, tmp_path, monkeypatch):
    monkeypatch.setattr(_chart, "DOTS", 40)
    both = [made["unlearn"], shutil.copytree(made["unlearn"], tmp_path / "again")]
    place = report.figure("pareto", both, tmp_path / "several.png")
    rows = rows_of((tmp_path / "several.csv").read_text())
    assert place.read_bytes().startswith(STARTS["png"])
    assert len({row["run"] for row in rows if row["series"] == "path"}) == 2
    for wrong, told in (([made["unlearn"]], "at least two"), ([*both, made["tune"]], "one of tune")):
        with pytest.raises(runs.ConfigError, match=told):
            report.figure("pareto", wrong, tmp_path / "other.png")


def test_hostile_text_is_text(sections, tmp_path):
    """As outlines in an SVG, without a letter that the font lacks, and no tag but those of any other figure."""
    texts = (*page_runs.HOSTILE, "\u4e2d\u6587", "$x^{$")
    results = page_runs.unlearned([0, 1])
    for row in [row for row in results["rows"] if row["method"] == "finetune"]:
        results["rows"] += [{**row, "method": text} for text in texts]
    extra = page_runs.details([0, 1], classes=texts)
    for each in extra["mask"]:
        each["layers"] += [{**each["layers"][0], "name": text} for text in texts]
    shown = _figures._sections(page_runs.write(tmp_path / "run", results, extra))[1]
    matrix = sections["connect"]["matrix"]
    connections = {"matrix": {**matrix, "labels": texts[: len(matrix["labels"])]}}
    for name, of in (("mask", shown), ("pictures", shown), ("seconds", shown), ("matrix", connections)):
        each = chart(of, name)
        svg = _chart.painted(each, "column", "svg")
        tags = {element.tag.rpartition("}")[2] for element in xml.etree.ElementTree.fromstring(svg).iter()}
        assert not tags & {"script", "text", "foreignObject", "a"}, name
        data = _chart.as_csv(each)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", data)
    assert page_runs.HOSTILE[0] in {row["layer"] for row in rows_of(_chart.as_csv(chart(shown, "mask")))}
    assert _chart.drawable("\u4e2d\x07a") == "\\u4e2d\\x07a"
    assert len(_chart.short("x" * 10_000, 30)) == 30


def test_a_picture_that_is_none_is_blank():
    assert _details._pixels("data:image/png;base64," + base64.b64encode(b"no picture").decode()) is None
    assert _details._pixels(page_runs.PICTURE).shape[:2] == (1, 1)


def test_what_is_refused(made, sections, tmp_path, monkeypatch):
    monkeypatch.setattr(_chart, "painted", lambda *_: pytest.fail("nothing is to be drawn"))
    file, run = tmp_path / "f.pdf", made["unlearn"]
    damaged = shutil.copytree(made["unlearn"], tmp_path / "damaged")
    (damaged / "results.json").write_text((run / "results.json").read_text().replace("mlp", "mpl"))
    unfinished = shutil.copytree(made["unlearn"], tmp_path / "unfinished")
    (unfinished / "results.json").unlink()
    older = shutil.copytree(made["unlearn"], tmp_path / "older")
    values = _files.read_json(older / "results.json")
    _files.write_json(older / "results.json", {**values, "schema": 1})
    (tmp_path / "empty").mkdir()
    for name, directory, told, more in (
        ("paht", run, "no figure 'paht'.*path", {}),
        ("path", tmp_path / "empty", "not a run directory", {}),
        ("path", damaged, "nothing to draw", {}),
        ("path", unfinished, "nothing to draw.*goes on", {}),
        ("path", older, "schema", {}),
        ("matrix", run, "no data for figure matrix: it has path", {}),
        ("path", made["tune"], "no data for figure path: it has seconds", {}),
        ("path", [run, run], "of one run, given 2", {}),
        ("path", run, "no seed 7; there are: 0, 1", {"seed": 7}),
        ("mask", run, "of all seeds; leave --seed out", {"seed": 0}),
        ("path", run, "of no pair", {"pair": "a"}),
        ("path", run, "no width 'wide'", {"width": "wide"}),
    ):
        with pytest.raises(base.UserError, match=f"(?s){told}"):
            report.figure(name, directory, file, **more)
    (tmp_path / "there.csv").write_text("mine")
    (tmp_path / "folder.pdf").mkdir()
    for place, told in (
        ("there.pdf", "there.csv is there already.*--overwrite"),
        ("folder.pdf", "is a folder"),
        ("x.jpg", "a .pdf, .svg or .png"),
        ("x", "a .pdf"),
        ("no/x.pdf", "no folder"),
        ("a\0b.pdf", "NUL"),
    ):
        with pytest.raises(base.UserError, match=f"(?s){told}"):
            report.figure("path", run, tmp_path / place)
    assert not list(tmp_path.glob("f.*"))
    with pytest.raises(registry.UnknownNameError, match="no pair 'a'"):
        chart(sections["connect"], "curves", pair="a")


def test_the_command(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["figure", str(made["tune"])]) == 0
    assert capsys.readouterr().out == "seconds  where the seconds went\n"
    command = ["figure", "seconds", str(made["tune"])]
    assert cli.run(command) == 0
    assert (tmp_path / "seconds.pdf").read_bytes().startswith(STARTS["pdf"])
    assert (tmp_path / "seconds.csv").read_text().startswith("of,part,time (s)\n")
    assert cli.run(command) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert cli.run([*command, "--overwrite", "--width", "page"]) == 0
    for wrong in (["figure"], ["figure", "mask"], ["figure", "--help"]):
        assert cli.run(wrong) == (0 if "--help" in wrong else 2)


def test_notebooks_show_a_table(made, tmp_path):
    for kind, word in (("unlearn", "avg_gap"), ("connect", "acc. points"), ("tune", "criterion")):
        results = report.read(made[kind])
        shown = results._repr_html_()
        assert "<table><thead><tr><th></th>" in shown
        assert word in shown
        assert len(repr(results)) < 100
        results.summary["config"].setdefault("seeds", list(range(5)))
        run = runs.Run(made[kind], results.summary)
        assert run._repr_html_().startswith(shown)
        assert len(repr(run)) < 200
    summary = report.read(made["unlearn"]).summary
    assert "avg_gap" in runs.Run(tmp_path / "gone", summary)._repr_html_()
    hostile = page_runs.unlearned([0, 1])
    for row in hostile["rows"]:
        row["method"] = page_runs.HOSTILE[0] if row["method"] == "finetune" else row["method"]
    shown = report.collect(hostile)._repr_html_()
    assert "&lt;script&gt;" in shown
    assert "<script" not in shown
    for results in ({}, {"kind": "unlearn"}, {"kind": "unlearn", "config": {}, "rows": [{}]}):
        assert runs.Run(tmp_path / "gone", results)._repr_html_().startswith("<p>")
        assert repr(runs.Run(tmp_path / "gone", results))
        assert report.Results(results, ())._repr_html_()
