"""Paths and sweeps beside the same work in straightforward PyTorch, in one process; and what they cost by size.

Shows: (a) evaluating a path of PreResNet-20, BatchNorm refreshed at each of 21 points, 2,000 images; (b) a
    training step of that path, batches of 128; (c) what 16 seeds of the digits job train and sweep; (d) ViT-Ti, sweep
    and step. Then of ours alone: (e) cost against the number of t, of parameters, of images, as slopes of its
    logarithm: 1 is linear; (f) operations and bytes that the compiler counts, against what this machine reaches on
    one large matrix product. PyTorch loops over t and seeds as reference codes do, by batches of 100 and of 500 and
    by both layouts of images. Before anything is timed, both give the same logits to 1e-3. Compilation stands by
    itself.
Time and result: 9 minutes, part a 4 of them, on 2 cores of an AMD EPYC with AVX-512, jax 0.12, PyTorch 2.14. Seconds of
    ours, and of the best of PyTorch's forms: (a) 23.7 and 18.1; (b) 0.20 and 0.12; (c) 0.8 (after 8 of compilation) and
    15.4; (d) 5.7 and 10.6 for the sweep, 0.28 and 0.43 for the step. Slopes (e): 0.97 in t, 0.97 in images, 1.04 in
    parameters. (f) A forward pass of PreResNet-20 reaches 34 % of what one large matrix product does. Where the time
    goes: XLA's convolutions; PyTorch's are oneDNN's, which reach more. With jax 0.10, of which the result is kept as
    against_pytorch-jax-0.10.json: (a) 27.2 and 17.6; (b) 0.23 and 0.11; (c) 0.9 and 13.8; (d) 5.8 and 10.3, 0.27 and
    0.41.
Run: pip install torch safetensors; python experiments/benchmarks/against_pytorch.py [--part a]
Writes experiments/results/against_pytorch.json, a part at a time.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import pathlib
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import _pytorch
import jax
import jax.numpy as jnp
import numpy as np
import torch
from safetensors.torch import load_file

from mcu_jax import (
    connect,
    curves,
    datasets,
    methods,
    metrics,
    models,
    outputs,
    paths,
    rules,
    splits,
    training,
    weights,
)
from mcu_jax.base import Model, Params, Path, Problem

RESULT = pathlib.Path(__file__).parents[1] / "results" / "against_pytorch.json"
SIZES = {"retain": 1000, "forget": 200, "validation": 300, "test": 500}
SEEDS = 16
REPEATS = 3


def problem(model: Model, side: int, scale: int = 1) -> Problem:
    """Images and labels drawn at random: speed does not depend on what is in them."""
    rng, count = np.random.default_rng(0), scale * sum(SIZES.values())
    data = {
        "x": jnp.asarray(rng.integers(0, 256, (count, side, side, 3), np.uint8)),
        "y": jnp.asarray(rng.integers(0, 10, count), jnp.int32),
    }
    ends = np.cumsum([scale * size for size in SIZES.values()])
    rows: dict[str, Any] = dict(zip(SIZES, np.split(np.arange(count), ends[:-1]), strict=True))
    return Problem(model, model.init(jax.random.key(0), data["x"][:1]), data, num_classes=10, **rows)


def quickest(call: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Seconds: of several times, which other work on the machine disturbs least."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(call())
        taken.append(time.perf_counter() - began)
    return min(taken)


def first(call: Callable[[], Any]) -> float:
    return quickest(call, 1)


def per_step(run: Callable[[int], Any], few: int, many: int) -> float:
    """Seconds of a step, without what a loop takes however short it is."""
    run(few)
    return (quickest(lambda: run(many)) - quickest(lambda: run(few))) / (many - few)


def state(name: str, params: Params, stats: Any = None) -> _pytorch.State:
    """Our parameters by PyTorch's names."""
    with tempfile.TemporaryDirectory() as place:
        file = pathlib.Path(place) / "model.safetensors"
        weights.write(file, name, params, stats or {})
        return load_file(file)


