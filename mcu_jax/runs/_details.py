"""What a run of `unlearn` keeps to be looked at, `details.json`: for every seed, each as a list of entries.

explorer  at every t histograms of the confidence of the true label on D_f and D_v, and what the models say of some
          examples of D_f, with their pictures; "picked" tells how an example was: "random", or "fallen", because its
          confidence falls most on the way to t*
mask      the share of its weights that trains, for every leaf, in the order in which the network uses them
history   of the path's training: loss, penalty (means over stretches) and t (as drawn in a stretch's last step) after
          so many steps
plane     with --plane: losses on the plane through θ_o, the path's middle inner point ("control") and θ_p, rows of v;
          where the path and the retrained model lie, and how far off. A path of several inner points is projected, and
          its "off" is how far from the plane it is

A seed has no entry where there is nothing: where a stage diverged; no history of a path that tunes itself; no plane
where the path is a straight line. What is not finite is None.
"""

from __future__ import annotations

import base64
import functools
import io
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from mcu_jax import outputs, paths, sources, text, trees
from mcu_jax.runs import _along, _config, _explore, _files, _graph, _runner, _tidy

FILE = "details.json"
SCHEMA = 1
LONGEST_HISTORY = 200
LARGEST_PICTURE = 64
"""Pixels of a side."""

_Read = Callable[[str], Any]
"""What the stage of a label came to; None where there is none, or it diverged."""


def write(directory: pathlib.Path, values: Mapping[str, Any]) -> None:
    _files.write_json(directory / FILE, {"schema": SCHEMA, **_tidy.finite(values)})


