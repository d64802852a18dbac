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
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mcu_jax import augmentations, base, text
from mcu_jax.datasets import _cache, _data, _pictures

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_BATCH = 500


def load(name: str, data_dir: str | os.PathLike[str] | None, known: Sequence[str] = ()) -> _data.Data:
    """The data set `name` (or `name/config`) under data_dir. known: further names to offer."""
    spec = _spec(name, _find(name, data_dir, known))
    sizes = _cache.Sizes(*(sum(count for _, count in files) for files in spec.splits.values()))
    examples, digest = _cache.examples(spec.key, sizes, lambda: _decoded(spec))
    augment = augmentations.crop_and_flip if examples["x"].shape[-1] == 3 else None
    return _data.Data(name, examples, sizes.train, spec.class_names, digest, augment)


def prepared(data_dir: str | os.PathLike[str] | None = None) -> list[str]:
    """Names (`name` or `name/config`) of the data sets prepared under data_dir, of any format and kind."""
    root = _root(data_dir)
    folders = (file.parent.parent for depth in ("*/*", "*/*/*") for file in root.glob(f"{depth}/dataset_info.json"))
    return sorted({folder.relative_to(root).as_posix() for folder in folders})


class _Spec(NamedTuple):
    """What the directory says undecoded. splits: training, then test; of each, every file and the records in it. key:
    names the cache file.
    """

    name: str
    splits: dict[str, tuple[tuple[pathlib.Path, int], ...]]
    channels: int
    class_names: tuple[str, ...]
    key: str


