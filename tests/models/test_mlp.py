"""LeNet-300-100 as the paper has it, and the registry of models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.models import MODELS
from lth_jax.pruning.masks import prunable
from lth_jax.trees import named_leaves, size

# Parameters and prunable weights on 28×28×1 images of 10 classes, options at their defaults.
GOLDEN_COUNTS = {"mlp": (266_610, 266_200)}

every_model = pytest.mark.parametrize("name", sorted(MODELS))


@pytest.fixture(scope="module")
def lenet():
    x = jnp.zeros((1, 28, 28, 1))
    return jax.jit(MODELS["mlp"](10).init)(jax.random.key(0), x)["params"]


@every_model
def test_golden_counts(name):
    model = MODELS[name](10)
    x = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    leaves = named_leaves(params)
    total = sum(map(size, leaves.values()))
    assert (total, sum(size(leaves[n]) for n in prunable(params))) == GOLDEN_COUNTS[name]


@every_model
def test_logits_come_one_row_an_example_whatever_the_batch(name):
    model = MODELS[name](7)
    x = jnp.linspace(0, 1, 5 * 64).reshape(5, 8, 8, 1)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    logits, state = model.apply(variables, x, False, {})
    assert (logits.shape, logits.dtype) == ((5, 7), jnp.float32)
    assert jax.tree.structure(state) == jax.tree.structure(
        {key: value for key, value in variables.items() if key != "params"}
    )
    alone, _ = model.apply(variables, x[3:4], False, {})
    np.testing.assert_allclose(alone[0], logits[3], rtol=1e-5, atol=1e-6)


def test_layers_have_the_papers_shapes_and_names(lenet):
    assert {name: leaf.shape for name, leaf in named_leaves(lenet).items()} == {
        "fc1/bias": (300,),
        "fc1/kernel": (784, 300),
        "fc2/bias": (100,),
        "fc2/kernel": (300, 100),
        "output/bias": (10,),
        "output/kernel": (100, 10),
    }


def test_biases_start_at_zero(lenet):
    assert not any(np.any(leaf) for name, leaf in named_leaves(lenet).items() if "bias" in name)


@pytest.mark.parametrize("layer", ["fc1", "fc2", "output"])
def test_kernels_are_gaussian_glorot(lenet, layer):
    kernel = np.asarray(lenet[layer]["kernel"])
    std = np.sqrt(2 / sum(kernel.shape))
    error = 4 / np.sqrt(2 * kernel.size)  # four standard errors of a standard deviation
    np.testing.assert_allclose(kernel.std(), std, rtol=error)
    assert abs(kernel.mean()) < 4 * std / np.sqrt(kernel.size)


def test_the_gaussian_is_not_truncated(lenet):
    z = np.ravel(lenet["fc1"]["kernel"]) * np.sqrt(1084 / 2)
    assert np.abs(z).max() > 4, "JAX's glorot_normal ends at 2.27 standard deviations"
    np.testing.assert_allclose((z**4).mean(), 3, rtol=0.05)
    np.testing.assert_allclose((np.abs(z) > 2).mean(), 0.0455, rtol=0.05)


def test_the_network_is_relu_layers_and_a_linear_one():
    model = MODELS["mlp"](2, hidden=(3,))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 2, 1)).astype(np.float32))
    params = model.init(jax.random.key(1), x)["params"]
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    flat = np.asarray(x).reshape(4, 4)
    hidden = np.maximum(flat @ params["fc1"]["kernel"] + np.asarray(params["fc1"]["bias"])[None], 0)
    expected = hidden @ params["output"]["kernel"] + np.asarray(params["output"]["bias"])[None]
    np.testing.assert_allclose(
        model.apply({"params": params}, x, True, {})[0], expected, rtol=1e-5, atol=1e-6
    )


def test_no_hidden_layer_is_a_linear_model():
    params = MODELS["mlp"](3, hidden=()).init(jax.random.key(0), jnp.zeros((1, 2, 2, 1)))["params"]
    assert list(named_leaves(params)) == ["output/bias", "output/kernel"]
