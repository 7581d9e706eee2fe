"""Chains of dense layers: recognized by what they do, and computed as in float64 to rounding."""

from itertools import pairwise

import flax.linen as nn
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from lth_jax.models import MODELS
from lth_jax.models.base import from_linen
from lth_jax.models.mlp import MLP
from lth_jax.native.chain import Chain, find_chain
from lth_jax.native.layers import Layer, find_layers
from lth_jax.native.packing import Packed
from lth_jax.native.sparse import TILE
from lth_jax.training.pixels import Pixels

from ..small_networks import assert_same_bits
from ..tiny import experiment, tiny_spec

# --- Which networks are chains ---------------------------------------------------------------

IMAGES = jax.ShapeDtypeStruct((6, 4, 4, 1), jnp.float32)


class Variant(nn.Module):
    """A chain of two layers, and whatever else `between` and `after` do; dropout at a rate."""

    between: object = nn.relu
    after: object = lambda x: x
    bias: bool = True
    rate: float = 0.0
    norm: bool = False
    skip: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        x = x.reshape(len(x), -1)
        hidden = nn.Dense(16, name="first", use_bias=self.bias)(x)
        if self.norm:
            hidden = nn.BatchNorm(use_running_average=not train)(hidden)
        hidden = self.between(hidden)
        if self.rate:
            hidden = nn.Dropout(self.rate, deterministic=not train)(hidden)
        if self.skip:
            hidden = hidden + x
        return self.after(nn.Dense(3, name="second", use_bias=self.bias)(hidden))


def found(module):
    model = from_linen(module)
    variables = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    layers, _ = find_layers(model.apply, variables, IMAGES)
    return find_chain(model.apply, variables, IMAGES, layers)


@jax.custom_jvp
def straight_through(x):
    return jnp.maximum(x, 0)


@straight_through.defjvp
def _(primals, tangents):
    return straight_through(*primals), tangents[0]


straight_through.__name__ = "relu"


def test_chains_are_found_whatever_their_length_and_biases():
    names = ("fc1", "fc2", "output")
    kernels, biases = ([f"{name}/{leaf}" for name in names] for leaf in ("kernel", "bias"))
    assert found(MLP(classes=3, hidden=(8, 5))) == Chain(tuple(kernels), tuple(biases))
    assert found(MLP(classes=3, hidden=())) == Chain(("output/kernel",), ("output/bias",))
    assert found(Variant(bias=False)) == Chain(("first/kernel", "second/kernel"), (None, None))


@pytest.mark.parametrize(
    "module",
    [
        Variant(between=nn.tanh),
        Variant(between=lambda x: jnp.maximum(x, 0)),
        Variant(between=straight_through),
        Variant(between=lambda x: x),
        Variant(between=lambda x: nn.relu(x) * 2),
        Variant(after=nn.relu),
        Variant(after=lambda x: x / 3),
        Variant(rate=0.5),
        Variant(norm=True),
        Variant(skip=True),
    ],
    ids=lambda module: "",
)
def test_what_does_anything_else_is_no_chain(module):
    assert found(module) is None


def test_a_transposed_image_and_a_convolution_are_no_chain():
    class Turned(Variant):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(3)(x.transpose(0, 2, 1, 3).reshape(len(x), -1))

    assert found(Turned()) is None
    model = MODELS["lenet5"].make(10)
    images = jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    layers, _ = find_layers(model.apply, variables, images)
    assert find_chain(model.apply, variables, images, layers) is None


@pytest.mark.usefixtures("built")
def test_packed_runs_of_a_chain_are_one_call_and_smoothed_labels_are_not():
    made = experiment(tiny_spec(train__kernel="sparse"))
    assert made.native.chain.kernels[-1] == "output/kernel"
    assert made.program(1).fused is made.native.chain
    assert made.native.chain.takes({"output/kernel": ()})
    assert not made.native.chain.takes(())
    smoothed = experiment(tiny_spec(train__kernel="sparse", train__label_smoothing=0.1))
    assert smoothed.program(1).fused is None
    assert experiment(tiny_spec(train__kernel="xla")).native.chain is None


