"""The page of a run: its content policy, its vendored scripts, its texts and its numbers."""

import base64
import hashlib
import html.parser
import json
import pathlib
import re
import shlex

import numpy as np
import page_runs
import pytest

from mcu_jax import cli, report, runs
from mcu_jax.cli import _flags
from mcu_jax.report import _page, _table
from mcu_jax.report._page import _details, _reproduce

HERE = pathlib.Path(__file__).parent
VENDOR = pathlib.Path(_page.__file__).parent / "vendor"


class Parsed(html.parser.HTMLParser):
    """A page as a browser reads it: tags with their attributes, contents of scripts and styles, texts by table cell."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.raw, self.cells, self.texts = [], [], [], []
        self._open, self._cell = None, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._open = (tag, dict(attrs))
            self.raw.append([tag, dict(attrs), ""])
        if tag in ("td", "th"):
            self._cell = ""

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._open = None
        if tag in ("td", "th"):
            self.cells.append(" ".join(self._cell.split()))
            self._cell = None

    def handle_data(self, data):
        if self._open:
            self.raw[-1][2] += data
        else:
            self.texts.append(data)
        if self._cell is not None:
            self._cell += data

    @property
    def scripts(self):
        return [content for tag, attrs, content in self.raw if tag == "script" and "type" not in attrs]

    @property
    def data(self):
        (content,) = [content for tag, attrs, content in self.raw if attrs.get("type") == "application/json"]
        return json.loads(content)

    @property
    def policy(self):
        (content,) = [a["content"] for _, a in self.tags if a.get("http-equiv") == "Content-Security-Policy"]
        return {name: values for name, *values in (rule.split() for rule in content.split("; "))}


def made(directory, *more, to=None):
    return Parsed(report.page([directory, *more] if more else directory, to).read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return page_runs.write(tmp_path_factory.mktemp("page") / "run", page_runs.unlearned(), page_runs.details(range(5)))


@pytest.fixture(scope="session")
def parsed(run):
    return made(run)


def _hash(content):
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def test_vendored_files_are_as_published():
    for folder in (VENDOR, HERE / "vendor"):
        sums = dict(line.split()[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
        assert set(sums) == {file.name for file in folder.iterdir()} - {"SHA256SUMS"}
        for name, told in sums.items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == told


def test_nothing_but_our_scripts_may_run_and_nothing_is_requested(parsed):
    policy = parsed.policy
    assert (policy["default-src"], policy["img-src"]) == (["'none'"], ["data:"])
    assert policy["script-src"] == [_hash(script) for script in parsed.scripts]
    styles = [content for tag, _, content in parsed.raw if tag == "style"]
    assert policy["style-src"][: len(styles)] == [_hash(style) for style in styles]
    for tag, attrs in parsed.tags:
        assert not [name for name in attrs if name.startswith("on") or name == "style"], (tag, attrs)
        for name in ("src", "href"):
            assert attrs.get(name, "#").startswith(("#", "data:image/png;base64,")), (tag, attrs)
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for t, a in parsed.tags if t == "a"} <= set(ids)


def test_numbers_are_those_of_the_terminal_and_of_the_results(run, parsed):
    results = report.read(run)
    (grid,) = [part for part in _table.main_table(results) if not isinstance(part, str)]
    for i, label in enumerate(grid.labels):
        at = parsed.cells.index(label)
        assert parsed.cells[at + 1 : at + 1 + len(grid.columns)] == [" ".join(c.cells[i].split()) for c in grid.columns]
    explorer = parsed.data["runs"][0]["explorer"]
    made_up = page_runs.unlearned()["paths"]
    for metric in explorer["metrics"]:
        values = 100 * np.array([path[metric["name"]] for path in made_up if path["curve"] != "linear"])
        np.testing.assert_allclose(metric["path"]["middle"], np.median(values, 0), rtol=1e-4)
        np.testing.assert_allclose(metric["path"]["seeds"], values, rtol=1e-4, atol=1e-9)
    assert [metric["name"] for metric in explorer["metrics"]][:4] == ["RA", "UA", "TA", "MIA"]
    gap = next(c.cells for c in grid.columns if c.header == "avg_gap")
    sentences = " ".join(parsed.texts)
    for method in ("MCU", page_runs.test_report.PRE + " (pre-unlearned)", "straight line", "finetune"):
        assert " ".join(gap[list(grid.labels).index(method)].split()) in sentences
    assert "2 of 8 training examples of digits (forget random:0.2) were unlearned from mlp" in sentences


def test_hostile_text_is_text(tmp_path):
    def page(name, texts):
        results = page_runs.unlearned([0, 1])
        results["config"] |= {"dataset": "".join(texts), "model": texts[0], "pre": f"start {texts[5]}"}
        for row in results["rows"]:
            row["method"] = f"start {texts[5]}" if row["method"] == page_runs.test_report.PRE else row["method"]
        results["rows"] += [{**row, "method": text} for row in results["rows"] if row["method"] == "finetune"
                            for text in texts if text != texts[5]]  # fmt: skip
        extra = page_runs.details([0, 1], classes=texts)
        for each in extra["mask"]:
            each["layers"] += [{**each["layers"][0], "name": text} for text in texts]
        run = page_runs.write(tmp_path / name, results, extra)
        return made(run), (run / "report.html").read_text(encoding="utf-8"), report.unlearn_table(report.read(run))

    plain, *_ = page("plain", [f"name {i}" for i in range(len(page_runs.HOSTILE))])
    parsed, content, table = page("run", page_runs.HOSTILE)
    elements = [[tag for tag, _ in each.tags if tag not in ("br", "wbr")] for each in (plain, parsed)]
    assert elements[0] == elements[1]
    assert parsed.scripts == plain.scripts
    for written in (content, table):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", written)
    for text in page_runs.HOSTILE:
        start = re.split(r"[^\x20-\x7e]", text.lstrip("\u202e"))[0][:20]
        assert start in "".join(parsed.texts)
        assert start in "".join(str(layer["name"]) for layer in parsed.data["runs"][0]["mask"]["layers"])


def test_connections_have_a_page_and_hostile_text_in_it_is_text(tmp_path):
    plain, parsed = (made(page_runs.write(tmp_path / f"{name}", page_runs.connected(name)))
                     for name in (None, page_runs.HOSTILE[0]))  # fmt: skip
    elements = [[tag for tag, _ in each.tags if tag not in ("br", "wbr")] for each in (plain, parsed)]
    assert elements[0] == elements[1]
    shown = plain.data["runs"][0]
    assert len(shown["matrix"]["labels"]) == 3
    assert len(shown["curves"]["paths"]) == 3 + 3
    assert {dot["panel"] for dot in shown["barriers"]["dots"]} == {
        panel["name"] for panel in shown["barriers"]["panels"]
    }
    assert page_runs.HOSTILE[0] in parsed.data["runs"][0]["matrix"]["labels"]


def test_only_pictures_that_hold_themselves_are_shown():
    assert _details.picture(page_runs.PICTURE) == page_runs.PICTURE
    for other in (
        "https://x/y.png",
        "data:image/svg+xml;base64,AA",
        page_runs.PICTURE + '" onerror="x',
        None,
        3,
        "x.png",
    ):
        assert _details.picture(other) is None


def test_the_command_is_the_configuration():
    asked = [
        "--pre",
        "npo:lr=0.01,epochs=2",
        "--baselines",
        "--seeds",
        "3",
        "4",
        "--mask.kind",
        "none",
        "--beta",
        "0.2",
    ]
    given = _flags.parse(asked, "unlearn", runs.Config)
    resolved = runs.plan(runs.from_mapping(given)).config
    name, kind, *flags = shlex.split(_reproduce.command("unlearn", resolved))
    assert (name, kind) == ("mcu-jax", "unlearn")
    assert runs.plan(runs.from_mapping(_flags.parse(flags, "unlearn", runs.Config))).config == resolved


def test_what_a_run_lacks_is_said_and_the_rest_is_shown(tmp_path, capsys):
    run = page_runs.write(tmp_path / "run", page_runs.unlearned([0]))
    said = lambda: " ".join(" ".join(made(run).texts).split())  # noqa: E731
    text = said()
    assert "There is no details.json" in text
    assert "The plane was not computed" in text
    assert "--plane 25" in text
    (run / "details.json").write_text('{"schema": 1}')
    assert "details.json cannot be read" in said()
    page_runs.write(run, page_runs.unlearned([0]), {**page_runs.details([0]), "mask": [{"seed": 0}]})
    text = said()
    assert "details.json is not as a run writes it (KeyError: 'layers')" in text
    assert "The best point of the path" in text
    (run / "results.csv").write_text("replicate\n")
    assert "results.csv is not as it was written" in said()
    (run / "results.json").write_text(json.dumps({"schema": 1, "kind": "unlearn"}))
    assert "expected schema 3, found 1" in said()
    (run / "results.json").unlink()
    text = said()
    assert "There is no results.json" in text
    assert f"`mcu-jax unlearn --config {run}/config.yaml` goes on" in text
    assert "random:0.2" in text, "its configuration is there"
    assert cli.run(["report", str(run)]) == 0
    assert f"Written to {run}/report.html" in capsys.readouterr().out


def test_what_is_no_run_and_what_is_no_place_are_refused(tmp_path, run):
    def refused(words, *given):
        with pytest.raises(runs.ConfigError, match=re.escape(words)):
            report.page(*given)

    refused("not a run directory: it holds neither config.yaml nor results.json", tmp_path)
    refused("a page of 2 runs needs a place: give --to FILE.html", [run, run])
    mine = tmp_path / "mine.html"
    mine.write_text("<!doctype html>")
    refused("is there already, and is no page of `mcu-jax report`", run, mine)
    refused("is there already", run, tmp_path)
    refused("there is no folder", run, tmp_path / "none" / "a.html")
    mine.unlink()
    assert report.page(run, mine) == mine
    assert report.page(run, mine) == mine, "ours is replaced"
    assert cli.run(["report"]) == 2
    assert cli.run(["report", str(tmp_path / "none")]) == 2


def test_tuning_and_several_runs_have_pages(tmp_path, run):
    tuned = page_runs.write(tmp_path / "tuned", page_runs.tuned())
    assert made(tuned).data["runs"][0]["seconds"]["bars"][0]["seconds"] == 6.0
    other = page_runs.write(tmp_path / "other", page_runs.unlearned([7]))
    page = made(run, other, tuned, to=tmp_path / "all.html")
    side_by_side = page.data["several"]
    assert [one["name"] for one in side_by_side] == ["1 run", "2 other"]
    assert {"1 run", "2 other"} <= set(page.cells)
    mean = np.mean([p["UA"] for p in page_runs.unlearned()["paths"] if p["curve"] != "linear"], 0)
    np.testing.assert_allclose(side_by_side[0]["UA"], 100 * mean, rtol=1e-4)
    assert "explorer" in page.data["runs"][0]
    many = made(run, *[other] * _page.WHOLE, to=tmp_path / "many.html")
    assert "explorer" not in many.data["runs"][0], "of many each is told in short"
