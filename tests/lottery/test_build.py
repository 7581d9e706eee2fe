"""What a spec names is looked up before any data or compilation."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from configs.paper.appendix import NAMES as APPENDIX
from lth_jax import data
from lth_jax.config import Spec, from_config, identity, source_spec
from lth_jax.config.files import load_config, read_config
from lth_jax.config.reference import published
from lth_jax.errors import DataError, SpecError
from lth_jax.lottery import network
from lth_jax.lottery.branches import BRANCHES
from lth_jax.lottery.building import build
from lth_jax.lottery.checks import check, check_transfers
from lth_jax.lottery.custom import register
from lth_jax.lottery.examples import notes_of
from lth_jax.lottery.optimizing import optimizer_of
from lth_jax.system import machine

from ..registries import kept_registries

MINE = {"branches": ("mine",)}


def test_the_default_spec_names_what_exists():
    check(Spec())


@pytest.mark.parametrize(
    ("config", "field", "accepted"),
    [
        ({"model": {"name": "mpl"}}, "config.model.name='mpl'", "did you mean 'mlp'?"),
        ({"train": {"optimizer": "adm"}}, "config.train.optimizer='adm'", "'adam'?"),
        (
            {"pruning": {"criterion": "x"}},
            "config.pruning.criterion='x'",
            "accepted: grasp, large_final_same_sign",
        ),
        ({"branches": ("reint",)}, "config.branches='reint'", "'reinit'?"),
        (MINE, "config.branches='mine'", "accepted: ac_dc, constant_random_sign"),
        (
            MINE | {"branch": {"mine": {"kind": "x"}}},
            "config.branch.mine.kind='x'",
            "accepted: ac_dc, constant_random_sign",
        ),
        ({"branch": {"reint": {"draws": 2}}}, "config.branch.reint", "'reinit'?"),
        ({"model": {"init": "glorot"}}, "config.model.init='glorot'", "'glorot_"),
        ({"model": {"name": "resnet18", "stem": "x"}}, "config.model.stem='x'", "small"),
        ({"model": {"dtype": "float16"}}, "config.model.dtype='float16'", "bfloat16"),
        (
            {"model": {"dropout": 0.5}},
            "config.model.dropout=0.5: mlp does not take it",
            "accepted: hidden, init, dtype",
        ),
        (
            {"model": {"name": "vgg16"}},
            "config.model.name='vgg16': it takes images from 16×16",
            "data.side=16",
        ),
        (
            {"branches": ("retrain",), "branch": {"retrain": {"optimizer": "adm"}}},
            "config.branch.retrain.optimizer='adm'",
            "'adam'?",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_unknown_name_is_refused_with_its_neighbour(config, field, accepted):
    with pytest.raises(SpecError) as caught:
        check(from_config(config))
    message = str(caught.value)
    assert message.startswith(field)
    assert accepted in message
    assert "\n" not in message


def test_a_branch_may_have_a_name_of_its_own():
    check(from_config(MINE | {"branch": {"mine": {"kind": "reinit"}}}))


def test_an_unknown_dataset_is_refused():
    with pytest.raises(DataError, match="digitz"):
        check(from_config({"data": {"name": "digitz"}}))


# --- Combinations that are wrong, before anything is loaded ---------------------------------


@pytest.fixture
def unloaded(monkeypatch):
    """Fails if data is loaded."""

    def load(*_, **__):
        raise AssertionError("data was loaded before the input was checked")

    monkeypatch.setattr(data, "load", load)


SMALL = {"model": {"hidden": (8,)}}
TRAINED = (
    "large_init_large_final", "magnitude_increase", "movement", "large_final_same_sign"
)  # fmt: skip
DIGITS = "digits has 10 classes; accepted: different numbers from 0 to 9"
WRONG = {
    # floor(fraction × surviving) leaves every layer a weight; shares of a total may not.
    "layer to nothing": (
        SMALL | {"levels": 1, "pruning": {"scope": "erdos_renyi", "densities": (0.002,)}},
        "config.levels=1: level 1 would prune output/kernel to nothing; accepted: 0 to 0, or a "
        "smaller pruning.fraction",
    ),
    "pattern": (
        {"pruning": {"layer_rates": (("conv", 0.5),)}},
        "config.pruning.layer_rates: pattern 'conv' matches no prunable layer; the layers are fc1/",
    ),
    "nothing prunable": (
        {"pruning": {"layer_rates": (("*", 0.0),)}},
        "config.pruning.nothing is prunable",
    ),
    "rates of erdos_renyi": (
        {"pruning": {"scope": "erdos_renyi", "layer_rates": (("output", 0.5),)}},
        "config.pruning.layer_rates: output/kernel has multiple 0.5; accepted under scope erdos_r",
    ),
    "class": ({"data": {"classes": (3, 10)}}, f"config.data.classes=(3, 10): {DIGITS}"),
    "class twice": ({"data": {"classes": (3, 3)}}, f"config.data.classes=(3, 3): {DIGITS}"),
    "negative class": ({"data": {"classes": (-1,)}}, f"config.data.classes=(-1,): {DIGITS}"),
    "batch of a branch": (
        {"branches": ("retrain",), "branch": {"retrain": {"batch_size": 5000}}},
        "config.branch.retrain.batch_size=5000: accepted: at most the 1300 training examples",
    ),
    "rewind of a branch": (
        {
            "rewind": {"step": 200},
            "branches": ("x",),
            "branch": {"x": {"kind": "reshuffle", "steps": "150"}},
        },
        "config.branch.x.steps='150': accepted: at least rewind.step='200'",
    ),
    "a mask that nothing trains": (
        {"branches": ("edge_popup",), "branch": {"edge_popup": {"steps": "0"}}},
        "config.branch.edge_popup.steps='0': accepted: more than rewind.step='0'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_combination_is_one_line_before_anything_is_loaded(name, unloaded):
    config, message = WRONG[name]
    with pytest.raises((SpecError, DataError)) as caught:
        check(from_config(config))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_preset_s_branch_may_be_left_out(unloaded):
    """Its options stay, and say of what kind it is; an unknown kind is still a mistake."""
    check(from_config(SMALL | {"branches": (), "branch": {"own": {"kind": "retrain"}}}))
    for options in ({}, {"kind": "retain"}):
        with pytest.raises(SpecError, match=r"config\.branch\.own: no such branch"):
            check(from_config(SMALL | {"branches": (), "branch": {"own": options}}))


@pytest.mark.parametrize("criterion", TRAINED)
def test_a_criterion_that_needs_trained_weights_is_refused_at_initialization(criterion, unloaded):
    config = {"pruning": {"criterion": criterion, "at": "rewind"}}
    with pytest.raises(SpecError, match=rf"^config\.pruning\.at='rewind': {criterion} compares"):
        check(from_config(config))
    check(from_config({"pruning": {"criterion": criterion}}))
    check(from_config({"pruning": {"criterion": "magnitude", "at": "rewind"}}))


def test_a_transfer_between_other_shapes_is_refused_before_anything_is_loaded(unloaded):
    spec = from_config({"branches": ("transfer",), "source": {"data": {"name": "mnist"}}})
    with pytest.raises(SpecError) as caught:
        check_transfers(spec, source_spec(spec))
    assert str(caught.value) == (
        "config.source: fc1/kernel is 784×300 in the source and 64×300 here; "
        "accepted: networks that differ in their output layer alone"
    )
    for source in ({"name": "mnist", "side": 8}, {"classes": (1, 2)}):
        spec = from_config({"branches": ("transfer",), "source": {"data": source}})
        check_transfers(spec, source_spec(spec))


# --- What the configs build -----------------------------------------------------------------

SCALES = ("", "laptop", "paper")
CONV_SCALES = ("", "laptop", "paper", "dropout")
RATES = ("", "laptop", "paper", *(f"{rate}{scale}" for rate in ("low", "high", "warmup", "rewind")
         for scale in ("", ",paper")))  # fmt: skip
VARIANTS = {
    "configs/conv2_cifar10.py": (*CONV_SCALES, "points"),
    "configs/conv4_cifar10.py": CONV_SCALES,
    "configs/conv6_cifar10.py": CONV_SCALES,
    "configs/densenet121_cifar10.py": RATES,
    "configs/lenet5_mnist.py": SCALES,
    "configs/resnet18_cifar10.py": RATES,
    "configs/resnet20_cifar10.py": RATES,
    "configs/vit_tiny_cifar10.py": SCALES,
    "configs/vgg16_cifar10.py": RATES,
    "configs/vgg19_cifar10.py": RATES,
    "configs/lenet_digits.py": ("",),
    "configs/lenet_mnist.py": SCALES,
    "configs/compare/methods_conv2.py": SCALES,
    "configs/compare/methods_fashion.py": ("",),
    "configs/compare/methods_mnist.py": ("",),
    "configs/paper/alignment.py": ("",),
    "configs/paper/appendix.py": ("", *APPENDIX, *(f"{name},paper" for name in APPENDIX)),
    "configs/paper/connectivity.py": (*SCALES, "resnet20"),
    "configs/paper/figure1.py": SCALES,
    "configs/paper/figure3.py": SCALES,
    "configs/paper/figure4.py": SCALES,
    "configs/paper/figure5.py": (*SCALES, "iterative"),
    "configs/paper/rewinding.py": SCALES,
    "configs/seed/task0_lenet_mnist.py": SCALES,
    "configs/seed/task1_mnist_halves.py": SCALES,
    "configs/seed/task2_mnist_classes.py": ("", "remapped", "new_head", "original"),
    "configs/sparse/digits.py": ("",),
    "configs/sparse/early_bird.py": ("", "paper", "digits"),
    "configs/sparse/learned.py": ("", "mnist", "conv2", "conv4", "conv6"),
    "configs/sparse/lenet_mnist.py": ("", "uniform", "global"),
    "configs/sparse/strong_tickets.py": ("", "0.25"),
    "configs/sparse/wrn22_cifar10.py": SCALES,
    "configs/transfer/adam_to_sgd.py": SCALES,
    "configs/transfer/digits_to_mnist.py": SCALES,
    "configs/transfer/fashion_mnist_to_mnist.py": SCALES,
    "configs/transfer/mnist_to_fashion_mnist.py": SCALES,
}
# They bring datasets of their own, which are built from what they give.
WITH_ROWS = {"configs/char_gpt.py", "configs/mlp_diabetes.py"}
# Its images stay on disk: it is tried in `test_imagenet.py`.
ON_DISK = {"configs/resnet50_imagenet.py"}
EVERY = [
    f"{file}:{variant}" if variant else file for file in VARIANTS for variant in VARIANTS[file]
]


def test_every_config_is_in_the_table():
    root = Path(__file__).resolve().parents[2]
    found = {path.relative_to(root).as_posix() for path in root.glob("configs/**/*.py")}
    assert found - {"configs/__init__.py"} == set(VARIANTS) | WITH_ROWS | ON_DISK


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(WITH_ROWS))
def test_every_config_with_rows_is_an_experiment(name):
    with kept_registries():
        file = read_config(name)
        register(file)
        spec = from_config(file.config)
        built = build(spec)
    assert spec.task != "classification"
    assert built.steps > 0
    assert built.validation.valid is not None


@pytest.fixture
def traced_once(monkeypatch):
    """A network is traced once for all variants that train it, on inputs of one shape."""

    def parameters(spec, model, inputs, outputs):
        key = (spec.model, inputs.shape, outputs)
        if key not in SHAPES:
            SHAPES[key] = trace(spec, model, inputs, outputs)
        return SHAPES[key]

    trace = network.parameters_of
    monkeypatch.setattr(network, "parameters_of", parameters)


SHAPES: dict = {}


# Deep networks take seconds to trace; of the others the quick tests build one for each config.
DEEP = ("densenet", "resnet", "vgg", "vit")
QUICK = [name for name in VARIANTS if not any(deep in name for deep in DEEP)]


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in EVERY],
)
@pytest.mark.usefixtures("traced_once", "unloaded")
def test_every_documented_variant_is_an_experiment_that_fits_together(name):
    spec = from_config(load_config(name, (), list(BRANCHES)))
    check(spec)
    if set(spec.branches) & {"transfer", "transfer_reinit"}:
        source = source_spec(spec)
        check(source)
        check_transfers(spec, source)
        assert source != dataclasses.replace(spec, branches=(), branch={}, source={}), name


@pytest.mark.parametrize(
    "name",
    [
        "lenet_mnist", "conv2_cifar10", "conv4_cifar10", "conv6_cifar10",
        "paper/figure1", "paper/figure3", "paper/figure4", "paper/figure5",
    ],
)  # fmt: skip
def test_a_preset_at_the_papers_scale_is_held_against_its_numbers(name):
    spec = from_config(load_config(f"configs/{name}.py:paper", (), ()))
    found = published(spec.reference)
    assert {one.branch for one in found} <= {"ticket", *spec.branches}
    assert {one.against for one in found} <= {"", "dense", *spec.branches}
    assert any(one.says for one in found)
    assert str(spec.reference["steps"]) == spec.train.steps


@pytest.mark.parametrize("file", [file for file in VARIANTS if len(VARIANTS[file]) > 1])
def test_an_unknown_variant_is_answered_with_those_there_are(file):
    with pytest.raises(SpecError, match=r"'huge'.*accepted: "):
        load_config(f"{file}:huge", (), list(BRANCHES))


def test_every_study_of_the_appendix_is_another_experiment():
    specs = [from_config(load_config(f"configs/paper/appendix.py:{n}", (), ())) for n in APPENDIX]
    ids = [(identity(spec), spec.branches) for spec in specs]
    # Studies share the paper's own setting where it is one of their values, and nothing else.
    assert len(set(ids)) >= len(ids) - 4


# What no machine holds, and classes without examples


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"model": {"hidden": (10**6, 10**6)}},
            "config.model.name='mlp': 9 runs side by side of 1,000,076,000,010 parameters take",
        ),
        (
            {"model": {"hidden": (1,)}, "data": {"side": 4096, "channels": 4096}},
            "config.data.side=4096: 1,797 images of 4096×4096×4096 take at least",
        ),
    ],
    ids=["parameters", "images"],
)
def test_what_fits_in_no_memory_is_refused_before_anything_is_loaded(config, message, unloaded):
    with pytest.raises(SpecError) as caught:
        check(from_config(config))
    assert str(caught.value).startswith(message)
    assert "GiB of memory, of which there are" in str(caught.value)
    assert len(str(caught.value)) < 200


def test_runs_that_fit_one_by_one_may_not_fit_side_by_side(monkeypatch):
    """All runs of a level are in memory: parameters twice, Adam's moments, a mask."""
    config = {"replicates": 2, "branch": {"reinit": {"draws": 3, "levels": (2,)}}}
    spec = from_config({**config, "branches": ("reinit", "random_mask")})
    one = (64 * 300 + 300 + 300 * 100 + 100 + 1000 + 10) * (4 * 4 + 1) + 4
    images = 1797 * 64
    monkeypatch.setattr(machine, "memory", lambda: images + 2 * 5 * one)
    check(spec)
    monkeypatch.setattr(machine, "memory", lambda: images + 2 * 5 * one - 1)
    with pytest.raises(SpecError, match="10 runs side by side of 50,610 parameters"):
        check(spec)


