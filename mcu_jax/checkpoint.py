"""Checkpoints of array trees: orbax arrays, and beside them a manifest that proves every byte.

Orbax loads most flipped bits without a word, so `manifest.json`, written last, holds a sha256 of every leaf
and file; a checkpoint is built beside its place and renamed into it. Orbax all the same, for what it is good at: any
JAX program reads what it writes, so that a stage of a run is an export as it lies there, and nothing is written twice.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import pathlib
import shutil
import stat
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from mcu_jax import _orbax, disk, memory
from mcu_jax.base import UserError

_MANIFEST = "manifest.json"
_ARRAYS = "arrays"
_SHOWN = 80
"""Characters of a name in a message."""
_GONE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""What is not there, or something else is; other errors of reading, as a missing permission, are no damage."""


class DamagedCheckpointError(RuntimeError):
    """A checkpoint that is not what was saved."""


class UnreadableCheckpointError(UserError):
    """A checkpoint that is what was saved, and that this version of orbax cannot read."""


class _Leaf(NamedTuple):
    keys: list[str]
    value: Any

    @property
    def name(self) -> str:
        return "/".join(self.keys) or "(the whole tree)"


def save(directory: str | os.PathLike[str], tree: PyTree, meta: dict[str, Any] | None = None) -> None:
    """Write `tree` and the JSON `meta` to `directory`, replacing what is there; if killed, all or nothing.

    A plain orbax checkpoint of nested dicts lies in `directory/arrays`; leaves without elements, which orbax
    refuses, are in the manifest alone. Saves to one place at the same time end in any order, each whole; a link is
    replaced, not followed. Raises TypeError for a leaf that is no array of numbers or booleans, ValueError for two
    leaves of one name and for NaN or inf in `meta`, OSError where the disk is full, say: then nothing has changed.
    """
    directory = pathlib.Path(directory)
    leaves = [_Leaf(keys, _array(keys, value)) for keys, value in _leaves(tree)]
    _refuse_same_names(leaves)
    json.dumps(meta, allow_nan=False)
    directory.parent.mkdir(parents=True, exist_ok=True)
    sweep(directory.parent)
    work = disk.workplace(directory.parent)
    new = work / "new"
    try:
        new.mkdir(parents=True)
        stored = [leaf for leaf in leaves if leaf.value.size]
        if stored:
            _orbax.write(new / _ARRAYS, _nest([_Leaf(leaf.keys or ["array"], leaf.value) for leaf in stored]))
        body = {
            "schema": 1,
            "meta": {} if meta is None else meta,
            "leaves": [
                {
                    "keys": leaf.keys,
                    "shape": list(leaf.value.shape),
                    "dtype": leaf.value.dtype.name,
                    "sha256": _sha256(leaf.value).hexdigest(),
                }
                for leaf in leaves
            ],
            "empty": _empty_dicts(tree),
            "files": {
                file.relative_to(new).as_posix(): _file_sha256(file)
                for file in sorted((new / _ARRAYS).rglob("*"))
                if file.is_file()
            },
        }
        disk.write(new / _MANIFEST, _encode(body))
        _move_into_place(new, directory)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def load(directory: str | os.PathLike[str], like: PyTree | None = None) -> PyTree:
    """The tree in `directory` with numpy leaves: as nested dicts, or in the structure of `like`.

    Without `like`, fields and positions become dict keys (as strings) and a None is left out. Leaves of
    `like` need a shape and a dtype only. Raises DamagedCheckpointError where anything is not as saved,
    ValueError naming the leaf where `like` differs, FileNotFoundError without `directory`, OSError where it may not be
    read, UnreadableCheckpointError.
    """
    directory = _place(directory)
    body = _read_manifest(directory)
    for name, expected in body["files"].items():
        if not _is_inside(directory, name):
            raise damaged(directory, f"file {ascii(name)[:_SHOWN]} is none of its own")
        try:
            actual = _file_sha256(directory / name)
        except _GONE as error:
            raise damaged(directory, f"file {name} cannot be read ({error.strerror})") from error
        if actual != expected:
            raise damaged(directory, f"file {name} is not as it was written")
    leaves = _empty_leaves(directory, body["leaves"])
    stored = [_Leaf(leaf.keys or ["array"], leaf.value) for leaf in leaves if leaf.value.size]
    if stored:
        try:
            arrays = _orbax.read(directory / _ARRAYS, _nest(stored))
        except (OSError, MemoryError):
            raise
        except Exception as error:
            raise UnreadableCheckpointError(
                f"orbax cannot read {directory / _ARRAYS} ({type(error).__name__}), whose files are as they were "
                "written: read it with the version of orbax that wrote it"
            ) from error
        leaves = [_Leaf(leaf.keys, _get(arrays, leaf)) if leaf.value.size else leaf for leaf in leaves]
    for leaf, entry in zip(leaves, body["leaves"], strict=True):
        if _sha256(leaf.value).hexdigest() != entry["sha256"]:
            raise damaged(directory, f"leaf {leaf.name} is not as it was saved")
    if like is not None:
        return _in_structure(directory, leaves, like)
    try:
        return _nest(leaves, body["empty"])
    except (TypeError, AttributeError, ValueError) as error:
        raise damaged(directory, f"file {_MANIFEST} tells of no tree ({type(error).__name__})") from error


