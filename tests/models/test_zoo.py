"""Every model of the registry: its counts, its shapes, and how it trains."""

from functools import cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax.models import DTYPES, MODELS
from lth_jax.models.gpt import GPT
from lth_jax.models.resnet import Residual
from lth_jax.native.choice import NativeCode
from lth_jax.pruning.masks import prunable
from lth_jax.pruning.trees import named_leaves, size
from lth_jax.training.groups import TOGETHER
from lth_jax.training.loop import Program
from lth_jax.training.parameterization import dense_apply
from lth_jax.training.pixels import Pixels
from lth_jax.training.states import (
    Examples,
    Inputs,
    TrainState,
    for_gradients,
    new_loop_state,
    new_state,
    rewind,
    stack_runs,
)
from lth_jax.training.tasks import TASKS, objective

from ..small_networks import assert_same_bits, bits, random_mask

# Parameters and prunable weights for 10 classes, options at their defaults, on 32×32×3 images; the
# MLP's on MNIST's. Papers: Conv-2 and Conv-4 have 4.3M and 2.4M weights, VGG-19 20.0M, ResNet-20
# 270K in convolutions (Frankle & Carbin 2019, Figure 2).
GOLDEN_COUNTS = {
    "mlp": (266_610, 266_200),
    "lenet5": (62_006, 61_770),
    "lenet5_wide": (4_301_642, 4_300_992),
    "conv2": (4_301_642, 4_300_992),
    "conv4": (2_425_930, 2_425_024),
    "conv6": (2_262_602, 2_261_184),
    "alexnet": (23_272_266, 23_262_912),
    "vgg11": (9_228_362, 9_222_848),
    "vgg13": (9_413_066, 9_407_168),
    "vgg16": (14_724_042, 14_715_584),
    "vgg19": (20_035_018, 20_024_000),
    "resnet20": (272_474, 270_896),
    "resnet32": (466_906, 464_432),
    "resnet44": (661_338, 657_968),
    "resnet56": (855_770, 851_504),
    "resnet110": (1_730_714, 1_722_416),
    "wrn16": (691_674, 689_840),
    "wrn22": (1_079_642, 1_076_912),
    "wrn28": (1_467_610, 1_463_984),
    "resnet18": (11_173_962, 11_164_352),
    "resnet34": (21_282_122, 21_265_088),
    "resnet50": (23_520_842, 23_467_712),
    "densenet121": (6_956_298, 6_872_768),
    "gpt": (103_434, 98_944),
    "vit_tiny": (5_362_378, 5_319_552),
}

# One of each family, as narrow and shallow as it can be, and the side of its images.
SMALLEST = {
    "mlp": ({"hidden": (6,)}, 4),
    "lenet5": ({}, 32),
    "conv2": ({"width": 0.05, "dropout": 0.5}, 6),
    "alexnet": ({"width": 0.01}, 32),
    "vgg11": ({"width": 0.05, "blocks": (1, 1, 1)}, 8),
    "resnet20": ({"width": 0.2, "depth": 8}, 8),
    "wrn22": ({"width": 0.2, "depth": 10, "dropout": 0.1}, 8),
    "resnet18": ({"width": 0.05, "blocks": (1, 1), "bottleneck": True}, 8),
    "densenet121": ({"width": 0.1, "blocks": (2, 1)}, 8),
    "vit_tiny": ({"width": 0.05, "dropout": 0.1, "depth": 1}, 8),
    "gpt": ({"features": 8, "heads": 2, "layers": 1, "dropout": 0.1}, 8),
}
# Larger members differ from a smaller one in their number of blocks alone.
LARGE = ("resnet32", "resnet44", "resnet56", "resnet110", "resnet34", "resnet50", "wrn28")
# What takes tokens: of those of `side`, as many as there are classes, and a logit for each of each.
OF_TOKENS = ("gpt",)
# Fast to trace and to compile: the fast tests' own.
FAST = ("mlp", "lenet5", "conv2", "resnet20")

every_model = pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in MODELS],
)
every_family = pytest.mark.parametrize(
    "name",
    [name if name == "mlp" else pytest.param(name, marks=pytest.mark.slow) for name in SMALLEST],
)


def shapes(make, side=32, channels=3, **given):
    """The variables' shapes, and those of the logits for two images and of the state after them."""
    model = make(10, **given)
    x = jax.ShapeDtypeStruct((2, side, side, channels), jnp.float32)
    if make.__self__.module is GPT:
        x = jax.ShapeDtypeStruct((2, side), jnp.int32)

    def run(key, x):
        variables = model.init(key, x)
        return variables, *model.apply(variables, x, True, {"dropout": key})

    return jax.eval_shape(run, jax.random.key(0), x)


