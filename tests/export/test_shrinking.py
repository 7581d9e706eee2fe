"""Smaller networks: the same logits, and exactly the units without effect taken out."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.export import sequential
from lth_jax.export.sequential import FLATTEN, MEAN, POOL, RELU, Layer
from lth_jax.export.shrinking import INPUTS, shrink
from lth_jax.models import MODELS
from lth_jax.pruning.channels import channels_of
from lth_jax.pruning.masks import ones_mask, prunable
from lth_jax.training.units import unit_groups

CONV = [Layer("conv", "conv1", padding=1), RELU, Layer("conv", "conv2", padding=1), RELU, POOL]
VALID = [Layer("conv", "conv1"), RELU, Layer("conv", "conv2"), RELU]
NORMED = [
    *(Layer("conv", "conv1", padding=1), Layer("norm", "norm1"), RELU, POOL),
    *(Layer("conv", "conv2", padding=1), Layer("norm", "norm2"), RELU, MEAN),
]
CLASSIFIER = [Layer("dense", "fc1"), RELU, Layer("dense", "output")]
NETWORKS = {
    "mlp": [FLATTEN, *CLASSIFIER],
    "conv": [*CONV, FLATTEN, *CLASSIFIER],
    "valid": [*VALID, FLATTEN, *CLASSIFIER],
    "normed": [*NORMED, *CLASSIFIER],
}
SHAPE = (6, 6, 2)
IMAGES = np.random.default_rng(5).normal(size=(7, *SHAPE)).astype(np.float32)
FEATURES = {"mlp": 72, "conv": 4 * 9, "valid": 4 * 4, "normed": 4}


def network(name, density, seed=0):
    """(layers, parameters, mask, statistics): biases of both signs, dead and living units."""
    random = np.random.default_rng(seed)

    def kernel(*shape):
        return random.normal(size=shape).astype(np.float32)

    def vector(*shape):
        return random.normal(size=shape).astype(np.float32)

    params = {"fc1": {"kernel": kernel(FEATURES[name], 8)}, "output": {"kernel": kernel(8, 3)}}
    statistics = {}
    if name != "mlp":
        params["conv1"] = {"kernel": kernel(3, 3, 2, 5)}
        params["conv2"] = {"kernel": kernel(3, 3, 5, 4)}
        if name == "valid":
            params["conv2"]["kernel"] = kernel(3, 3, 5, 4)
    for layer, own in list(params.items()):
        width = own["kernel"].shape[-1]
        if name == "normed" and layer.startswith("conv"):
            norm = layer.replace("conv", "norm")
            params[norm] = {"scale": vector(width), "bias": vector(width)}
            statistics[norm] = {"mean": vector(width), "var": np.abs(vector(width)) + 0.1}
        else:
            own["bias"] = vector(width)
    if name == "valid":
        params["fc1"]["kernel"] = kernel(2 * 2 * 4, 8)
    mask = {
        layer: {
            leaf: random.random(x.shape) < density if leaf == "kernel" else np.ones(x.shape, bool)
            for leaf, x in own.items()
        }
        for layer, own in params.items()
    }
    return NETWORKS[name], params, mask, statistics


def logits(layers, params, statistics, images=IMAGES):
    return np.asarray(sequential.apply(layers, params, statistics, jnp.asarray(images)))


def masked(params, mask):
    return jax.tree.map(lambda x, m: np.where(m, x, 0), params, mask)


def shrunk_logits(small, images=IMAGES):
    statistics = dict(small.statistics)
    if INPUTS in small.units:
        statistics[INPUTS] = {"indices": np.flatnonzero(small.units[INPUTS])}
    return logits(small.layers, small.params, statistics, images)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("density", [0.02, 0.1, 0.3, 1.0])
def test_the_logits_stay_the_same(name, density):
    for seed in range(5):
        layers, params, mask, statistics = network(name, density, seed)
        wanted = logits(layers, masked(params, mask), statistics)
        small = shrink(layers, params, mask, statistics, SHAPE)
        np.testing.assert_allclose(shrunk_logits(small), wanted, rtol=1e-4, atol=1e-4)
        whole, left = (sum(x.size for x in jax.tree.leaves(t)) for t in (params, small.params))
        assert left <= whole
        if density <= 0.1:
            assert left < whole
        if density == 1:
            assert all(units.all() for units in small.units.values())


def test_units_without_outputs_go_and_those_without_inputs_move_to_biases():
    params = {
        "fc1": {"kernel": np.ones((4, 4), np.float32), "bias": np.array([1, -2, 3, 4], np.float32)},
        "output": {"kernel": np.full((4, 2), 10, np.float32), "bias": np.array([5, 6], np.float32)},
    }
    mask = jax.tree.map(lambda x: np.ones(x.shape, bool), params)
    mask["fc1"]["kernel"][:, 0] = False  # unit 0 is always relu(1)
    mask["fc1"]["kernel"][:, 1] = False  # unit 1 is always relu(-2)
    mask["output"]["kernel"][2] = False  # unit 2 reaches nothing
    mask["fc1"]["kernel"][3] = False  # input 3 reaches nothing
    layers = [FLATTEN, *CLASSIFIER]
    small = shrink(layers, params, mask, {}, (2, 2, 1))
    assert small.layers == (FLATTEN, Layer("select", INPUTS), *CLASSIFIER)
    assert small.units["fc1"].tolist() == [False, False, False, True]
    assert small.units[INPUTS].tolist() == [True, True, True, False]
    assert small.params["fc1"]["kernel"].shape == (3, 1)
    assert small.params["fc1"]["bias"].tolist() == [4]
    assert small.params["output"]["bias"].tolist() == [15, 16]
    assert small.params["output"]["kernel"].tolist() == [[10, 10]]


@pytest.mark.parametrize(
    ("bias", "padding", "stays"), [(2, 1, True), (-2, 1, False), (2, 0, False)]
)
def test_a_constant_channel_stays_where_zeros_around_it_would_show(bias, padding, stays):
    """Channel 0 of conv1 has no inputs: relu(bias) everywhere, but zero in conv2's padding."""
    layers, params, mask, _ = network("conv" if padding else "valid", 1.0)
    mask["conv1"]["kernel"][..., 0] = False
    params["conv1"]["bias"][0] = bias
    small = shrink(layers, params, mask, {}, SHAPE)
    assert small.units["conv1"].tolist() == [stays, True, True, True, True]
    wanted = logits(layers, masked(params, mask), {})
    np.testing.assert_allclose(shrunk_logits(small), wanted, rtol=1e-4, atol=1e-4)


