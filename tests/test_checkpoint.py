"""Checkpoints come back bit by bit, or not at all with a word that helps."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from concurrent import futures
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcu_jax import _orbax, checkpoint, disk


class Pair(NamedTuple):
    start: object
    inner: object


_DTYPES = (
    "float32",
    "float64",
    "float16",
    "bfloat16",
    "int8",
    "int32",
    "int64",
    "uint32",
    "bool",
    "complex64",
)

_arrays = st.builds(
    lambda shape, dtype, seed: np.random.default_rng(seed).integers(0, 100, shape).astype(jnp.dtype(dtype), order="C"),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    st.sampled_from(_DTYPES),
    st.integers(0, 9),
)
_keys = st.text(st.characters(codec="utf-8", exclude_characters="./\x00"), max_size=4)
_dicts = st.recursive(_arrays, lambda inner: st.dictionaries(_keys, inner, max_size=3), max_leaves=5)
_trees = st.recursive(
    _arrays,
    lambda inner: (
        st.dictionaries(_keys, inner, max_size=3)
        | st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.builds(Pair, inner, inner)
        | st.none()
    ),
    max_leaves=5,
)


@pytest.fixture(scope="session")
def tree():
    rng = np.random.default_rng(0)
    return {
        "dense": {"kernel": rng.normal(size=(20, 30)).astype(np.float32), "bias": jnp.ones(30, jnp.bfloat16)},
        "mask": np.array([True, False]),
        "step": np.int32(3),
        "none": np.zeros((0, 4), np.float32),
        "stats": {},
    }


@pytest.fixture
def saved(tree, tmp_path):
    directory = tmp_path / "stages" / "original"
    checkpoint.save(directory, tree, {"seed": 1, "name": "ä", "by_seed": {2: (0.5,), 10: None}})
    return directory


def _assert_same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        assert x.tobytes() == y.tobytes()


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(_dicts)
def test_dicts_come_back_without_a_template(tree):
    with tempfile.TemporaryDirectory() as directory:
        checkpoint.save(f"{directory}/saved", tree)
        _assert_same(checkpoint.load(f"{directory}/saved"), tree)


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(_trees.filter(lambda tree: tree is not None))
def test_any_tree_comes_back_in_the_structure_of_like(tree):
    with tempfile.TemporaryDirectory() as directory:
        checkpoint.save(f"{directory}/saved", tree)
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
        _assert_same(checkpoint.load(f"{directory}/saved", like), tree)


def test_fields_become_keys_without_like(tmp_path):
    checkpoint.save(tmp_path / "path", Pair({"w": np.ones(2)}, (np.zeros(1), np.ones(1))))
    expected = {"start": {"w": np.ones(2)}, "inner": {"0": np.zeros(1), "1": np.ones(1)}}
    _assert_same(checkpoint.load(tmp_path / "path"), expected)


def test_plain_orbax_reads_the_arrays(saved, tree):
    import orbax.checkpoint as ocp

    target = {"dense": tree["dense"], "mask": tree["mask"], "step": tree["step"]}
    target = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), target)
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(saved / "arrays", target)
    np.testing.assert_array_equal(restored["dense"]["kernel"], tree["dense"]["kernel"])


def test_meta_and_exists(saved, tmp_path):
    assert checkpoint.read_meta(saved) == {"seed": 1, "name": "ä", "by_seed": {"2": [0.5], "10": None}}
    assert checkpoint.exists(saved)
    assert not checkpoint.exists(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="nothing"):
        checkpoint.load(tmp_path / "nothing")


def test_save_replaces_and_leaves_nothing_beside(saved):
    checkpoint.save(saved, {"w": np.arange(3)})
    _assert_same(checkpoint.load(saved), {"w": np.arange(3)})
    assert list(saved.parent.iterdir()) == [saved]


def test_save_and_load_are_quiet(saved, tree, tmp_path, capfd):
    checkpoint.save(tmp_path / "other", tree)
    checkpoint.load(tmp_path / "other")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("leaf", [jax.random.key(0), "text", object()], ids=["key", "text", "object"])
def test_what_is_no_array_is_refused_by_name(leaf, tmp_path):
    with pytest.raises(TypeError, match="dense/odd"):
        checkpoint.save(tmp_path / "x", {"dense": {"odd": leaf}})
    assert list(tmp_path.iterdir()) == []


def test_same_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="same name"):
        checkpoint.save(tmp_path / "x", {"a.b": np.ones(1), "a": {"b": np.ones(1)}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {**t, "mask": np.zeros(3, bool)}, r"expected leaf mask of bool\[3\], .* bool\[2\]"),
        (lambda t: {**t, "step": np.float32(3)}, r"leaf step of float32\[\], .* int32\[\]"),
        (lambda t: {**t, "extra": np.ones(1)}, "a leaf extra"),
        (lambda t: {**t, "dense": {"bias": t["dense"]["bias"]}}, "dense/kernel that was not expected"),
    ],
    ids=["shape", "dtype", "missing", "unexpected"],
)
def test_like_that_differs_names_the_leaf(saved, tree, change, message):
    with pytest.raises(ValueError, match=message):
        checkpoint.load(saved, change(tree))


def _assert_damaged(directory, load=checkpoint.load):
    with pytest.raises(checkpoint.DamagedCheckpointError) as caught:
        load(directory)
    assert f"damaged checkpoint {directory}" in str(caught.value)
    assert "give a whole copy of it, or the command again that made it" in str(caught.value)
    assert "delete" not in str(caught.value)
    return str(caught.value)


def _files(directory):
    return sorted(file for file in directory.rglob("*") if file.is_file())


def test_a_flipped_bit_anywhere_is_seen(saved):
    rng = np.random.default_rng(1)
    for file in _files(saved):
        whole = file.read_bytes()
        for place in {0, len(whole) - 1, *rng.integers(0, len(whole), 6).tolist()}:
            damaged = bytearray(whole)
            damaged[place] ^= 1 << int(rng.integers(8))
            file.write_bytes(damaged)
            assert file.relative_to(saved).as_posix() in _assert_damaged(saved)
        file.write_bytes(whole)
    checkpoint.load(saved)


def test_a_truncated_or_missing_file_is_named(saved):
    for file in _files(saved):
        name, whole = file.relative_to(saved).as_posix(), file.read_bytes()
        for rest in (b"", whole[: len(whole) // 2], whole[:-1]):
            file.write_bytes(rest)
            assert name in _assert_damaged(saved)
        file.unlink()
        assert name in _assert_damaged(saved)
        file.write_bytes(whole)
    checkpoint.load(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: "[]",
        lambda text: "null",
        lambda text: '{"sha256": 1}',
        lambda text: text.replace('"seed": 1', '"seed": 2'),
        lambda text: text + " ",
        lambda text: "[" * 100_000,
    ],
    ids=["empty", "list", "null", "bare", "meta", "space", "deep"],
)
def test_a_changed_manifest_is_seen(saved, change):
    manifest = saved / "manifest.json"
    manifest.write_text(change(manifest.read_text()))
    assert "manifest.json" in _assert_damaged(saved)
    _assert_damaged(saved, checkpoint.read_meta)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda body: body["files"].update({"../../../../../../../../../dev/zero": "0"}), "is none of its own"),
        (lambda body: body["files"].update({"/dev/zero": "0"}), "'/dev/zero' is none of its own"),
        (lambda body: body["files"].update({"arrays": "0"}), "'arrays' is none of its own"),
        (lambda body: body["files"].update({"arrays/link": "0"}), "'arrays/link' is none of its own"),
        (lambda body: body["leaves"][0].update(shape=[10**9, 10**9]), "GB of arrays, more than this machine's memory"),
        (lambda body: body["leaves"][0].update(shape=[-1]), "tells of no arrays .ValueError"),
        (lambda body: body["leaves"][0].update(shape=None), "tells of no arrays .TypeError"),
        (lambda body: body["leaves"][0].update(dtype="object"), "tells of no arrays"),
        (lambda body: body["leaves"][0].update(dtype="words"), "tells of no arrays .TypeError"),
        (lambda body: body["leaves"][0].update(keys=[3]), "tells of no arrays"),
        (lambda body: body["leaves"][0].pop("sha256"), "tells of no arrays .KeyError"),
        (lambda body: body.update(leaves=None), "is not as it was written"),
        (lambda body: body.update(empty=[[["a"]]]), "tells of no tree"),
        (lambda body: body.pop("files"), "is not as it was written"),
        (lambda body: body["files"].update({"arrays/a\0b": "0"}), "is none of its own"),
        (lambda body: body["leaves"][0].update(keys=3), "tells of no arrays"),
        (lambda body: body.update(empty=[3]), "tells of no tree"),
        (lambda body: body.update(meta=3), "is not as it was written"),
    ],
    ids=range(18),
)
def test_a_manifest_that_somebody_wrote_tells_of_a_checkpoint_or_is_refused(saved, change, message):
    """Its digest is no signature."""
    (saved / "arrays" / "link").symlink_to("/dev/zero")
    manifest = saved / "manifest.json"
    body = json.loads(manifest.read_text())
    del body["sha256"]
    change(body)
    manifest.write_text(checkpoint._encode(body))
    assert re.search(message, _assert_damaged(saved))


def test_what_orbax_gives_wrongly_is_damage_and_what_it_cannot_read_is_none(saved, monkeypatch):
    read = _orbax.read

    def flipped(directory, target):
        arrays = read(directory, target)
        arrays["dense"]["kernel"] = -arrays["dense"]["kernel"]
        return arrays

    def broken(directory, target):
        raise KeyError("deep inside")

    def small(directory, target):
        raise MemoryError

    monkeypatch.setattr(_orbax, "read", flipped)
    assert "leaf dense/kernel" in _assert_damaged(saved)
    monkeypatch.setattr(_orbax, "read", broken)
    with pytest.raises(
        checkpoint.UnreadableCheckpointError, match=r"arrays \(KeyError\), whose files are as they were"
    ):
        checkpoint.load(saved)
    monkeypatch.setattr(_orbax, "read", small)
    with pytest.raises(MemoryError):
        checkpoint.load(saved)


_SAVER = """
import os, signal, sys
import numpy as np
from mcu_jax import _orbax, checkpoint

