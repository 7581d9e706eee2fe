"""Pooling is that of windows, by a reshape."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.models.layers import max_pool


@pytest.mark.parametrize("sides", [(4, 6), (5, 7)])
def test_pooling_by_a_reshape_is_that_by_windows(sides):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *sides, 3)).astype(np.float32))
    found, wanted = (
        jax.value_and_grad(lambda x, pool=pool: jnp.sum(jnp.sin(pool(x))))(x)
        for pool in (max_pool, lambda x: nn.max_pool(x, (2, 2), (2, 2)))
    )
    np.testing.assert_array_equal(max_pool(x), nn.max_pool(x, (2, 2), (2, 2)))
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-6)


def test_equal_largest_pixels_share_the_gradient():
    x = jnp.ones((1, 2, 2, 1))
    np.testing.assert_array_equal(jax.grad(lambda x: max_pool(x).sum())(x), 0.25 * np.ones_like(x))
