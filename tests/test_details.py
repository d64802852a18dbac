"""What a run keeps to be looked at: details.json."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SMALL, problem_of
from PIL import Image

from mcu_jax import curves, datasets, metrics, models, paths, planes, runs
from mcu_jax.base import Path
from mcu_jax.runs import _along, _details, _explore, _unlearn_config

pytestmark = pytest.mark.usefixtures("kept_compilations")


@pytest.fixture(scope="module")
def drawn(finished: runs.Run, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The finished run, gone on with for a plane."""
    place = tmp_path_factory.mktemp("drawn") / "run"
    shutil.copytree(finished.directory, place)
    runs.unlearn(runs.from_mapping({**SMALL, "out": str(place), "plane": 3}))
    return place


def of_seed(details: dict[str, Any], name: str, seed: int) -> dict[str, Any]:
    (entry,) = (entry for entry in details[name] if entry["seed"] == seed)
    return entry


def decoded(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,")))))


@pytest.mark.parametrize("seed", SMALL["seeds"])
def test_what_is_shown_is_what_the_models_say(drawn: pathlib.Path, digits: datasets.Data, seed: int) -> None:
    details, results = runs.read_details(drawn), runs.read_results(drawn)
    assert details["classes"] == list(digits.class_names)
    seen, problem = of_seed(details, "explorer", seed), problem_of(runs.Run(drawn, {}), digits, seed)
    path = runs.load(drawn, seed=seed)
    found = paths.evaluate(problem, path, np.array(seen["t"], np.float32))
    assert seen["bins"] == pytest.approx(np.linspace(0, 1, 21))
    for split in ("forget", "validation"):
        shares, confidences = np.array(seen["confidence"][split]), np.asarray(getattr(found, split).confidence)
        assert shares.shape == (SMALL["points"], 20)
        np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
        # Rounding may put one of them into the next bin.
        expected = np.stack([np.histogram(np.minimum(row, 1), seen["bins"])[0] for row in confidences])
        assert np.abs(shares * confidences.shape[1] - expected).max() < 1.01
        assert np.abs(shares * confidences.shape[1] - expected).sum() <= 2.02

    examples, forget = seen["examples"], np.asarray(problem.forget).tolist()
    places = [forget.index(example["index"]) for example in examples]
    assert len(set(places)) == len(examples) == min(12, len(forget))
    for example, i in zip(examples, places, strict=True):
        assert example["label"] == int(digits.train["y"][example["index"]])
        np.testing.assert_array_equal(decoded(example["image"]), digits.train["x"][example["index"]][..., 0])
        assert example["prediction"] == found.forget.prediction[:, i].tolist()
        np.testing.assert_allclose(example["true_confidence"], found.forget.confidence[:, i], rtol=1e-3, atol=1e-5)
        sure = np.array(example["prediction"]) == example["label"]
        np.testing.assert_allclose(np.array(example["confidence"])[sure], np.array(example["true_confidence"])[sure])
        assert (np.array(example["confidence"]) >= np.array(example["true_confidence"]) - 1e-5).all()
        # No other class than the label's can have more than what that leaves.
        assert (np.array(example["confidence"])[~sure] <= 1 - np.array(example["true_confidence"])[~sure] + 1e-5).all()

    (row,) = (row for row in results["rows"] if row["seed"] == seed and row["method"] == "mcu")
    near = int(np.argmin(np.abs(np.array(seen["t"]) - row["t"])))
    lost = np.asarray(found.forget.confidence[0] - found.forget.confidence[near])
    kinds = [example["picked"] for example in examples]
    assert kinds == ["random"] * 6 + ["fallen"] * (len(examples) - 6)
    left_out = sorted(set(range(len(forget))) - set(places))
    if left_out:
        assert lost[places[6:]].min() >= lost[left_out].max() - 1e-5


def test_a_confidence_that_is_rounded_up_is_counted() -> None:
    shares = _explore._shares(np.array([1.0000001, 0.5, 0.04, np.nan], np.float32))
    assert [(i, share) for i, share in enumerate(shares) if share] == [(0, 0.25), (10, 0.25), (19, 0.25)]


def test_the_first_half_of_the_examples_is_drawn_by_the_seed_alone() -> None:
    rng = np.random.default_rng(0)

    def picked(seed: int, points: int, n: int = 30) -> list[dict[str, Any]]:
        seen = {
            "rows": np.arange(100, 100 + n),
            "near": np.asarray(points // 2),
            "forget": rng.uniform(size=(points, n)),
            "predicted": rng.uniform(size=(points, n)),
            "prediction": rng.integers(3, size=(points, n)),
            "validation": rng.uniform(size=(points, 5)),
        }
        return _explore.explore_values(seen, seed=seed, points=points)["examples"]

    def drawn(examples: list[dict[str, Any]]) -> list[int]:
        return [each["index"] for each in examples if each["picked"] == "random"]

    assert drawn(picked(0, 5)) == drawn(picked(0, 9))
    assert drawn(picked(0, 5)) != drawn(picked(1, 5))
    for n in (1, 6, 8):
        assert sorted(each["index"] for each in picked(0, 5, n)) == list(range(100, 100 + n))


def test_what_the_mask_keeps_and_how_the_path_was_trained(drawn: pathlib.Path, digits: datasets.Data) -> None:
    details, results = runs.read_details(drawn), runs.read_results(drawn)
    for seed in SMALL["seeds"]:
        layers = of_seed(details, "mask", seed)["layers"]
        assert [(layer["name"], layer["shape"]) for layer in layers] == [
            ("dense0/kernel", [64, 64]), ("dense0/bias", [64]), ("head/kernel", [64, 10]), ("head/bias", [10]),
        ]  # fmt: skip
        sizes = [np.prod(layer["shape"]) for layer in layers]
        (path,) = (path for path in results["paths"] if path["seed"] == seed and path["curve"] != "linear")
        assert np.average([layer["kept"] for layer in layers], weights=sizes) == pytest.approx(path["mask"]["keep"])
        history = of_seed(details, "history", seed)
        assert history["step"] == list(range(1, SMALL["steps"] + 1))
        assert set(history["beta"]) <= {0.0, 0.01, 0.5}
        assert all(0 <= t <= 1 for t in history["t"])
        assert len(set(history["t"])) == len(history["loss"]) == SMALL["steps"]


def test_a_long_history_is_told_in_stretches() -> None:
    losses = np.arange(450.0)
    trained = {"losses": losses, "beta": np.where(losses < 225, 0.5, 0.0), "t": losses / 450}
    found = _details._history({"path": trained}.get)
    assert found is not None
    assert len(found["step"]) == 200
    assert found["step"][-1] == 450
    assert found["step"][:4] == [2, 4, 7, 9]
    assert found["loss"][:4] == [0.5, 2.5, 5.0, 7.5]
    assert found["t"][:3] == pytest.approx([1 / 450, 3 / 450, 6 / 450], rel=1e-5)
    assert (found["beta"][0], found["beta"][-1]) == (0.5, 0.0)
    assert _details._history({"path": {"inner": {}}}.get) is None
    assert _details._history({}.get) is None


@pytest.mark.parametrize("seed", SMALL["seeds"])
def test_the_plane_of_a_run(drawn: pathlib.Path, digits: datasets.Data, seed: int) -> None:
    found, problem = of_seed(runs.read_details(drawn), "plane", seed), problem_of(runs.Run(drawn, {}), digits, seed)
    path, retrained = runs.load(drawn, seed=seed), runs.load(drawn, seed=seed, stage="retrain")
    control = jax.tree.map(lambda leaf: leaf[0], path.inner)
    plane = planes.through(path.start, path.end, control)
    assert found["points"]["original"] == [0, 0]
    for name, params in (("control", control), ("pre-unlearned", path.end)):
        np.testing.assert_allclose(found["points"][name], planes.project(plane, params).at, rtol=1e-4, atol=1e-4)
    assert found["points"]["pre-unlearned"][0] > 0
    assert found["points"]["control"][1] > 0
    for at, name in ((0, "u"), (1, "v")):
        values = np.array(found[name])
        assert (np.diff(values) > 0).all()
        inside = [*(point[at] for point in found["points"].values()), *found["path"][name]]
        assert values[0] < min(inside)
        assert max(inside) < values[-1]
    # In its rows v is one and the same.
    for row, column in ((0, 2), (2, 1)):
        params = planes.point(plane, jnp.array([found["u"][column], found["v"][row]], jnp.float32))
        evaluation = metrics.evaluate(problem, params)
        for split in ("retain", "forget"):
            expected = getattr(evaluation, split).loss.mean()
            np.testing.assert_allclose(found[f"{split}_loss"][row][column], expected, rtol=1e-3, atol=1e-4)

    assert set(found["path"]) == {"t", "u", "v"}
    for t, u, v in zip(*found["path"].values(), strict=True):
        at = planes.project(plane, curves.bezier(path, t)).at
        np.testing.assert_allclose([u, v], at, rtol=1e-3, atol=1e-4)
    flat = [
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(each)]).astype(np.float64)
        for each in (path.start, path.end, control, retrained)
    ]
    axes = np.stack([flat[1] - flat[0], flat[2] - flat[0]], axis=1)
    moved = flat[3] - flat[0]
    off = moved - axes @ np.linalg.lstsq(axes, moved)[0]
    assert found["retrained"]["distance"] == pytest.approx(np.linalg.norm(off), rel=1e-4)
    assert found["retrained"]["norm"] == pytest.approx(np.linalg.norm(moved), rel=1e-4)
    u, v = found["retrained"]["at"]
    assert u**2 + v**2 + np.linalg.norm(off) ** 2 == pytest.approx(np.linalg.norm(moved) ** 2, rel=1e-4)


