"""Folders of pictures: in the forms that people have, read in place, decoded once."""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mcu_jax import base, datasets, runs
from mcu_jax.datasets import _folder


@pytest.fixture(autouse=True)
def cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("MCU_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(file: pathlib.Path, seed: int, size: tuple[int, int] = (6, 5), mode: str = "RGB") -> np.ndarray:
    """What it shows, as RGB."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    image.save(file)
    return np.asarray(image.convert("RGB"))


@pytest.fixture
def pictures(tmp_path: pathlib.Path) -> tuple[pathlib.Path, dict[str, list[np.ndarray]]]:
    """An ImageFolder of two classes, and what is shown in it, by part."""
    place, shown = tmp_path / "pictures", {"train": [], "test": []}
    for part, count in (("train", 3), ("test", 2)):
        for c, name in enumerate(("cat", "dog")):
            shown[part] += [
                picture(place / part / name / f"{i}.png", 10 * c + i + (part == "test") * 100) for i in range(count)
            ]
    (place / "train" / "cat" / "notes.txt").write_text("no picture")
    return place, shown


def before_and_after(place: pathlib.Path) -> list[Any]:
    return sorted((file, file.stat().st_mtime_ns, file.stat().st_size) for file in place.rglob("*"))


def test_a_folder_is_read_in_the_order_of_classes_and_names(pictures: Any) -> None:
    place, shown = pictures
    there = before_and_after(place)
    data = datasets.load(f"folder:{place}")
    np.testing.assert_array_equal(data.train["x"], shown["train"])
    np.testing.assert_array_equal(data.test["x"], shown["test"])
    assert data.train["y"].tolist() == [0, 0, 0, 1, 1, 1]
    assert data.test["y"].tolist() == [0, 0, 1, 1]
    assert (data.class_names, data.train_size, data.name) == (("cat", "dog"), 6, "pictures")
    assert data.hash == datasets.arrays(data.train, data.test).hash
    assert before_and_after(place) == there


def test_pictures_are_decoded_once(pictures: Any, cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, _ = pictures
    first = datasets.load(f"folder:{place}")
    assert isinstance(first.examples["x"], np.memmap)
    real = _folder._image
    monkeypatch.setattr(_folder, "_image", lambda *_: pytest.fail("decoded again"))
    assert datasets.load(f"folder:{place}").hash == first.hash
    # A file that was damaged, or a picture that has changed, is decoded again.
    monkeypatch.setattr(_folder, "_image", real)
    (file,) = cache.glob("*.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert datasets.load(f"folder:{place}").hash == first.hash
    picture(place / "train" / "cat" / "0.png", 77)
    assert datasets.load(f"folder:{place}").hash != first.hash


def test_a_cache_that_cannot_be_written_does_not_matter(pictures: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place, shown = pictures
    (place.parent / "file").touch()
    monkeypatch.setenv("MCU_JAX_CACHE", str(place.parent / "file" / "cache"))
    np.testing.assert_array_equal(datasets.load(f"folder:{place}").train["x"], shown["train"])


def test_tiny_imagenet_is_read_as_it_is_published(tmp_path: pathlib.Path) -> None:
    place = tmp_path / "tiny"
    train = [
        picture(place / "train" / name / "images" / f"{name}_{i}.png", i, mode="L")
        for name in ("n01", "n02")
        for i in (0, 1)
    ]
    test = [picture(place / "val" / "images" / f"val_{i}.png", 10 + i) for i in range(3)]
    lines = [f"val_{i}.png\t{name}\t0\t0\t5\t5\n" for i, name in enumerate(("n02", "n01", "n02"))]
    (place / "val" / "val_annotations.txt").write_text("".join(lines))
    picture(place / "test" / "images" / "test_0.png", 20)  # without labels
    data = datasets.load(f"folder:{place}")
    np.testing.assert_array_equal(data.train["x"], train)
    np.testing.assert_array_equal(data.test["x"], test)
    assert data.test["y"].tolist() == [1, 0, 1]


def test_a_class_list_chooses_and_orders(pictures: Any, tmp_path: pathlib.Path) -> None:
    place, shown = pictures
    for part in ("train", "test"):
        picture(place / part / "eel" / "0.png", 5)
    (tmp_path / "classes.txt").write_text("dog a good one\n\ncat\n")
    data = datasets.load(f"folder:{place}:classes={tmp_path / 'classes.txt'}")
    assert data.class_names == ("dog", "cat")
    np.testing.assert_array_equal(data.train["x"], shown["train"][3:] + shown["train"][:3])
    whole = datasets.load(f"folder:{place}")
    assert data.hash != whole.hash
    assert data.class_list == hashlib.sha256((tmp_path / "classes.txt").read_bytes()).hexdigest()
    assert whole.class_list is None


def test_a_run_tells_the_hash_of_its_class_list(
    pictures: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, _ = pictures
    (tmp_path / "list.txt").write_text("dog\ncat\n")
    settings = {"train_size": 4, "validation_size": 2, "forget": "random:0.5", "model": "mlp", "baselines": []}
    monkeypatch.chdir(tmp_path)
    found = runs.resolve(runs.from_mapping({**settings, "dataset": "folder:pictures:classes=list.txt,size=4"}))
    assert found.config.dataset == f"folder:{place}:size=4,classes={tmp_path / 'list.txt'}"
    digest = hashlib.sha256(b"dog\ncat\n").hexdigest()
    assert found.as_dict()["digests"] == {"data": found.data.hash, "classes": digest}
    monkeypatch.chdir("/")  # the configuration is read again from anywhere
    again = runs.resolve(runs.from_mapping(found.as_dict()))
    assert again.identity() == found.identity()
    (tmp_path / "list.txt").write_text("cat\ndog\n")
    assert runs.resolve(runs.from_mapping(found.as_dict())).identity()["classes"] != digest


@pytest.mark.parametrize(("side", "augment"), [(127, "crop_and_flip"), (128, "random_resized_crop+flip")])
def test_large_pictures_are_augmented_as_those_of_imagenet(pictures: Any, side: int, augment: str) -> None:
    place, _ = pictures
    assert datasets.load(f"folder:{place}:size={side}").augment.__name__ == augment


def test_sizes_are_made_equal_on_demand(pictures: Any) -> None:
    place, _ = pictures
    picture(place / "train" / "cat" / "wide.png", 3, (40, 10))
    with pytest.raises(
        base.UserError, match=r"different sizes, as 6 × 5 and 40 × 10 \(.*wide.png\): ask for one, as folder"
    ):
        datasets.load(f"folder:{place}")
    data = datasets.load(f"folder:{place}:size=4")
    assert data.examples["x"].shape == (11, 4, 4, 3)
    with Image.open(place / "train" / "cat" / "wide.png") as wide:
        expected = np.asarray(wide.resize((16, 4), Image.Resampling.BILINEAR).crop((6, 0, 10, 4)))
    np.testing.assert_array_equal(data.train["x"][3], expected)


def test_what_cannot_be_read_is_named_and_counted(
    pictures: Any, cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, _ = pictures
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # what Pillow takes for an attack is a file like others
        with pytest.raises(base.UserError, match=r"10 pictures of 10 in .* cannot be read"):
            datasets.load(f"folder:{place}")
    for i in range(4):
        (place / "train" / "cat" / f"broken{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(
        base.UserError,
        match=r"4 pictures of 14 in .* cannot be read: train.cat.broken0\.png, .*broken2\.png, …; repair",
    ):
        datasets.load(f"folder:{place}")
    assert not list(cache.iterdir())


@pytest.mark.parametrize("form", ["EPS", "TIFF", "GIF"])
def test_a_picture_is_of_a_format_that_data_sets_have_whatever_its_name(pictures: Any, form: str) -> None:
    place, _ = pictures
    Image.new("RGB", (6, 5)).save(place / "train" / "cat" / "0.png", form)
    with pytest.raises(base.UserError, match=r"1 picture of 10 in .* cannot be read: train.cat.0\.png"):
        datasets.load(f"folder:{place}")


def test_a_long_strip_is_not_made_a_huge_picture(pictures: Any) -> None:
    place, _ = pictures
    picture(place / "train" / "cat" / "strip.png", 0, (4000, 1))
    with pytest.raises(base.UserError, match=r"1 picture of 11 in .* cannot be read: train.cat.strip\.png"):
        datasets.load(f"folder:{place}:size=100")


def test_pictures_that_the_disk_has_no_room_for_are_refused(pictures: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 10, 90))
    with pytest.raises(base.UserError, match=r"take 0\.0 GB, .*cache has room for 0\.0 GB"):
        datasets.load(f"folder:{pictures[0]}")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (b"../../cat/0.png\tcat\n", r"names '\.\./\.\./cat/0\.png'; expected the name of a file in images/"),
        (b"/etc/x.png\tcat\n", "names '/etc/x.png'"),
        (b"a\x00.png\tcat\nb.png\tdog\n", "the picture .* cannot be read: .*embedded null"),
        (b"\xff\xfe.png\tcat\n", "cannot be read: 'utf-8' codec"),
    ],
    ids=range(4),
)
def test_annotations_name_pictures_beside_them(pictures: Any, lines: bytes, message: str) -> None:
    place, _ = pictures
    (place / "test" / "val_annotations.txt").write_bytes(lines)
    with pytest.raises(base.UserError, match=message):
        datasets.load(f"folder:{place}")


def test_a_folder_of_a_class_may_have_any_name(pictures: Any) -> None:
    place, _ = pictures
    names = (b"\xff", b"\x1b[31m", "a\u202eb".encode())
    for part in ("train", "test"):
        for i, name in enumerate(names):
            picture(place / part / os.fsdecode(name) / "0.png", i)
    data = datasets.load(f"folder:{place}")
    assert data.class_names == (r"\x1b[31m", r"a\u202eb", "cat", "dog", r"\udcff")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda place: "nowhere", "nowhere is no folder, or cannot be opened; expected folder:DIR"),
        (lambda place: place.parent, "has no folder train: expected DIR/train/CLASS"),
        (lambda place: f"{place}:size=0", "a whole number from 1 to 4096, given '0'"),
        (lambda place: f"{place}:size={'1' * 5000}", "a whole number from 1 to 4096, given '1111"),
        (
            lambda place: "~no-such-user/x",
            "a folder of pictures cannot be ~no-such-user/x: Could not determine home directory",
        ),
        (lambda place: "n" * 300, "a folder of pictures cannot be nnn.*: File name too long"),
        (lambda place: f"{place}:classes=~no-such-user/x", "a class list cannot be ~no-such-user/x"),
        (lambda place: f"{place}:classes=/dev/zero", "the class list /dev/zero cannot be read: it has more than"),
        (lambda place: f"{place}:side=3", "is asked for as folder:DIR or folder:DIR:size=64,classes=FILE; given"),
        (lambda place: f"{place}:classes=none.txt", "the class list none.txt cannot be read: No such file or dir"),
        (
            lambda place: (place / "c.txt").write_text("cat\ndog\ncat\n") and f"{place}:classes={place}/c.txt",
            "lists 'cat' more than once: list every class once",
        ),
        (
            lambda place: (place / "c.txt").write_text("\n") and f"{place}:classes={place}/c.txt",
            "has none: expected two or more classes",
        ),
        (
            lambda place: (place / "test").rename(place / "tests") and place,
            "no test pictures: expected a folder test, val",
        ),
        (lambda place: (place / "test" / "dog").rename(place / "dog") and place, "has no picture .* of class 'dog'"),
        (
            lambda place: (place / "train" / "dog").rename(place / "dog") and place,
            "has only 'cat': expected two or more classes, as folders in train",
        ),
    ],
)
def test_folders_of_another_kind_are_refused(pictures: Any, make: Any, message: str) -> None:
    with pytest.raises(base.UserError, match=message):
        datasets.load(f"folder:{make(pictures[0])}")


def test_a_run_knows_its_folder_by_its_content(pictures: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place, _ = pictures
    settings = {"train_size": 4, "validation_size": 2, "forget": "random:0.5", "model": "mlp", "baselines": []}
    monkeypatch.chdir(place.parent)
    here = runs.resolve(runs.from_mapping({**settings, "dataset": "folder:pictures"}))
    assert here.config.dataset == f"folder:{place}"
    moved = place.parent / "moved"
    os.rename(place, moved)
    there = runs.resolve(runs.from_mapping({**settings, "dataset": f"folder:{moved}"}))
    assert there.identity() == here.identity()
    with pytest.raises(runs.ConfigError, match="which says where it is"):
        runs.resolve(runs.from_mapping({**settings, "dataset": "folder:moved", "data_dir": "x"}))
