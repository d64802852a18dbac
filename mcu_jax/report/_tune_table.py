"""The table of tuning: of every method its best try, as text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from mcu_jax import text
from mcu_jax.report import _text
from mcu_jax.report._results import Results

_CRITERIA = {
    "score": "the score by {rule}, which needs no retrained model and looks at no test example",
    "avg_gap": "avg_gap to a model retrained for each tuning seed: an oracle, which a user does not have",
}
VALUES_A_LINE = 2


def tune_table(results: Results, width: int = _text.WIDTH) -> str:
    """What the results of tuning say: for each method the best of its tries, beside its paper's default."""
    return _text.render(lines(results.summary), width)


def lines(summary: Mapping[str, Any]) -> Iterator[str | _text.Grid]:
    config, recipe = summary["config"], summary["recipe"]
    judged, seeds = _CRITERIA[config["criterion"]].format(rule=config["rule"]), config["seeds"]
    yield f"Tuned on {_text.describe(config, len(seeds))} ({', '.join(map(str, seeds))}), none of which may be reported"
    yield ""
    yield _text.Grid(
        config["methods"],
        [
            _text.Column("criterion,\nbest try", "0", _criteria(summary, _best(recipe))),
            _text.Column("paper's\ndefault", "0", _criteria(summary, dict.fromkeys(config["methods"], 0))),
            _text.Column("best\ntry", "none", [_shown(_best(recipe).get(name)) for name in config["methods"]]),
            _text.Column(
                "diverged", "0", [f"{_diverged(summary, name)}/{config['tries']}" for name in config["methods"]]
            ),
            _text.Column("seconds", "low", [f"{_seconds(summary, name):.1f}" for name in config["methods"]]),
            _text.Column("values", "", [_values(recipe, name) for name in config["methods"]], left=True),
        ],
    )
    yield ""
    yield f"Criterion: {judged}. In points, {_text.spreading(len(seeds))}. The lowest is best, of equals the first."
    yield (
        f"{text.plural(config['tries'], 'try', 'tries')} for each method: number 0 is its paper's default, the others "
        "are drawn at random. Diverged: tries whose numbers were not finite for some seed, which are out. "
        "Seconds: of all tries and seeds, without compilation."
    )
    if "mcu" in config["methods"]:
        yield f"mcu leads to the model of {config['pre']} as the recipe has it, whose seconds are not counted here."
    if missing := [name for name in config["methods"] if name not in recipe["methods"]]:
        yield f"Every try diverged, so that the recipe is without: {', '.join(missing)}."


def _best(recipe: Mapping[str, Any]) -> dict[str, int]:
    return {name: found["try"] for name, found in recipe["methods"].items()}


def _shown(number: int | None) -> str:
    return "–" if number is None else str(number)


def _criteria(summary: Mapping[str, Any], chosen: Mapping[str, int]) -> list[str]:
    """Of one try of each method."""
    found: dict[str, list[float]] = {name: [] for name in summary["config"]["methods"]}
    for row in summary["rows"]:
        if chosen.get(row["method"]) == row["try"]:
            found[row["method"]].append(math.nan if row["criterion"] is None else 100.0 * row["criterion"])
    return _text.cells(found.values(), 2)


def _diverged(summary: Mapping[str, Any], name: str) -> int:
    return len({row["try"] for row in summary["rows"] if row["method"] == name and row["criterion"] is None})


def _seconds(summary: Mapping[str, Any], name: str) -> float:
    return sum(row["seconds"]["unlearning"] for row in summary["rows"] if row["method"] == name)


def _values(recipe: Mapping[str, Any], name: str) -> str:
    if name not in recipe["methods"]:
        return "none"
    values = [f"{option}={value}" for option, value in recipe["methods"][name]["values"].items()]
    lines = [", ".join(values[i : i + VALUES_A_LINE]) for i in range(0, len(values), VALUES_A_LINE)]
    return ",\n".join(lines)
