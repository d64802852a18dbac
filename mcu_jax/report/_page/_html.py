"""One self-contained HTML page: templates, our scripts, and the vendored ones, which only their hashes let run."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from mcu_jax import text
from mcu_jax.report._page import _glossary

_HERE = pathlib.Path(__file__).parent
VENDORED = ("d3-7.9.2.min.js", "plot-0.6.17.umd.min.js")
SCRIPTS = ("kit.js", "tables.js", "explorer.js", "views.js", "plane.js", "network.js", "connect.js", "several.js")
"""In the order in which they run; the last of them starts what the page has."""
GENERATOR = '<meta name="generator" content="mcu-jax report">'
"""By which a page of ours is known: within its first bytes."""
PLOT_CLASS = "plot-d6a7b5"


def html(model: Mapping[str, Any]) -> str:
    """The page of a model: `title`, `runs`, `several`, as the templates take them; `data` goes to the scripts."""
    scripts = [_file("vendor", name) for name in VENDORED] + [_file("static", name) for name in SCRIPTS]
    style = _file("static", "page.css")
    rules = {
        "default-src": ["'none'"],
        "script-src": [_hash(script) for script in scripts],
        "style-src": [_hash(style), _hash(_plot_style(scripts[1]))],
        "img-src": ["data:"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
    }
    return (
        _templates()
        .get_template("page.html")
        .render(
            **model,
            policy="; ".join(" ".join([name, *values]) for name, values in rules.items()),
            style=_raw(style),
            scripts=[_raw(script) for script in scripts],
            json=_json(model["data"]),
            terms=_glossary.TERMS,
            licences=[(name, _file("vendor", _licence(name))) for name in VENDORED],
        )
    )


def _licence(script: str) -> str:
    return script.removesuffix(".js").removesuffix(".min").removesuffix(".umd") + ".LICENSE"


@functools.cache
def _templates() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(says=_glossary.of, anchor=_anchor, pieces=_pieces, generator=_raw(GENERATOR))
    return environment


def _shown(value: Any) -> Any:
    """Every text of a run, without control characters and signs that turn the direction of writing."""
    return text.printable(value) if type(value) is str else value


def _anchor(term: str) -> str:
    """Of a term in the glossary."""
    return "term-" + "-".join(re.findall(r"[\w*]+", term)).replace("*", "star")


def _pieces(name: str) -> list[str]:
    """Of a method's name, between which a line may end."""
    return re.split(r"(?<=[:,])", name)


def _json(value: Any) -> Any:
    """As the content of a script element that is no script: nothing in it ends the element."""
    written = json.dumps(_printable(value), allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    for sign in "<>&\u2028\u2029":
        written = written.replace(sign, f"\\u{ord(sign):04x}")
    return _raw(written)


def _printable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {text.printable(str(name)): _printable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(item) for item in value]
    return text.printable(value) if isinstance(value, str) else value


def _raw(markup: str) -> Any:
    """What autoescape leaves as it is: our own files, and text that was made safe."""
    import markupsafe

    return markupsafe.Markup(markup)


@functools.cache
def _file(folder: str, name: str) -> str:
    return (_HERE / folder / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    """As a content security policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _plot_style(script: str) -> str:
    """The style element that Observable Plot puts into every chart, as it stands in its file."""
    found = re.search(r"`(:where\(\.\$\{(\w+)\}\) \{\\n +--plot-background.*?)`", script)
    assert found is not None, "Observable Plot writes its style otherwise: look at its file"
    return found[1].replace(f"${{{found[2]}}}", PLOT_CLASS).replace("\\n", "\n")