def kill(*args):
    os.kill(os.getpid(), signal.SIGKILL)

when, directory = sys.argv[1:]
if when == "arrays":  # written, and nothing after them
    write = _orbax.write
    _orbax.write = lambda *args: (write(*args), kill())
elif when == "manifest":
    checkpoint._encode = kill
elif when == "place":
    checkpoint._move_into_place = kill
else:  # the old one is out, the new one not yet in
    rename = checkpoint.pathlib.Path.rename
    checkpoint.pathlib.Path.rename = lambda self, to: (rename(self, to), kill())
checkpoint.save(directory, {"w": np.ones(100_000)}, {"new": True})
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_killed_saves_leave_the_old_or_nothing(tree, tmp_path):
    cases = [("arrays", False), ("manifest", True), ("place", False), ("rename", True)]
    for when, old in cases:
        if old:
            checkpoint.save(tmp_path / when, tree)
    root = pathlib.Path(checkpoint.__file__).parents[1]
    killed = [
        subprocess.Popen(
            [sys.executable, "-c", _SAVER, when, str(tmp_path / when)],
            env={**os.environ, "PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"},
            stderr=subprocess.DEVNULL,
        )
        for when, _ in cases
    ]
    assert [process.wait() for process in killed] == [-signal.SIGKILL] * 4
    for when in ("manifest", "rename"):  # there is always one, the old or the new
        assert checkpoint.exists(tmp_path / when)
        assert checkpoint.read_meta(tmp_path / when) == {}
        _assert_same(checkpoint.load(tmp_path / when), tree)
    for when in ("arrays", "place"):
        assert not checkpoint.exists(tmp_path / when)
    for when, _ in cases:
        checkpoint.save(tmp_path / when, tree)
        _assert_same(checkpoint.load(tmp_path / when), tree)
    assert sorted(place.name for place in tmp_path.iterdir()) == sorted(when for when, _ in cases)