def beside(
    name: str, model: Model, network: torch.nn.Module, side: int, points: int, steps: tuple[int, int], batch: int
) -> dict[str, Any]:
    """A sweep and a step of one network, by us and by PyTorch."""
    given = problem(model, side)
    other = model.init(jax.random.key(1), given.data["x"][:1])
    path, ts = curves.straight(given.params, other), paths.points(points)
    x, y = np.asarray(given.data["x"]), torch.from_numpy(np.asarray(given.data["y"])).long()
    retain = len(given.retain)
    stats = training.evaluation_stats(given, path.start)
    ends = tuple(
        state(name, params, stats) for params in (path.start, jax.tree.map(lambda p: p[0], path.inner), path.end)
    )
    same(given, path.start, stats, network, ends[0], x[:100])

    sweep = functools.partial(paths.evaluate, given, path, ts)
    found: dict[str, Any] = {"sweep": {"ours_compiling": first(sweep), "ours": quickest(sweep)}}
    for size in (100, 500):
        for last in (False, True):
            made = _pytorch.images(x, channels_last=last)
            network.to(memory_format=torch.channels_last if last else torch.contiguous_format)
            run = functools.partial(_pytorch.evaluate, network, ends, ts, made, retain, size)
            found["sweep"][f"pytorch, {size}{', channels last' if last else ''}"] = quickest(run, 1)

    key = jax.random.key(2)
    objective = connect.objective(given, rules.targets(given), key, beta=0.2)

    def ours(count: int) -> Any:
        return connect.train_on(objective, path, given.data, key, steps=count, lr=0.01, batch_size=batch)[0]

    few, many = steps
    found["step"] = {"ours_compiling": first(lambda: ours(few)), "ours": per_step(ours, few, many)}
    trained = {name for name, _ in network.named_parameters()}
    for last in (False, True):
        made = _pytorch.images(x, channels_last=last)
        parts = [(made[list(rows)], y[list(rows)]) for rows in (given.retain, given.forget)]
        moving = tuple({k: v for k, v in end.items() if k in trained} for end in (ends[0], ends[2]))
        train = _pytorch.path_steps(network, moving, parts[0], parts[1], batch=batch)
        found["step"][f"pytorch{', channels last' if last else ''}"] = per_step(train, few, many)
    return found


def same(
    given: Problem, params: Params, stats: Any, network: torch.nn.Module, theirs: _pytorch.State, x: np.ndarray
) -> None:
    """Both say the same to the same images, or nothing is timed."""
    ours = outputs.forward(given, params, {"x": jnp.asarray(x), "y": jnp.zeros(len(x), jnp.int32)}, stats)[0]
    network.load_state_dict(theirs, strict=False)
    network.eval()
    with torch.inference_mode():
        expected = network(_pytorch.images(x, channels_last=False)).numpy()
    np.testing.assert_allclose(np.asarray(ours), expected, rtol=1e-3, atol=1e-3)


def convolutional() -> dict[str, Any]:
    """(a), (b)."""
    model = models.preresnet(num_classes=10, depth=20)
    return beside("preresnet", model, _pytorch.PreResNet20(), 32, 21, (2, 10), 128)


def transformer() -> dict[str, Any]:
    """(d)."""
    model = models.vit(num_classes=10, size="Ti", patch=8)
    return beside("vit", model, _pytorch.VitTi(32, 8), 32, 5, (2, 6), 128)


def digits() -> dict[str, Any]:
    """(c): train original and retrained model, unlearn by fine-tuning on random labels, train the path, sweep it."""
    data = datasets.load("digits")
    train, validation = splits.carve(data.train_size, 300, 300, 0)
    forget, retain = splits.random_forget(train, 0.2, 0)
    model = models.mlp(num_classes=10)
    examples = jax.tree.map(jnp.asarray, data.examples)
    test = data.train_size + np.arange(len(data.test["y"]))
    rows: dict[str, Any] = {"forget": forget, "retain": retain, "validation": validation, "test": test}
    blank = Problem(model, model.init(jax.random.key(0), examples["x"][:1]), examples, num_classes=10, **rows)

    def one(key: Any) -> Any:
        keys = jax.random.split(key, 4)
        original = training.train(model, examples, keys[0], rows=train, epochs=100, lr=0.1, batch_size=32)
        given = Problem(model, original, examples, num_classes=10, **rows)
        retrained = methods.retrain(given, keys[1], epochs=100, lr=0.1, batch_size=32)
        settings = training.Training(epochs=20, lr=0.05, batch_size=32)
        unlearned = methods.random_label(given, keys[2], train=settings)
        path, _ = connect.mcu(given, unlearned, keys[3], steps=1200, lr=0.05, beta=0.2, batch_size=32, mask=None)
        return metrics.evaluate(given, retrained), paths.evaluate(given, path, paths.points(21))

    together = jax.jit(jax.vmap(one))
    keys = jax.random.split(jax.random.key(0), SEEDS)
    found = {"ours_compiling": first(lambda: together(keys)), "ours": quickest(lambda: together(keys))}

    x = torch.from_numpy(np.asarray(outputs.inputs(data.examples), np.float32)).reshape(-1, 64) / 127.5 - 1
    y = torch.from_numpy(data.examples["y"]).long()
    parts = {name: (x[list(where)], y[list(where)]) for name, where in {**rows, "train": train}.items()}

    def theirs() -> None:
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            original, retrained, unlearned = (_pytorch.mlp() for _ in range(3))
            _pytorch.train(original, [parts["train"]], [1.0], epochs=100, lr=0.1, batch=32)
            _pytorch.train(retrained, [parts["retain"]], [1.0], epochs=100, lr=0.1, batch=32)
            unlearned.load_state_dict(original.state_dict())
            wrong = (parts["forget"][0], (parts["forget"][1] + torch.randint(1, 10, (len(forget),))) % 10)
            both = tuple(torch.cat(pair) for pair in zip(parts["retain"], wrong, strict=True))
            _pytorch.train(unlearned, [both], [1.0], epochs=20, lr=0.05, batch=32)
            ends = tuple({k: v.detach() for k, v in each.state_dict().items()} for each in (original, unlearned))
            inner = _pytorch.path_steps(original, ends, parts["retain"], parts["forget"], batch=32, lr=0.05)(1200)
            everything = torch.cat([parts[name][0] for name in SIZES])
            points = (ends[0], {k: v.detach() for k, v in inner.items()}, ends[1])
            _pytorch.evaluate(original, points, paths.points(21), everything, len(retain), 500)

    same(blank, blank.params, {}, *as_mlp(blank.params), data.examples["x"][:100])
    found["pytorch"] = quickest(theirs, 1)
    return {"16 seeds": found}