def counts(params):
    leaves = named_leaves(params)
    return sum(map(size, leaves.values())), sum(size(leaves[name]) for name in prunable(params))


def test_every_model_has_golden_counts():
    assert set(GOLDEN_COUNTS) == set(MODELS)


def test_every_family_has_a_member_that_is_trained():
    assert {MODELS[name].module for name in SMALLEST} == {row.module for row in MODELS.values()}


@every_model
def test_counts_and_shapes(name):
    side, channels = (28, 1) if name == "mlp" else (32, 3)
    variables, logits, state = shapes(MODELS[name].make, side, channels)
    assert counts(variables["params"]) == GOLDEN_COUNTS[name]
    wanted = (2, side, 10) if name in OF_TOKENS else (2, 10)
    assert (logits.shape, logits.dtype) == (wanted, jnp.float32)
    assert {**variables, **state}.keys() == variables.keys()
    assert "output/kernel" in named_leaves(variables["params"])
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("densenet121", 7_978_856),
    ],
)
def test_with_imagenet_s_stem_and_classes_the_counts_are_the_published_ones(name, published):
    model = MODELS[name].make(1000, stem="imagenet")
    x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    assert counts(params)[0] == published


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name not in LARGE])
def test_the_least_image_is_enough(name):
    family = MODELS[name]
    side = max(family.least, family.padded)
    variables, logits, _ = shapes(family.make, side, 1)
    assert all(size(leaf) for leaf in jax.tree.leaves(variables))
    assert logits.shape == ((2, side, 10) if name in OF_TOKENS else (2, 10))


def test_resnet20_s_shortcuts_are_the_papers():
    params = shapes(MODELS["resnet20"].make)[0]["params"]
    shortcuts = [leaf for name, leaf in named_leaves(params).items() if "shortcut/kernel" in name]
    assert sum(map(size, shortcuts)) == 2560


def test_a_factor_of_width_narrows_every_layer_but_the_last():
    assert MODELS["resnet20"].options() == {
        "width": 1.0, "init": "glorot_normal", "dtype": "float32",
    }  # fmt: skip
    wide, narrow = (
        named_leaves(shapes(MODELS["resnet20"].make, width=width)[0]["params"])
        for width in (1.0, 0.5)
    )
    for name in wide:
        assert narrow[name].shape[-1] * (1 if "output" in name else 2) == wide[name].shape[-1]


# --- Conformance ----------------------------------------------------------------------------


@cache
def small(name, dtype="float32"):
    given, side = SMALLEST[name]
    model = MODELS[name].make(3, dtype=dtype, **given)
    tokens = name in OF_TOKENS
    program = Program(
        dense_apply(model.apply),
        optax.sgd(0.05, momentum=0.9),
        batch_size=4,
        pixels=Pixels(1 / 255),
        objective=objective(TASKS["next_token" if tokens else "classification"]),
    )
    random = np.random.default_rng(0)
    if tokens:
        parts = random.integers(0, 3, (2, 8, side)).astype(np.int32)
    else:
        parts = (
            random.integers(0, 256, (8, side, side, 1), np.uint8),
            random.integers(0, 3, 8).astype(np.int32),
        )
    examples = Examples(*map(jnp.asarray, parts))
    # In one piece, and of a generator that XLA has built in: each would take seconds to compile.
    first = jax.jit(lambda key, x: new_state(model.init, program.optimizer, key, x))
    key = jax.random.key(0, impl="unsafe_rbg")
    return program, examples, first(key, program.pixels.prepared(examples.inputs[:1]) * 0)


# One after the other, runs are computed as each alone, whatever the network.
EACH_ALONE = ("resnet20", "gpt")
# (name, how): each network in one `vmap`.
ways = pytest.mark.parametrize(
    ("name", "how"),
    [
        pytest.param(name, how, marks=() if name == "mlp" else pytest.mark.slow)
        for how in TOGETHER
        for name in (SMALLEST if how == "vmap" else EACH_ALONE)
    ],
)