def _is_inside(directory: pathlib.Path, name: str) -> bool:
    """Whether it is a place in a checkpoint, and no device, which may never end."""
    path = pathlib.PurePath(name)
    is_place = "\0" not in name and not path.is_absolute() and ".." not in path.parts
    return is_place and ((directory / path).is_file() or not (directory / path).exists())


def _empty_leaves(directory: pathlib.Path, entries: list[dict[str, Any]]) -> list[_Leaf]:
    """As the manifest tells them, without values."""
    try:
        dtypes = [np.dtype(entry["dtype"]) for entry in entries]
        size = sum(math.prod(entry["shape"]) * dtype.itemsize for entry, dtype in zip(entries, dtypes, strict=True))
        if size > memory.host():
            raise damaged(directory, f"it tells of {size / 1e9:.1f} GB of arrays, more than this machine's memory")
        shaped = zip(entries, dtypes, strict=True)
        leaves = [_Leaf([*entry["keys"]], np.empty(entry["shape"], dtype)) for entry, dtype in shaped]
        texts = [entry["sha256"] for entry in entries] + [key for leaf in leaves for key in leaf.keys]
        is_right = all(isinstance(text, str) for text in texts) and all(map(_is_of_numbers, dtypes))
    except (KeyError, TypeError, ValueError, OverflowError, MemoryError) as error:
        raise damaged(directory, f"file {_MANIFEST} tells of no arrays ({type(error).__name__})") from error
    if not is_right:
        raise damaged(directory, f"file {_MANIFEST} tells of no arrays")
    return leaves


def _is_of_numbers(dtype: np.dtype) -> bool:
    return any(jax.dtypes.issubdtype(dtype, kind) for kind in (np.bool_, np.number))