def as_mlp(params: Params) -> tuple[torch.nn.Module, _pytorch.State]:
    """Our dense network as theirs; digits are 16 levels, which both scale alike."""
    layers = [params[name] for name in sorted(params, key=lambda name: name == "head")]
    theirs = {}
    for i, layer in zip((0, 2), layers, strict=True):
        theirs[f"1.{i}.weight"] = torch.from_numpy(np.asarray(layer["kernel"]).T.copy())
        theirs[f"1.{i}.bias"] = torch.from_numpy(np.asarray(layer["bias"]).copy())
    return torch.nn.Sequential(torch.nn.Flatten(), _pytorch.mlp()), theirs


def slopes() -> dict[str, Any]:
    """(e)."""
    found: dict[str, Any] = {}

    def cost(given: Problem, count: int) -> float:
        path = curves.straight(given.params, jax.tree.map(lambda p: p + 0.01, given.params))
        sweep = functools.partial(paths.evaluate, given, path, paths.points(count))
        sweep()
        return quickest(sweep)

    def slope(name: str, sizes: Sequence[int], seconds: Sequence[float]) -> None:
        fitted = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
        found[name] = {"sizes": list(sizes), "seconds": list(seconds), "slope": fitted}

    cnn = problem(models.cnn(num_classes=10), 32)
    slope("t", (5, 11, 21, 41), [cost(cnn, count) for count in (5, 11, 21, 41)])
    slope("images", (1, 2, 4), [cost(problem(models.cnn(num_classes=10), 32, scale), 5) for scale in (1, 2, 4)])
    wide = [models.mlp(num_classes=10, hidden=(width, width)) for width in (256, 512, 1024, 2048)]
    given = [problem(model, 16) for model in wide]
    counts = [sum(leaf.size for leaf in jax.tree.leaves(each.params)) for each in given]
    slope("parameters", counts, [cost(each, 5) for each in given])
    return found


def roofline() -> dict[str, Any]:
    """(f)."""
    n = 2048
    a = jnp.ones((n, n))
    product = jax.jit(lambda a: a @ a)
    product(a)
    peak = 2 * n**3 / quickest(lambda: product(a))
    given = problem(models.preresnet(num_classes=10, depth=20), 32)
    path: Path = curves.straight(given.params, jax.tree.map(lambda p: p + 0.01, given.params))
    stats = training.evaluation_stats(given, given.params)

    @jax.jit
    def forward(params: Params, x: Any) -> Any:
        return outputs.forward(given, params, {"x": x, "y": jnp.zeros(len(x), jnp.int32)}, stats)[0]

    batch = given.data["x"][:100]
    told: Any = forward.lower(path.start, batch).compile().cost_analysis()
    forward(path.start, batch)
    seconds = quickest(lambda: forward(path.start, batch))
    return {
        "peak_of_a_matrix_product": peak,
        "forward_100_images": {
            **{"seconds": seconds, "operations": told["flops"], "bytes": told["bytes accessed"]},
            "share_of_peak": told["flops"] / seconds / peak,
        },
    }


PARTS = {"a": convolutional, "c": digits, "d": transformer, "e": slopes, "f": roofline}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="a has b too; default: all")
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for part in parser.parse_args().part or PARTS:
        results[part] = PARTS[part]()
        print(f"{part}: {json.dumps(results[part], indent=1)}", flush=True)
        results["machine"] = {
            **{
                "device": jax.devices()[0].device_kind,
                "cpus": os.cpu_count(),
                "platform": f"{platform.system()} {platform.machine()}",
            },
            **{"jax": jax.__version__, "torch": torch.__version__, "torch_threads": torch.get_num_threads()},
        }
        RESULT.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