def read_details(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """What a run of `unlearn` keeps to be looked at, as `mcu_jax.runs._details` tells it.

    Raises FileNotFoundError without that file, ValueError where it is something else, or not as it was written.
    """
    file = pathlib.Path(directory) / FILE
    values = _files.read_json(file)
    if values.get("schema") != SCHEMA:
        given = text.show(values.get("schema"))
        raise ValueError(f"{file}: expected schema {SCHEMA}, found {given}; run it again")
    return values


def details(resolved: Any, graph: _graph.Graph, runner: _runner.Runner) -> dict[str, Any]:
    """As `details.json` holds it."""
    layers = _layers(resolved)
    found: dict[str, list[Any]] = {"explorer": [], "mask": [], "history": [], "plane": []}
    for seed in resolved.config.seeds:
        stages = {label: stage for label, of_label in graph.items() for stage in of_label if stage.seed == seed}
        read = functools.partial(_found, runner, stages)
        made = {
            "explorer": _explored(resolved, read),
            "mask": _masked(layers, read),
            "history": _history(read),
            "plane": _plane(resolved, read),
        }
        for name, entry in made.items():
            found[name] += [] if entry is None else [{"seed": seed, **entry}]
    return {"classes": list(resolved.data.class_names), **found}


def _found(runner: _runner.Runner, stages: Mapping[str, _graph.Stage], label: str) -> Any:
    return runner.found(stages[label]) if label in stages else None


# Examples


def _explored(resolved: Any, read: _Read) -> dict[str, Any] | None:
    seen = read("explorer")
    if seen is None:
        return None
    rows = np.array([example["index"] for example in seen["examples"]])
    batch = sources.read(resolved.data.examples, rows)
    labels, inputs = batch[outputs.label_name(batch)].tolist(), outputs.inputs(batch)
    pictures = [None] * len(rows) if isinstance(inputs, Mapping) else [picture(x) for x in np.asarray(inputs)]
    shown = zip(seen["examples"], labels, pictures, strict=True)
    return {**seen, "examples": [{**example, "label": label, "image": image} for example, label, image in shown]}


def picture(x: np.ndarray) -> str | None:
    """A PNG as a data URL, of at most `LARGEST_PICTURE` pixels a side; None for what is no image [h, w] or [h, w, 1|3].

    Bytes are shown as they are and floats of [0, 1] from black to white; others from their least to their largest.
    """
    from PIL import Image

    if x.ndim not in (2, 3) or (x.ndim == 3 and x.shape[-1] not in (1, 3)) or not np.isfinite(x).all():
        return None
    if x.dtype != np.uint8:
        x = x.astype(np.float64)
        low, high = (x.min(), x.max()) if x.min() < 0 or x.max() > 1 else (0.0, 1.0)
        x = np.round(255 * (x - low) / ((high - low) or 1.0)).astype(np.uint8)
    image = Image.fromarray(x[..., 0] if x.shape[2:] == (1,) else x)
    image.thumbnail((LARGEST_PICTURE, LARGEST_PICTURE))
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


# The mask


class _Layer(NamedTuple):
    """A leaf of the parameters. place: among all leaves."""

    place: int
    name: str
    shape: tuple[int, ...]


def _masked(layers: list[_Layer], read: _Read) -> dict[str, Any] | None:
    trained = read("path")
    if trained is None:
        return None
    found = trained["settings"] if "settings" in trained else read("mask")
    kept = [True] * len(layers) if found is None else jax.tree.leaves(found["mask"])
    told = [{"name": one.name, "shape": list(one.shape), "kept": float(np.mean(kept[one.place]))} for one in layers]
    return {"layers": told}


def _layers(resolved: Any) -> list[_Layer]:
    """In the order in which the model uses them, which their names do not tell."""
    params, x = _config.shapes(resolved.model, resolved.data), outputs.inputs(sources.first(resolved.data.examples))
    names, (leaves, structure) = trees.names(params), jax.tree.flatten(params)
    traced = jax.make_jaxpr(lambda *leaves: resolved.model.apply(jax.tree.unflatten(structure, leaves), x)[0])(*leaves)
    used = _uses(traced.jaxpr, {id(var): i for i, var in enumerate(traced.jaxpr.invars)})
    return [_Layer(i, names[i], leaves[i].shape) for i in dict.fromkeys([*used, *range(len(leaves))])]


def _uses(jaxpr: Any, known: dict[int, int]) -> Iterator[int]:
    """Which of the known variables every equation takes, one after another, also inside of calls."""
    for equation in jaxpr.eqns:
        given = [known.get(id(var)) for var in equation.invars]
        if equation.primitive.name == "convert_element_type" and given[0] is not None:
            known = {**known, id(equation.outvars[0]): given[0]}  # as all of them are at first, for bfloat16
            continue
        inner = [getattr(value, "jaxpr", value) for value in equation.params.values()]
        called = next((each for each in inner if len(getattr(each, "invars", [])) == len(given) > 0), None)
        if called is not None:
            passed = zip(called.invars, given, strict=True)
            yield from _uses(called, {id(var): i for var, i in passed if i is not None})
        yield from (i for i in given if i is not None)


# The path's training


def _history(read: _Read) -> dict[str, Any] | None:
    trained = read("path")
    if trained is None or "losses" not in trained:
        return None
    losses, betas, ts = (np.asarray(trained[name], np.float64) for name in ("losses", "beta", "t"))
    count = min(len(losses), LONGEST_HISTORY)
    edges = [round(i * len(losses) / count) for i in range(count + 1)]
    stretches = [slice(*pair) for pair in itertools.pairwise(edges)]
    return {
        "step": edges[1:],
        "loss": _along.as_json(np.array([losses[stretch].mean() for stretch in stretches])),
        "beta": _along.as_json(np.array([betas[stretch].mean() for stretch in stretches])),
        "t": _along.as_json(ts[np.array(edges[1:]) - 1]),
    }


# The plane


def _plane(resolved: Any, read: _Read) -> dict[str, Any] | None:
    found = read("plane")
    if found is None:
        return None
    controls = found["controls"]
    start, middle, end = controls[0], controls[len(controls) // 2], controls[-1]
    if not middle[1]:  # all three are on one line
        return None
    ts = paths.points(resolved.config.points)
    return {
        **{name: found[name] for name in ("u", "v", "retain_loss", "forget_loss")},
        "path": _along.as_json(_explore.along_plane(found, ts, resolved.curve)),
        "points": {"original": start, "control": middle, "pre-unlearned": end},
        "retrained": {name: found[name] for name in ("at", "distance", "norm")},
    }
