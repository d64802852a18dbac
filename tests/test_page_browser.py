"""The page in a browser: Chromium without a window opens it from the file system.

Left out where there is no Chromium; CI installs it.
"""

import json
import pathlib
import shutil
import time

import numpy as np
import page_runs
import pytest

from mcu_jax import report
from mcu_jax.report import _page

selenium = pytest.importorskip("selenium")

from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver here")
AXE = next((pathlib.Path(__file__).parent / "vendor").glob("axe-core-*.js"))
WIDTHS = (360, 1280, 2560)


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """By name, written once."""
    base = tmp_path_factory.mktemp("pages")
    hostile = page_runs.unlearned([0, 1])
    hostile["config"] |= {"dataset": "".join(page_runs.HOSTILE), "model": page_runs.HOSTILE[2]}
    hostile["rows"] += [{**row, "method": text} for row in hostile["rows"] if row["method"] == "finetune"
                        for text in page_runs.HOSTILE]  # fmt: skip
    directories = {
        "run": page_runs.write(base / "run", page_runs.unlearned(), page_runs.details(range(5))),
        "connected": page_runs.write(base / "connected", page_runs.connected()),
        "tuned": page_runs.write(base / "tuned", page_runs.tuned()),
        "hostile": page_runs.write(base / "hostile", hostile, page_runs.details([0, 1], page_runs.HOSTILE)),
    }
    made = {name: report.page(directory) for name, directory in directories.items()}
    return {**made, "several": report.page([directories["run"], directories["hostile"]], base / "several.html")}


@pytest.fixture
def show(browser, pages):
    def open_(name, width=1280, dark=False):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        browser.get(pages[name].as_uri())
        return browser

    return open_


def script(browser, code, *arguments):
    return browser.execute_script(code, *arguments)


@pytest.mark.parametrize("name", ["run", "connected", "tuned", "hostile", "several"])
def test_it_opens_without_an_error_or_a_request_and_fits_every_width(show, pages, name):
    for log in ("browser", "performance"):
        show(name).get_log(log)
    for width in WIDTHS:
        browser = show(name, width)
        # Chart after chart is drawn anew as the page gets its width.
        script(browser, "return new Promise((done) => setTimeout(() => requestAnimationFrame(done), 50))")
        assert script(browser, "return document.documentElement.dataset.ready"), "our scripts ran to their end"
        assert script(browser, "return document.documentElement.scrollWidth - innerWidth") <= 0
        outside = """return [...document.querySelectorAll("main *, header *, footer *")].filter((node) => {
            const box = node.getBoundingClientRect();
            return box.width > 0 && box.right > innerWidth + 1
                && !node.closest(".scroll, pre, svg, .visually-hidden");
        }).map((node) => node.outerHTML.slice(0, 100))"""
        assert script(browser, outside) == []
        assert script(browser, "return document.querySelectorAll('.chart svg').length") > 0
        assert script(browser, "return window.hacked ?? null") is None
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert {url for url in urls if not url.startswith("data:image/png;base64,")} == {pages[name].as_uri()}


def test_the_slider_moves_every_linked_view(show):
    browser = show("run")
    slider = browser.find_element(By.ID, "run-0-t")

    def views():
        return script(
            browser,
            """return {
            readings: [...document.querySelectorAll(".panel .now")].map((node) => node.textContent),
            cursors: [...document.querySelectorAll(".panel .chart svg > line")].map((node) => node.getAttribute("x1")),
            distributions: document.querySelector("#run-0-distributions svg").innerHTML,
            pictures: [...document.querySelectorAll(".said")].map((node) => node.textContent),
            planes: [...document.querySelectorAll("[data-chart=plane] svg > circle")].map((n) => n.getAttribute("cx")),
            output: document.querySelector(".slide output").textContent,
            spoken: document.getElementById("run-0-t").getAttribute("aria-valuetext"),
        }""",
        )

    slider.send_keys(Keys.HOME)
    first = views()
    slider.send_keys(Keys.END)
    last = views()
    assert len(first["cursors"]) == len(first["readings"]) >= 6
    assert len(first["planes"]) == 2
    assert all(first[name] != last[name] for name in first)
    assert all(a != b for name in ("cursors", "planes") for a, b in zip(first[name], last[name], strict=True))
    assert (first["pictures"][0], last["pictures"][0]) == ("✓ one 90 %", "✗ zero 50 %")
    assert last["spoken"] == "t = 1.00"
    data = script(browser, "return JSON.parse(document.getElementById('data').textContent).runs[0].explorer")
    ends = [f"{metric['path']['middle'][-1]:.{metric['decimals']}f}" for metric in data["metrics"]]
    assert last["readings"] == ends
    script(browser, "document.querySelector('[data-jump=best]').click()")
    best = sorted(data["rules"]["accuracy"]["best"])[2]
    assert abs(float(views()["output"]) - best) <= 0.03
    script(
        browser,
        """const seed = document.querySelector("[data-choose=seed]");
                       seed.value = "2"; seed.dispatchEvent(new Event("change"))""",
    )
    at = int(slider.get_attribute("value"))
    one = [f"{metric['path']['seeds'][2][at]:.{metric['decimals']}f}" for metric in data["metrics"]]
    assert views()["readings"] == one
    time.sleep(0.5)
    assert "RA" in script(browser, "return document.querySelector('.live').textContent"), "a screen reader is told"


