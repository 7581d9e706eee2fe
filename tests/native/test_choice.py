"""Where packing pays, by rule: few programs serve many levels."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lth_jax
from lth_jax.native.choice import NativeCode, can_pay, dense_time, packed_time
from lth_jax.native.dense_conv import winograd_cost
from lth_jax.native.dispatch import intercept
from lth_jax.native.layers import Layer, find_layers
from lth_jax.training.optimizers import OPTIMIZERS

from ..registries import kept_registries
from ..tiny import experiment, tiny_spec


def dense(*shape):
    return Layer("dense", shape, applied=60)


def conv(*shape, side=32):
    winograd = winograd_cost(60, (side, side), shape, (1, 1))
    return Layer("conv", shape, (1, 1), 60 * side * side, winograd)


NETWORKS = {
    "LeNet": {"fc1": dense(784, 300), "fc2": dense(300, 100)},
    "Conv-2": {
        "conv2": conv(3, 3, 64, 64),
        "fc1": dense(16_384, 256),
        "fc2": dense(256, 256),
    },
    "residual": {
        **{f"a{i}": conv(3, 3, 16, 16) for i in range(6)},
        **{f"b{i}": conv(3, 3, 32, 32, side=16) for i in range(6)},
        **{f"c{i}": conv(3, 3, 64, 64, side=8) for i in range(6)},
    },
}


def masks(layers, rule, level):
    """What is left of random weights after a level that prunes a fifth."""
    random = np.random.default_rng(0)
    sizes = {name: math.prod(layer.shape) for name, layer in layers.items()}
    weights = {
        name: np.abs(random.normal(size=size) / np.sqrt(math.prod(layers[name].shape[:-1])))
        for name, size in sizes.items()
    }
    keep = 0.8**level
    if rule == "global":
        least = np.quantile(np.concatenate(list(weights.values())), 1 - keep)
        found = {name: of >= least for name, of in weights.items()}
    else:  # Frankle & Carbin (2019): a tenth of convolutions, a fifth of dense layers
        rates = {"dense": 0.8, "conv": 0.9 if rule == "paper" else 0.8}
        found = {
            name: np.arange(size) < size * rates[layers[name].kind] ** level
            for name, size in sizes.items()
        }
    return {name: mask.reshape(layers[name].shape) for name, mask in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["auto", "sparse"])
@pytest.mark.parametrize("rule", ["layer", "paper", "global"])
@pytest.mark.parametrize("network", NETWORKS)
def test_few_programs_serve_many_levels(network, rule, choice):
    layers = NETWORKS[network]
    kernels = NativeCode(choice, layers)
    layouts = [kernels.layout(k, masks(layers, rule, k), lambda _: True) for k in range(26)]
    assert layouts[0] == ()
    assert {name for name, _ in layouts[-1]} == set(layers)
    assert 3 <= len(set(layouts)) <= 8


def test_auto_packs_a_kind_where_that_pays_for_all_of_it():
    layers = {"big": conv(3, 3, 64, 64), "small": conv(3, 3, 16, 16), "fc": dense(400, 100)}

    def packed(**density):
        mask = {
            name: np.arange(math.prod(layer.shape)).reshape(layer.shape)
            < density[name] * math.prod(layer.shape)
            for name, layer in layers.items()
        }
        return {name for name, _ in NativeCode("auto", layers).layout(1, mask, lambda _: True)}

    assert packed(big=0.1, small=0.3, fc=0.6) == {"big", "small"}
    assert packed(big=0.2, small=0.1, fc=0.4) == {"fc"}
    assert packed(big=0.9, small=0.9, fc=0.9) == set()


# Time of packed layers by that of dense ones, as measured.
@pytest.mark.parametrize(
    ("layer", "kept", "paid"),
    [
        (conv(3, 3, 64, 64), 0.06, True),  # 0.76
        (conv(3, 3, 64, 64), 0.15, False),  # 1.27
        (conv(3, 3, 256, 256, side=8), 0.1, True),  # 0.65
        (conv(3, 3, 256, 256, side=8), 0.22, False),  # 1.29
        (conv(3, 3, 16, 16), 0.15, True),  # 0.69
        (conv(3, 3, 16, 16), 0.3, False),  # 1.06
        (conv(1, 1, 512, 128), 0.25, True),  # 0.60 at 30%
        (conv(1, 1, 32, 64), 0.1, False),  # 1.03: two channels are dealt for every 43 weights
    ],
)
def test_the_rule_says_what_was_measured(layer, kept, paid):
    assert (packed_time(layer, kept * math.prod(layer.shape)) <= dense_time(layer)) == paid


def test_small_layers_and_batches_are_never_packed():
    assert not can_pay(dense(100, 10))
    assert not can_pay(Layer("dense", (784, 300), applied=5))  # a weight meets 64 at once
    assert not can_pay(conv(3, 3, 3, 64))
    assert can_pay(dense(784, 300))
    assert can_pay(conv(3, 3, 16, 16))


@pytest.mark.parametrize("strides", [1, (2, 1)])
@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 0), (2, 3))])
def test_a_convolution_is_applied_at_every_pixel_of_its_output(padding, strides):
    module = nn.Conv(4, (3, 2), strides=strides, padding=padding)
    x = jax.ShapeDtypeStruct((5, 9, 8, 3), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    out = jax.eval_shape(module.apply, variables, x)

    def apply(variables, x, train, rngs):
        with nn.intercept_methods(intercept):
            return module.apply(variables, x), {}

    layers, _ = find_layers(apply, variables, x)
    assert layers["kernel"].applied == math.prod(out.shape[:3])


@pytest.mark.parametrize("name", NETWORKS)
def test_what_a_level_costs_is_foretold_from_its_densities(name):
    layers = NETWORKS[name]
    native = NativeCode("auto", layers)
    costs = []
    for level in range(20):
        mask = masks(layers, "layerwise", level)
        densities = {leaf: float(np.mean(kept)) for leaf, kept in mask.items()}
        layout, cost = native.expected(level, densities)
        assert layout == native.layout(level, mask, lambda _: True)
        costs.append(cost)
    assert costs[0] == 1.0
    assert costs == sorted(costs, reverse=True)
    assert 0.1 < costs[-1] < 0.6
    assert NativeCode().expected(5, {}) == ((), 1.0)


@pytest.mark.usefixtures("built")
def test_layers_are_packed_for_elementwise_optimizers_alone():
    with kept_registries():
        OPTIMIZERS["mine"] = lth_jax.Optimizer(optax.lion)
        one = experiment(tiny_spec(train__optimizer="mine", train__kernel="sparse"))
        assert not one.native.layers
        assert "pruned layers are not packed for mine" in "".join(one.notes)
        # Another name: the tests keep what they built by it.
        OPTIMIZERS["ours"] = lth_jax.Optimizer(optax.lion, elementwise=True)
        other = experiment(tiny_spec(train__optimizer="ours", train__kernel="sparse"))
        assert other.native.layers
        assert not other.notes