def test_a_path_of_several_inner_points_is_projected() -> None:
    """By hand: the second of two inner points spans the plane, the first is 2 off it."""
    path = Path(jnp.zeros(3), jnp.array([[1.0, 0, 2], [3, 4, 0]]), jnp.array([5.0, 0, 0]))
    plane = planes.through(path.start, path.end, path.inner[1])
    controls = jax.vmap(planes.project, (None, 0))(
        plane, jnp.concatenate([path.start[None], path.inner, path.end[None]])
    )
    found = {"controls": controls.at, "off": controls.rest @ controls.rest.T}
    ts = paths.points(7)
    for curve in (curves.bezier, curves.polychain):
        along = _explore.along_plane(found, ts, curve)
        points = np.stack([curve(path, float(t)) for t in ts])
        np.testing.assert_allclose(np.stack([along["u"], along["v"], along["off"]], 1), np.abs(points), atol=1e-5)


@pytest.mark.parametrize("bent", [True, False])
def test_the_plane_of_several_inner_points_goes_through_the_middle_one(normed: Any, bent: bool) -> None:
    """There is none, where that is on the straight line."""
    problem = normed(60)
    other = {"v": problem.params["v"] - 1.0, "w": problem.params["w"] + 2.0}
    end = {"v": 3.0 * problem.params["v"] + 1.0, "w": -problem.params["w"]}
    inner = curves.straight(problem.params, end, 3).inner
    if bent:
        inner = jax.tree.map(lambda leaf, x: leaf.at[1].set(x), inner, other)
    found = _along.as_json(_explore.plane(problem, problem.params, end, inner, other, size=2))
    resolved = type("Resolved", (), {"config": runs.Config(points=5), "curve": staticmethod(curves.polychain)})()
    entry = _details._plane(resolved, {"plane": found}.get)
    if not bent:
        assert entry is None
        return
    assert entry is not None
    assert np.shape(entry["retain_loss"]) == np.shape(entry["forget_loss"]) == (2, 2)
    middle = {name: entry["path"][name][2] for name in ("t", "u", "v", "off")}
    assert [middle["u"], middle["v"]] == pytest.approx(entry["points"]["control"], rel=1e-4)
    assert entry["retrained"]["at"] == pytest.approx(entry["points"]["control"], rel=1e-4)
    assert entry["retrained"]["distance"] < 1e-3
    # The others are on the line, which is in the plane.
    assert max(entry["path"]["off"]) < 1e-2


