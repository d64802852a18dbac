"""What a user brings: models, arrays, checkpoints and forget sets, and what a run gives away."""

from __future__ import annotations

import dataclasses
import io
import json
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

import chex
import jax
import numpy as np
import pytest
from conftest import SMALL, normed_apply
from safetensors.numpy import load_file

from mcu_jax import (
    Model,
    checkpoint,
    cli,
    curves,
    datasets,
    memory,
    metrics,
    models,
    outputs,
    runs,
    splits,
    weights,
)
from mcu_jax.report import _text
from mcu_jax.runs import _config, _jobs, _runner, _stages, _tasks

pytestmark = pytest.mark.usefixtures("kept_compilations")

MODEL = """
from mcu_jax import models

def net(num_classes):
    return models.mlp(num_classes=num_classes, hidden=(4,))

fixed = models.mlp(num_classes=10, hidden=(8,))
number = 3

def wrong():
    return 3

def fails():
    raise KeyError("x")
"""


@pytest.fixture
def place(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, digits: datasets.Data) -> pathlib.Path:
    """A working directory with one's own files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(MODEL)
    arrays = {
        "train_x": digits.train["x"],
        "train_y": digits.train["y"],
        "test_x": digits.test["x"],
        "test_y": digits.test["y"],
    }
    np.savez(tmp_path / "own.npz", **{name: array[:200] for name, array in arrays.items()})
    (tmp_path / "forget.json").write_text(json.dumps(list(range(0, 40, 2))))
    return tmp_path


def resolve(**settings: object) -> object:
    return runs.resolve(runs.from_mapping({**SMALL, **settings}))


def test_what_cannot_be_worked_on_is_refused_before_any_work(digits: datasets.Data, tmp_path: pathlib.Path) -> None:
    x = digits.examples["x"].astype(np.float32)
    x[int(splits.carve(digits.train_size, 60, 40, 0)[0][3]), 2, 2] = np.nan
    config = runs.from_mapping({**SMALL, "out": str(tmp_path / "run"), "model": "own"})
    model = models.mlp(num_classes=10)
    n = digits.train_size
    parts = ({"x": x[part], "y": digits.examples["y"][part]} for part in (slice(n), slice(n, None)))
    broken = datasets.arrays(*parts)
    with pytest.raises(runs.ConfigError, match=r"'x' of example \d+ holds NaN"):
        runs.unlearn(config, model=model, data=broken)
    with pytest.raises(runs.ConfigError, match="the model gives 9 classes, num_classes is 10"):
        runs.unlearn(config, model=models.mlp(num_classes=9), data=digits)
    assert not (tmp_path / "run").exists()


def test_data_are_what_their_hash_says(digits: datasets.Data, tmp_path: pathlib.Path) -> None:
    config = runs.from_mapping({**SMALL, "out": str(tmp_path / "run"), "model": "own"})
    other = digits._replace(examples={**digits.examples, "x": 255 - digits.examples["x"]})
    with pytest.raises(runs.ConfigError, match=r"hash of this data set is not that of its examples; make one by dat"):
        runs.unlearn(config, model=models.mlp(num_classes=10), data=other)
    tokens = datasets.Data("own", {"tokens": np.ones((9, 3)), "labels": np.ones((9, 3))}, 6, ("0",), "", None)
    with pytest.raises(runs.ConfigError, match=r"labels 'y' \[n\]"):
        runs.unlearn(config, model=models.mlp(num_classes=10), data=tokens)


def test_data_have_training_and_test_examples(digits: datasets.Data) -> None:
    for size in (0, 1797, 5000):
        with pytest.raises(ValueError, match=f"training and test examples; of 1797, {size} are for training"):
            datasets.check(digits._replace(train_size=size))


def test_objects_of_other_types_are_told_from_those_a_run_takes(digits: datasets.Data) -> None:
    # Not by `unlearn`: in tests its arguments, which are typed, are refused before.
    with pytest.raises(runs.ConfigError, match=r"model= is a mcu_jax.Model, as models.adapt makes .* given a function"):
        _config.check_brought(lambda params, x: x, digits)
    with pytest.raises(runs.ConfigError, match=r"data= is a data set, as datasets.arrays.* given a dict"):
        _config.check_brought(None, {"x": np.zeros(3)})
    _config.check_brought(models.mlp(num_classes=10), digits)


def test_arrays_become_a_data_set(digits: datasets.Data) -> None:
    made = datasets.arrays(digits.train, digits.test)
    assert (made.hash, made.train_size, made.class_names) == (digits.hash, digits.train_size, digits.class_names)
    assert datasets.check(made) is made
    y = np.arange(4)
    given = {"a": np.ones((4, 2)), "b": np.ones((4, 3)), "y": y}
    made = datasets.arrays(given, given, name="two", class_names="wxyz")
    assert [made.examples[name].dtype for name in "aby"] == [np.float32, np.float32, np.int32]
    assert made.hash != datasets.arrays(*2 * [{"c": given["a"], "b": given["b"], "y": y}]).hash
    with pytest.raises(ValueError, match=r"given a float32\[2\], b float32\[3\], y int32\[\] and x float32\[\], y int"):
        datasets.arrays(given, {"x": np.ones(4), "y": y})
    for labels in (y - 1, y.astype(float), y[:, None], 10**6 * y, 2**32 * y):
        with pytest.raises(ValueError, match=r"labels 'y' \[n\], whole numbers from 0 to 99999"):
            datasets.arrays({"x": y, "y": labels}, given)
    with pytest.raises(ValueError, match="class_names has 2 names, expected one for every label; they go up to 3"):
        datasets.arrays(given, given, class_names="ab")
    with pytest.raises(ValueError, match="'x' has 3, 'y' has 4"):
        datasets.arrays({"x": y[:3], "y": y}, given)


@pytest.mark.parametrize("name", ["npo", "mcu", "path"])
def test_a_folder_of_a_methods_name_is_no_checkpoint(place: pathlib.Path, name: str) -> None:
    params = models.mlp(num_classes=10).init(jax.random.key(0), np.zeros((1, 8, 8, 1), np.uint8))
    checkpoint.save(place / name, params)
    if name == "npo":
        assert resolve(pre=name).methods["npo"][0] == "npo"
    else:
        with pytest.raises(runs.ConfigError, match=r"mcu needs another method's model|no method 'path'"):
            resolve(pre=name)
    assert resolve(pre=f"./{name}").methods[f"./{name}"][0] == "checkpoint"


def test_a_run_directory_is_no_checkpoint(finished: runs.Run) -> None:
    with pytest.raises(runs.ConfigError, match=r"is a run directory; give one of its models, as `mcu-jax export"):
        resolve(original=str(finished.directory))


def test_a_damaged_checkpoint_of_ones_own_is_not_to_be_deleted(place: pathlib.Path) -> None:
    checkpoint.save(
        place / "mine", models.mlp(num_classes=10).init(jax.random.key(0), np.zeros((1, 8, 8, 1), np.uint8))
    )
    (place / "mine" / "manifest.json").write_text("{}")
    with pytest.raises(runs.ConfigError, match=r"original: damaged checkpoint .*mine: .*; give a whole copy of it$"):
        resolve(original="mine")


def test_a_model_with_a_memory_is_refused_before_any_work(digits: datasets.Data, tmp_path: pathlib.Path) -> None:
    """Made without `models.adapt`, which would see it."""

    def apply(params: dict, x: jax.Array, stats: dict | None = None, key: object = None) -> tuple:
        logits, moments = normed_apply(params, x.reshape(len(x), -1).astype(np.float32), stats)
        old = {"norm": {"mean": 0.01 * moments["norm"]["mean"], "var": 0.01 * moments["norm"]["var"] + 0.99}}
        return logits, old if stats is None else stats

    def init(key: jax.Array, x: jax.Array) -> dict:
        return {"v": jax.numpy.eye(64), "w": jax.random.normal(key, (64, 10))}

    config = runs.from_mapping({**SMALL, "out": str(tmp_path / "run"), "model": "own"})
    with pytest.raises(runs.ConfigError, match="returns statistics that are not those of its batch"):
        runs.unlearn(config, model=Model("own", init, apply), data=digits)
    assert not (tmp_path / "run").exists()


# Everything at once


def test_a_run_of_ones_own_model_data_weights_and_forget_set(place: pathlib.Path, capsys) -> None:
    data = datasets.npz("own.npz")
    model = models.mlp(num_classes=10, hidden=(4,))
    for seed, name in enumerate(("original", "pre")):
        checkpoint.save(place / name, model.init(jax.random.key(seed), data.train["x"][:1]))
    own = "--model own.py:net --data own.npz --original original --pre ./pre --forget forget.json"
    flags = (
        "--train-size 60 --validation-size 40 --train.epochs 1 --steps 1 --points 5 --sample 20 --seeds 0 1 --baselines"
    )
    command = ["unlearn", *own.split(), *flags.split(), "--out", "run"]
    assert cli.run([*command, "--quiet"]) == 0
    split = json.loads((place / "run" / "splits" / "seed-1.json").read_text())
    assert split["forget"] == list(range(0, 40, 2))
    assert len(split["train"]) == 60
    assert set(split["forget"]) < set(split["train"])
    for seed in (0, 1):
        for name in ("original", "./pre"):
            found = runs.load(place / "run", seed=seed, stage=name)
            assert checkpoint.digest(found) == checkpoint.digest(checkpoint.load(place / name))

    # The same run by other names of the same files, from its own configuration, and not with other content.
    (place / "elsewhere").mkdir()
    (place / "forget.json").rename(place / "elsewhere" / "set.json")
    again = ["unlearn", "--config", "run/config.yaml", "--forget", "elsewhere/set.json", "--out", "run", "--dry-run"]
    assert cli.run(again) == 2
    assert "which a file alone does not have run: if you know that code, name it too" in capsys.readouterr().err
    again += ["--model", "own.py:net"]
    assert cli.run(again) == 0
    assert " path: 0 to compute, 2 finished" in capsys.readouterr().out
    (place / "elsewhere" / "set.json").write_text(json.dumps({"forget": list(range(1, 41, 2)), "data_hash": data.hash}))
    assert cli.run(again) == 2
    assert "forget is" in capsys.readouterr().err

    # A run directory is data: what code it names is run only by who names it too.
    (place / "elsewhere" / "set.json").rename(place / "forget.json")
    code = (place / "own.py").read_text()
    (place / "own.py").write_text(f"{code}\nimport os\nos.mkdir('was-run')\n")
    export = ["export", "run", "--to", "model", "--method", "original"]
    assert cli.run(export) == 2
    assert "which a file alone does not have run" in capsys.readouterr().err
    assert not (place / "was-run").exists()
    assert cli.run([*export, "--model", "own.py:net"]) == 2
    assert "own.py:net is not the model of this run" in capsys.readouterr().err
    assert (place / "was-run").exists()
    (place / "own.py").write_text(code)
    with pytest.raises(runs.ConfigError, match=r"run/config.yaml names code, "):
        runs.problem("run")
    assert runs.problem("run", model="own.py:net").num_classes == 10
    assert cli.run([*export, "--model", "own.py:net"]) == 0


def test_python_objects_are_known_by_the_names_they_are_given(place: pathlib.Path) -> None:
    data, model = datasets.npz("own.npz"), models.mlp(num_classes=10, hidden=(4,))
    settings = {**SMALL, "train": {"epochs": 1}, "steps": 2, "out": "run", "model": "net-1", "seeds": [0]}
    made = runs.unlearn(runs.from_mapping(settings), model=model, data=data)
    assert made.results["config"]["dataset"] == "own"
    kernel = runs.load("run", stage="original")["dense0"]["kernel"]
    assert kernel.shape == (64, 4)
    with pytest.raises(runs.ConfigError, match="needs a name"):
        runs.unlearn(runs.from_mapping({**settings, "model": None}), model=model, data=data)
    with pytest.raises(runs.ConfigError, match="run of another configuration: model is named:net-1 there, named:net-2"):
        runs.unlearn(runs.from_mapping({**settings, "model": "net-2"}), model=model, data=data)


def test_titles_name_files_without_the_folders_they_lie_in() -> None:
    config = {"dataset": "own", "model": "/home/me/nets/own.py:net", "forget": "/home/me/set.json"}
    assert _text.describe(config, 1) == "own, own.py:net, forget set.json, 1 seed"


# A sample


def test_a_sample_is_what_metrics_are_of(place: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        **SMALL,
        "train": {"epochs": 1},
        "steps": 2,
        "seeds": [0],
        "stages": "stages",
        "mask": {"kind": "none"},
    }
    whole = runs.unlearn(runs.from_mapping({**settings, "out": "whole"})).results["rows"]
    part = runs.unlearn(runs.from_mapping({**settings, "out": "part", "sample": 7})).results["rows"]
    for row, sampled in zip(whole, part, strict=True):
        assert sampled["TA"] * 7 == pytest.approx(round(sampled["TA"] * 7), abs=1e-5)
        assert row["method"] in ("linear", "mcu") or row["UA"] == sampled["UA"]
    assert whole[0]["TA"] != part[0]["TA"]


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model": "own.py:nett"},
            r"no model in own.py 'nett'; did you mean 'net'\? There are: net, fixed, wrong, fails",
        ),
        ({"model": "own.py:number"}, "no model in own.py 'number'"),
        ({"model": "own.py:wrong"}, "wrong must be a mcu_jax.Model, or a function that returns one"),
        ({"model": "own.py:fails"}, "fails failed: KeyError: 'x'"),
        ({"model": "bad.py:net"}, "bad.py cannot be run: SyntaxError"),
        ({"model": "none.py:net"}, "none.py cannot be read: No such file"),
        (
            {"original": "other"},
            r"original is of another model .* expected leaf dense0/bias .*\[64\].* is float32\[5\]",
        ),
        ({"pre": "./other"}, r"pre is of another model .* expected leaf dense0/bias .*\[64\].* is float32\[5\]"),
        ({"original": "nan"}, "not finite"),
        ({"original": "none"}, "no checkpoint in none"),
        ({"forget": "none.json"}, "none.json cannot be read"),
        ({"forget": "bad.json"}, "not JSON"),
        ({"forget": [[3]]}, "takes a word"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_refused(change: dict, message: str, place: pathlib.Path) -> None:
    (place / "bad.py").write_text("def")
    (place / "bad.json").write_text("[1, 2")
    x = datasets.load("digits").train["x"][:1]
    checkpoint.save("other", models.mlp(num_classes=10, hidden=(5,)).init(jax.random.key(0), x))
    whole = models.mlp(num_classes=10, hidden=(64,)).init(jax.random.key(0), x)
    checkpoint.save("nan", jax.tree.map(lambda leaf: leaf * np.nan, whole))
    with pytest.raises(runs.ConfigError, match=message):
        resolve(**change)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "0 of 1200 training examples"),
        (list(range(1200)), "1200 of 1200 training examples: give some, not all"),
        ([0, 1, 1], "has 1 index more than once"),
        ([0, 1200], "lie from 0 to 1199, given 1200"),
        ([-1], "given -1"),
        ([10**30], "given 1000000"),
        ([0.5], "a list of whole numbers"),
        ([True], "a list of whole numbers"),
        ({"indices": [1]}, "a list of whole numbers"),
        ({"forget": [1], "data_hash": "abc"}, "data of hash abc"),
        (list(range(60)), "retain set is empty"),
    ],
    ids=lambda part: str(part)[:30],
)
def test_forget_sets_are_checked(content: object, message: str, place: pathlib.Path) -> None:
    (place / "set.json").write_text(json.dumps(content))
    with pytest.raises(runs.ConfigError, match=message):
        resolve(forget="set.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_y": None}, "it lacks test_y"),
        ({"train_y": np.zeros(3, int)}, r"they are \[10, 2\] and \[3\]"),
        ({"train_x": np.full((10, 2), np.nan)}, "train_x is not finite as float32 in 10 examples, the first 0"),
        ({"train_x": np.full((10, 2), 1e300)}, "train_x is not finite as float32 in 10 examples, the first 0"),
        ({"train_x": np.where(np.arange(20).reshape(10, 2) == 9, np.nan, 0)}, "in 1 example, the first 4"),
        ({"train_x": np.zeros((10, 2), int)}, "train_x must be uint8 or floats, it is int64"),
        ({"train_x": np.zeros((0, 2)), "train_y": np.zeros(0, int)}, "not empty"),
        ({"test_x": np.zeros((10, 3))}, r"train_x is \[2\], float32, one of test_x is \[3\]"),
        ({"test_y": np.full(10, -1)}, "test_y must be whole numbers from 0 on"),
        ({"test_y": np.zeros(10)}, "float64"),
        ({"train_x": np.array([None] * 10)}, "train_x holds Python objects; expected an array of numbers"),
    ],
    ids=lambda part: str(part)[:30],
)
def test_arrays_are_checked(change: dict, message: str, tmp_path: pathlib.Path) -> None:
    arrays = {
        "train_x": np.zeros((10, 2)),
        "train_y": np.arange(10),
        "test_x": np.zeros((10, 2)),
        "test_y": np.arange(10),
    }
    np.savez(tmp_path / "a.npz", **{name: array for name, array in {**arrays, **change}.items() if array is not None})
    with pytest.raises(ValueError, match=message):
        datasets.npz(tmp_path / "a.npz")


def test_arrays_fit_the_memory(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    y, zeros = np.zeros(10, int), np.zeros((10, 100_000))
    np.savez_compressed(tmp_path / "bomb.npz", train_x=zeros, train_y=y, test_x=zeros, test_y=y)
    assert (tmp_path / "bomb.npz").stat().st_size < 20_000
    with monkeypatch.context() as patch:
        patch.setattr(memory, "host", lambda: 10**7)
        with pytest.raises(ValueError, match=r"its arrays take 0\.0 GB, this machine has"):
            datasets.npz(tmp_path / "bomb.npz")
    # A header that tells of more than there is, of an exabyte and of a little.
    for shape in ("(1000000000, 1000000000)", "(11, 2)"):
        content = io.BytesIO()
        np.save(content, np.zeros((10, 2)))
        told = content.getvalue().replace(b"(10, 2), }" + b" " * (len(shape) - 7), f"{shape}, }}".encode())
        assert shape.encode() in told
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            for name in ("train_x", "train_y", "test_x", "test_y"):
                archive.writestr(f"{name}.npy", told)
        with pytest.raises(ValueError, match=r"train_x takes more memory than there is|it is damaged or no"):
            datasets.npz(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"text"])
def test_a_file_that_holds_no_arrays_is_refused(content: bytes, tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"the data file .* cannot be (?!.*pickle)"):
        datasets.npz(tmp_path / "a.npz")
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"the data file .* cannot be used"):
        datasets.npz(tmp_path / "a.npy")


# Out of a run


def test_the_chosen_model_is_exported(finished: runs.Run, tmp_path: pathlib.Path, capsys) -> None:
    import orbax.checkpoint as ocp

    to = tmp_path / "model"
    assert cli.run(["export", str(finished.directory), "--seed", "1", "--t", "best", "--to", str(to)]) == 0
    (t,) = (row["t"] for row in finished.results["rows"] if (row["method"], row["seed"]) == ("mcu", 1))
    assert f"mcu of seed 1 at t = {t:g}, written to {to}" in capsys.readouterr().out
    expected = curves.bezier(runs.load(finished.directory, seed=1), t)
    with ocp.StandardCheckpointer() as checkpointer:
        found = checkpointer.restore(to / "arrays")["params"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)
    assert cli.run(["export", str(finished.directory), "--method", "retrain", "--to", str(to)]) == 0
    retrained = runs.load(finished.directory, stage="retrain")
    assert checkpoint.digest(checkpoint.load(to)["params"]) == checkpoint.digest(retrained)
    assert runs.resolve(runs.from_mapping({**SMALL, "original": str(to)})).digests["original"] == checkpoint.digest(
        retrained
    )


def write_digits(file: str, digits: datasets.Data, change: Callable[[np.ndarray], np.ndarray]) -> None:
    arrays = {f"{part}_x": change(batch["x"]) for part, batch in (("train", digits.train), ("test", digits.test))}
    np.savez(file, train_y=digits.train["y"], test_y=digits.test["y"], **arrays)


@pytest.mark.parametrize("setting", ["original", "pre"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: x / 255,
            r"was trained on x of uint8 \[8, 8, 1\], 78.* ± .*, this data has float32 .*, 0.3",
        ),
        (
            lambda x: x // 16,
            r"was trained on x of uint8 .*, this data has uint8 \[8, 8, 1\], 4.* ± .*: give the",
        ),
        (lambda x: 255 - x, r"was trained on x of uint8 .*, this data has uint8 \[8, 8, 1\], 177 ± "),
    ],
    ids=["unit", "sixteen", "negative"],
)
def test_a_model_is_given_what_it_was_trained_on(
    setting: str, change: Any, message: str, place: pathlib.Path, finished: runs.Run, digits: datasets.Data
) -> None:
    runs.export(finished.directory, "model", method="original")
    write_digits("same.npz", digits, lambda x: x)
    write_digits("other.npz", digits, change)
    given = {"model": "mlp", setting: "./model"}
    for data in ({"data": "same.npz"}, {}, {"data": "own.npz"}):  # a part of it too
        assert setting in resolve(**given, **data).digests
    with pytest.raises(runs.ConfigError, match=f"{setting}: the model in ./model {message}"):
        resolve(**given, data="other.npz")
    # Of weights that tell nothing, there is nothing to be said.
    checkpoint.save("silent", checkpoint.load("model"))
    assert setting in resolve(**given | {setting: "./silent"}, data="same.npz").digests


def test_a_model_is_given_images_normalised_as_in_training(place: pathlib.Path, finished: runs.Run) -> None:
    runs.export(finished.directory, "model", method="original")
    with pytest.raises(runs.ConfigError, match="trained with normalize none asked for, this run has unit: ask for the"):
        resolve(original="./model", normalize="unit")


def normed_run(tmp_path: pathlib.Path, rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    """(model and data, settings) of a small run of a network with BatchNorm."""
    arrays = {"train_x": rng.normal(size=(60, 4)), "train_y": np.arange(60) % 3}
    arrays |= {"test_x": arrays["train_x"][:20], "test_y": arrays["train_y"][:20]}
    np.savez(tmp_path / "a.npz", **arrays)
    data = datasets.npz(tmp_path / "a.npz")

    def init(key: jax.Array, x: object) -> dict:
        return {"v": jax.numpy.eye(4), "w": jax.random.normal(key, (4, 3))}

    own = {"model": models.adapt(normed_apply, init=init), "data": data}
    settings = {"model": "normed", "train_size": 40, "validation_size": 10, "forget": "random:0.2", "points": 4}
    settings |= {"steps": 2, "train": {"epochs": 1}, "mask": {"kind": "none"}, "pre": "gradient_ascent:epochs=1"}
    return own, settings | {"seeds": [0], "baselines": []}


def test_an_exported_model_has_its_statistics(tmp_path: pathlib.Path, rng: np.random.Generator) -> None:
    own, settings = normed_run(tmp_path, rng)
    data = own["data"]
    runs.unlearn(runs.from_mapping({**settings, "out": str(tmp_path / "run")}), **own)
    runs.export(tmp_path / "run", tmp_path / "model", t=0.5, **own)
    found = checkpoint.load(tmp_path / "model")
    split = json.loads((tmp_path / "run" / "splits" / "seed-0.json").read_text())
    hidden = data.train["x"][np.array(split["retain"])] @ found["params"]["v"]
    np.testing.assert_allclose(found["stats"]["norm"]["mean"], hidden.mean(0), atol=1e-5)
    np.testing.assert_allclose(found["stats"]["norm"]["var"], hidden.var(0), rtol=1e-4)


def test_an_original_is_evaluated_with_the_statistics_it_was_brought_with_and_nothing_else_is(
    tmp_path: pathlib.Path, rng: np.random.Generator
) -> None:
    own, settings = normed_run(tmp_path, rng)
    params = own["model"].init(jax.random.key(0), None)
    stats = {"norm": {"mean": jax.numpy.full(4, 0.7), "var": jax.numpy.full(4, 3.0)}}
    checkpoint.save(tmp_path / "with", {"params": params, "stats": stats})
    checkpoint.save(tmp_path / "without", params)
    other = jax.tree.map(lambda leaf: leaf + 0.1, params)
    checkpoint.save(tmp_path / "pre", {"params": other, "stats": stats})  # which are not looked at
    settings["pre"] = pre = str(tmp_path / "pre")
    digests, graphs = [], []
    for name in ("with", "without"):
        config = runs.from_mapping({**settings, "original": str(tmp_path / name), "out": str(tmp_path / f"of-{name}")})
        opened, graph, _ = _jobs._open(config, own["model"], own["data"])
        digests.append(opened.directory.resolved.digests["original"])
        graphs.append(graph)
    assert digests[0] != digests[1] == checkpoint.digest(params)
    different = {label for label in graphs[0] if graphs[0][label][0].digest != graphs[1][label][0].digest}
    assert different == set(graphs[0]) - {"retrain", pre}

    replicate = _tasks.replicates(opened.directory, opened.directory.resolved)[0]
    problem = dataclasses.replace(replicate.problem(replicate.rows(), {}), params=params)
    labels = ("original", "metrics of original", pre, f"metrics of {pre}", "sweep of the line")
    runner = _runner.Runner(_stages.Store(tmp_path / "stages"), runs.Silent(), together=False)
    runner.run({label: graphs[0][label] for label in labels})
    found = [runner.read(graphs[0][label][0]) for label in labels]
    along, ends = found[4], (found[1], found[3])
    for i, at, used in ((0, params, stats), (-1, other, None)):
        expected = _tasks.metric_values(metrics.evaluate(problem, at, used))
        assert ends[i] == pytest.approx(expected, abs=1e-6)
        assert {name: along[name][i] for name in expected} == pytest.approx(expected, abs=1e-5)
    refreshed = _tasks.metric_values(metrics.evaluate(problem, params))
    assert abs(refreshed["retain_loss"] - found[1]["retain_loss"]) > 0.01, "it can be told"
    assert along["targets"]["retain"] == pytest.approx(found[1]["RA"], abs=0.5)


def test_statistics_of_another_model_are_refused(tmp_path: pathlib.Path, rng: np.random.Generator) -> None:
    own, settings = normed_run(tmp_path, rng)
    params = own["model"].init(jax.random.key(0), None)
    config = runs.from_mapping({**settings, "original": str(tmp_path / "wrong"), "out": str(tmp_path / "run")})
    good = {"norm": {"mean": np.zeros(4, np.float32), "var": np.ones(4, np.float32)}}
    changes = {
        r"expected leaf stats/norm/mean of float32\[4\], the checkpoint's is float32\[5\]": {
            "mean": np.zeros(5, np.float32)
        },
        "weights in .*wrong are not finite": {"var": np.full(4, np.nan, np.float32)},
    }
    for message, change in changes.items():
        checkpoint.save(tmp_path / "wrong", {"params": params, "stats": {"norm": {**good["norm"], **change}}})
        with pytest.raises(runs.ConfigError, match=message):
            _jobs.resolver(config)(config, own["model"], own["data"])


def test_weights_of_pytorch_come_in_and_go_out(
    place: pathlib.Path, finished: runs.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(runs.ConfigError, match="the names of mlp in"):
        runs.export(finished.directory, "out.safetensors")
    dialect = {"ours": lambda module, leaf: f"{module}.{'weight' if leaf == 'kernel' else leaf}"}
    monkeypatch.setitem(weights.DIALECTS, "mlp", dialect)
    runs.export(finished.directory, "out.safetensors", method="original")
    runs.export(finished.directory, "out.safetensors", method="original")  # over itself
    found = resolve(original="out.safetensors", pre="out.safetensors")
    mine = runs.load(finished.directory, stage="original")
    chex.assert_trees_all_equal(tuple(found.original), (mine, {}))
    chex.assert_trees_all_equal(tuple(found.pre), (mine, {}))
    np.testing.assert_array_equal(load_file("out.safetensors")["head.weight"], mine["head"]["kernel"].T)
    (place / "text.safetensors").write_text("not a state dict")
    with pytest.raises(runs.ConfigError, match=r"text\.safetensors cannot be read as safetensors"):
        resolve(original="text.safetensors")
    (place / "folder.safetensors").mkdir()
    with pytest.raises(runs.ConfigError, match="is there already"):
        runs.export(finished.directory, "folder.safetensors")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"t": 1.5}, "a number from 0 to 1, given 1.5"),
        ({"t": "worst"}, "best or a number"),
        ({"seed": 7}, "no seed 7; there are: 0, 1"),
        ({"method": "npo"}, "no model 'npo'; it has: original, retrain, random_label. Points"),
        *(
            ({"method": stage}, f"no model {stage!r}")
            for stage in ("mask", "path", "sweep", "choice of t", "metrics of random_label")
        ),
        ({"method": "retrain", "t": 0.5}, "not both"),
    ],
    ids=str,
)
def test_what_there_is_not_is_not_exported(
    options: dict, message: str, finished: runs.Run, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(runs.ConfigError, match=message):
        runs.export(finished.directory, tmp_path / "to", **options)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(runs.ConfigError, match="is there already"):
        runs.export(finished.directory, tmp_path / "full")


def test_the_problem_of_a_seed_is_what_its_run_was_given(finished: runs.Run) -> None:
    """Its metrics are those of the run's rows, of its original and of any other model."""
    for seed in (0, 1):
        task = runs.problem(finished.directory, seed=seed)
        outputs.check(task)
        for stage in ("original", "random_label"):
            params = runs.load(finished.directory, seed=seed, stage=stage)
            (row,) = [r for r in finished.results["rows"] if (r["method"], r["seed"]) == (stage, seed)]
            found = metrics.evaluate(task, params)
            assert float(metrics.ua(found)) == pytest.approx(row["UA"], abs=1e-6)
            assert float(metrics.ta(found)) == pytest.approx(row["TA"], abs=1e-6)
        assert float(metrics.ra(metrics.evaluate(task, task.params))) > 0
    with pytest.raises(runs.ConfigError, match="there is no seed 7; there are: 0, 1"):
        runs.problem(finished.directory, seed=7)
    with pytest.raises(runs.ConfigError, match="is not a run directory"):
        runs.problem(finished.directory / "stages")
