"""The documentation's settings. Build: sphinx-build -W --keep-going docs docs/_build (`pip install '.[docs]'`)."""

from __future__ import annotations

import ast
import dataclasses
import importlib.metadata
import inspect
import json
import pathlib
import types
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]

project = "mcu_jax"
author = "the mcu_jax authors"
release = version = importlib.metadata.version("mcu-jax")
extensions = ["sphinx.ext.autodoc", "sphinx.ext.viewcode", "myst_nb"]
exclude_patterns = ["_build", "conf.py"]
html_theme = "furo"
html_title = "mcu_jax"
html_static_path: list[str] = []
default_role = "code"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the notebooks hold what they gave; the tests run them

VERDICTS = {"holds": "✓ holds", "fails": "✗ fails", "undecided": "undecided"}
DATASETS = ("digits", "fashion_mnist", "cifar10")


def setup(app: Any) -> None:
    app.connect("source-read", fill)
    app.connect("autodoc-process-docstring", as_text)
    app.connect("autodoc-before-process-signature", as_shapes)
    app.connect("autodoc-process-signature", no_signature)
    app.connect("autodoc-skip-member", is_field)


def fill(app: Any, name: str, source: list[str]) -> None:
    """Every claim's result, where a page asks for them."""
    source[0] = source[0].replace("{{ claims }}", claims())


def claims() -> str:
    """Of every claim its words, and the verdicts and numbers of the data sets on which it was decided."""
    decided: dict[str, dict[str, Any]] = {}
    for dataset in DATASETS:
        file = ROOT / "experiments" / "results" / f"claims_{dataset}" / "claims.json"
        for claim in json.loads(file.read_text()) if file.exists() else ():
            decided.setdefault(claim["name"], {})[dataset] = claim
    return "\n\n".join(one_claim(name, on) for name, on in decided.items())


def one_claim(name: str, on: dict[str, Any]) -> str:
    claim = next(iter(on.values()))
    lines = [
        f"### {name}",
        f"{claim['hypothesis']}. *({claim['source']})*",
        f"Measured: {claim['statistic']}. Rule: {claim['rule']}. Smallest effect that matters: {claim['smallest']:g}.",
    ]
    for dataset, result in on.items():
        rows = "\n".join(
            f"| {reading['item']} | {number(reading)} | {VERDICTS.get(reading['verdict'], '')} |"
            for reading in result["readings"]
        )
        lines.append(f"**{dataset}: {VERDICTS[result['verdict']]}** (rule of commit {result['commit'][:7]})")
        lines.append(f"| | mean and 95 % interval | |\n|---|---|---|\n{rows}")
    return "\n\n".join(lines)


def number(reading: dict[str, Any]) -> str:
    if reading["mean"] is None:
        return "none"
    ends = zip((reading["low"], reading["high"]), ("-∞", "+∞"), strict=True)
    low, high = (open_end if value is None else f"{value:+.2f}" for value, open_end in ends)
    return f"{reading['mean']:+.2f} [{low}, {high}]".replace("-", "−")


def as_text(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text; what a line begins and indented ones go on with is an item of a list."""
    written = inspect.cleandoc("\n".join(lines)).replace("*", r"\*").replace("|", r"\|")
    paragraphs = [paragraph.splitlines() for paragraph in written.split("\n\n")]
    if what != "module":
        paragraphs = [items(each) if any(line[0] == " " for line in each) else each for each in paragraphs]
    if inspect.isclass(thing) and (dataclasses.is_dataclass(thing) or hasattr(thing, "_fields")):
        paragraphs.append(fields(thing))
    lines[:] = [line for paragraph in paragraphs for line in (*paragraph, "")]


def is_field(app: Any, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Of a NamedTuple, which the signature tells."""
    return True if (getattr(thing, "__doc__", None) or "").startswith("Alias for field number") else None


def items(paragraph: list[str]) -> list[str]:
    listed = []
    for line, following in zip(paragraph, [*paragraph[1:], ""], strict=True):
        if line[0] == " ":
            listed += [f"  {line.strip()}"]
        else:
            begins = following.startswith(" ") or (listed and listed[-1].startswith("  "))
            listed += ["", f"- {line}"] if begins else ["", line]
    return listed


def fields(kind: Any) -> list[str]:
    """Of a configuration or a tuple: name, type, default, and what the command line says of it."""
    told = []
    for name, hint in kind.__annotations__.items():
        if name.startswith("_"):
            continue
        parsed = ast.parse(hint, mode="eval").body if isinstance(hint, str) else None
        written = ast.unparse(Plain().visit(ast.parse(hint, mode="eval"))) if isinstance(hint, str) else str(hint)
        words = [each.value for each in ast.walk(parsed) if isinstance(each, ast.Constant)] if parsed else []
        said = [word for word in words if isinstance(word, str) and " " in word and word not in written]
        told.append(escaped(f"- `{name}: {written}`") + "".join(escaped(f" {word}") for word in said[:1]))
    return told


def escaped(line: str) -> str:
    return line if line.startswith("- `") else line.replace("*", r"\*").replace("|", r"\|")


def as_shapes(app: Any, thing: Any, bound: bool) -> None:
    """Types as they are written, without the ranges beside them."""
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return
    plain = [each.replace(annotation=shape(each.annotation)) for each in signature.parameters.values()]
    if isinstance(thing, types.FunctionType):
        thing.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=plain, return_annotation=shape(signature.return_annotation)
        )


def shape(annotation: Any) -> Any:
    if not isinstance(annotation, str):
        return annotation
    return ast.unparse(Plain().visit(ast.parse(annotation, mode="eval")))


def no_signature(app: Any, what: str, name: str, thing: Any, *given: Any) -> Any:
    """Of configurations, which list their fields, and of settings."""
    return (
        ("", None)
        if inspect.isclass(thing) and (dataclasses.is_dataclass(thing) or hasattr(thing, "_fields"))
        else None
    )


class Plain(ast.NodeTransformer):
    """`Annotated[T, …]` as T."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id == "Annotated":
            assert isinstance(node.slice, ast.Tuple)
            return self.visit(node.slice.elts[0])
        return self.generic_visit(node)