def test_a_plane_extends_a_run(drawn: pathlib.Path, finished: runs.Run, tmp_path: pathlib.Path) -> None:
    before, after = runs.read_details(finished.directory), runs.read_details(drawn)
    assert before["plane"] == []
    assert {**after, "plane": []} == before
    assert runs.from_yaml(drawn / "config.yaml").plane == 3
    config = runs.from_mapping({**SMALL, "out": str(drawn)})
    for asked in (config, dataclasses.replace(config, plane=2)):
        assert ("plane", 2, 0) in runs.plan(asked).stages, "what is there stays"
    stages = runs.plan(dataclasses.replace(config, plane=4)).stages
    assert [label for label, _, missing in stages if missing] == ["plane"]


def test_a_seed_alone_has_the_same(drawn: pathlib.Path, finished: runs.Run, tmp_path: pathlib.Path) -> None:
    stages = shutil.copytree(finished.directory / "stages", tmp_path / "stages")
    for folder in stages.glob("explore-*"):
        shutil.rmtree(folder)
    config = {**SMALL, "seeds": [1], "plane": 3, "out": str(tmp_path / "run"), "stages": str(stages)}
    alone, among = runs.read_details(runs.unlearn(runs.from_mapping(config)).directory), runs.read_details(drawn)
    for name in ("explorer", "mask", "history", "plane"):
        assert alone[name] == [of_seed(among, name, 1)]


