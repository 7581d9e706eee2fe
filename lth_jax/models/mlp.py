"""Fully connected networks; with hidden sizes (300, 100), LeNet-300-100 (LeCun et al. 1998)."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from lth_jax.models.layers import Network, flat


class MLP(Network):
    """ReLU layers `fc1`, `fc2`, … of the `hidden` sizes, then the linear layer `output`."""

    hidden: tuple[int, ...] = (300, 100)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Returns outputs [batch, classes] of images or features [batch, ...], flattened."""
        del train  # nothing here behaves differently
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"it takes numbers, no tokens ({x.dtype}): their sizes mean nothing")
        x = flat(x)
        for index, width in enumerate(self.hidden, start=1):
            x = nn.relu(self.dense(width, f"fc{index}")(x))
        return self.output(x)
