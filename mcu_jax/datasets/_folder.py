"""Folders of pictures, one folder a class, read in place and decoded once."""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mcu_jax import augmentations, base, text
from mcu_jax.datasets import _cache, _data, _pictures

_TESTS = ("test", "val", "valid", "validation")
_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_ANNOTATIONS = "val_annotations.txt"
_LARGEST = 4096
"""Pixels of a side."""
_LARGE = 128
"""Pixels of a side from which on pictures are augmented as those of ImageNet are."""
_LONGEST = 10_000_000
"""Bytes of a list of classes or of pictures."""
_SHOWN = 3
"""Of files that are named in a message."""


class _Asked(NamedTuple):
    """size: of both sides, None as the pictures are. classes: a file that lists them, None for all."""

    folder: pathlib.Path
    size: int | None
    classes: pathlib.Path | None


class _Picture(NamedTuple):
    file: pathlib.Path
    label: int


def folder(spec: str) -> _data.Data:
    """The data set in `DIR`, or `DIR:size=64,classes=FILE`; nothing is written there.

    DIR/train/CLASS/… and DIR/test/CLASS/… (or val, valid, validation), as torchvision's ImageFolder has them, or as
    Tiny-ImageNet is published, with val/val_annotations.txt. Classes are numbered by their folders' names, or as FILE
    lists them, a name at the beginning of each line; others are left out. Pictures become RGB, in the order of their
    names. Without a size they must have one; with it the shorter side is resized to it, and the middle is cut out.
    Decoded once, into a memory-mapped file in the user's cache directory, whose digest is checked when it is read
    again. Augmented by random crops and flips; from 128 pixels on by random resized crops and flips, as ImageNet in the
    papers. Raises UserError: no such folders, classes without pictures, sizes that differ, and pictures that cannot be
    read: the first, and how many.
    """
    asked = _parse(spec)
    names, class_list = _class_names(asked)
    train, test = _found(asked, "train", names), _found(asked, _test(asked.folder), names)
    key = _key(asked, names, [*train, *test])
    sizes = _cache.Sizes(len(train), len(test))
    examples, digest = _cache.examples(key, sizes, lambda: _decoded([*train, *test], asked))
    small = min(examples["x"].shape[1:3]) < _LARGE
    augment = augmentations.make("crop+flip" if small else "random_resized_crop+flip")
    name, shown = text.printable(asked.folder.name), tuple(map(text.printable, names))
    return _data.Data(name, examples, len(train), shown, digest, augment, class_list)


def _parse(spec: str) -> _Asked:
    place, colon, options = spec.rpartition(":")
    if not colon or "=" not in options:
        place, options = spec, ""
    parts = [part.partition("=") for part in options.split(",") if part]
    given = {name: value for name, _, value in parts}
    unknown = sorted(set(given) - {"size", "classes"})
    if unknown or not place:
        raise base.UserError(
            f"a folder is asked for as folder:DIR or folder:DIR:size=64,classes=FILE; given {text.show(spec)}"
        )
    size = given.get("size")
    if size is not None and not (size.isdecimal() and len(size) < 10 and 0 < int(size) <= _LARGEST):
        raise base.UserError(f"the size of pictures is a whole number from 1 to {_LARGEST}, given {text.show(size)}")
    classes = given.get("classes")
    folder = _data.place(place, "a folder of pictures")
    if not folder.is_dir():
        raise base.UserError(f"{text.plain(folder)} is no folder, or cannot be opened; expected folder:DIR")
    if not (folder / "train").is_dir():
        raise base.UserError(
            f"{text.plain(folder)} has no folder train: expected DIR/train/CLASS/… and DIR/test/CLASS/…"
        )
    listed = None if classes is None else _data.place(classes, "a class list")
    return _Asked(folder, None if size is None else int(size), listed)


def _test(folder: pathlib.Path) -> str:
    found = [name for name in _TESTS if (folder / name).is_dir()]
    # Tiny-ImageNet's own test pictures have no labels.
    annotated = [name for name in found if (folder / name / _ANNOTATIONS).exists()]
    if not found:
        raise base.UserError(
            f"{text.plain(folder)} has no test pictures: expected a folder {', '.join(_TESTS[:-1])} or {_TESTS[-1]}"
        )
    return (annotated or found)[0]


def absolute(spec: str) -> str:
    """The same folder and class list by names that hold in every working directory. Raises UserError as `folder`."""
    asked = _parse(spec)
    options = {} if asked.size is None else {"size": str(asked.size)}
    if asked.classes is not None:
        options["classes"] = os.path.abspath(asked.classes)
    written = ",".join(f"{name}={value}" for name, value in options.items())
    return os.path.abspath(asked.folder) + (f":{written}" if written else "")


