"""Mutated inputs, of every kind that a command reads: each must end with a message, not a traceback, and soon.

`attack` makes one from a number and gives it to a command that trains nothing: the same number, the same input. The
tests do so for a few numbers of every kind; `attack_often` is for many.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from mcu_jax import checkpoint, cli, models

SECONDS = 60.0
"""After which a command hangs: one that compiles takes a few, on a machine with other work."""
MEMORY = 2 * 1024**3
"""Bytes by which the process may grow with one input."""
LONGEST = 2000
"""Characters of a message."""

LINES = (
    "unlearn --pre finetune:epochs=5,lr=0.01 --baselines ssd mcu:beta=0.2,curve=bezier:bends=2 --curve polychain",
    "unlearn --model mlp:hidden=[8,8] --forget random:0.2 --seeds 0 1 --points 9 --beta adaptive --mask.keep 0.4",
    "unlearn --train-size 60 --validation-size 40 --train.epochs 3 --forget class:3 --pre npo:optimizer=adam:b1=0.9",
    "unlearn --dataset digits --data-dir data --stages stages --out run --pre scrub:temperature=2,max_epochs=3",
    "unlearn --pre neggrad_plus:optimizer=sophia:gamma=0.1,lr=1 --baselines npo:curriculum=superloss:strength=1",
    "unlearn --augment crop:padding=1+flip+color_jitter:brightness=0.2 --normalize own:mean=[0.5],std=[0.2]",
    "unlearn --path auto:budget=4 --rule distribution --mesh data=2,map=2 --precision bfloat16 --sample 9",
    "unlearn --model preresnet:depth=20,remat=true --pre sfron:coupling=separate,steps=9 --baselines mcu:mask=none",
    "connect --a finetune:run=1 --b npo:forget=0.1 --curve linear bezier --sample 9 --points 5 --also mia --out r",
    "connect --grid sizes --methods finetune npo --sizes 0.02 0.1 --train-size 100 --validation-size 40 --retrains 2",
    "connect --a original --b retrain --curve bezier:bends=2 --objective neutral --sampling centred --origin line",
    "tune --methods finetune mcu --tries 3 --criterion avg_gap --rule accuracy --pre npo --seeds 100 --to r.json",
)
CONFIGURATIONS = (
    "lr: 1e-3\nbeta: 0.2\nseeds: [0, 1]\nbaselines: [ssd, 'npo:epochs=3']\ntrain: {epochs: 4, lr: 0.1}\n",
    "pre: scrub:temperature=2\nmask:\n  kind: mcu\n  keep: 0.4\nforget: random:0.2\ntrain_size: 60\n",
    "model: mlp:hidden=[8]\npoints: 9\nvalidation_size: 40\ncurve: bezier:bends=2\n",
    'dataset: digits\nout: "run"\nstages: "s"\naugment: flip\nnormalize: half\npath: plain\nrule: accuracy\n',
)
PIECES = (
    *("", "[", "]", "{", "}", ":", ",", "=", "- ", "? ", "#", "%", "'", '"', "|", "&a", "*a", "!!python/object:x "),
    *("nan", "-inf", "1e300", "-1", "0", "1" * 5000, "9" * 19, "10000000000", "[1000000000]", "null", "true", "3.5"),
    *("\x1b[31m", "\x00", "\u202e", "\ud800", "x" * 5000, "[" * 200, "a: " * 30, "&a [*a]", "--", "/dev/null", "\t"),
    *("adaptive", "linear", "retrain", "original", "mcu", "bends=1000000000", "points=1000000000", "hidden=[1000000]"),
    *(
        "~no-such-user/x",
        "folder:",
        "folder:~nobody",
        "²",
        "٣",
        "1_000",
        "0x10",
        "$\\frac{$",
        "\\e[31m",
        "..",
        "/",
        "\n",
    ),
    *("/dev/zero", "/dev/null.json", "a.npz", "a.safetensors", "a.py:b", "2147483648", "1e-320", "-0.0", "+", "none"),
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    3,
    2**31,
    10**30,
    0.5,
    -1e300,
    "",
    "x",
    "\x1b[31m",
    "x" * 500,
    [],
    [1],
    [[]],
    {},
    {"a": 1},
)
"""That JSON has, in the place of another."""
SMALL = ("--train-size", "12", "--validation-size", "6", "--seeds", "0", "--baselines", "ssd", "--model", "mlp")
GARBAGE = re.compile(r"[^\x20-\x7e\n\u00a0-\u2009\u2010-\u2027\u2030-\U000fffff]")


class Attack(NamedTuple):
    """A command line, and what it was made of, in words."""

    arguments: list[str]
    what: str


def attack(kind: str, number: int, place: pathlib.Path, run: pathlib.Path | None = None) -> str | None:
    """Makes an input of one of `KINDS` in `place`, an empty folder, and runs a command on it: the complaint, if any.

    run: a finished run of `unlearn`, for the kind `run`.
    """
    random = np.random.default_rng([sorted(KINDS).index(kind), number])
    with contextlib.chdir(place):
        if run is not None:
            shutil.copytree(run, "run")
        made = KINDS[kind](random)
        complaint = complain(made.arguments)
    return complaint and f"{kind} {number}, {made.what}: mcu-jax {' '.join(made.arguments)[:500]!r}: {complaint}"


def attack_often(count: int, place: pathlib.Path, run: pathlib.Path | None = None) -> list[str]:
    """So many attacks, of all kinds in turn, each in a folder of its own in `place`: the complaints. run: as `attack`,
    without which there is no kind `run`.
    """
    kinds = [kind for kind in KINDS if run is not None or kind != "run"]
    complaints = []
    for i in range(count):
        kind, number = kinds[i % len(kinds)], i // len(kinds)
        with tempfile.TemporaryDirectory(dir=place) as folder:
            complaints.append(attack(kind, number, pathlib.Path(folder), run if kind == "run" else None))
    return [complaint for complaint in complaints if complaint]


def complain(arguments: list[str]) -> str | None:
    """What is wrong with how a command ends, which trains nothing; None: nothing."""
    before = _memory()
    out, err = io.StringIO(), io.StringIO()
    try:
        with _limited(SECONDS), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli.run(arguments)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return "".join(traceback.format_exception(error))[-1500:]
    told = err.getvalue()
    if _memory() - before > MEMORY:
        return f"grew by {(_memory() - before) / 1024**3:.1f} GiB"
    if status not in (0, 2) and not (status == 1 and "[Errno" in told):  # of a folder where a file was
        return f"ended with {status}: {told[:500]}"
    if status and not 0 < len(told) < LONGEST:
        return f"a message of {len(told)} characters"
    if "Traceback" in told:
        return f"printed {told[:200]}"
    found = GARBAGE.search(told + out.getvalue())
    return f"printed {found[0]!r}" if found else None


class _HangsError(BaseException):
    """Past everything that catches errors."""


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise _HangsError(f"hangs: {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _memory() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# Mutations


def _text(random: np.random.Generator, text: str) -> str:
    for _ in range(random.integers(1, 4)):
        start, length = random.integers(0, len(text) + 1), random.integers(0, 8)
        text = text[:start] + _one(random, PIECES) + text[start + length :]
    return text


def _one(random: np.random.Generator, among: Any) -> Any:
    return among[random.integers(len(among))]


def _bytes(random: np.random.Generator, content: bytes) -> bytes:
    """Flipped, cut, doubled or replaced in a few places."""
    made = bytearray(content)
    for _ in range(random.integers(1, 4)):
        i = int(random.integers(0, len(made) + 1))
        part = random.bytes(int(random.integers(1, 9)))
        kind = random.integers(4)
        if kind == 0:
            del made[i:]
        elif kind == 1:
            made[i:i] = made[i : i + 64] or part
        else:
            made[i : i + len(part)] = part if kind == 2 else b"\xff" * len(part)
    return bytes(made)


def _json(random: np.random.Generator, values: Any) -> Any:
    """With another value, or none, in one or two places of its tree."""
    values = copy.deepcopy(values)
    for _ in range(random.integers(1, 3)):
        at, inside = [], [values]
        while inside:
            node = inside.pop()
            items = list(node.items()) if isinstance(node, dict) else list(enumerate(node))
            at += [(node, key) for key, _ in items]
            inside += [child for _, child in items if isinstance(child, dict | list) and child]
        if not at:
            return values
        node, key = at[random.integers(len(at))]
        if random.integers(4):
            node[key] = copy.deepcopy(_one(random, VALUES))
        else:
            del node[key]
    return values


def _damage(random: np.random.Generator, file: pathlib.Path) -> str:
    """A file as a whole: its bytes, or in another's place."""
    kind = random.integers(6)
    if kind == 0:
        file.unlink()
        return f"{file} is gone"
    if kind == 1:
        file.unlink()
        file.mkdir()
        return f"{file} is a folder"
    file.write_bytes(_bytes(random, file.read_bytes()) if kind > 2 else b"")
    return f"{file} is damaged"


