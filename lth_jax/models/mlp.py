"""Fully connected networks; with hidden sizes (300, 100), LeNet-300-100 (LeCun et al. 1998)."""

from __future__ import annotations

import flax.linen as nn
import jax

# Kernel initializations by name. `glorot_normal` is "Gaussian Glorot" (Frankle & Carbin 2019,
# Figure 2), a plain normal distribution of variance 2 / (fan_in + fan_out); JAX's function of that
# name truncates it.
INITIALIZERS = {
    "glorot_normal": nn.initializers.variance_scaling(1.0, "fan_avg", "normal"),
    "glorot_uniform": nn.initializers.variance_scaling(1.0, "fan_avg", "uniform"),
    "he_normal": nn.initializers.variance_scaling(2.0, "fan_in", "normal"),
    "he_uniform": nn.initializers.variance_scaling(2.0, "fan_in", "uniform"),
    "lecun_normal": nn.initializers.variance_scaling(1.0, "fan_in", "normal"),
}


class MLP(nn.Module):
    """ReLU layers `fc1`, `fc2`, … of the `hidden` sizes, then the linear layer `output`.

    Attributes:
      classes: number of logits.
      hidden: hidden layer sizes.
      kernel_init: the kernels' initialization, one of `INITIALIZERS`.
    """

    classes: int
    hidden: tuple[int, ...]
    kernel_init: str = "glorot_normal"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Logits [batch, classes] of images [batch, ...], which are flattened."""
        del train  # nothing here behaves differently
        init = INITIALIZERS[self.kernel_init]
        x = x.reshape(x.shape[0], -1)
        for index, width in enumerate(self.hidden, start=1):
            x = nn.relu(nn.Dense(width, kernel_init=init, name=f"fc{index}")(x))
        return nn.Dense(self.classes, kernel_init=init, name="output")(x)