def test_what_killed_saves_left_is_swept_and_a_living_save_left_alone(saved, tree):
    host = socket.gethostname()

    def left(pid, token="0" * 8, host=host):
        place = saved.with_name(f".saving-{host}-{pid}-{token}-{'1' * 8}")
        (place / "new").mkdir(parents=True)
        return place

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    swept = [left(dead.pid), left(os.getpid())]  # the second is of a process that had our number before
    kept = [left(os.getppid()), left(os.getpid(), disk._TOKEN), left(dead.pid, host="another")]
    old = saved.with_name(".retrain.old")
    shutil.copytree(saved, old)  # killed between two renames: it is the only one
    shutil.copytree(saved, saved.with_name(".original.old"))
    mine = saved.with_name(".mine.old")
    mine.mkdir()
    checkpoint.save(saved.with_name("other"), tree)
    there = {place.name for place in saved.parent.iterdir()}
    assert there == {*(place.name for place in kept), "original", "other", "retrain", mine.name}
    assert not [place for place in swept if place.exists()]
    _assert_same(checkpoint.load(saved.with_name("retrain")), tree)


def test_saves_to_one_place_at_the_same_time_end_in_some_order(tmp_path):
    """Each whole, and nothing beside it; readers meanwhile see one of them."""
    place = tmp_path / "one"
    checkpoint.save(place, {"w": np.full(300, -1, np.float32)})

    def work(number):
        for _ in range(6):
            checkpoint.save(place, {"w": np.full(300, number, np.float32)}, {"number": number})

    with futures.ThreadPoolExecutor(4) as pool:
        for each in [pool.submit(work, number) for number in range(4)]:
            each.result()
    assert (checkpoint.load(place)["w"] == checkpoint.read_meta(place)["number"]).all()
    assert list(tmp_path.iterdir()) == [place]


