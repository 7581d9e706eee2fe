"""LeNet-300-100 as the paper has it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.models import MODELS
from lth_jax.pruning.trees import named_leaves


@pytest.fixture(scope="module")
def lenet():
    x = jnp.zeros((1, 28, 28, 1))
    return jax.jit(MODELS["mlp"].make(10).init)(jax.random.key(0), x)["params"]


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


def test_the_gaussian_of_the_papers_code_is_truncated():
    model = MODELS["mlp"].make(10, hidden=(300, 100), init="glorot_truncated")
    params = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))["params"]
    z = np.ravel(params["fc1"]["kernel"]) * np.sqrt(1084 / 2)
    np.testing.assert_allclose(z.std(), 1, rtol=0.01)
    assert np.abs(z).max() < 2.28, "two deviations of the normal distribution before it is cut"


def test_the_network_is_relu_layers_and_a_linear_one():
    model = MODELS["mlp"].make(2, hidden=(3,))
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
    params = (
        MODELS["mlp"].make(3, hidden=()).init(jax.random.key(0), jnp.zeros((1, 2, 2, 1)))["params"]
    )
    assert list(named_leaves(params)) == ["output/bias", "output/kernel"]
