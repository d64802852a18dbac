"""What is asked for, and what that comes to."""

from __future__ import annotations

import dataclasses
import pathlib
import textwrap

import pytest
from conftest import SMALL

from mcu_jax import datasets, runs
from mcu_jax.runs import _config, _recipes, _settings, _specs


def resolve(**settings) -> _config.Resolved:
    return runs.resolve(runs.from_mapping({**SMALL, **settings}))


def test_mappings_and_configs_are_the_same() -> None:
    assert runs.from_mapping(dataclasses.asdict(runs.Config())) == runs.Config()
    given = runs.from_mapping({"train-size": 60, "train": {"batch-size": 8}, "seeds": 3, "beta": 0.2})
    assert given == runs.Config(train_size=60, train=runs.Train(batch_size=8), seeds=(3,), beta="0.2")


def test_the_default_is_the_recipe_of_digits() -> None:
    resolved = runs.resolve(runs.Config())
    recipe = _recipes.of("digits", "mlp")
    assert resolved.config.model == "mlp"
    assert dataclasses.asdict(resolved.config.train) == recipe["train"]
    assert (resolved.config.steps, resolved.config.lr) == (recipe["path"]["steps"], recipe["path"]["lr"])
    assert resolved.fraction == 0.2
    assert None not in {k: v for k, v in resolved.as_dict().items() if k not in _settings.PLACES}.values()


def test_what_is_asked_for_wins_over_the_recipe_and_the_recipe_over_the_signature() -> None:
    resolved = resolve(pre="finetune", baselines=["finetune:epochs=2"], train={"batch_size": 7})
    recipe = _recipes.of("digits", "mlp")["methods"]["finetune"]
    assert resolved.methods["finetune"][1]["epochs"] == recipe["epochs"]
    assert resolved.methods["finetune:epochs=2"][1]["epochs"] == 2
    assert {options["batch_size"] for _, options in resolved.methods.values()} == {7}
    assert resolved.methods["finetune"][1]["momentum"] == 0.9


def test_every_recipe_resolves_to_hyper_parameters_that_exist() -> None:
    from mcu_jax import methods, registry

    for recipe in (_recipes.DEFAULT, *(_recipes.of(*known) for known in _recipes.RECIPES)):
        for name, options in recipe["methods"].items():
            registry.bind(getattr(methods, name), options, name)
        assert set(recipe["train"]) == {field.name for field in dataclasses.fields(runs.Train)}


def test_the_librarys_recipe_of_digits_is_of_its_data_and_no_tuning_seed_is_reported() -> None:
    file = _recipes.of("digits", "mlp")["file"]
    assert (file["dataset"], file["data_hash"], file["model"]) == ("digits", datasets.load("digits").hash, "mlp")
    assert file["oracle"] is False
    assert not set(file["seeds"]) & set(runs.Config().seeds)
    with pytest.raises(runs.ConfigError, match=r"the recipe of digits was tuned on seed 101, which would be reported"):
        runs.resolve(runs.Config(seeds=(0, 101)))
    starts = {"random_label", "gradient_ascent", "neggrad_plus"}
    assert not starts & set(file["methods"]), "what a path starts from shall forget, and by its score it would not"


def test_a_curve_is_one_run_however_it_is_written() -> None:
    assert resolve(curve="bezier").identity() == resolve(curve="bezier:bends=1").identity()
    assert resolve(curve="polychain:bends=2.0").config.curve == "polychain:bends=2"
    connection = {"kind": "connect", "a": "finetune", "b": "npo"}
    first, second = (runs.from_mapping({**connection, "curve": c}) for c in (["bezier"], ["bezier:bends=1", "bezier"]))
    assert runs.plan(first) == runs.plan(second)


def test_a_configuration_made_in_python_is_checked_as_one_from_a_file() -> None:
    with pytest.raises(runs.ConfigError, match=r"setting train\.epochs takes a whole number above 0"):
        runs.resolve(runs.Config(train=runs.Train(epochs=0)))