def _sealed(values: dict[str, Any]) -> str:
    """A JSON file with the digest that goes with it, as files of a run have."""
    plain = {key: value for key, value in values.items() if key != "sha256"}
    return json.dumps({**plain, "sha256": hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()})


# Kinds


def _line(random: np.random.Generator) -> Attack:
    name, *arguments = str(_one(random, LINES)).split()
    i = random.integers(len(arguments))
    arguments[i] = _text(random, arguments[i])
    return Attack([name, *arguments, "--dry-run"], "a line")


def _configuration(random: np.random.Generator) -> Attack:
    content = _text(random, str(_one(random, CONFIGURATIONS)))
    pathlib.Path("c.yaml").write_bytes(content.encode("utf-8", "surrogatepass"))
    return Attack(["unlearn", "--config", "c.yaml", "--dry-run"], repr(content[:300]))


def _forget(random: np.random.Generator) -> Attack:
    whole: Any = {"forget": [0, 5, 7, 30], "data_hash": None}
    whole = _json(random, whole if random.integers(2) else whole["forget"])
    content = json.dumps(whole) if random.integers(4) else _text(random, json.dumps(whole))
    pathlib.Path("f.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    return Attack(["unlearn", "--forget", "f.json", "--train-size", "60", "--dry-run"], repr(content[:300]))


def _recipe(random: np.random.Generator) -> Attack:
    there = pathlib.Path(models.__file__).parents[1] / "runs" / "recipes" / "digits_mlp.json"
    values = _json(random, json.loads(there.read_text()))
    content = _sealed(values) if random.integers(4) else _text(random, json.dumps(values))
    pathlib.Path("r.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    kind = _one(random, ("unlearn", "connect --grid seeds --methods npo finetune", "tune --methods npo --seeds 200"))
    return Attack([*kind.split(), "--recipe", "r.json", "--dry-run"], "a recipe")


ARRAYS = ("train_x", "train_y", "test_x", "test_y")


def _arrays(random: np.random.Generator) -> Attack:
    x = random.integers(0, 256, (24, 3, 3, 1)).astype(np.uint8)
    arrays: dict[str, Any] = dict(zip(ARRAYS, (x, np.arange(24) % 3, x[:9], np.arange(9) % 3), strict=True))
    name = _one(random, ARRAYS)
    others: tuple[Any, ...] = (
        *(arrays[name][:0], arrays[name][1:], arrays[name][None], arrays[name].astype(np.float32) * np.nan),
        *(arrays[name].astype(complex), arrays[name].astype(str), np.array([None] * 9), np.zeros(()), None),
        *(arrays[name] == 0, arrays[name].astype(np.float16), arrays[name].astype(np.int64) - 5),
        *(np.zeros(24, [("a", int)]), arrays[name].astype("datetime64[s]"), arrays[name].astype(np.uint64) + 2**63),
        *(np.asfortranarray(arrays[name]), arrays[name].astype(">f8"), np.zeros((24, 0)), np.full(24, 99_999)),
    )
    what = "bytes"
    if random.integers(3):
        i = random.integers(len(others))
        arrays[name], what = others[i], f"{name} {i}"
    np.savez("a.npz", **{key: value for key, value in arrays.items() if value is not None})
    if what == "bytes":
        file = pathlib.Path("a.npz")
        file.write_bytes(_bytes(random, file.read_bytes()))
    return Attack(["unlearn", "--data", "a.npz", *SMALL, "--forget", "random:0.3", "--dry-run"], what)


def _mlp() -> Any:
    x = np.zeros((1, 8, 8, 1), np.uint8)
    return jax.tree.map(np.asarray, models.mlp(num_classes=10).init(jax.random.key(0), x))


def _checkpoint(random: np.random.Generator) -> Attack:
    checkpoint.save("weights", {"params": _mlp(), "stats": {}}, {"seed": 0, "inputs": {"x": {"dtype": "uint8"}}})
    files = sorted(file for file in pathlib.Path("weights").rglob("*") if file.is_file())
    manifest = pathlib.Path("weights/manifest.json")
    if random.integers(2):
        what = _damage(random, _one(random, files))
    else:
        body = json.loads(manifest.read_text())
        del body["sha256"]
        body = _json(random, body)
        if isinstance(body.get("files"), dict) and not random.integers(4):
            body["files"][str(_one(random, ("/dev/zero", "../../../../../../../../dev/zero", "..", "x")))] = "0"
        if not random.integers(4):
            with contextlib.suppress(KeyError, TypeError, IndexError):
                _one(random, body["leaves"])["shape"] = [10**6, 10**7]
        body = json.loads(json.dumps(body))
        seal = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        manifest.write_text(json.dumps({**body, "sha256": seal}, indent=1, sort_keys=True))
        what = "its manifest"
    setting = _one(random, ("--original", "--pre"))
    return Attack(["unlearn", setting, "./weights", "--model", "mlp", "--dry-run"], what)


def _tensors(random: np.random.Generator) -> Attack:
    """Of another network than the one asked for, which is read first."""
    from safetensors.numpy import save

    content = save({"fc.weight": np.zeros((10, 4), np.float32), "fc.bias": np.zeros(10, np.float32)})
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    what = "bytes"
    if random.integers(2):
        header, what = _json(random, header), "header"
        text = json.dumps(header).encode()
        size = _one(random, (len(text), len(text), len(text), 2**63, 2**40, 10**8, 0))
        content = int(size).to_bytes(8, "little") + text + content[8 + length :]
    else:
        content = _bytes(random, content)
    pathlib.Path("w.safetensors").write_bytes(content)
    return Attack(
        ["unlearn", "--original", "w.safetensors", "--model", "resnet18", "--baselines", "ssd", "--dry-run"], what
    )


def _pictures(random: np.random.Generator) -> Attack:
    from PIL import Image

    for part, count in (("train", 10), ("test", 2)):
        for name in ("cat", "dog"):
            folder = pathlib.Path("p", part, name)
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(random.integers(0, 256, (6, 6, 3)).astype(np.uint8)).save(folder / f"{i}.png")
    listed, options = pathlib.Path("list.txt"), [f"size={_text(random, '4')}"] * int(random.integers(2))
    listed.write_text("cat\ndog\n")
    kind, what = random.integers(5), "nothing"
    if kind == 0:
        what = _damage(random, _one(random, sorted(file for file in pathlib.Path("p").rglob("*.png"))))
    elif kind == 1:
        listed.write_bytes(_text(random, listed.read_text()).encode("utf-8", "surrogatepass"))
        options.append("classes=list.txt")
    elif kind == 2:
        images = pathlib.Path("p/test/images")
        images.mkdir()
        shutil.copy("p/test/cat/0.png", images / "0.png")
        shutil.copy("p/test/cat/0.png", images / "1.png")
        lines = _text(random, "0.png\tcat\t0\t0\n1.png\tdog\t0\t0\n").encode("utf-8", "surrogatepass")
        pathlib.Path("p/test/val_annotations.txt").write_bytes(lines)
        what = repr(lines[:200])
    elif kind == 3:
        file, form = _one(random, sorted(pathlib.Path("p").rglob("*.png"))), _one(random, ("TIFF", "EPS", "GIF", "BMP"))
        Image.new("RGB", (6, 6)).save(file, form)
        what = f"{file} is {form}"
    else:
        os.rename("p/train/dog", os.path.join("p/train", _name(random)))
    spec = ":".join(["folder:p", *([",".join(options)] if options else [])])
    return Attack(["unlearn", "--dataset", spec, *SMALL, "--forget", "class:cat", "--dry-run"], what)


def _name(random: np.random.Generator) -> str:
    """Of a folder, as far as file systems have it."""
    return _text(random, "dog").replace("/", "").replace("\0", "").encode("utf-8", "ignore")[:200].decode() or "x"


FEATURES = "tensorflow_datasets.core.features"


def prepare(folder: pathlib.Path, encoded: list[bytes], labels: list[int], told: int | None = None) -> None:
    """A set of two splits and three classes as tensorflow-datasets prepares it, by the bytes of its images.

    told: examples of a split, where the directory says something else than there is.
    """
    from array_record.python import array_record_module
    from tensorflow_datasets.proto import tf_example_pb2

    folder.mkdir(parents=True)
    for split in ("train", "test"):
        file = folder / f"tiny-{split}.array_record-00000-of-00001"
        writer = array_record_module.ArrayRecordWriter(str(file), "group_size:1")
        for image, label in zip(encoded, labels, strict=True):
            example = tf_example_pb2.Example()
            example.features.feature["image"].bytes_list.value.append(image)
            example.features.feature["label"].int64_list.value.append(label)
            writer.write(example.SerializeToString())
        writer.close()
    lengths = [str(len(encoded) if told is None else told)]
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    splits = [{"name": name, "shardLengths": lengths, "filepathTemplate": template} for name in ("train", "test")]
    info = {"name": "tiny", "version": "1.0.0", "fileFormat": "array_record", "splits": splits}
    shape = {"dtype": "uint8", "shape": {"dimensions": ["6", "6", "3"]}}
    named = f"{FEATURES}.image_feature.Image", f"{FEATURES}.class_label_feature.ClassLabel"
    described = {
        "image": {"pythonClassName": named[0], "image": shape},
        "label": {"pythonClassName": named[1], "classLabel": {"numClasses": "3"}},
    }
    whole = f"{FEATURES}.features_dict.FeaturesDict"
    features = {"pythonClassName": whole, "featuresDict": {"features": described}}
    (folder / "label.labels.txt").write_text("ant\nbee\ncat\n")
    (folder / "features.json").write_text(json.dumps(features))
    (folder / "dataset_info.json").write_text(json.dumps(info))


def _prepared(random: np.random.Generator) -> Attack:
    from PIL import Image

    encoded = []
    for _ in range(24):
        out = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (6, 6, 3)).astype(np.uint8)).save(out, "PNG")
        encoded.append(out.getvalue())
    labels = [i % 3 for i in range(24)]
    kind, told, what = random.integers(6), None, "records"
    if kind == 0:
        encoded[0] = _bytes(random, encoded[0])
    elif kind == 1:
        labels[-1] = _one(random, (-1, 3, 2**31, 2**62, -(2**63)))
    elif kind == 2:
        told = _one(random, (0, 23, 25, 10**9, 10**12))
    folder = pathlib.Path("data/tiny/1.0.0")
    prepare(folder, encoded, labels, told)
    files = sorted(folder.iterdir())
    if kind == 3:
        what = _damage(random, _one(random, files))
    elif kind == 4:
        file = folder / _one(random, ("features.json", "dataset_info.json"))
        values = _json(random, json.loads(file.read_text()))
        file.write_text(json.dumps(values))
        what = f"{file.name} {json.dumps(values)[:600]}"
    elif kind == 5:
        file = folder / "label.labels.txt"
        file.write_bytes(_text(random, file.read_text()).encode("utf-8", "surrogatepass"))
        what = "class names"
    request = _one(random, ("class:bee", "class:9", "random:0.3"))
    given = ["--dataset", "tiny", "--data-dir", "data", "--forget", request]
    return Attack(["unlearn", *given, *SMALL, "--dry-run"], what)


def _run(random: np.random.Generator) -> Attack:
    """A damaged run, or options that it has not, given to export."""
    options = ["--seed", "0", "--t", "best"] if random.integers(2) else ["--method", "original"]
    what = "options"
    if random.integers(4):
        files = [file for file in sorted(pathlib.Path("run").iterdir()) if file.is_file() and file.suffix != ".png"]
        file = _one(random, files)
        if file.suffix == ".json" and random.integers(2):
            values = _json(random, json.loads(file.read_text()))
            file.write_text(_sealed(values) if "sha256" in values else json.dumps(values))
            what = f"values of {file.name}"
        else:
            what = _damage(random, file)
    else:
        i = random.integers(len(options))
        options[i] = _text(random, options[i])
    return Attack(["export", "run", *options, "--to", _one(random, ("to", "to.safetensors"))], what)


KINDS: dict[str, Callable[[np.random.Generator], Attack]] = {
    "line": _line,
    "configuration": _configuration,
    "forget": _forget,
    "recipe": _recipe,
    "arrays": _arrays,
    "checkpoint": _checkpoint,
    "tensors": _tensors,
    "pictures": _pictures,
    "prepared": _prepared,
    "run": _run,
}
