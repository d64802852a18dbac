"""Run directories for tests of the page, made up: nothing is trained."""

import json

import connect_results
import numpy as np
import test_report

from mcu_jax import splits
from mcu_jax.runs import _directory, _files, _tidy

PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)
HOSTILE = (
    "<script>window.hacked = 1</script>",
    "\"'><img src=x onerror=window.hacked=1>",
    "</script><script>window.hacked = 1</script>",
    "\u202eright to left\u202c \u05e9\u05dc\u05d5\u05dd",
    "bell\x07 escape\x1b[31m and a line\nbreak",
    "{{ 7 * 7 }} {% raw %} ${7 * 7} `back`",
    "x" * 10_000,
)


def details(seeds, classes=("zero", "one", "two"), image=PICTURE):
    """Every section of `details.json`, five t and four bins."""
    t, rng = np.linspace(0.0, 1.0, 5), np.random.default_rng(0)
    shares = lambda: rng.dirichlet([1.0] * 4, len(t)).tolist()  # noqa: E731
    example = {
        "index": 17,
        "label": 1,
        "image": image,
        "prediction": [1, 1, 2, 2, 0],
        "confidence": [0.9, 0.8, 0.6, 0.7, 0.5],
        "true_confidence": [0.9, 0.8, 0.3, 0.2, 0.1],
    }
    layers = [("hidden/kernel", [64, 16], 0.85), ("hidden/bias", [16], 0.0), ("head/kernel", [16, 3], 0.5)]
    axis = np.linspace(-1.0, 2.0, 6).tolist()
    return {
        "schema": 1,
        "classes": list(classes),
        "explorer": [
            {"seed": s, "t": t.tolist(), "bins": [0.0, 0.25, 0.5, 0.75, 1.0],
             "confidence": {"forget": shares(), "validation": shares()},
             "examples": [example, {**example, "index": 18, "image": None}]}
            for s in seeds
        ],
        "mask": [{"seed": s, "layers": [{"name": n, "shape": h, "kept": k} for n, h, k in layers]} for s in seeds],
        "history": [
            {"seed": s, "step": [0, 10, 20], "loss": [1.0, 0.5, 0.2], "beta": [0.3, 0.2, 0.1], "t": [0.1, 0.9, 0.4]}
            for s in seeds
        ],
        "plane": [
            {"seed": s, "u": axis, "v": axis,
             "retain_loss": (1e-3 + np.add.outer(np.square(axis), np.square(axis))).tolist(),
             "forget_loss": np.add.outer(np.abs(axis), np.abs(axis)).tolist(),
             "path": {"t": t.tolist(), "u": t.tolist(), "v": (t * (1 - t)).tolist()},
             "points": {"original": [0.0, 0.0], "control": [0.5, 0.5], "pre-unlearned": [1.0, 0.0]},
             "retrained": {"at": [0.5, -0.5], "distance": 2.0, "norm": 2.2}}
            for s in seeds
        ],
    }  # fmt: skip


def write(directory, results, extra=None):
    """A finished run's directory of these results, with `extra` as its details.json."""
    directory.mkdir(parents=True, exist_ok=True)
    _tidy.write(directory, results)
    config = {"kind": results["kind"], "seeds": [0], **results["config"]}
    _files.write_sealed(directory / "config.yaml", _directory._dump(config))
    (directory / "environment.json").write_text(json.dumps({"python": "3.11", "packages": {"jax": "0.10", "x": None}}))
    (directory / "splits").mkdir(exist_ok=True)
    numbers = np.arange(10)
    indices = splits.Indices("ab" * 32, numbers[:8], numbers[8:], numbers[:2], numbers[2:8])
    splits.save(indices, directory / "splits" / "seed-0.json")
    if extra is not None:
        _files.write_json(directory / "details.json", extra)
    return directory


def unlearned(seeds=range(5)):
    return test_report._results(seeds)


def connected(name=None):
    made = connect_results.methods_grid(3, seeds=range(2), also=("MIA",))
    if name is not None:
        made["config"]["dataset"] = name
        for pair in made["pairs"]:
            for end in "ab":
                pair[end] = {**pair[end], "label": pair[end]["label"].replace("finetune", name)}
        for labels in (made["order"], made["clusters"]["labels"]):
            labels[labels.index("finetune")] = name
    return made


def tuned():
    config = {"dataset": "digits", "model": "mlp", "forget": "random:0.2", "seeds": [100, 101],
              "methods": ["npo", "mcu"], "tries": 2, "criterion": "score",
              "rule": "distribution", "pre": "npo"}  # fmt: skip
    rows = [
        {"method": m, "try": n, "seed": s, "criterion": 0.1 / (n + 1), "seconds": {"unlearning": 1.5, "compile": 2.0}}
        for m in config["methods"]
        for n in range(2)
        for s in config["seeds"]
    ]
    recipe = {"methods": {m: {"try": 1, "values": {"lr": 0.1}} for m in config["methods"]}}
    return {"kind": "tune", "config": config, "rows": rows, "recipe": recipe}
