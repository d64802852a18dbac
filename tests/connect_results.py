"""Results of `mcu-jax connect`, made up."""

import itertools

import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

METHODS = (
    "finetune gradient_ascent neggrad_plus random_label salun grad_diff npo scrub bad_teacher sfron".split()  # noqa: SIM905
)
T = np.linspace(0.0, 1.0, 31)
# How far a method's model lies from the original, in a plane of two made-up kinds of damage.
PLACE = dict(zip(METHODS, [(0.2, 0), (3, 2.6), (0.5, 0.2), (1, -1), (1.1, -0.9), (2.2, 1.6), (1.5, 1), (0.6, -0.4),
                           (0.3, -1.8), (0.9, 0.5)], strict=True))  # fmt: skip


def end(method, run=0, forget="random:0.2", sized=False, **more):
    options = {**more, **({"forget": forget.partition(":")[2]} if sized else {}), **({"run": run} if run else {})}
    label = ":".join([method, ",".join(f"{k}={v}" for k, v in options.items())]) if options else method
    plain = {"method": method, "optimizer": "sgd", "curriculum": "none", "forget": forget, "run": run}
    return {**plain, **more, "label": label}


def barriers_of(metrics):
    line = {name: (1 - T) * v[0] + T * v[-1] for name, v in metrics.items()}
    high = lambda name: float(max(np.max(metrics[name] - line[name]), 0.0))  # noqa: E731
    low = lambda name: float(max(np.max(line[name] - metrics[name]), 0.0))  # noqa: E731
    barriers = {f"{name}_nats": high(f"{name}_loss") for name in ("retain", "validation", "test")}
    barriers |= {"forget_nats": low("forget_loss"), "js_nats": high("js"), "zrf": 100 * low("zrf")}
    barriers |= {f"{name}_accuracy": 100 * low(f"{name}_accuracy") for name in ("retain", "validation", "test")}
    barriers |= {name: 100 * high(name) for name in ("forget_accuracy", "unseen_distance")}
    if "MIA" in metrics:
        barriers["MIA"] = 100 * high("MIA")
    return {**barriers, "accuracy": max(barriers["retain_accuracy"], barriers["forget_accuracy"])}