@pytest.mark.parametrize(
    ("fields", "classes", "notes"),
    [
        ({}, 3, ()),
        (
            {},
            4,
            ("1 of 4 classes have no training example (3); the network has an output for each",),
        ),
        (
            {},
            10**6,
            (
                "999,997 of 1,000,000 classes have no training example (3, 4, 5, 6, 7, …); the "
                "network has an output for each",
            ),
        ),
        ({"classes": (0, 1, 2), "labels": "original"}, 9, ()),
        (
            {"classes": (0, 7), "labels": "original"},
            9,
            ("1 of 2 classes have no training example (7); the network has an output for each",),
        ),
    ],
    ids=["all", "one", "million", "asked for", "asked for in vain"],
)
def test_classes_without_a_training_example_are_named(fields, classes, notes):
    spec = from_config({"data": fields})
    assert notes_of(spec, classes, np.array([0, 1, 2, 2, 1], np.int32)) == notes


def test_a_duration_beyond_the_last_step_changes_nothing():
    """JAX takes no integer of more than 32 bits."""
    train = {"warmup": "2147483647ep", "drops": (("2147483647ep", 0.1),)}
    optimizer = optimizer_of(from_config({"train": train}), steps_per_epoch=1000)
    params = {"w": np.ones(3, np.float32)}
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert np.isfinite(updates["w"]).all()
