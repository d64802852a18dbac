"""The table of `mcu-jax connect`, as text: every pair, the seed floor, controls, and additions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mcu_jax.report import _connect, _connect_beyond, _connect_controls, _text
from mcu_jax.report._connect import Group
from mcu_jax.report._results import Results


class _Column(NamedTuple):
    """name: of the long table, `split_metric`. decimals: None for three significant digits."""

    name: str
    header: str
    best: str
    scale: float
    decimals: int | None
    interval: bool = False


_BARRIERS = (
    _Column("retain_loss_barrier", "D_r\nnats", "0", 1.0, None, True),
    _Column("forget_loss_barrier", "D_f\nnats", "0", 1.0, None, True),
    _Column("accuracy_barrier", "acc.\npoints", "0", 1.0, 1, True),
)
_BESIDE = (
    _Column("forget_unseen_distance_barrier", "unseen\npoints", "0", 1.0, 1, True),
    _Column("distance_ab", "dist.\n", "none", 1.0, None),
    _Column("disagreement", "diff.\n%", "0", 100.0, 1),
    _Column("cka", "CKA\n0–1", "1", 1.0, 2),
    _Column("task_cosine", "cos\n±1", "1", 1.0, 2),
    _Column("interior_share", "inside\n%", "high", 100.0, 0),
)

_LEGEND = (
    "D_r, D_f: barriers of the mean losses, how far that on the retain set rises above the straight line between its "
    "ends, and that on the forget set falls below it.",
    "acc.: the larger of the accuracy barriers on D_r (it may not fall) and D_f (it may not rise); conn.: seeds in "
    "which it is at most 2 points, a reading aid and no finding.",
    "unseen: barrier of the distance W1 of the confidences on D_f from those of unseen examples (it may not rise), "
    "which also sees what was forgotten too much.",
    "dist.: ‖θ_a − θ_b‖; it has no best value. diff.: test images the ends classify differently; CKA: likeness of "
    "the ends' features on them; cos: cosine of the task vectors θ_a − θ_o, θ_b − θ_o.",
    "inside: share of the points between the ends that are better than both, by accuracy on D_v and D_f.",
)


def connect_table(results: Results, width: int = _text.WIDTH) -> str:
    """The results of `mcu-jax connect` as text: barriers of every pair, the seed floor, controls, and additions.

    Of more than 20 rows the 5 of smallest and the 5 of largest accuracy barrier.
    """
    parts = [title(results), "", *main_table(results)]
    for block in (*_connect_controls.blocks(results), *_connect_beyond.blocks(results)):
        parts += ["", *block]
    return _text.render(parts, width)


def title(results: Results) -> str:
    grid, curves = results.summary["config"]["grid"], ", ".join(_connect.curves_of(results))
    what = f"grid {grid}" if grid else "one pair"
    trained = [entry["objective"] for entry in results.summary["pairs"] if entry.get("objective")]
    objective = f", objective {trained[0]}" if trained else ""
    return f"Connectivity on {_connect.describe(results)}; {what}, {curves}{objective}"


def main_table(results: Results) -> Iterator[str | _text.Grid]:
    rows: list[Group | str] = []
    sections, notes = [], []
    for role in ("pair", "floor"):
        first, left, last = _connect.cut(_connect.groups(results, role), lambda group: group.accuracy_barrier)
        rows += [*first, *_connect.left_out(len(left)), *last]
        sections.append(len(rows) - 1)
        if left:
            low, high = (_text.mean(left[i].values("accuracy_barrier"), 1) for i in (0, -1))
            notes.append(f"Left out are {len(left)} of accuracy barriers from {low} to {high} points: results.csv "
                         "holds all.")  # fmt: skip
    groups = [row for row in rows if isinstance(row, Group)]
    floors = {column: _connect.floor(results, column.name) for column in (*_BARRIERS, *_BESIDE) if column.interval}
    labels = [row.label if isinstance(row, Group) else row for row in rows]
    below = bool(floors[_BARRIERS[0]])

    def column(c: _Column) -> _text.Column:
        values = [[c.scale * v for v in row.values(c.name)] if isinstance(row, Group) else None for row in rows]
        values += [floors.get(c)] * below
        parts = [("", "") if v is None else _text.spread(v, c.decimals) for v in values]
        return _text.Column(c.header, c.best, _text.aligned((m, beside if c.interval else "") for m, beside in parts))

    counts = [f"{sum(row.values('connected')):.0f}/{len(row.whole)}" if isinstance(row, Group) else "" for row in rows]
    connected = _text.Column("conn.\nseeds", "all", counts + [""] * below)
    columns = [*map(column, _BARRIERS), connected, *map(column, _BESIDE)]
    yield _text.Grid(labels + ["all methods, two runs"] * below, columns, sections)
    yield ""
    yield from [*notes, *_notes(results, groups)]


def _notes(results: Results, shown: Sequence[Group]) -> Iterator[str]:
    seeds = _connect.seeds_of(results)
    spreading = _text.spreading(len(seeds))
    yield f"{spreading[0].upper()}{spreading[1:]}."
    yield from _LEGEND
    if not any(group.values("cka") for group in shown) and any(len(group.whole) for group in shown):
        yield "CKA is left out: the model does not give its `features` (see models.adapt)."
    if any(group.role == "floor" for group in shown):
        curves = _connect.curves_of(results)
        whose = f" ({curves[0]})" if len(curves) > 1 else ""
        yield (
            "Two runs: of one method, which differ in the seed of unlearning alone: the seed floor, beside which a "
            f"barrier is read; all methods{whose}: over seeds, of the mean over methods."
        )
    for group in shown:
        for seed, step in group.diverged.items():
            yield f"{group.label}: not finite at step {step} (seed {seed})."
        if missing := sorted(set(seeds) - set(group.whole.index) - set(group.diverged)):
            yield f"{group.label}: without seed {', '.join(map(str, missing))}."
