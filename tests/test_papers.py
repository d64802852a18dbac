"""The experiments of the papers, at the scale that shows that they run, on made-up data of the real form."""

from __future__ import annotations

import importlib
import pathlib
import sys
from typing import Any

import numpy as np
import pytest
from test_datasets import prepare

from mcu_jax import runs

PAPERS = pathlib.Path(__file__).parents[1] / "experiments" / "papers"
NAMES = sorted(file.stem for file in PAPERS.glob("*.py") if file.stem != "scales")

pytestmark = pytest.mark.usefixtures("kept_compilations")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PAPERS))
    for name in ("scales", *NAMES):
        monkeypatch.delitem(sys.modules, name, raising=False)


def picture(file: pathlib.Path, seed: int, size: int) -> None:
    from PIL import Image

    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)).save(file)


def tiny_imagenet(place: pathlib.Path) -> pathlib.Path:
    """As it is published."""
    names = ("n01443537", "n01629819")
    for i in range(12):
        picture(place / "train" / names[i % 2] / "images" / f"{names[i % 2]}_{i}.JPEG", i, 8)
        picture(place / "val" / "images" / f"val_{i}.JPEG", 100 + i, 8)
    lines = [f"val_{i}.JPEG\t{names[i % 2]}\t0\t0\t7\t7" for i in range(12)]
    (place / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    for i in range(12, 24):
        picture(place / "train" / names[i % 2] / "images" / f"{names[i % 2]}_{i}.JPEG", i, 8)
    return place


def imagenet(place: pathlib.Path) -> pathlib.Path:
    for name in ("n01440764", "n01443537", "n01484850"):
        for i in range(12):
            picture(place / "train" / name / f"{name}_{i}.JPEG", i, 20 + i)
            picture(place / "val" / name / f"{name}_{i}.JPEG", 50 + i, 20 + i)
    (place / "list.txt").write_text("n01440764\nn01484850\n")
    return place


def data(name: str, tmp_path: pathlib.Path) -> list[str]:
    """Where a data set of the real form is, as flags."""
    if name.startswith("tiny_imagenet"):
        return ["--data", str(tiny_imagenet(tmp_path / "tiny-imagenet-200"))]
    if name.startswith("imagenet"):
        place = imagenet(tmp_path / "imagenet")
        return ["--data", str(place), "--classes", str(place / "list.txt")]
    prepare(tmp_path, "cifar100" if "cifar100" in name else "cifar10")
    return ["--data", str(tmp_path)]


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_runs(name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("MCU_JAX_CACHE", str(tmp_path / "cache"))
    module = importlib.import_module(name)
    given = ["--scale", "smoke", *data(name, tmp_path), "--out", str(tmp_path / "out")]
    assert module.main([*given, "--minutes", "0"]) == 130
    assert "stopped before original" in capsys.readouterr().err
    assert module.main(given) == 0
    kept = sorted((tmp_path / "out" / "results").iterdir())
    assert [place.name.startswith(f"{name}-smoke-") for place in kept] == [True] * len(kept)
    for place in kept:
        assert runs.read_results(place)["config"]["seeds"] == [0]
    assert "best value" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", ["paper", "small"])
def test_every_scale_is_a_configuration(name: str, scale: str, tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    scales, module = importlib.import_module("scales"), importlib.import_module(name)
    asked: list[Any] = []

    def stop(config: Any, observer: Any) -> None:
        asked.append(config)
        raise runs.InterruptedRunError("enough")

    monkeypatch.setattr(scales.runs, "unlearn", stop)
    monkeypatch.setattr(scales.runs, "connect", stop)
    assert module.main(["--scale", scale, "--data", str(tmp_path), "--out", str(tmp_path)]) == 130
    assert len(asked[0].seeds) == {"paper": 5, "small": 3}[scale]


def test_what_cannot_be_is_told(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module("cifar10_preresnet110")
    assert module.main(["--scale", "small", "--data", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("cifar10_preresnet110.py: No data set 'cifar10'")
