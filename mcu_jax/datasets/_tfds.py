"""Prepared TensorFlow Datasets directories, read without TensorFlow and without the network."""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import os
import pathlib
import re
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mcu_jax import augmentations, base, text
from mcu_jax.datasets import _cache, _data

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_BATCH = 500


def load(name: str, data_dir: str | os.PathLike[str] | None, known: Sequence[str] = ()) -> _data.Data:
    """The data set `name` (or `name/config`) under data_dir. known: further names to offer."""
    spec = _spec(name, _find(name, data_dir, known))
    file = _cache.path(spec.key)
    if (stored := _cache.read(file)) is None:
        train, test = (_decode(spec, split) for split in spec.splits)
        stored = train, test, _data.digest(train, test)
        _cache.write(file, *stored)
    train, test, digest = stored
    augment = augmentations.crop_and_flip if train["x"].shape[-1] == 3 else None
    return _data.join(name, train, test, spec.class_names, digest, augment)


def prepared(data_dir: str | os.PathLike[str] | None = None) -> list[str]:
    """Names (`name` or `name/config`) of the data sets prepared under data_dir, of any format and kind."""
    root = _root(data_dir)
    folders = (file.parent.parent for depth in ("*/*", "*/*/*") for file in root.glob(f"{depth}/dataset_info.json"))
    return sorted({folder.relative_to(root).as_posix() for folder in folders})


class _Spec(NamedTuple):
    """What the directory says undecoded. splits: training, test. key: names the cache file."""

    name: str
    folder: pathlib.Path
    splits: tuple[str, str]
    channels: int
    class_names: tuple[str, ...]
    key: str


def _root(data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    return pathlib.Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def _find(name: str, data_dir: str | os.PathLike[str] | None, known: Sequence[str]) -> pathlib.Path:
    root = _root(data_dir)
    inside = len(name) < 200 and re.fullmatch(r"\w[\w.+-]*(/\w[\w.+-]*)?", name)
    folders = (root / name).glob("*/dataset_info.json") if inside else ()
    versions = [file.parent for file in folders if _VERSION.fullmatch(file.parent.name)]
    if versions:
        return max(versions, key=lambda folder: tuple(map(int, folder.name.split("."))))
    names = prepared(root)
    state = f"has {', '.join(names)}" if names else "has none" if root.is_dir() else "does not exist"
    nearest = difflib.get_close_matches(name, [*known, *names], n=1)
    raise base.UserError(
        f"No data set {text.show(name)}: embedded are {', '.join(known)}, and {root} "
        f"({'the given' if data_dir else 'by default the'} data_dir) {state}."
        + (f" Did you mean {nearest[0]!r}?" if nearest else "")
        + f" {_how_to_prepare(name, root)}"
    )


def _how_to_prepare(name: str, root: pathlib.Path) -> str:
    return (
        "To prepare a TensorFlow Datasets set: pip install tensorflow and python -c "
        f"\"import tensorflow_datasets as tfds; tfds.builder('{text.plain(name)}', data_dir='{root}', "
        "file_format='array_record').download_and_prepare()\""
    )


def _spec(name: str, folder: pathlib.Path) -> _Spec:
    root = folder.parents[name.count("/") + 1]
    try:
        info = json.loads((folder / "dataset_info.json").read_text())
        features = json.loads((folder / "features.json").read_text())["featuresDict"]["features"]
        sizes = {split["name"]: list(map(int, split["shardLengths"])) for split in info["splits"]}
    except (OSError, ValueError, KeyError) as error:
        raise base.UserError(
            f"{folder} is not a complete prepared data set ({type(error).__name__}: {error}). "
            f"{_how_to_prepare(name, root)}"
        ) from error

    test = next((split for split in ("test", "validation") if split in sizes), None)
    if "train" not in sizes or test is None:
        raise base.UserError(f"{name} needs the splits train and test (or validation); it has {', '.join(sizes)}.")
    image, label = (features.get(key, {}) for key in ("image", "label"))
    if "image" not in image or "classLabel" not in label:
        raise base.UserError(
            f"{name} is not an image-classification set: expected the features image (Image) and label "
            f"(ClassLabel); it has {', '.join(features)}."
        )
    channels = int(image["image"]["shape"]["dimensions"][-1])
    if image["image"].get("dtype", "uint8") != "uint8" or channels not in (1, 3):
        raise base.UserError(f"{name} needs uint8 images of 1 or 3 channels; it has {image['image']}.")

    files = sorted(folder.iterdir())
    shards = {split: [file for file in files if f"-{split}.array_record-" in file.name] for split in ("train", test)}
    if any(len(shards[split]) != len(sizes[split]) for split in shards):
        kept = info.get("fileFormat", "tfrecord")
        raise base.UserError(
            f"{name} is in {folder}, but its splits train and {test} are not complete there as array_record "
            f"files (the directory says {kept}). {_how_to_prepare(name, root)}"
        )

    fingerprint = hashlib.sha256((folder / "dataset_info.json").read_bytes())
    for file in files:
        stat = file.stat()
        fingerprint.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    key = f"{name.replace('/', '-')}-{folder.name}-{fingerprint.hexdigest()[:16]}"
    return _Spec(name, folder, ("train", test), channels, _class_names(folder, label["classLabel"]), key)


def _class_names(folder: pathlib.Path, label: dict[str, Any]) -> tuple[str, ...]:
    file = folder / "label.labels.txt"
    if file.exists():
        return tuple(file.read_text().splitlines())
    return tuple(str(i) for i in range(int(label["numClasses"])))


def _decode(spec: _Spec, split: str) -> base.Batch:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of tfds and protobuf on newer Pythons say nothing to our caller
        import tensorflow_datasets as tfds

        # From the directory itself: by name, tfds would first ask the network.
        source = tfds.builder_from_directory(spec.folder).as_data_source(
            split=split, decoders={"image": tfds.decode.SkipDecoding()}
        )
        # One thread: two were measured slower. In batches: a third faster than one by one.
        examples = (
            example
            for start in range(0, len(source), _BATCH)
            for example in source.__getitems__(range(start, min(start + _BATCH, len(source))))
        )
        images, labels = zip(*((_image(e["image"], spec), e["label"]) for e in examples), strict=True)

    shapes = {image.shape for image in images}
    if len(shapes) != 1:
        raise base.UserError(
            f"{spec.name} has images of different sizes in {split}, such as {sorted(shapes)[:3]}; "
            "expected one size. Prepare a set of resized images."
        )
    y = np.array(labels, np.int32)
    if y.min() < 0 or y.max() >= len(spec.class_names):
        raise base.UserError(
            f"{spec.name} has labels from {y.min()} to {y.max()} in {split}; expected 0 to "
            f"{len(spec.class_names) - 1}. A split without labels cannot be used."
        )
    return {"x": np.stack(images), "y": y}


def _image(encoded: bytes, spec: _Spec) -> np.ndarray:
    # By Pillow, as tfds takes OpenCV where installed: the two differ on JPEG, and the hash must not.
    from PIL import Image

    image = np.asarray(Image.open(io.BytesIO(encoded)).convert("L" if spec.channels == 1 else "RGB"))
    return image.reshape(*image.shape[:2], spec.channels)