def _root(data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    return _data.place(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets", "data_dir")


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
        info = _described(folder / "dataset_info.json")
        features = _described(folder / "features.json")["featuresDict"]["features"]
        sizes = {str(split["name"]): list(map(int, split["shardLengths"])) for split in info["splits"]}
        kinds = {str(key): str(feature["pythonClassName"]) for key, feature in features.items()}
        files = sorted(folder.iterdir())
    except _UNREADABLE as error:
        raise base.UserError(
            f"{folder} is not a complete prepared data set ({type(error).__name__}: {text.plain(error)}). "
            f"{_how_to_prepare(name, root)}"
        ) from error

    test = next((split for split in ("test", "validation") if split in sizes), None)
    if "train" not in sizes or test is None:
        has = text.plain(", ".join(sizes))
        raise base.UserError(f"{name} needs the splits train and test (or validation); it has {has}.")
    if not all(kinds.get(key) in allowed for key, allowed in _FEATURES.items()):
        has = text.plain(", ".join(f"{key} ({kind.rpartition('.')[2]})" for key, kind in kinds.items()))
        raise base.UserError(
            f"{name} is not an image-classification set: expected the features image (Image) and label (ClassLabel) "
            f"of tensorflow-datasets; it has {has}."
        )
    try:
        image = features["image"]["image"]
        channels, dtype = int(image["shape"]["dimensions"][-1]), image.get("dtype", "uint8")
        class_names = _class_names(folder, int(features["label"]["classLabel"]["numClasses"]))
    except _UNREADABLE as error:
        why = f"{type(error).__name__}: {text.plain(error)}"
        raise base.UserError(f"{name} does not say what its images and labels are ({why}); prepare it again") from error
    if dtype != "uint8" or channels not in (1, 3):
        raise base.UserError(f"{name} needs uint8 images of 1 or 3 channels; it has {text.show(image)}.")

    shards = {split: [file for file in files if f"-{split}.array_record-" in file.name] for split in ("train", test)}
    if any(len(shards[split]) != len(sizes[split]) for split in shards):
        kept = text.plain(info.get("fileFormat", "tfrecord"))
        raise base.UserError(
            f"{name} is in {folder}, but its splits train and {test} are not complete there as array_record "
            f"files (the directory says {kept}). {_how_to_prepare(name, root)}"
        )
    splits = {split: tuple(zip(shards[split], sizes[split], strict=True)) for split in shards}

    fingerprint = hashlib.sha256((folder / "dataset_info.json").read_bytes())
    for file in files:
        stat = file.stat()
        fingerprint.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    key = f"{name.replace('/', '-')}-{folder.name}-{fingerprint.hexdigest()[:16]}"
    return _Spec(name, splits, channels, class_names, key)


_FEATURES = {
    "image": ("tensorflow_datasets.core.features.image_feature.Image",),
    "label": ("tensorflow_datasets.core.features.class_label_feature.ClassLabel",),
}
"""Classes by the names that prepared sets have for them; nothing is imported by them."""
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError)
"""What files of another layout come to."""
_LONGEST = 10_000_000
"""Bytes of a description."""


def _described(file: pathlib.Path) -> Any:
    with file.open("rb") as opened:
        content = opened.read(_LONGEST + 1)
    if len(content) > _LONGEST:
        raise ValueError(f"{file.name} has more than {_LONGEST} bytes")
    return json.loads(content)


def _class_names(folder: pathlib.Path, count: int) -> tuple[str, ...]:
    """Raises ValueError where there are none, too many, or others than told."""
    if not 0 < count <= _data.MOST_CLASSES:
        raise ValueError(f"numClasses is {count}, expected 1 to {_data.MOST_CLASSES}")
    file = folder / "label.labels.txt"
    if not file.exists():
        return tuple(map(str, range(count)))
    with file.open("rb") as opened:
        names = opened.read(_LONGEST).decode().splitlines()
    if len(names) != count:
        raise ValueError(f"{file.name} has {len(names)} names for {count} classes")
    return tuple(map(text.printable, names))


def _decoded(spec: _Spec) -> _cache.Decoded:
    """In the order of the files, as tensorflow-datasets reads them: by its record format, but not by its features,
    which would import what the directory names.
    """
    shape: tuple[int, ...] | None = None
    for split in spec.splits:
        labels: list[int] = []
        for encoded, label in _examples(spec, split):
            image = _image(spec, encoded, f"image {len(labels)} of {split}")
            if image.shape != (shape := shape or image.shape):
                raise base.UserError(
                    f"{spec.name} has images of different sizes in {split}, such as {sorted({shape, image.shape})}; "
                    "expected one size. Prepare a set of resized images."
                )
            labels.append(label)
            yield image, label
        if not labels:
            raise base.UserError(f"{spec.name} has no example in {split}; expected one or more. Prepare it again.")
        if min(labels) < 0 or max(labels) >= len(spec.class_names):
            raise base.UserError(
                f"{spec.name} has labels from {min(labels)} to {max(labels)} in {split}; expected 0 to "
                f"{len(spec.class_names) - 1}. A split without labels cannot be used."
            )


def _image(spec: _Spec, encoded: bytes, which: str) -> np.ndarray:
    """[h, w, channels]."""
    try:
        image = np.asarray(_pictures.decode(io.BytesIO(encoded), "L" if spec.channels == 1 else "RGB"))
    except ValueError as error:
        raise base.UserError(f"{spec.name}: {which} cannot be read ({error}); prepare it again") from error
    return image.reshape(*image.shape[:2], spec.channels)


def _examples(spec: _Spec, split: str) -> Iterator[tuple[bytes, int]]:
    """(encoded image, label). Raises UserError for files that are damaged, or hold another number of records."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of tfds and protobuf on newer Pythons say nothing to our caller
        from array_record.python import array_record_module
        from tensorflow_datasets.proto import tf_example_pb2

    for file, told in spec.splits[split]:
        shown = f"{spec.name}: {text.plain(file.name)}"
        try:
            reader = array_record_module.ArrayRecordReader(str(file), "readahead_buffer_size:0")
            count = reader.num_records()
        except Exception as error:  # the reader's and protobuf's own classes
            raise _damaged(shown, error) from error
        if count != told:
            raise base.UserError(f"{shown} has {text.plural(count, 'record')}, expected {told}; prepare it again")
        for start in range(0, count, _BATCH):
            try:
                records = reader.read(list(range(start, min(start + _BATCH, count))))
                features = [tf_example_pb2.Example.FromString(record).features.feature for record in records]
                pairs = [(f["image"].bytes_list.value[0], f["label"].int64_list.value[0]) for f in features]
            except Exception as error:
                raise _damaged(shown, error) from error
            yield from pairs
        reader.close()


def _damaged(shown: str, error: Exception) -> base.UserError:
    why = f"{type(error).__name__}: {text.plain(error)}"
    return base.UserError(f"{shown} cannot be read as records of images and labels ({why}); prepare it again")