def test_a_baseline_mcu_is_the_run_but_for_its_options() -> None:
    spec = "mcu:beta=0.2"
    _, options = resolve(baselines=[spec], curve="polychain:bends=2", mask={"kind": "random"}).methods[spec]
    expected = {"beta": 0.2, "curve": "polychain", "bends": 2, "mask": "random", "steps": 6, "points": 5}
    assert expected.items() <= options.items()
    assert resolve(baselines=["mcu:mask=none"], beta="0.3").methods["mcu:mask=none"][1]["beta"] == 0.3


def test_epochs_that_are_asked_for_win_over_steps_of_a_recipe() -> None:
    recipe = {"methods": {"npo": {"steps": 100}}, "optimizers": {}}
    assert _specs.method_options("npo", recipe, 32)[1]["steps"] == 100
    asked = _specs.method_options("npo:epochs=2", recipe, 32)[1]
    assert (asked["epochs"], asked["steps"]) == (2, 0)


def test_a_baseline_with_a_mask_has_the_recipes_shares() -> None:
    options = resolve(baselines=["mcu:mask=mcu"], mask={"kind": "none"}).methods["mcu:mask=mcu"][1]
    recipe = _recipes.of("digits", "mlp")["mask"]
    assert {name: options[name] for name in recipe} == recipe


def test_the_pre_unlearning_method_is_no_second_baseline() -> None:
    assert resolve(baselines=["random_label", "ssd", "ssd"]).config.baselines == ("ssd",)


def test_classes_go_by_number_and_name() -> None:
    assert resolve(forget="class:3").forgotten == 3
    assert resolve(forget="class:3").fraction is None


def test_a_saved_configuration_is_the_same_run() -> None:
    first = resolve(baselines=["mcu:beta=0.2"], model="mlp:hidden=[8,8]")
    again = runs.resolve(runs.from_mapping(first.as_dict()))
    assert again.as_dict() == first.as_dict()
    assert again.identity() == first.identity()


@pytest.mark.parametrize(
    "change",
    [{"seeds": [5]}, {"points": 9}, {"baselines": ["ssd"]}, {"baselines": ["mcu:points=9"]}, {"out": "x"},
     {"stages": "x"}],
)  # fmt: skip
def test_what_extends_a_run_or_moves_it_leaves_it_the_same_run(change: dict) -> None:
    assert resolve(**{"baselines": ["mcu:beta=0.2"], **change}).identity() == resolve().identity()


@pytest.mark.parametrize(
    "change",
    [{"steps": 4}, {"train": {"lr": 0.2}}, {"mask": {"keep": 0.4}}, {"pre": "finetune"},
     {"forget": "random:0.3"}, {"train_size": 61}],
)  # fmt: skip
def test_anything_else_is_another_run(change: dict) -> None:
    assert resolve(**change).identity() != resolve().identity()


