"""The largest eigenvalue of the Hessian, against the whole Hessian's."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from lth_jax.training.curvature import sharpness

SIZES = (3, 4, 2)


def network(seed):
    draws = np.random.default_rng(seed)
    return {
        f"fc{index}": {
            "kernel": jnp.asarray(draws.normal(size=shape), jnp.float32),
            "bias": jnp.zeros(shape[1]),
        }
        for index, shape in enumerate(itertools.pairwise(SIZES))
    }


def loss(params, scale, inputs, targets):
    hidden = jnp.tanh(inputs @ params["fc0"]["kernel"] + params["fc0"]["bias"][None])
    outputs = hidden @ params["fc1"]["kernel"] + params["fc1"]["bias"][None]
    return scale * jnp.mean((outputs - targets) ** 2)


def batches(seed, count=3, size=5):
    draws = np.random.default_rng(seed + 1)
    return tuple(
        jnp.asarray(draws.normal(size=(count, size, width)), jnp.float32)
        for width in (SIZES[0], SIZES[-1])
    )


def exact(params, mask, examples):
    """The largest eigenvalue of the Hessian's rows and columns that the mask has."""
    flat, unravel = ravel_pytree(params)
    whole = [array.reshape(-1, array.shape[-1]) for array in examples]
    kept = np.flatnonzero(ravel_pytree(mask)[0])
    hessian = np.asarray(jax.hessian(lambda w: loss(unravel(w), 1.0, *whole))(flat), np.float64)
    return float(np.linalg.eigvalsh(hessian[np.ix_(kept, kept)])[-1])


# Each number of weights is a program.
@pytest.mark.slow
@settings(max_examples=5)
@given(seed=st.integers(0, 99), share=st.floats(0.2, 1))
def test_it_is_that_of_the_masked_hessian(seed, share):
    params, examples = network(seed), batches(seed)
    draws = np.random.default_rng(seed + 2)
    mask = jax.tree.map(lambda leaf: jnp.asarray(draws.random(leaf.shape) < share), params)
    if not any(map(np.any, jax.tree.leaves(mask))):
        return
    found = sharpness(loss, params, mask, examples, 1.0, jax.random.key(seed), iterations=100)
    wanted = exact(params, mask, examples)
    assert found.eigenvalue == pytest.approx(wanted, rel=1e-3, abs=1e-4)
    assert found.residual < 1e-2 * max(1, abs(wanted))


@pytest.mark.slow
def test_few_products_give_a_bound_and_say_how_good_it_is():
    params, examples = network(0), batches(0)
    mask = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)
    few, many = (
        sharpness(loss, params, mask, examples, 1.0, jax.random.key(0), iterations=n)
        for n in (2, 20)
    )
    assert few.eigenvalue < many.eigenvalue
    assert few.residual > many.residual
    assert few.eigenvalue + few.residual >= many.eigenvalue - 1e-4


@pytest.mark.parametrize(
    ("scale", "wanted"), [(0.0, 0.0), (float("nan"), float("nan"))], ids=["flat", "diverged"]
)
def test_a_loss_that_is_flat_and_one_that_is_no_number(scale, wanted):
    params = network(0)
    mask = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)
    found = sharpness(loss, params, mask, batches(0), scale, jax.random.key(0), iterations=4)
    assert found.eigenvalue == pytest.approx(wanted, nan_ok=True)


def test_of_no_weights_it_is_zero():
    params = network(0)
    mask = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, bool), params)
    assert sharpness(loss, params, mask, batches(0), 1.0, jax.random.key(0), iterations=4) == (0, 0)