def read_meta(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The `meta` given to `save`. Raises as `load`, without looking at the arrays."""
    return _read_manifest(_place(directory))["meta"]


def exists(directory: str | os.PathLike[str]) -> bool:
    """Whether `directory` holds a checkpoint, whole or damaged. Raises OSError where that may not be seen."""
    return _is(_place(directory) / _MANIFEST, stat.S_ISREG)


def digest(tree: PyTree) -> str:
    """sha256 over key paths, shapes, dtypes and bytes of a tree, as hexadecimal."""
    total = hashlib.sha256()
    for keys, value in _leaves(tree):
        array = _array(keys, value)
        total.update(json.dumps([keys, array.shape, array.dtype.name]).encode())
        total.update(_sha256(array).digest())
    return total.hexdigest()


def _leaves(tree: PyTree) -> list[tuple[list[str], Any]]:
    return [(_keys(path), value) for path, value in jax.tree_util.tree_leaves_with_path(tree)]


def _keys(path: tuple[Any, ...]) -> list[str]:
    return [jax.tree_util.keystr((key,), simple=True) for key in path]


def _empty_dicts(tree: PyTree) -> list[list[str]]:
    def is_empty(x: Any) -> bool:
        return type(x) is dict and not x

    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_empty)
    return [_keys(path) for path, value in leaves if is_empty(value)]


def _array(keys: list[str], value: Any) -> np.ndarray:
    name = _Leaf(keys, value).name
    try:
        array = np.asarray(value, order="C")
    except TypeError as error:
        raise TypeError(f"leaf {name}: expected an array, got {type(value).__name__}: {error}") from error
    if not _is_of_numbers(array.dtype):
        raise TypeError(f"leaf {name}: expected numbers or booleans, got {array.dtype} ({type(value).__name__})")
    # Orbax writes the machine's byte order only.
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _sha256(array: np.ndarray) -> Any:
    # A view, and of plain bytes: hashlib cannot read bfloat16.
    return hashlib.sha256(np.asarray(array, order="C").reshape(-1).view(np.uint8).data)


def _refuse_same_names(leaves: list[_Leaf]) -> None:
    seen: dict[str, list[str]] = {}
    for leaf in leaves:
        # Orbax joins keys by dots: {"a.b": x, "a": {"b": y}} would be one array.
        name = leaf.name.replace("/", ".")
        if name in seen:
            raise ValueError(f"leaves {seen[name]} and {leaf.keys} have the same name; rename one of the keys")
        seen[name] = leaf.keys


def _nest(leaves: list[_Leaf], empty: list[list[str]] | tuple[()] = ()) -> Any:
    if [leaf.keys for leaf in leaves] == [[]]:
        return leaves[0].value
    tree: dict[str, Any] = {}
    for keys, value in [*leaves, *((keys, {}) for keys in empty if keys)]:
        *parents, last = keys
        inner = tree
        for key in parents:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return tree


def _get(tree: dict[str, Any], leaf: _Leaf) -> Any:
    for key in leaf.keys or ["array"]:
        tree = tree[key]
    return tree


def _in_structure(directory: pathlib.Path, leaves: list[_Leaf], like: PyTree) -> PyTree:
    stored = {tuple(leaf.keys): leaf for leaf in leaves}
    targets = [_Leaf(keys, value) for keys, value in _leaves(like)]
    for target in targets:
        if tuple(target.keys) not in stored:
            raise ValueError(f"{directory}: expected a leaf {target.name}, the checkpoint has none")
        shaped = target.value if hasattr(target.value, "dtype") else np.asarray(target.value)
        value = stored[tuple(target.keys)].value
        if tuple(shaped.shape) != value.shape or shaped.dtype.name != value.dtype.name:
            raise ValueError(
                f"{directory}: expected leaf {target.name} of {shaped.dtype}{list(shaped.shape)}, "
                f"the checkpoint's is {value.dtype}{list(value.shape)}"
            )
    extra = stored.keys() - {tuple(target.keys) for target in targets}
    if extra:
        raise ValueError(f"{directory}: the checkpoint has a leaf {stored[min(extra)].name} that was not expected")
    values = [stored[tuple(target.keys)].value for target in targets]
    return jax.tree.unflatten(jax.tree.structure(like), values)


def _encode(body: dict[str, Any]) -> str:
    """The manifest's text: `body` and, in it, the sha256 of `body`."""
    # As it will be read: keys that are numbers become strings, and strings sort otherwise.
    body = json.loads(json.dumps(body))
    plain = json.dumps(body, sort_keys=True)
    return json.dumps({**body, "sha256": hashlib.sha256(plain.encode()).hexdigest()}, indent=1, sort_keys=True)


def _read_manifest(directory: pathlib.Path) -> dict[str, Any]:
    if not _is(directory, stat.S_ISDIR):
        raise FileNotFoundError(f"no checkpoint in {directory}")
    try:
        text = (directory / _MANIFEST).read_bytes().decode()
        body = json.loads(text)
        del body["sha256"]
        # The text, not only its meaning, has to be as written: nothing in this file may change unseen.
        intact = text == _encode(body)
    except (*_GONE, ValueError, TypeError, KeyError, RecursionError) as error:
        raise damaged(directory, f"file {_MANIFEST} cannot be read ({type(error).__name__})") from error
    kinds = {"meta": dict, "leaves": list, "empty": list, "files": dict}
    if not intact or not all(isinstance(body.get(name), kind) for name, kind in kinds.items()):
        raise damaged(directory, f"file {_MANIFEST} is not as it was written")
    return body


def damaged(directory: pathlib.Path, what: str) -> DamagedCheckpointError:
    """The error that says so, and what can be done."""
    return DamagedCheckpointError(
        f"damaged checkpoint {directory}: {what}; give a whole copy of it, or the command again that made it: a run "
        "sets it aside and makes it again"
    )


def _file_sha256(file: pathlib.Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _move_into_place(new: pathlib.Path, directory: pathlib.Path) -> None:
    """No file system that matters exchanges two directories at once: in between, readers take the old one."""
    old = _old(directory)
    with disk.in_turn(directory.parent):
        if directory.is_symlink():
            directory.unlink()
        while True:
            try:
                new.rename(directory)
                break
            except OSError as error:
                _check_taken(error)
            # Again and again: where folders cannot be locked, another process may save to the same place.
            shutil.rmtree(old, ignore_errors=True)
            try:
                directory.rename(old)
            except FileNotFoundError:
                pass
            except OSError as error:
                _check_taken(error)
        disk.sync(directory.parent)
        shutil.rmtree(old, ignore_errors=True)


def _check_taken(error: OSError) -> None:
    """Raises the error again, if it is another than that something is there already."""
    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
        raise error


def _old(directory: pathlib.Path) -> pathlib.Path:
    return directory.with_name(f".{directory.name}.old")


def _place(directory: str | os.PathLike[str]) -> pathlib.Path:
    """Where the checkpoint is: beside its place, if a save over it was killed between two renames."""
    directory = pathlib.Path(directory)
    there, old = _is(directory, stat.S_ISDIR), _old(directory)
    return old if not there and _is(old, stat.S_ISDIR) else directory


def _is(place: pathlib.Path, kind: Any) -> bool:
    """kind: a function of `stat`. Unlike pathlib's, it takes a missing permission for no answer."""
    try:
        return kind(place.stat().st_mode)
    except _GONE:
        return False


def sweep(directory: str | os.PathLike[str]) -> None:
    """Removes what killed saves to places in `directory` left, and ends what they had begun to exchange."""
    directory = pathlib.Path(directory)
    disk.sweep(directory)
    for old in directory.glob(".*.old"):
        place = directory / old.name[1 : -len(".old")]
        with disk.in_turn(directory):
            if _is(old / _MANIFEST, stat.S_ISREG) and not os.path.lexists(place):
                old.rename(place)
            elif all(_is(each / _MANIFEST, stat.S_ISREG) for each in (old, place)):
                shutil.rmtree(old, ignore_errors=True)