def test_tables_sort_filter_and_lead_on(show):
    browser = show("run")
    column = """return [...document.querySelectorAll("main table")[0].tBodies[0].rows]
                .map((row) => parseFloat(row.cells[arguments[0]].textContent))"""
    before = script(browser, column, 1)
    click = "document.querySelectorAll('main table')[0].tHead.rows[0].cells[1].querySelector('button').click()"
    script(browser, click)
    assert script(browser, column, 1) == sorted(before)
    assert script(browser, "return document.querySelector('th[aria-sort]').getAttribute('aria-sort')") == "ascending"
    script(browser, click)
    assert script(browser, column, 1) == sorted(before, reverse=True)
    browser = show("several")
    browser.find_element(By.ID, "filter").send_keys("2 hostile")
    assert script(browser, "return document.getElementById('count').textContent") == "1 of 2 runs"
    browser = show("connected")
    choice = "return document.querySelector('section.curves select').value"
    assert script(browser, choice) == "0"
    script(browser, "document.querySelector('#run-0-matrix-figure tbody td button').click()")
    assert script(browser, choice) != "0", "the first cell is a method's seed floor, which comes after the pairs"


def test_the_keyboard_alone_reaches_everything(show):
    browser = show("run")
    # What can be acted on or scrolls, but for what lies in a closed part: that opens from its summary.
    wanted = script(
        browser,
        """
        const all = [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']")];
        window.seen = new Set();
        window.wanted = all.filter((node) => node.checkVisibility());
        addEventListener("focusin", (event) => window.seen.add(event.target));
        return window.wanted.length""",
    )
    assert wanted > 40
    for _ in range(wanted // 20 + 2):
        webdriver.ActionChains(browser, duration=0).send_keys(Keys.TAB * 20).perform()
    missed = script(
        browser, "return window.wanted.filter((n) => !window.seen.has(n)).map((n) => n.outerHTML.slice(0, 90))"
    )
    assert missed == []


@pytest.mark.parametrize(
    ("name", "dark"),
    [("run", False), ("run", True), ("connected", False), ("tuned", False), ("several", False), ("several", True)],
)
def test_axe_finds_no_serious_violation(show, name, dark):
    browser = show(name, dark=dark)
    script(browser, "for (const part of document.querySelectorAll('details')) part.open = true")
    script(browser, AXE.read_text(encoding="utf-8"))
    found = browser.execute_async_script("""const done = arguments[0];
        axe.run(document, {resultTypes: ["violations"]}).then((result) => done(result.violations
            .filter((each) => ["serious", "critical"].includes(each.impact))
            .map((each) => [each.id, each.nodes[0].html.slice(0, 200), each.nodes[0].failureSummary])))""")
    assert found == []


def test_fifty_runs_of_101_points_are_soon_there(browser, tmp_path, monkeypatch):
    """Ready in under 2 s of the page's own time, whatever else the machine does."""
    monkeypatch.setattr(page_runs.test_report, "T", np.linspace(0.0, 1.0, 101))
    results = page_runs.unlearned([0])
    for path in results["paths"]:
        path |= {name: np.linspace(0.0, 0.3, 101).tolist() for name in ("score_accuracy", "score_distribution")}
    run = _page._read.read_run(page_runs.write(tmp_path / "run", results))
    answer = _page._unlearn.answer(run)
    monkeypatch.setitem(_page._ANSWERS, "unlearn", lambda _: answer)
    place = tmp_path / "fifty.html"
    place.write_text(_page._html.html(_page.model([run] * 50)), encoding="utf-8")
    assert place.stat().st_size < 10e6

    def seconds():
        metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")

    browser.execute_cdp_cmd("Performance.disable", {})
    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    begun = seconds()
    browser.get(place.as_uri())
    assert script(browser, "return document.documentElement.dataset.ready")
    assert seconds() - begun < 2
    assert script(browser, "return document.querySelectorAll('#several-figure circle').length") >= 50 * 101


def test_without_scripts_it_is_readable(show):
    browser = show("run")
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.refresh()
        assert "The best point of the path" in browser.find_element(By.TAG_NAME, "main").text
        chart = browser.find_element(By.CSS_SELECTOR, "#run-0-panel-0")
        chart.find_element(By.TAG_NAME, "summary").send_keys(Keys.SPACE)
        assert "straight line" in chart.text
        assert not browser.find_element(By.ID, "run-0-t").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