# --- What they compute -----------------------------------------------------------------------


class Case:
    """A chain of layers of these widths, some of them packed, and a batch.

    Args:
      widths: from the pixels to the classes.
      packed: of each layer, whether it is.
      density: of the packed ones.
      examples: in the batch.
      biased: whether layers have biases.
      dtype: of images.
    """

    def __init__(self, widths, packed, density, examples, biased=True, dtype=np.uint8, seed=0):
        random = np.random.default_rng(seed)
        layers = {f"l{i}/kernel": Layer("dense", shape) for i, shape in enumerate(pairs(widths))}
        self.chain = Chain(
            tuple(layers), tuple(f"l{i}/bias" if biased else None for i in range(len(layers)))
        )
        self.params, self.mask = {}, {}
        for i, shape in enumerate(pairs(widths)):
            kept = random.random(shape) < (density if packed[i] else 1)
            kernel = np.where(kept, random.normal(size=shape) / np.sqrt(shape[0]), 0)
            self.params[f"l{i}"] = {"kernel": kernel.astype(np.float32)}
            self.mask[f"l{i}"] = {"kernel": kept}
            if biased:
                bias = np.where(np.arange(shape[1]) % 3, random.normal(size=shape[1]), 0)
                self.params[f"l{i}"]["bias"] = bias.astype(np.float32)
        lengths = {
            f"l{i}/kernel": max(1, int(layer["kernel"].sum()) + i)
            for i, layer in enumerate(self.mask.values())
            if packed[i]
        }
        self.form = Packed(tuple(sorted(lengths.items())), layers, self.mask)
        self.images = random.integers(0, 256, (examples, 1, widths[0], 1)).astype(dtype)
        self.labels = random.integers(0, widths[-1], examples).astype(np.int32)

    def packed_params(self):
        return {
            layer: {leaf: self.form.from_dense(f"{layer}/{leaf}", v) for leaf, v in leaves.items()}
            for layer, leaves in self.params.items()
        }

    def computed(self, pixels):
        """(loss, dense gradients, logits) by native code."""
        params, constants = self.packed_params(), self.form.constants
        loss, gradients = self.chain.loss_and_gradients(
            constants, params, jnp.asarray(self.images), jnp.asarray(self.labels), pixels
        )
        logits = self.chain.logits(constants, params, jnp.asarray(self.images), pixels)
        dense = {
            layer: {leaf: self.form.to_dense(f"{layer}/{leaf}", v) for leaf, v in leaves.items()}
            for layer, leaves in gradients.items()
        }
        return float(loss), dense, np.asarray(logits)

    def in_float64(self, pixels):
        """The same in NumPy; gradients of what is pruned are zero."""
        x = self.images.reshape(len(self.images), -1).astype(np.float64) * pixels.scale
        if pixels.mean:
            x = (x - pixels.mean[0]) / pixels.deviation[0]
        inputs, layers = [], list(self.params.items())
        for i, (_, leaves) in enumerate(layers):
            inputs.append(x)
            x = x @ leaves["kernel"].astype(np.float64) + leaves.get("bias", 0)
            x = x if i == len(layers) - 1 else np.maximum(x, 0)
        logits, rows = x, np.arange(len(x))
        powers = np.exp(logits - logits.max(1, keepdims=True))
        loss = np.mean(np.log(powers.sum(1)) + logits.max(1) - logits[rows, self.labels])
        d = powers / powers.sum(1, keepdims=True)
        d[rows, self.labels] -= 1
        d /= len(d)
        gradients = {}
        for (layer, leaves), x in zip(reversed(layers), reversed(inputs), strict=True):
            gradients[layer] = {"kernel": np.where(self.mask[layer]["kernel"], x.T @ d, 0)}
            if "bias" in leaves:
                gradients[layer]["bias"] = d.sum(0)
            d = np.where(x > 0, d @ leaves["kernel"].astype(np.float64).T, 0)
        return loss, gradients, logits


def pairs(widths):
    return list(pairwise(widths))


def assert_near(mine, reference):
    scale = np.max(np.abs(reference), initial=1e-30)
    np.testing.assert_allclose(mine, reference, rtol=0, atol=3e-6 * scale)