def test_a_network_without_any_weights_keeps_an_idle_unit_in_each_layer():
    layers, params, mask, _ = network("conv", 1.0)
    for own in mask.values():
        own["kernel"][...] = False
    small = shrink(layers, params, mask, {}, SHAPE)
    assert [int(units.sum()) for units in small.units.values()][-1] == 3
    wanted = logits(layers, masked(params, mask), {})
    np.testing.assert_allclose(shrunk_logits(small), wanted, rtol=1e-5)
    assert (wanted == wanted[0]).all()


SMALLEST = {
    "mlp": {"hidden": (6, 5)},
    "lenet5": {},
    "conv4": {"width": 0.05},
    "alexnet": {"width": 0.02},
    "vgg11": {"width": 0.05},
}


@cache
def made(name):
    model = MODELS[name].make(10, **SMALLEST[name])
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 1)))
    return model, jax.tree.map(
        lambda x: (
            random.uniform(0.1, 0.5, x.shape).astype(np.float32)
            * random.choice([-1, 1] if x.ndim > 1 else [1], x.shape).astype(np.float32)
        ),
        shapes,
    )


@pytest.mark.parametrize(
    "name",
    [n if n == "mlp" else pytest.param(n, marks=pytest.mark.slow) for n in SMALLEST],
)
def test_the_zoos_sequences_are_its_networks(name):
    model, variables = made(name)
    images = np.random.default_rng(1).normal(size=(3, 32, 32, 1)).astype(np.float32)
    wanted, _ = model.apply(variables, images, False, {})
    params, statistics = variables["params"], variables.get("batch_stats", {})
    layers = sequential.layers_of(name, list(params))
    found = sequential.apply(layers, params, statistics, images)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_every_sequential_network_of_the_zoo_has_a_test():
    assert {MODELS[name].module for name in SMALLEST} == set(sequential.SEQUENCES)


@pytest.mark.parametrize("name", ["resnet20", "densenet121", "vit_tiny", "of_ones_own"])
def test_a_network_that_is_no_sequence_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} is not a sequence of layers.*accepted: mlp, "):
        sequential.layers_of(name, ["conv"])


def test_layers_that_are_not_the_zoos_are_refused():
    with pytest.raises(ValueError, match="mlp has layers fc1, other, output"):
        sequential.layers_of("mlp", ["fc1", "other", "output"])


def test_flops_of_lenet_are_those_of_its_matrices():
    layers = sequential.layers_of("mlp", ["fc1", "fc2", "output"])
    sizes = {"fc1": (784, 300), "fc2": (300, 100), "output": (100, 10)}
    params = {
        name: {"kernel": np.zeros(size, np.float32), "bias": np.zeros(size[1], np.float32)}
        for name, size in sizes.items()
    }
    assert sequential.flops(layers, params, {}, (28, 28, 1)) == 2 * 266_200


@pytest.mark.parametrize("name", ["mlp", "conv2", "vgg11"])
def test_of_pruned_channels_nothing_is_left(name):
    options = {"width": 0.05} if name != "mlp" else {"hidden": (6, 5)}
    model, x = MODELS[name].make(10, **options), jnp.zeros((1, 16, 16, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    random = np.random.default_rng(3)
    variables = jax.tree.map(lambda s: random.normal(size=s.shape).astype(np.float32), shapes)
    params, statistics = variables["params"], variables.get("batch_stats", {})
    statistics = {norm: {**of, "var": np.abs(of["var"]) + 1} for norm, of in statistics.items()}
    channels = channels_of(unit_groups(model.apply, shapes, x), params, prunable(params))
    alive = {n: np.arange(units) % 2 == units % 2 for n, units in channels.units.items()}
    alive = {n: own if own.any() else ~own for n, own in alive.items()}
    mask = jax.tree.map(np.asarray, channels.mask(alive, ones_mask(params)))
    layers = sequential.layers_of(name, list(params))
    small = shrink(layers, params, mask, statistics, (16, 16, 3))
    assert all(np.all(leaf) for leaf in jax.tree.leaves(small.mask))
    left = sum(leaf.size for leaf in jax.tree.leaves(small.params))
    assert left == sum(int(np.sum(leaf)) for leaf in jax.tree.leaves(mask))
    assert {n: int(own.sum()) for n, own in alive.items()} == {
        n: int(own.sum()) for n, own in small.units.items() if n in alive
    }