BAD = [
    ({"dataset": "digit"}, "Did you mean 'digits'"),
    ({"model": "mpl"}, "no model 'mpl'; did you mean 'mlp'"),
    ({"pre": "ssd:curriculum=superloss"}, "ssd is a closed form, which takes no curriculum; these do: finetune"),
    ({"baselines": ["mcu:optimizer=adam"]}, "mcu trains a path, which takes no optimizer"),
    ({"pre": "finetune:optimizer=sofia"}, "no optimizer 'sofia'; did you mean 'sophia'"),
    ({"pre": "finetune:optimizer=adam:b3=1"}, "optimizer adam has no hyper-parameter 'b3'"),
    ({"pre": "finetune:curriculum=superlos"}, "no curriculum 'superlos'; did you mean 'superloss'"),
    ({"pre": "finetune:curriculum=superloss:strength=0"}, "curriculum superloss: strength must be a number above 0"),
    ({"pre": "bad_teacher:temperature=0"}, "temperature must be a number above 0"),
    ({"model": "mlp:hiden=3"}, "no hyper-parameter 'hiden'; did you mean 'hidden'"),
    ({"model": "mlp:hidden=0"}, "positive hidden widths"),
    ({"model": "preresnet:depth=21"}, "depth 6n"),
    ({"pre": "random_lable"}, "did you mean 'random_label'"),
    ({"pre": "random_label:epoch=3"}, "did you mean 'epochs'"),
    ({"pre": "random_label:epochs=0"}, "above 0 and below 2\\*\\*31, given 0"),
    ({"pre": "random_label:lr=nan"}, "above 0, given nan"),
    ({"pre": "random_label:momentum=inf"}, "a number in .0, 1., given inf"),
    ({"pre": "random_label:lr=fast"}, "takes a number"),
    ({"pre": "random_label:epochs"}, "NAME:key=value"),
    ({"pre": "retrain"}, "yardstick"),
    ({"pre": "mcu"}, "--pre"),
    ({"baselines": ["finetun"]}, "did you mean 'finetune'"),
    ({"baselines": ["retrain"]}, "yardstick"),
    ({"baselines": ["mcu"]}, "other options"),
    ({"baselines": ["mcu:pre=finetune"]}, "--pre"),
    ({"baselines": ["mcu:beta=x"]}, "beta is 'adaptive' or a number"),
    ({"baselines": ["mcu:mask=x"]}, "no mask 'x'"),
    ({"baselines": ["mcu:curve=linear"]}, "no inner point"),
    ({"baselines": ["mcu:points=3"]}, "at least 4 points"),
    ({"baselines": ["mcu:retain_fraction=0"]}, "a fraction in .0, 1., given 0"),
    ({"baselines": ["salun:keep=1.5"]}, "fraction in .0, 1., given 1.5"),
    ({"curve": "bezir"}, "did you mean 'bezier'"),
    ({"curve": "linear"}, "no inner point"),
    ({"curve": "bezier:bends=0"}, "bends=N"),
    ({"curve": "bezier:bend=2"}, "bends=N"),
    ({"curve": "bezier:bends=x"}, "bends=N"),
    ({"beta": "fast"}, "'adaptive' or a number"),
    ({"beta": -1}, "'adaptive' or a number"),
    ({"beta": "nan"}, "'adaptive' or a number"),
    ({"steps": 0}, "steps takes a whole number above 0 and below .*, given 0"),
    ({"lr": 0}, "lr takes a number above 0"),
    ({"lr": float("nan")}, "lr takes a number above 0, given nan"),
    ({"train": {"lr": float("inf")}}, "train.lr takes a number above 0, given inf"),
    ({"train": {"batch_size": 0}}, "train.batch_size"),
    ({"train": {"epochs": 0}}, "train.epochs"),
    ({"mask": {"keep": 1.1}}, "mask.keep takes a fraction"),
    ({"mask": {"keep": float("nan")}}, "mask.keep takes a fraction"),
    ({"mask": {"retain_filter": -0.1}}, "mask.retain_filter takes a fraction"),
    ({"mask": {"kind": "mcy"}}, "did you mean 'mcu'"),
    ({"points": 3}, "at least 4 points"),
    ({"seeds": []}, "whole numbers from 0 on"),
    ({"seeds": [-1]}, "whole numbers from 0 on"),
    ({"seeds": [0, 0]}, "different whole numbers"),
    ({"seeds": [2**32]}, "whole numbers"),
    ({"seeds": range(1001)}, "one to 1000 different"),
    ({"steps": 2**31}, "below"),
    ({"points": 10**9}, "at most 100001"),
    ({"baselines": ["ssd"] * 101}, "at most 100"),
    ({"curve": "bezier:bends=1000000000"}, "from 1 to 64"),
    ({"baselines": ["mcu:bends=65"]}, "from 1 to 64"),
    ({"baselines": ["mcu:points=1000000"]}, "at most 100001"),
    ({"pre": "finetune:epochs=1e300"}, "below 2"),
    ({"pre": "finetune:optimizer=5"}, "optimizer takes NAME or NAME:key=value, given 5"),
    ({"model": "preresnet:depth=65531"}, "1001 at most"),
    ({"model": "mlp:hidden=[1000000000]"}, "at most 65536"),
    ({"model": "mlp:hidden=" + "[" * 30}, "cannot be read"),
    ({"dataset": "x" * 5000}, "No data set"),
    ({"forget": "random:0"}, "inside .0, 1."),
    ({"forget": "random:1.0"}, "inside .0, 1."),
    ({"forget": "random:nan"}, "inside .0, 1."),
    ({"forget": "random:0.001"}, "forget set is empty"),
    ({"forget": "random:0.999"}, "retain set is empty"),
    ({"forget": "class:10"}, "no class '10'; the classes are: 0, 1"),
    ({"forget": "class:"}, "forget is random:FRACTION"),
    ({"forget": "some"}, "forget is random:FRACTION"),
    ({"train_size": 0}, "train_size takes a whole number above 0"),
    ({"train_size": 1190}, "more than the 1200"),
    ({"validation_size": 0}, "validation_size takes a whole number above 0"),
    ({"train_size": 3, "forget": "class:5"}, "forget set is empty: no training example of class 5"),
    ({"validation_size": 1, "forget": "class:8"}, "validation set is empty without the forgotten class 8"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD, ids=lambda part: str(part)[:50])
def test_bad_input_is_refused_before_anything_is_made(
    change: dict, message: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(runs.ConfigError, match=message):
        runs.unlearn(runs.from_mapping({**SMALL, **change}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step: 3", r"no setting 'step'; did you mean 'steps'\?"),
        ("train: {epoch: 3}", r"no setting 'train.epoch'; did you mean 'train.epochs'\?"),
        ("train: 3", r"setting train takes a group of settings \(epochs, lr, batch_size\), given 3"),
        ("mask:", "setting mask takes a group of settings"),
        ("steps: 2.5", "setting steps takes a whole number, given 2.5"),
        ("steps: true", "setting steps takes a whole number, given True"),
        ("lr: fast", "setting lr takes a number, given 'fast'"),
        ("seeds: 0 1", "setting seeds takes a list of whole numbers"),
        ("seeds: [true]", "setting seeds takes a list of whole numbers"),
        ("baselines: [[ssd]]", "setting baselines takes a list of words"),
        ("model: [mlp]", "setting model takes a word"),
        ("dataset:", "setting dataset takes a word, given None"),
        ('dataset: "a\\e[31mb"', r"setting dataset holds a control character: 'a\\x1b\[31mb'"),
        ('baselines: [ssd, "finetune:\\n"]', "setting baselines holds a control character"),
        ('out: "a\\u202eb"', "setting out holds a control character"),
        ("- steps", "`key: value` lines"),
        ("", "`key: value` lines"),
        ("x: [", "is not YAML"),
        ("seeds: [10000000000000000000]", "different whole numbers from 0 on, given"),
        ("steps: 1e300", "below 2"),
        ("a: &x [1]", "anchors and aliases .&x. are not read"),
        ("a: *x", "anchors and aliases"),
        ("a: !!python/object:os.system x", "tags .* are not read"),
        ("steps: " + "1" * 5000, "a whole number of 5000 digits"),
        ("seeds: " + "[" * 1000, "more than 20 deep"),
        ("a: 1\na: 2", "given twice"),
        ("a: 1\n---\na: 2", "second document"),
        ("steps: " + "x" * 300_000, "more than 300000 bytes"),
    ],
)
def test_a_bad_file_is_refused(text: str, message: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(runs.ConfigError, match=message):
        runs.from_yaml(tmp_path / "c.yaml")


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(runs.ConfigError, match="cannot be read: No such file"):
        runs.from_yaml(tmp_path / "none.yaml")
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(runs.ConfigError, match="is not YAML"):
        runs.from_yaml(tmp_path / "c.yaml")


def test_a_file_may_write_numbers_as_people_do(tmp_path: pathlib.Path) -> None:
    (tmp_path / "c.yaml").write_text(
        textwrap.dedent("""
            lr: 1e-3
            beta: 0.2
            seeds: 3
            baselines: ssd
            train: {epochs: 4.0}
        """)
    )
    found = runs.from_yaml(tmp_path / "c.yaml")
    assert (found.lr, found.beta, found.seeds, found.baselines) == (1e-3, "0.2", (3,), ("ssd",))
    assert found.train.epochs == 4