def assert_agrees(case, pixels):
    (loss, gradients, logits), (expected, theirs, outputs) = (
        case.computed(pixels),
        case.in_float64(pixels),
    )
    assert loss == pytest.approx(expected, rel=1e-5)
    assert_near(logits, outputs)
    assert jax.tree.structure(gradients) == jax.tree.structure(theirs)
    jax.tree.map(assert_near, gradients, theirs)


LENET = (784, 300, 100, 10)
PLAIN, STANDARDIZED = Pixels(1 / 255), Pixels(1 / 255, (0.13,), (0.31,))


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("density", [0.21, 0.036, 0.0])
@pytest.mark.parametrize("packed", [(True, True, False), (True, True, True)], ids=str)
def test_lenet_agrees(packed, density):
    assert_agrees(Case(LENET, packed, density, 60), PLAIN)


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("pixels", [PLAIN, STANDARDIZED], ids=["plain", "standardized"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int16])
def test_images_of_any_type_agree(dtype, pixels):
    assert_agrees(Case((37, 29, 4), (True, False), 0.4, 70, dtype=dtype), pixels)


@pytest.mark.usefixtures("built")
@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(1, 70), min_size=2, max_size=5),
    st.lists(st.booleans(), min_size=4, max_size=4),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.sampled_from([1, 3, 16, TILE - 1, TILE, TILE + 1, 3 * TILE + 7]),
    st.booleans(),
)
def test_any_chain_agrees(widths, packed, density, examples, biased):
    assert_agrees(Case(tuple(widths), packed, density, examples, biased), PLAIN)


@pytest.mark.usefixtures("built")
def test_runs_of_a_group_have_the_bits_that_they_have_alone():
    cases = [Case((30, 20, 5), (True, False), 0.5, 40, seed=seed) for seed in range(3)]
    length = max(dict(case.form.form)["l0/kernel"] for case in cases)
    for case in cases:
        case.form = Packed(
            (("l0/kernel", length),), {"l0/kernel": Layer("dense", (30, 20))}, case.mask
        )
    chain = cases[0].chain

    def run(constants, params, images, labels):
        return (
            chain.loss_and_gradients(constants, params, images, labels, PLAIN),
            chain.logits(constants, params, images, PLAIN),
        )

    given = [(c.form.constants, c.packed_params(), c.images, c.labels) for c in cases]
    together = jax.vmap(run)(*jax.tree.map(lambda *leaves: jnp.stack(leaves), *given))
    for index, one in enumerate(given):
        alone = run(*jax.tree.map(jnp.asarray, one))
        assert_same_bits(jax.tree.map(lambda leaf, i=index: leaf[i], together), alone)


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
def test_a_run_that_diverges_is_seen(value):
    for place in (("l0", "kernel"), ("l1", "bias"), ("l2", "kernel")):
        case = Case((20, 16, 12, 5), (True, True, False), 0.5, 10)
        leaf = case.params[place[0]][place[1]]
        leaf[tuple(np.argwhere(leaf != 0)[0])] = value
        loss, gradients, logits = case.computed(PLAIN)
        assert not np.isfinite(loss)
        assert not np.all(np.isfinite(logits))
        assert not all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradients))


@pytest.mark.usefixtures("built")
def test_a_label_that_is_no_class_makes_the_loss_undefined():
    for label in (-1, 5, 2**31 - 1):
        case = Case((20, 16, 5), (True, False), 0.5, 10)
        case.labels[3] = label
        loss, gradients, _ = case.computed(PLAIN)
        assert np.isnan(loss)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradients))


@pytest.mark.usefixtures("built")
def test_units_without_weights_have_no_gradient():
    """Their sums are exactly zero where their bias is, as those of dead units are."""
    case = Case((20, 16, 5), (True, False), 0.0, 10)
    _, gradients, _ = case.computed(PLAIN)
    silent = case.params["l0"]["bias"] <= 0
    assert silent.any()
    assert not np.any(gradients["l0"]["bias"][silent])
    assert np.all(gradients["l0"]["bias"][~silent])
