"""What a spec names is looked up before any data or compilation."""

import dataclasses
from pathlib import Path

import pytest

from configs.paper.appendix import NAMES as APPENDIX
from lth_jax import data
from lth_jax.config import Spec, from_config, identity, source_spec
from lth_jax.config.files import load_config
from lth_jax.errors import DataError, SpecError
from lth_jax.lottery.branches import BRANCHES
from lth_jax.lottery.experiment import check, check_transfers

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
        (MINE, "config.branches='mine'", "accepted: constant_random_sign, dense"),
        (
            MINE | {"branch": {"mine": {"kind": "x"}}},
            "config.branch.mine.kind='x'",
            "accepted: constant_random_sign, dense",
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
    "steps of a branch": (
        {"branches": ("retrain",), "branch": {"retrain": {"steps": "0"}}},
        "config.branch.retrain.steps='0': accepted: at least one step",
    ),
    "batch of a branch": (
        {"branches": ("retrain",), "branch": {"retrain": {"batch_size": 5000}}},
        "config.branch.retrain.batch_size=5000: accepted: at most the 1300 training examples",
    ),
    "rewind of a branch": (
        {
            "rewind": {"step": 200},
            "branches": ("x",),
            "branch": {"x": {"kind": "dense", "steps": "150"}},
        },
        "config.branch.x.steps='150': accepted: more than rewind.step",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_combination_is_one_line_before_anything_is_loaded(name, unloaded):
    config, message = WRONG[name]
    with pytest.raises((SpecError, DataError)) as caught:
        check(from_config(config))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


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
    "configs/conv2_cifar10.py": CONV_SCALES,
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
    "configs/paper/appendix.py": ("", *APPENDIX, *(f"{name},paper" for name in APPENDIX)),
    "configs/paper/figure1.py": SCALES,
    "configs/paper/figure3.py": SCALES,
    "configs/paper/figure4.py": SCALES,
    "configs/paper/figure5.py": (*SCALES, "iterative"),
    "configs/seed/task0_lenet_mnist.py": SCALES,
    "configs/seed/task1_mnist_halves.py": SCALES,
    "configs/seed/task2_mnist_classes.py": ("", "remapped", "new_head", "original"),
    "configs/transfer/adam_to_sgd.py": SCALES,
    "configs/transfer/digits_to_mnist.py": SCALES,
    "configs/transfer/fashion_mnist_to_mnist.py": SCALES,
    "configs/transfer/mnist_to_fashion_mnist.py": SCALES,
}
EVERY = [
    f"{file}:{variant}" if variant else file for file in VARIANTS for variant in VARIANTS[file]
]


def test_every_config_is_in_the_table():
    root = Path(__file__).resolve().parents[2]
    found = {path.relative_to(root).as_posix() for path in root.glob("configs/**/*.py")}
    assert found - {"configs/__init__.py"} == set(VARIANTS)


@pytest.mark.parametrize("name", EVERY)
def test_every_documented_variant_is_an_experiment_that_fits_together(name, unloaded):
    spec = from_config(load_config(name, (), list(BRANCHES)))
    check(spec)
    if set(spec.branches) & {"transfer", "transfer_reinit"}:
        source = source_spec(spec)
        check(source)
        check_transfers(spec, source)
        assert source != dataclasses.replace(spec, branches=(), branch={}, source={}), name


@pytest.mark.parametrize("file", [file for file in VARIANTS if len(VARIANTS[file]) > 1])
def test_an_unknown_variant_is_answered_with_those_there_are(file):
    with pytest.raises(SpecError, match=r"'huge'.*accepted: "):
        load_config(f"{file}:huge", (), list(BRANCHES))


def test_every_study_of_the_appendix_is_another_experiment():
    specs = [from_config(load_config(f"configs/paper/appendix.py:{n}", (), ())) for n in APPENDIX]
    ids = [(identity(spec), spec.branches) for spec in specs]
    # Studies share the paper's own setting where it is one of their values, and nothing else.
    assert len(set(ids)) >= len(ids) - 4
