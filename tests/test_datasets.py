from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import zlib
from typing import Any

import _fuzz
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mcu_jax import base, datasets, memory
from mcu_jax.datasets import _cache, _data, _tfds

DIGITS_HASH = "3bd9ad9a84f46a756f58bcdf7fe4640e6c58662eda4123b4c848f098676d9818"
REAL_HASHES = {
    "fashion_mnist": "58d75d5fc569bf7844ba92ef6681cad74dcf1d0ce2baeffd260ab8e5918420a9",
    "cifar10": "528e0f93dca165cb9bf253c5c59023e698956e288a84ee4a836550073664be82",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("MCU_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def prepare(
    root: pathlib.Path,
    name: str = "tiny",
    channels: int = 3,
    sizes: tuple[int, ...] = (8,),
    splits: tuple[str, ...] = ("train", "test"),
    labels: tuple[int, ...] = (0, 1, 2),
) -> dict[str, base.Batch]:
    """Writes what tfds prepares, which tfds itself cannot do without TensorFlow. Returns what it holds."""
    from array_record.python import array_record_module
    from PIL import Image
    from tensorflow_datasets.proto import tf_example_pb2

    folder = root / name / "1.0.0"
    folder.mkdir(parents=True)
    dataset = name.split("/")[0]
    random = np.random.RandomState(0)
    held, infos = {}, []
    for split, n in zip(splits, (20, 7), strict=True):
        writer = array_record_module.ArrayRecordWriter(
            str(folder / f"{dataset}-{split}.array_record-00000-of-00001"), "group_size:1"
        )
        xs, ys = [], []
        for i in range(n):
            size = sizes[i % len(sizes)]
            xs.append(random.randint(0, 256, (size, size, channels)).astype(np.uint8))
            ys.append(labels[i % len(labels)])
            encoded = io.BytesIO()
            Image.fromarray(xs[-1].squeeze()).save(encoded, "PNG")
            example = tf_example_pb2.Example()
            example.features.feature["image"].bytes_list.value.append(encoded.getvalue())
            example.features.feature["label"].int64_list.value.append(ys[-1])
            writer.write(example.SerializeToString())
        writer.close()
        if len(sizes) == 1:
            held[split] = {"x": np.stack(xs), "y": np.array(ys, np.int32)}
        infos.append(
            {
                "name": split,
                "shardLengths": [str(n)],
                "numBytes": "1",
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
        )
    side = str(sizes[0] if len(sizes) == 1 else -1)
    module = "tensorflow_datasets.core.features"
    features = {
        "image": {
            "pythonClassName": f"{module}.image_feature.Image",
            "image": {"dtype": "uint8", "shape": {"dimensions": [side, side, str(channels)]}},
        },
        "label": {
            "pythonClassName": f"{module}.class_label_feature.ClassLabel",
            "classLabel": {"numClasses": "3"},
        },
    }
    (folder / "label.labels.txt").write_text("ant\nbee\ncat\n")
    (folder / "features.json").write_text(
        json.dumps(
            {
                "pythonClassName": f"{module}.features_dict.FeaturesDict",
                "featuresDict": {"features": features},
            }
        )
    )
    (folder / "dataset_info.json").write_text(
        json.dumps({"name": dataset, "version": "1.0.0", "fileFormat": "array_record", "splits": infos})
    )
    return held


def edit(file: pathlib.Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_digits_are_always_the_same() -> None:
    data = datasets.load("digits")
    assert data.hash == DIGITS_HASH == _data.digest(data.train, data.test)
    assert data.train["x"].shape == (1200, 8, 8, 1)
    assert data.test["x"].shape == (597, 8, 8, 1)
    assert (data.train["x"].dtype, data.train["y"].dtype) == (np.uint8, np.int32)
    assert (data.train["x"].min(), data.train["x"].max()) == (0, 255)
    assert data.class_names == tuple("0123456789")
    assert data.augment is None
    assert min(np.bincount(data.train["y"])) > 100


def test_a_set_holds_its_examples_once() -> None:
    data = datasets.load("digits")
    assert data.train_size == 1200
    for name, whole in data.examples.items():
        assert len(whole) == 1797
        for part, rows in ((data.train, slice(0, 1200)), (data.test, slice(1200, None))):
            assert np.shares_memory(part[name], whole)
            np.testing.assert_array_equal(part[name], whole[rows])


def test_hash_sees_order_and_shape() -> None:
    data = datasets.digits()
    swapped = {"x": data.train["x"], "y": data.train["y"][::-1]}
    flat = {"x": data.train["x"].reshape(1200, 64), "y": data.train["y"]}
    assert len({_data.digest(train, data.test) for train in (data.train, swapped, flat)}) == 3


@pytest.mark.parametrize("channels", [1, 3])
def test_prepared_set_comes_back_as_written(tmp_path: pathlib.Path, channels: int) -> None:
    held = prepare(tmp_path, channels=channels)
    assert datasets.prepared(tmp_path) == ["tiny"]
    data = datasets.load("tiny", tmp_path)
    for split, expected in ((data.train, held["train"]), (data.test, held["test"])):
        np.testing.assert_array_equal(split["x"], expected["x"])
        np.testing.assert_array_equal(split["y"], expected["y"])
        assert (split["x"].dtype, split["y"].dtype) == (np.uint8, np.int32)
    assert data.class_names == ("ant", "bee", "cat")
    assert data.augment is (datasets.crop_and_flip if channels == 3 else None)


def test_validation_stands_in_for_test_and_configs_are_found(tmp_path: pathlib.Path) -> None:
    held = prepare(tmp_path, "tiny/red", splits=("train", "validation"))
    assert datasets.prepared(tmp_path) == ["tiny/red"]
    data = datasets.load("tiny/red", tmp_path)
    np.testing.assert_array_equal(data.test["x"], held["validation"]["x"])


def test_reads_neither_tensorflow_nor_tfds_once_cached(tmp_path: pathlib.Path) -> None:
    prepare(tmp_path)
    code = (
        "import sys; from mcu_jax import datasets; "
        f"print(datasets.load('tiny', {str(tmp_path)!r}).hash, "
        "*(name in sys.modules for name in ('tensorflow', 'tensorflow_datasets')))"
    )

    def run() -> list[str]:
        command = [sys.executable, "-W", "error", "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.split()

    digest = datasets.load("tiny", tmp_path).hash
    assert run() == [digest, "False", "False"]
    for file in _cache.cache_directory().iterdir():
        file.unlink()
    assert run() == [digest, "False", "True"]


@pytest.mark.parametrize("ending", [".npy", ".npz"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "text", "gone"])
def test_damaged_cache_is_decoded_again(
    tmp_path: pathlib.Path, cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch, damage: str, ending: str
) -> None:
    prepare(tmp_path)
    data = datasets.load("tiny", tmp_path)
    names = {file.name for file in cache.iterdir()}
    (file,) = cache.glob(f"*{ending}")
    content = file.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    damaged = {"flip": flipped, "truncate": content[:middle], "empty": b"", "text": b"not a zip"}
    file.unlink()
    if damage in damaged:
        file.write_bytes(damaged[damage])

    again = datasets.load("tiny", tmp_path)
    assert again.hash == data.hash == _data.digest(again.train, again.test)
    assert {other.name for other in cache.iterdir()} == names
    assert file.read_bytes()[:middle] == content[:middle] or ending == ".npz"  # whose times differ

    # Rewritten, so the next one does not decode.
    monkeypatch.setattr(_tfds, "_decoded", None)
    assert datasets.load("tiny", tmp_path).hash == data.hash


def test_cache_is_trusted_by_content_only(tmp_path: pathlib.Path, cache: pathlib.Path) -> None:
    prepare(tmp_path)
    data = datasets.load("tiny", tmp_path)
    (images,), (labels,) = cache.glob("*.npy"), cache.glob("*.npz")
    x, y = np.load(images), data.examples["y"]
    for changed in (x[::-1], x[:-1], x.astype(np.int8), x.reshape(-1)):  # valid files of something else
        np.save(images, changed)
        assert _cache._read(images, labels, _cache.Sizes(20, 7)) is None
    np.savez(labels, y=y[:-1], hash=data.hash)
    np.save(images, x[:-1])
    assert _cache._read(images, labels, _cache.Sizes(20, 7)) is None
    np.testing.assert_array_equal(datasets.load("tiny", tmp_path).train["x"], data.train["x"])


def test_images_are_mapped_and_looked_through_once(
    tmp_path: pathlib.Path, cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path)
    first = datasets.load("tiny", tmp_path)
    looked: list[int] = []

    class Counting:
        def __init__(self, content: bytes = b""):
            self.real = sha256(content)

        def update(self, content: Any) -> None:
            looked.append(memoryview(content).nbytes)
            self.real.update(content)

        def hexdigest(self) -> str:
            return self.real.hexdigest()

    sha256 = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", Counting)
    data = datasets.load("tiny", tmp_path)
    assert isinstance(data.examples["x"], np.memmap)
    assert (data.hash, data.train_size) == (first.hash, 20)
    pictures = data.examples["x"].nbytes
    assert pictures <= sum(size for size in looked if size > 200) < 1.2 * pictures


def test_changed_set_is_decoded_again(tmp_path: pathlib.Path) -> None:
    prepare(tmp_path / "a")
    before = datasets.load("tiny", tmp_path / "a")
    prepare(tmp_path / "b", labels=(2, 1, 0))
    assert datasets.load("tiny", tmp_path / "b").hash != before.hash


def test_unwritable_cache_does_not_matter(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = prepare(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MCU_JAX_CACHE", str(tmp_path / "file" / "cache"))
    np.testing.assert_array_equal(datasets.load("tiny", tmp_path).train["x"], held["train"]["x"])


def test_unknown_names_say_what_there_is(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path)
    with pytest.raises(ValueError, match=r"embedded are digits.*given data_dir\) has tiny.*mean 'tiny'") as caught:
        datasets.load("tinny", tmp_path)
    assert "pip install tensorflow" in str(caught.value)
    assert "file_format='array_record').download_and_prepare()" in str(caught.value)
    with pytest.raises(ValueError, match=r"Did you mean 'digits'"):
        datasets.load("digit", tmp_path)
    with pytest.raises(ValueError, match=r"given data_dir\) does not exist"):
        datasets.load("tiny", tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"No data set '\.\./tiny'"):
        datasets.load("../tiny", tmp_path / "tiny")

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "default"))
    (tmp_path / "default").mkdir()
    with pytest.raises(ValueError, match=r"by default the data_dir\) has none"):
        datasets.load("tiny")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert datasets.load("tiny").train["y"].shape == (20,)


def test_unusable_sets_say_why(tmp_path: pathlib.Path) -> None:
    prepare(tmp_path, "splits", splits=("train", "extra"))
    with pytest.raises(ValueError, match=r"splits train and test \(or validation\); it has train, extra"):
        datasets.load("splits", tmp_path)

    prepare(tmp_path, "sizes", sizes=(8, 9))
    with pytest.raises(ValueError, match=r"different sizes in train, such as \[\(8, 8, 3\), \(9, 9, 3\)\]"):
        datasets.load("sizes", tmp_path)

    prepare(tmp_path, "unlabelled", labels=(-1,))
    with pytest.raises(ValueError, match=r"labels from -1 to -1 in train; expected 0 to 2"):
        datasets.load("unlabelled", tmp_path)

    prepare(tmp_path, "text")
    edit(tmp_path / "text" / "1.0.0" / "features.json", '"label":', '"answer":')
    with pytest.raises(ValueError, match=r"not an image-classification set.*it has image .Image., answer .ClassLabel."):
        datasets.load("text", tmp_path)

    prepare(tmp_path, "records")
    for file in (tmp_path / "records" / "1.0.0").glob("*.array_record-*"):
        file.rename(str(file).replace("array_record", "tfrecord"))
    edit(tmp_path / "records" / "1.0.0" / "dataset_info.json", "array_record", "tfrecord")
    with pytest.raises(ValueError, match=r"not complete there as array_record.*says tfrecord.*pip install"):
        datasets.load("records", tmp_path)

    prepare(tmp_path, "broken")
    (tmp_path / "broken" / "1.0.0" / "features.json").write_text("{")
    with pytest.raises(ValueError, match=r"not a complete prepared data set \(JSONDecodeError.*pip install"):
        datasets.load("broken", tmp_path)


MODULE = "tensorflow_datasets.core.features"


@pytest.mark.parametrize("named", [f"{MODULE}.image_feature.Image", f"{MODULE}.class_label_feature.ClassLabel"])
def test_no_module_that_a_set_names_is_imported(tmp_path: pathlib.Path, named: str) -> None:
    """tensorflow-datasets would: `this` prints a poem."""
    prepare(tmp_path)
    edit(tmp_path / "tiny" / "1.0.0" / "features.json", named, "this.X")
    with pytest.raises(base.UserError, match=r"expected the features image \(Image\) and label .*; it has .*\(X\)"):
        datasets.load("tiny", tmp_path)
    assert "this" not in sys.modules


@pytest.mark.parametrize("where", ["around", "beside"])
def test_other_features_of_a_set_are_not_looked_at(tmp_path: pathlib.Path, where: str) -> None:
    held = prepare(tmp_path)
    file = tmp_path / "tiny" / "1.0.0" / "features.json"
    values = json.loads(file.read_text())
    foreign = {"pythonClassName": "this.X", "featuresDict": {"features": {"x": {"pythonClassName": "this.Y"}}}}
    values = values | {"pythonClassName": "this.X"} if where == "around" else values
    values["featuresDict"]["features"] |= {"id": foreign} if where == "beside" else {}
    file.write_text(json.dumps(values))
    np.testing.assert_array_equal(datasets.load("tiny", tmp_path).train["x"], held["train"]["x"])
    assert "this" not in sys.modules


def test_records_that_are_damaged_or_others_than_told_are_refused(tmp_path: pathlib.Path) -> None:
    prepare(tmp_path)
    folder = tmp_path / "tiny" / "1.0.0"
    edit(folder / "dataset_info.json", '"20"', '"21"')
    with pytest.raises(
        base.UserError, match=r"tiny-train\.array_record-0.* has 20 records, expected 21; prepare it ag"
    ):
        datasets.load("tiny", tmp_path)
    edit(folder / "dataset_info.json", '"21"', '"20"')
    (file,) = folder.glob("*-test.array_record-*")
    whole = file.read_bytes()
    for content in (b"", whole[:1000], whole[: len(whole) // 2], whole[:50] + b"\xff" * 99 + whole[149:]):
        file.write_bytes(content)
        with pytest.raises(base.UserError, match=r"tiny-test\.array_record-0.* (cannot be read as|expected 7; )"):
            datasets.load("tiny", tmp_path)


def png(width: int, height: int) -> bytes:
    """One that tells its size, and holds no pixel."""
    chunks = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT"
    framed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def encoded(form: str, size: tuple[int, int] = (8, 8)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size).save(out, form)
    return out.getvalue()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (encoded("EPS"), "image 0 of train cannot be read .it is none of PNG, JPEG, BMP, WEBP."),
        (encoded("TIFF"), "it is none of PNG"),
        (encoded("PNG")[:-30], "image 0 of train cannot be read"),
        (b"", "image 0 of train cannot be read"),
        (png(30_000, 30_000), "image 0 of train cannot be read .DecompressionBomb"),
        (png(60_000, 10), "it has 60000 × 10 pixels"),
    ],
    ids=range(6),
)
def test_images_are_decoded_within_limits(tmp_path: pathlib.Path, image: bytes, message: str) -> None:
    _fuzz.prepare(tmp_path / "tiny" / "1.0.0", [image], [0])
    with pytest.raises(base.UserError, match=message):
        datasets.load("tiny", tmp_path)


@pytest.mark.parametrize("label", [-1, 3, 2**31, -(2**63), 2**62])
def test_labels_are_of_the_classes_that_there_are(tmp_path: pathlib.Path, label: int) -> None:
    _fuzz.prepare(tmp_path / "tiny" / "1.0.0", [encoded("PNG")] * 2, [0, label])
    with pytest.raises(base.UserError, match=f"labels from {min(label, 0)} to {max(label, 0)} in train; expected 0 to"):
        datasets.load("tiny", tmp_path)


def test_more_than_there_is_room_for_is_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fuzz.prepare(tmp_path / "tiny" / "1.0.0", [encoded("PNG", (500, 500))] * 4, [0] * 4)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 10, 90))
        with pytest.raises(base.UserError, match=r"pictures take 0\.0 GB, .*cache has room for 0\.0 GB"):
            datasets.load("tiny", tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MCU_JAX_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(memory, "host", lambda: 10**6)
    with pytest.raises(base.UserError, match=r"^8 pictures of 500 × 500 take 0\.0 GB once decoded; this machine has"):
        datasets.load("tiny", tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [("ant\nbee\n", "2 names for 3 classes"), ("ant\nb\x1cee\ncat\n", "4 names"), ("\ud800", "UnicodeDecodeError")],
)
def test_class_names_are_as_many_as_classes(tmp_path: pathlib.Path, names: str, message: str) -> None:
    prepare(tmp_path)
    (tmp_path / "tiny" / "1.0.0" / "label.labels.txt").write_bytes(names.encode("utf-8", "surrogatepass"))
    with pytest.raises(base.UserError, match=message):
        datasets.load("tiny", tmp_path)


def test_class_names_are_text(tmp_path: pathlib.Path) -> None:
    prepare(tmp_path)
    (tmp_path / "tiny" / "1.0.0" / "label.labels.txt").write_text("ant\n\x1b[31mbee\u202e\n$\\frac{$\n")
    data = datasets.load("tiny", tmp_path)
    assert data.class_names == ("ant", r"\x1b[31mbee\u202e", r"$\frac{$")
    assert datasets.arrays(data.train, data.test, class_names=["a\x1b", "b", "c"]).class_names == (r"a\x1b", "b", "c")


def test_crop_and_flip() -> None:
    x = jnp.asarray(np.random.RandomState(0).randint(1, 256, (64, 8, 8, 3)).astype(np.uint8))
    out = np.asarray(jax.jit(datasets.crop_and_flip)(x, jax.random.key(0)))
    assert (out.shape, out.dtype) == (x.shape, np.uint8)

    # Every output is one of the 81 crops of its own image, flipped or not; both, and many crops, occur.
    padded = np.pad(x, ((0, 0), (4, 4), (4, 4), (0, 0)))
    drawn = set()
    for i, image in enumerate(out):
        matches = [
            (dy, dx, flip)
            for dy in range(9)
            for dx in range(9)
            for flip in (1, -1)
            if np.array_equal(padded[i, dy : dy + 8, dx : dx + 8][:, ::flip], image)
        ]
        assert len(matches) == 1
        drawn.add(matches[0])
    assert {dy for dy, _, _ in drawn} == {dx for _, dx, _ in drawn} == set(range(9))
    assert {flip for _, _, flip in drawn} == {1, -1}


@pytest.mark.parametrize("name", REAL_HASHES)
def test_real_sets(name: str) -> None:
    data_dir = os.environ.get("MCU_JAX_DATA_DIR")
    if not data_dir or name not in datasets.prepared(data_dir):
        pytest.skip("needs MCU_JAX_DATA_DIR, a tfds directory with this set")
    data = datasets.load(name, data_dir)
    assert data.hash == REAL_HASHES[name]