def entry(a, b, role, seed, curve, *, also=()):
    rng = np.random.default_rng([seed, *map(ord, a["label"] + b["label"] + curve)])
    (ax, ay), (bx, by) = (np.array(PLACE[e["method"]]) * (0.3 + 3.5 * float(e["forget"][7:])) for e in (a, b))
    gap = np.hypot(ax - bx, ay - by) + 0.15 + 0.3 * (a["curriculum"] != b["curriculum"])
    height = gap**2 * rng.lognormal(0, 0.35) * (0.12 if curve != "linear" else 1.0)
    bump = (4 * T * (1 - T)) ** 1.5
    ends = lambda x, y: (1 - T) * x + T * y  # noqa: E731
    noise = lambda scale: rng.normal(0, scale, len(T)) * bump  # noqa: E731
    hurt = 1 - np.exp(-0.12 * height * bump)
    near = rng.normal(0, 0.01, 8)
    metrics = {
        "retain_loss": ends(0.002 + 0.01 * ax, 0.002 + 0.01 * bx) + 0.8 * height * bump,
        "forget_loss": ends(0.5 + ax**2, 0.5 + bx**2) * (1 - 0.3 * hurt),
        "validation_loss": ends(0.5 + 0.2 * ax, 0.5 + 0.2 * bx) + 0.6 * height * bump,
        "test_loss": ends(0.5 + 0.2 * ax, 0.5 + 0.2 * bx) + 0.6 * height * bump,
        "retain_accuracy": ends(1 - 0.02 * ax, 1 - 0.02 * bx) - 0.8 * hurt + noise(0.002),
        "forget_accuracy": ends(0.9 - 0.2 * ax + near[0], 0.9 - 0.2 * bx + near[1]) + 0.2 * hurt + noise(0.004),
        "validation_accuracy": ends(0.9 - 0.03 * ax, 0.9 - 0.03 * bx) - 0.7 * hurt,
        "test_accuracy": ends(0.9 - 0.03 * ax + near[2], 0.9 - 0.03 * bx + near[3]) - 0.7 * hurt,
        "js": ends(0.05 + 0.08 * ax, 0.05 + 0.08 * bx) + 0.1 * hurt,
        "unseen_distance": ends(0.05 + 0.1 * ax, 0.05 + 0.1 * bx) + 0.05 * hurt,
        "zrf": ends(0.6 + 0.05 * ax + near[4], 0.6 + 0.05 * bx + near[5]) + noise(0.003),
    }
    metrics = {n: np.clip(v, 0, 1) if n.endswith("accuracy") else v for n, v in metrics.items()}
    if "MIA" in also:
        metrics["MIA"] = np.clip(ends(0.2 + 0.2 * ax + near[6], 0.2 + 0.2 * bx + near[7]) + noise(0.02), 0, 1)
    barriers = barriers_of(metrics)
    value = lambda low, high: float(rng.uniform(low, high))  # noqa: E731
    distance = {"a": float(np.hypot(ax, ay)), "b": float(np.hypot(bx, by)), "ab": float(gap)}
    smaller = min(a["forget"], b["forget"], key=lambda request: float(request.partition(":")[2]))
    path = {"a": a, "b": b, "forget": smaller, "role": role, "seed": seed, "curve": curve, "t": T.tolist(),
            "objective": None if curve == "linear" else "neutral",
            "metrics": {n: v.tolist() for n, v in metrics.items()}, "barriers": barriers,
            "connected": barriers["accuracy"] <= 2,
            "total_variation": {n: float(np.abs(np.diff(v)).sum()) for n, v in metrics.items()},
            "max_second_difference": {n: float(np.abs(np.diff(v, 2)).max()) for n, v in metrics.items()},
            "arc_length": float(gap),
            "interior": {"share": value(0, 1), "t": 0.5, "score": 0.02, "ends": [0.03, 0.04]},
            "within_retrain": dict.fromkeys(metrics, 0.5), "distance": distance,
            "disagreement": value(0, 0.2), "cka": value(0.7, 1), "task_cosine": value(-0.2, 0.9),
            "ensemble": {which: {"retain_accuracy": 1.0, "forget_accuracy": value(0.8, 0.9), "js": value(0.01, 0.1),
                                 "test_accuracy": value(0.85, 0.9)} for which in ("all", "ends")}}  # fmt: skip
    if "continued" in also:
        names = ("retain_nats", "forget_nats", "accuracy")
        path["continued"] = {"before": {n: 0.9 * barriers[n] for n in names},
                             "barriers": {n: 0.6 * barriers[n] for n in names}}  # fmt: skip
    if "relearning" in also:
        steps = [int(s) for s in rng.integers(3, 60, 4)]
        path["relearning"] = {"t": [0, 0.25, 0.5, 0.75, 1], "steps": [*steps, 40 + 20 * seed], "limit": 100}
    return path


def floor_of(entries):
    """Over seeds of the mean over methods; ± one stands for the interval."""
    floor, seeds = {}, {e["seed"] for e in entries}
    for name in entries[0]["barriers"] if entries else ():
        mean = float(np.mean([e["barriers"][name] for e in entries]))
        interval = [mean - 0.5 * mean, mean + 0.5 * mean] if len(seeds) > 1 else None
        floor[name] = {"mean": mean, "interval": interval, "pairs": len(entries)}
    return floor


def clusters_of(entries, labels):
    matrix = np.zeros((len(labels), len(labels)))
    for i, j in itertools.product(range(len(labels)), repeat=2):
        same_pair = [e["barriers"]["accuracy"] for e in entries if {e["a"]["label"], e["b"]["label"]} in (
            {labels[i], labels[j]}, {labels[i], f"{labels[j]}:run=1"} if i == j else {None})]  # fmt: skip
        matrix[i, j] = np.mean(same_pair)
    apart = np.where(np.eye(len(labels), dtype=bool), 0, matrix)
    linkage = hierarchy.linkage(squareform(apart, checks=False), "average", optimal_ordering=True)
    order = [labels[i] for i in hierarchy.leaves_list(linkage)]
    return order, {"matrix": matrix.tolist(), "labels": list(labels), "linkage": linkage.tolist()}


def line(method, seed, **more):
    rng = np.random.default_rng([seed, *map(ord, f"{method}{sorted(more.items())}")])
    barriers = lambda: {"retain_nats": float(rng.lognormal(-3, 2)), "forget_nats": float(rng.lognormal(-3, 2)),  # noqa: E731
                        "accuracy": float(rng.uniform(0, 60))}  # fmt: skip
    distance = {"a": float(rng.uniform(1, 9)), "b": 0.0, "ab": float(rng.uniform(1, 9))}
    entry = {"method": method, "seed": seed, "distance": distance, "barriers": barriers(), **more}
    return {**entry, "unaligned": barriers()} if more.get("kind") == "retrain" else entry


