"""Native dense layers agree with XLA's, in value and gradients, whatever inputs are zero."""

import flax.linen as nn
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from lth_jax.lottery.building import native_code
from lth_jax.native.choice import can_be_native
from lth_jax.native.dense_product import LEAST_OUTPUTS, dense_product
from lth_jax.native.dispatch import Dispatch, dispatching, intercept
from lth_jax.native.layers import Layer
from lth_jax.native.packing import Packed
from lth_jax.pruning.trees import map_named

from ..tiny import experiment, tiny_spec

pytestmark = pytest.mark.usefixtures("built")
# (examples, inputs, outputs): LeNet's first, in training and evaluation, and its second; conv2's
# second; less than a tile; no multiples of anything; many groups.
ZOO = [
    (60, 784, 300),
    (1000, 784, 300),
    (60, 300, 100),
    (128, 256, 256),
    (1, 1, 16),
    (5, 3, 17),
    (67, 97, 33),
    (573, 70, 47),
]


def operands(examples, inputs, outputs, live=0.6, seed=1):
    """(x, kernel, gradient of the output); all but a share of inputs zero, of either sign."""
    random = np.random.default_rng(seed)
    shapes = (examples, inputs), (inputs, outputs), (examples, outputs)
    x, kernel, given = (random.normal(size=shape).astype(np.float32) for shape in shapes)
    return x * (random.random(inputs) < live), kernel, given


@jax.jit
def outcomes(x, kernel, given):
    """(value, gradients of the input and of the kernel)."""
    out, pullback = jax.vjp(dense_product, x, kernel)
    return out, *pullback(given)


def assert_agrees(x, kernel, given):
    doubles = [np.float64(array) for array in (x, kernel, given)]
    x64, kernel64, given64 = doubles
    expected = x64 @ kernel64, given64 @ kernel64.T, x64.T @ given64
    for mine, other in zip(outcomes(x, kernel, given), expected, strict=True):
        scale = np.max(np.abs(other)) + 1e-30
        np.testing.assert_allclose(np.asarray(mine) / scale, other / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("live", [1.0, 0.6, 0.0])
@pytest.mark.parametrize("shape", ZOO, ids=lambda shape: "×".join(map(str, shape)))
def test_the_zoos_layers_agree(shape, live):
    assert_agrees(*operands(*shape, live))


@pytest.mark.slow
@settings(max_examples=40)
@given(st.data())
def test_any_shape_agrees(data):
    examples, inputs = data.draw(st.integers(1, 150)), data.draw(st.integers(1, 120))
    outputs = data.draw(st.integers(LEAST_OUTPUTS, 150))
    x, kernel, given = operands(examples, inputs, outputs, data.draw(st.floats(0, 1)))
    # Not only inputs of the whole batch: some of its examples alone may have one.
    alone = data.draw(st.lists(st.tuples(st.integers(0, examples - 1), st.integers(0, inputs - 1))))
    for example, place in alone:
        x[example, place] = 1.5
    assert_agrees(x, kernel, given)


def test_the_gradient_of_an_input_that_is_always_zero_is_positive_zero():
    x, kernel, given = operands(60, 784, 300)
    _, _, gradient = outcomes(x, kernel, -np.abs(given))
    dead = np.asarray(gradient)[~np.any(x, axis=0)]
    assert len(dead)
    assert dead.tobytes() == bytes(dead.nbytes)


def test_no_bit_of_an_output_depends_on_what_else_is_in_the_batch():
    x, kernel, _ = operands(200, 97, 33)
    x[3] = 1  # which makes all inputs of its group live
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    together = dense_product(x, kernel)
    for some in (slice(0, 1), slice(50, 57), slice(60, 200)):
        np.testing.assert_array_equal(together[some], dense_product(x[some], kernel))


def test_runs_side_by_side_have_the_bits_of_each_alone():
    runs = [operands(66, 97, 33, live, seed) for seed, live in enumerate((1.0, 0.5, 0.0))]
    together = jax.vmap(outcomes)(*map(np.stack, zip(*runs, strict=True)))
    for index, run in enumerate(runs):
        for mine, other in zip(together, outcomes(*run), strict=True):
            np.testing.assert_array_equal(mine[index], other)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_spreads_as_it_does_with_xla(value):
    x, kernel, given = operands(70, 40, 33, 1.0)
    x[65, 7] = value
    for mine, other in zip(
        outcomes(x, kernel, given), (x @ kernel, None, x.T @ given), strict=True
    ):
        if other is not None:
            np.testing.assert_array_equal(np.isfinite(mine), np.isfinite(other))


class Net(nn.Module):
    """A layer of sequences, one without a bias, and a small one."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(80, name="first")(x)
        x = nn.Dense(160, use_bias=False, name="second")(nn.relu(x))
        return nn.Dense(10, name="output")(x)


def test_layers_that_are_named_are_served_inside_any_linen_network():
    net, x = Net(), jnp.asarray(operands(48, 150, 16)[0]).reshape(4, 12, 150)
    variables = jax.tree.map(lambda leaf: leaf + 0.1, net.init(jax.random.key(0), x))  # biases too
    expected = net.apply(variables, x)
    names = {"first/kernel", "second/kernel"}
    with nn.intercept_methods(intercept), dispatching(Dispatch(products=names)):
        calls = str(jax.make_jaxpr(net.apply)(variables, x)).count("DenseProductForward")
        found = net.apply(variables, x)
    assert calls == 2
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "native"),
    [
        (Layer("dense", (784, 300), applied=60), True),
        (Layer("dense", (784, 300), applied=10), False),  # few examples
        (Layer("dense", (100, 10), applied=60), False),  # small
        (Layer("dense", (2000, 10), applied=60), False),  # fewer outputs than a vector has lanes
        (Layer("dense", (4096, 4096), applied=128), False),  # not in a core's cache
        (Layer("dense", (64, 192), applied=8320), False),  # tokens
        (Layer("conv", (3, 3, 64, 64), applied=60), False),
    ],
)
def test_a_fixed_rule_says_which_layers_are_native(layer, native):
    assert can_be_native(layer) == native


def test_a_packed_layer_is_not_served_twice():
    spec = tiny_spec(model__hidden=(200,), train__batch_size=32, train__kernel="auto")
    built = experiment(spec)
    kernels = native_code(spec, built.model, built.example.shape[1:])
    assert kernels.products == {"fc1/kernel"}
    params = built.model.init(jax.random.key(0), built.example)["params"]
    mask = jax.tree.map(lambda leaf: np.arange(leaf.size).reshape(leaf.shape) % 8 == 0, params)
    packing = Packed(kernels.layout(1, mask, lambda _: True), kernels.layers, mask)
    assert set(packing.constants) == {"fc1/kernel"}
    packed = map_named(packing.from_dense, jax.tree.map(jnp.multiply, params, mask))
    apply = kernels.apply(built.model.apply)

    def calls_of(constants, params):
        return str(
            jax.make_jaxpr(apply, static_argnums=3)(
                constants, {"params": params}, built.example, False, {}
            )
        )

    assert "DenseProductForward" in calls_of((), params)
    calls = calls_of(packing.constants, packed)
    assert "SparseProductForward" in calls
    assert "DenseProductForward" not in calls
