"""The controls of `mcu-jax connect`, as text: other reasons for a small barrier."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from mcu_jax.report import _connect, _results, _text
from mcu_jax.report._results import Results

_KINDS = ("perturbation", "original", "retrain")

_LEGEND = (
    "‖θ−θ_o‖: distance from the original model; it has no best value. Two runs: the method's seed floor; random: "
    "between two random perturbations of θ_o, leaf by leaf as far from it as the method's model; original: to θ_o; "
    "retrained: to the model retrained from scratch, its units permuted to match, or as they are.",
)
_UNALIGNED = (
    "The line to the aligned retrained model is left out: the model does not give its `permutations`, the units that "
    "may change places (see models.adapt)."
)


def blocks(results: Results) -> Iterator[list[str | _text.Grid]]:
    """Per method, then gradient ascent by its stopping time: those that were measured."""
    if results.table.role.isin(_KINDS).any():
        yield _methods(results)
    stopping = results.table[results.table.role == "stopping"]
    if len(stopping):
        methods = dict.fromkeys(entry["method"] for entry in results.summary["controls"]["stopping"])
        yield from (_stopping(stopping, method) for method in methods)


def _values(rows: Any, name: str) -> list[float]:
    """A number of a control's line, of every seed; name: `split_metric`."""
    return list(rows.value[_results.named(rows).name == name])


def _methods(results: Results) -> list[str | _text.Grid]:
    # Controls are straight lines: a trained curve's floor says nothing beside them.
    curve = "linear" if "linear" in _connect.curves_of(results) else _connect.curves_of(results)[0]
    two_runs = {group.a: group for group in _connect.groups(results, "floor") if group.curve == curve}
    lines = {(role, label): rows for (role, label), rows in results.table.groupby(["role", "subject"], sort=False)}
    labels = list(dict.fromkeys(subject for role, subject in lines if role in _KINDS))

    def distances(label: str) -> list[float]:
        return next(_values(lines[kind, label], "distance_a") for kind in _KINDS if (kind, label) in lines)

    def barriers(role: str, label: str) -> str:
        if role == "floor":
            read = two_runs[label].values if label in two_runs else lambda _: []
        else:
            read = functools.partial(_values, lines.get((role, label), results.table[:0]))
        accuracy, loss = read("accuracy_barrier"), read("retain_loss_barrier")
        return f"{_text.mean(accuracy, 1)} / {_text.mean(loss)}" if accuracy else "–"

    first, left, last = _connect.cut(labels, lambda label: _connect.mean(distances(label)))

    def column(header: str, best: str, cell: Any) -> _text.Column:
        return _text.Column(header, best, [*map(cell, first), *[""] * bool(left), *map(cell, last)])

    headers = {
        "floor": f"two runs\n{curve}",
        "perturbation": "random\nas far",
        "original": "original\n",
        "retrain": "retrained\naligned",
        "unaligned": "retrained\nas it is",
    }
    shown = [role for role in headers if (role != "floor" or two_runs) and (results.table.role == role).any()]
    columns = [column("‖θ−θ_o‖\n", "none", lambda label: _text.mean(distances(label)))]
    columns += [column(headers[role], "0 / 0", lambda label, role=role: barriers(role, label)) for role in shown]
    return [
        "Controls: mean accuracy barrier (points) / mean barrier on D_r (nats) of a line from every method's model",
        _text.Grid([*first, *_connect.left_out(len(left)), *last], columns),
        "",
        *_LEGEND,
        *[_UNALIGNED] * ("unaligned" in shown and "retrain" not in shown),
        *[f"Left out are {len(left)}, by ‖θ−θ_o‖ between these: results.csv holds all."] * bool(left),
    ]


def _stopping(rows: Any, method: str) -> list[str | _text.Grid]:
    stops = [subject for subject in dict.fromkeys(rows.subject) if subject.endswith(f" – {method}")]
    epochs = {int(stop.partition("epochs=")[2].partition(" ")[0]): rows[rows.subject == stop] for stop in stops}
    columns = [
        _text.Column(header, best, _text.cells([[scale * v for v in _values(epochs[n], name)] for n in sorted(epochs)],
                                               decimals))
        for name, header, best, scale, decimals in (
            ("forget_UA", "UA\n%", "= retrain", 100.0, 1),
            ("retain_RA", "RA\n%", "= retrain", 100.0, 1),
            ("distance_a", "‖θ−θ_o‖\n", "none", 1.0, None),
            ("accuracy_barrier", "acc.\npoints", "0", 1.0, 1),
            ("retain_loss_barrier", "D_r\nnats", "0", 1.0, None),
            ("forget_loss_barrier", "D_f\nnats", "0", 1.0, None),
        )
    ]  # fmt: skip
    return [
        f"Stopping time of gradient ascent, which has no minimum: barriers of the line to {method}",
        _text.Grid([_text.plural(n, "epoch") for n in sorted(epochs)], columns),
    ]