@ways
def test_gradients_of_several_runs_are_those_of_each(name, how):
    """However they are computed together: in the programs that other platforms than CPUs have."""
    program, examples, state = small(name)
    given, _ = SMALLEST[name]
    network = NativeCode(platform="cuda").apply(MODELS[name].make(3, **given).apply)
    groups = {
        size: Program(
            network, program.optimizer, batch_size=4, pixels=program.pixels,
            objective=program.objective, group_size=size, together=how,
        )
        for size in (1, 3)
    }  # fmt: skip
    runs = [
        for_gradients(new_loop_state(jax.tree.map(lambda leaf, f=1 + i / 8: leaf * f, state), 8))
        for i in range(3)
    ]
    keys = [jax.random.key(i) for i in range(3)]
    found = groups[3].gradients(stack_runs(runs), stack_runs(keys), examples, 1)
    for index, (run, key) in enumerate(zip(runs, keys, strict=True)):
        alone = groups[1].gradients(stack_runs([run]), key[None], examples, 1)
        for leaf, same in zip(jax.tree.leaves(found), jax.tree.leaves(alone), strict=True):
            scale = 1e-6 + float(jnp.abs(same).max())
            np.testing.assert_allclose(leaf[index] / scale, same[0] / scale, atol=2e-5)


def train(program, examples, state, mask, steps):
    """The state after `steps` updates, as a single run's."""
    run = stack_runs([new_loop_state(jax.tree.map(jnp.copy, state), 8)])
    inputs = stack_runs([Inputs(mask, jax.random.key(1))])
    run = program.train(run, inputs, examples, 0, steps)
    return jax.tree.map(lambda leaf: leaf[0], run.state)


@every_family
def test_masked_training_keeps_zeros_and_moves_all_else(name):
    program, examples, state = small(name)
    mask = random_mask(state.params)
    start = rewind(state, mask, program.optimizer)
    before = bits(start)
    end = train(program, examples, start, mask, 2)
    assert bits(start) == before
    for (path, leaf), first, kept in zip(
        named_leaves(end.params).items(),
        jax.tree.leaves(start.params),
        jax.tree.leaves(mask),
        strict=True,
    ):
        assert leaf.dtype == jnp.float32
        assert np.all(np.isfinite(leaf))
        assert not np.any(np.asarray(leaf)[~np.asarray(kept)]), path
        if kept.size > 20:
            assert np.any(np.asarray(leaf) != np.asarray(first)), f"{path} did not move"
    # Another level: another mask and start, the same program.
    dense = train(program, examples, state, jax.tree.map(jnp.ones_like, mask), 2)
    assert len(program._compiled) == 1
    # Statistics moved, and a rewind brings them back, bit for bit.
    if state.model_state:
        assert bits(dense.model_state) != bits(state.model_state)
    again = rewind(state, mask, program.optimizer)
    assert_same_bits(again.model_state, state.model_state)
    assert isinstance(again, TrainState)


@pytest.mark.slow
@every_family
def test_bfloat16_computes_in_half_and_keeps_float32(name):
    program, examples, state = small(name, "bfloat16")
    full = small(name)[0]
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    x = program.pixels.prepared(examples.inputs)
    variables = {"params": state.params, **state.model_state}
    half, exact = (
        jax.jit(lambda v, x, p=p: p.apply((), v, x, False, {})[0])(variables, x)
        for p in (program, full)
    )
    assert half.dtype == exact.dtype == jnp.float32
    assert bits(half) != bits(exact)
    np.testing.assert_allclose(half, exact, rtol=0.1, atol=0.1)


@every_family
def test_an_image_s_logits_do_not_depend_on_its_batch_in_evaluation(name):
    program, examples, state = small(name)
    x = program.pixels.prepared(examples.inputs)
    variables = {"params": state.params, **state.model_state}
    apply = jax.jit(lambda v, x: program.apply((), v, x, False, {}))
    logits, unchanged = apply(variables, x)
    assert_same_bits(unchanged, state.model_state)
    alone, _ = apply(variables, x[3:4])
    np.testing.assert_allclose(alone[0], logits[3], rtol=1e-4, atol=1e-5)


def test_a_residual_block_is_its_definition():
    """The block of two convolutions, by hand: relu(x + norm(conv(relu(norm(conv(x))))))."""

    class One(Residual):
        @nn.compact
        def __call__(self, x, train=False):
            return self.block(x, train, "b", 3, 1, False)

    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 5, 3)).astype(np.float32))
    module = One(10)
    variables = module.init(jax.random.key(0), x)
    params = variables["params"]

    def conv(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def norm(x):
        return x / np.sqrt(1 + 1e-5)  # running statistics at their start

    y = nn.relu(norm(conv(x, params["b_conv1"]["kernel"])))
    y = nn.relu(x + norm(conv(y, params["b_conv2"]["kernel"])))
    np.testing.assert_allclose(module.apply(variables, x), y, rtol=1e-5, atol=1e-5)


def test_types_are_those_of_the_registry():
    assert set(DTYPES) == {"float32", "bfloat16"}