def controls_of(labels, seeds, rival):
    each = list(itertools.product(labels, seeds))
    stops = [line(rival, s, epochs=n, UA=min(0.02 * n, 1.0), RA=1 - 0.01 * n)
             for n in (2, 5, 10, 15, 20) for s in seeds]  # fmt: skip
    kinds = {kind: [line(m, s, kind=kind) for m, s in each] for kind in ("perturbation", "retrain", "original")}
    return {**kinds, "stopping": stops}


def make(pairs, floors, *, grid=None, seeds=range(5), curves=("linear",), also=(), forget="random:0.2"):
    """pairs, floors: of ends."""
    seeds = list(seeds)
    asked = [*((a, b, "pair") for a, b in pairs), *((a, b, "floor") for a, b in floors)]
    entries = [entry(*pair, seed, curve, also=also) for pair in asked for curve in curves for seed in seeds]
    first = [e for e in entries if e["curve"] == curves[0]]
    labels = list(dict.fromkeys(e["label"] for pair in [*pairs, *floors] for e in pair if not e["run"]))
    order, clusters = clusters_of(first, labels) if grid == "methods" and len(labels) > 2 else ([], None)
    config = {"dataset": "digits", "model": "mlp", "forget": forget, "seeds": seeds, "grid": grid, "methods": labels,
              "a": None if grid else pairs[0][0]["label"], "b": None if grid else pairs[0][1]["label"], "points": 31,
              "curve": list(curves), "objective": "neutral", "sample": 2000, "also": list(also)}  # fmt: skip
    rng = np.random.default_rng(0)
    values = {"retain_accuracy": 1.0, "forget_accuracy": 0.87, "validation_accuracy": 0.88, "test_accuracy": 0.875,
              "zrf": 0.62, "retain_loss": 0.003, "forget_loss": 0.6, "js": 0.02, "unseen_distance": 0.03,
              "MIA": 0.22}  # fmt: skip
    noisy = lambda: {n: min(v + float(rng.normal(0, 0.005)), 1.0) for n, v in values.items()}  # noqa: E731
    runs = itertools.product(dict.fromkeys(e["a"]["forget"] for e in entries), seeds, range(3))
    correlation = [{"barrier": "accuracy", "attack": "between them", "mean": 0.41,
                    "interval": [0.12, 0.7] if len(seeds) > 1 else None, "seeds": len(seeds)}]  # fmt: skip
    return {"kind": "connect", "config": config, "pairs": entries,
            "floor": floor_of([e for e in first if e["role"] == "floor"]),
            "controls": controls_of(labels, seeds, labels[0]),
            "retrained": [{"seed": s, "forget": f, "run": r, **noisy(), "relearning_steps": 30 + 2 * s + r}
                          for f, s, r in runs],
            "order": order, "clusters": clusters, "correlation": correlation if "MIA" in also else None}  # fmt: skip


def methods_grid(n=10, **more):
    ends = [end(m) for m in METHODS[:n]]
    return make(list(itertools.combinations(ends, 2)), [(e, end(e["method"], 1)) for e in ends], grid="methods", **more)


def one_pair(**more):
    a, b = "finetune", "npo"
    return make([(end(a), end(b))], [(end(m), end(m, 1)) for m in (a, b)], **more)


def seeds_grid(n=4, **more):
    return make([], [(end(m), end(m, 1)) for m in METHODS[:n]], grid="seeds", **more)


def sizes_grid(n=3, **more):
    sizes = [f"random:{s:g}" for s in (0.02, 0.04, 0.06, 0.08, 0.1)]
    ends = [[end(m, 0, s, s != "random:0.1") for s in sizes] for m in METHODS[:n]]
    floors = [(end(m, 0, s, s != "random:0.1"), end(m, 1, s, s != "random:0.1")) for m in METHODS[:n] for s in sizes]
    pairs = [(e, by_size[-1]) for by_size in ends for e in by_size[:-1]]
    return make(pairs, floors, grid="sizes", forget="random:0.1", **more)


def curriculum_grid(n=3, **more):
    kinds = ("superloss", "superloss:strength=1", "superloss:strength=0.1")
    pairs = [(end(m), end(m, curriculum=kind)) for m in METHODS[:n] for kind in kinds]
    ends = list({e["label"]: e for pair in pairs for e in pair}.values())
    floors = [(e, {**e, "run": 1, "label": e["label"] + ("," if ":" in e["label"] else ":") + "run=1"}) for e in ends]
    return make(pairs, floors, grid="curriculum", **more)