@pytest.mark.parametrize("plane", [0, 1, 102, -3, 2.5, "many"])
def test_a_plane_that_cannot_be_is_refused(plane: Any) -> None:
    with pytest.raises(runs.ConfigError, match=r"setting plane takes a whole number|--?plane"):
        _unlearn_config.resolve(runs.from_mapping({"plane": plane}))


def test_damage_is_told(finished: runs.Run, tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        runs.read_details(tmp_path)
    file = tmp_path / "details.json"
    for content, told in (("[]", "cannot be read"), ("{", "cannot be read"), ('{"schema": 1}', "cannot be read")):
        file.write_text(content)
        with pytest.raises(ValueError, match=told):
            runs.read_details(tmp_path)
    values = json.loads((finished.directory / "details.json").read_text())
    values["history"][0]["loss"][0] += 1e-6
    file.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"details\.json is not as it was written"):
        runs.read_details(tmp_path)
    _details._files.write_json(file, {"schema": 2})
    with pytest.raises(ValueError, match="expected schema 1, found 2"):
        runs.read_details(tmp_path)


def test_pictures() -> None:
    rng = np.random.default_rng(0)
    grey, colour = (rng.integers(256, size=size).astype(np.uint8) for size in ((5, 7), (8, 6, 3)))
    for x in (grey, colour, grey[..., None]):
        np.testing.assert_array_equal(decoded(_details.picture(x)), x.reshape(*x.shape[:2], -1).squeeze())
    np.testing.assert_array_equal(decoded(_details.picture(grey / np.float32(255))), grey)
    ramp = np.array([[-2.0, 0.0, 2.0]], np.float32)
    np.testing.assert_array_equal(decoded(_details.picture(ramp)), [[0, 128, 255]])
    assert not decoded(_details.picture(np.full((2, 2), 7.0))).any()
    assert decoded(_details.picture(np.zeros((130, 65), np.uint8))).shape == (64, 32)
    for x in (np.zeros(5), np.zeros((4, 4, 2)), np.zeros((2, 2, 2, 3)), np.full((2, 2), np.nan)):
        assert _details.picture(x) is None


def test_leaves_are_told_in_the_order_of_their_use(digits: datasets.Data) -> None:
    """Which is not that of their names, and the same in bfloat16, where all of them are converted first."""
    preresnet = models.preresnet(num_classes=10, depth=8)

    def order(model: Any) -> list[str]:
        layers = _details._layers(type("Resolved", (), {"model": model, "data": digits})())
        shapes = jax.tree.leaves(jax.eval_shape(lambda: preresnet.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))))
        assert [layer.shape for layer in sorted(layers)] == [shape.shape for shape in shapes]
        return [layer.name for layer in layers]

    found = order(preresnet)
    assert len(set(found)) == len(found)
    assert found != sorted(found)
    assert found[0] == "conv1/kernel"
    assert found[1].startswith("layer1_0/bn1")
    assert found[-2:] == ["head/kernel", "head/bias"]
    assert set(found[-4:-2]) == {"bn/scale", "bn/bias"}
    assert order(models.in_bfloat16(preresnet)) == found