def test_a_link_is_replaced_and_not_followed(saved, tree, tmp_path):
    (tmp_path / "link").symlink_to(saved)
    checkpoint.save(tmp_path / "link", {"w": np.ones(2)})
    assert not (tmp_path / "link").is_symlink()
    _assert_same(checkpoint.load(saved), tree)


def test_a_missing_permission_is_no_damage(saved, monkeypatch):
    """As root nothing is forbidden."""

    def forbidden(*_):
        raise PermissionError(13, "Permission denied", "x")

    for owner, name in ((checkpoint, "_file_sha256"), (pathlib.Path, "read_bytes"), (pathlib.Path, "stat")):
        monkeypatch.setattr(owner, name, forbidden)
        with pytest.raises(PermissionError):
            checkpoint.load(saved)
        if name == "stat":
            with pytest.raises(PermissionError):
                checkpoint.exists(saved)
        monkeypatch.undo()


def test_a_manifest_is_strict_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        checkpoint.save(tmp_path / "x", {}, {"loss": float("nan")})
    assert not (tmp_path / "x").exists()


def test_several_threads_save_at_the_same_time(tmp_path):
    def work(number):
        place = tmp_path / str(number) / "state"
        for k in range(5):
            tree = {f"leaf{j}": np.full((100, 30), number + k, np.float32) for j in range(8)}
            checkpoint.save(place, tree)
            assert (checkpoint.load(place)["leaf3"] == number + k).all()

    with futures.ThreadPoolExecutor(4) as pool:
        for each in [pool.submit(work, number) for number in range(4)]:
            each.result()


def test_digest_sees_every_part(tree):
    same = jax.tree.map(np.array, tree)
    others = [
        {**tree, "mask": np.array([True, True])},
        {**tree, "mask": np.array([1, 0], np.uint8)},
        {**tree, "mask": np.array([[True, False]])},
        {**{k: v for k, v in tree.items() if k != "mask"}, "mask2": tree["mask"]},
    ]
    digests = [checkpoint.digest(x) for x in (tree, *others)]
    assert checkpoint.digest(same) == digests[0]
    assert len(set(digests)) == 5