def _class_names(asked: _Asked) -> tuple[tuple[str, ...], str | None]:
    """(the classes in their order, sha256 of the file that lists them)."""
    class_list = None
    there = sorted(place.name for place in (asked.folder / "train").iterdir() if place.is_dir())
    if asked.classes is None:
        names = there
    else:
        try:
            content = _small(asked.classes)
            lines, class_list = content.decode().splitlines(), hashlib.sha256(content).hexdigest()
        except (OSError, ValueError) as error:
            raise base.UserError(
                f"the class list {text.plain(asked.classes)} cannot be read: "
                f"{text.plain(getattr(error, 'strerror', None) or error)}"
            ) from error
        names = [line.split()[0] for line in lines if line.strip()]
        if missing := [name for name in names if name not in there]:
            raise base.UserError(
                f"the class list {text.plain(asked.classes)} names {text.show(missing[0])}, which is no folder of "
                f"{text.plain(asked.folder)}/train ({len(missing)} of {len(names)} are none)"
            )
    shown = text.plain(asked.folder / "train" if asked.classes is None else asked.classes)
    if len(set(names)) != len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise base.UserError(f"{shown} lists {text.show(twice)} more than once: list every class once")
    if len(names) < 2:
        has = f"only {text.show(names[0])}" if names else "none"
        raise base.UserError(f"{shown} has {has}: expected two or more classes, as folders in train")
    return tuple(names), class_list


def _small(file: pathlib.Path) -> bytes:
    """Of a list that people write. Raises ValueError for more."""
    with file.open("rb") as opened:
        content = opened.read(_LONGEST + 1)
    if len(content) > _LONGEST:
        raise ValueError(f"it has more than {_LONGEST} bytes")
    return content


def _found(asked: _Asked, part: str, names: tuple[str, ...]) -> list[_Picture]:
    """In the order of classes, then of files."""
    place = asked.folder / part
    if (place / _ANNOTATIONS).exists():
        found = list(_annotated(place, names))
    else:
        found = [_Picture(file, i) for i, name in enumerate(names) for file in _files(place / name)]
    empty = sorted(set(range(len(names))) - {picture.label for picture in found})
    if empty:
        raise base.UserError(
            f"{text.plain(place)} has no picture ({', '.join(_ENDINGS)}) of class {text.show(names[empty[0]])}"
            + (f", and of {len(empty) - 1} more" if len(empty) > 1 else "")
        )
    return found


def _files(place: pathlib.Path) -> list[pathlib.Path]:
    return sorted(file for file in place.rglob("*") if file.suffix.lower() in _ENDINGS and file.is_file())


def _annotated(place: pathlib.Path, names: tuple[str, ...]) -> Iterator[_Picture]:
    """As Tiny-ImageNet has them: a line a picture, its file and its class first."""
    number = {name: i for i, name in enumerate(names)}
    shown = text.plain(place / _ANNOTATIONS)
    try:
        lines = _small(place / _ANNOTATIONS).decode("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise base.UserError(f"{shown} cannot be read: {text.plain(error)}") from error
    for line in sorted(lines):
        file, _, rest = line.partition("\t")
        label = number.get(rest.partition("\t")[0])
        if label is not None:
            if pathlib.PurePath(file).name != file:
                raise base.UserError(f"{shown} names {text.show(file)}; expected the name of a file in images/")
            yield _Picture(place / "images" / file, label)


def _key(asked: _Asked, names: tuple[str, ...], pictures: list[_Picture]) -> str:
    """Names the decoded file: of what was asked for, the classes in their order, and every file, by size and time."""
    whole = hashlib.sha256(f"{asked.size} {names}".encode())
    for file, label in pictures:
        try:
            stat = file.stat()
        except (OSError, ValueError) as error:  # ValueError: a NUL in its name
            raise base.UserError(f"the picture {text.plain(file)} cannot be read: {text.plain(error)}") from error
        named = f"{file.relative_to(asked.folder)} {label} {stat.st_size} {stat.st_mtime_ns}\n"
        whole.update(named.encode("utf-8", "surrogateescape"))
    name = re.sub(r"\W", "-", asked.folder.resolve().name)[:40]
    return f"folder-{name}-{whole.hexdigest()[:16]}"


def _decoded(pictures: list[_Picture], asked: _Asked) -> _cache.Decoded:
    """Every picture [h, w, 3] and its label; after the last one an error, where some could not be read."""
    unreadable: list[pathlib.Path] = []
    shape: tuple[int, ...] | None = None
    for file, label in pictures:
        try:
            image = _image(file, asked.size)
        except ValueError:
            unreadable.append(file)
            continue
        if image.shape != (shape := shape or image.shape):
            sizes = " and ".join(f"{width} × {height}" for height, width, _ in (shape, image.shape))
            raise base.UserError(
                f"the pictures of {text.plain(asked.folder)} have different sizes, as {sizes} ("
                f"{text.plain(file.relative_to(asked.folder))}): ask for one, as folder:DIR:size=64"
            )
        yield image, label
    if unreadable:
        named = ", ".join(text.plain(file.relative_to(asked.folder)) for file in unreadable[:_SHOWN])
        more = ", …" if len(unreadable) > _SHOWN else ""
        count = f"{text.plural(len(unreadable), 'picture')} of {len(pictures)}"
        raise base.UserError(
            f"{count} in {text.plain(asked.folder)} cannot be read: {named}{more}; repair or remove them"
        )


def _image(file: pathlib.Path, size: int | None) -> np.ndarray:
    from PIL import Image

    image = _pictures.decode(file, "RGB")
    if size is not None and image.size != (size, size):
        factor = size / min(image.size)
        width, height = (max(size, round(side * factor)) for side in image.size)
        if max(width, height) > _pictures.LARGEST:
            raise ValueError(f"resized it would be {width} × {height} pixels")
        left, top = (width - size) // 2, (height - size) // 2
        resized = image.resize((width, height), Image.Resampling.BILINEAR)
        image = resized.crop((left, top, left + size, top + size))
    return np.asarray(image)
