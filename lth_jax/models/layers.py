"""The parts that the families share: named initializations, layers, norms and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# Kernel initializations by name. `glorot_normal` is "Gaussian Glorot" as the text of Frankle &
# Carbin (2019, Figure 2) has it, a plain normal distribution of variance 2 / (fan_in + fan_out).
# `glorot_truncated` is what their code drew, to 0.3% of the deviation: the same variance, cut off
# at two deviations of the normal distribution below it. JAX's `glorot_normal` is this one.
INITIALIZERS = {
    "glorot_normal": nn.initializers.variance_scaling(1.0, "fan_avg", "normal"),
    "glorot_truncated": nn.initializers.variance_scaling(1.0, "fan_avg", "truncated_normal"),
    "glorot_uniform": nn.initializers.variance_scaling(1.0, "fan_avg", "uniform"),
    "he_normal": nn.initializers.variance_scaling(2.0, "fan_in", "normal"),
    "he_uniform": nn.initializers.variance_scaling(2.0, "fan_in", "uniform"),
    "lecun_normal": nn.initializers.variance_scaling(1.0, "fan_in", "normal"),
}

# What layers are told to compute in, by name; parameters are float32 whatever it is. Told nothing,
# they follow their parameters: float32, and float64 where a score is checked in it.
DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}


class Network(nn.Module):
    """The base class of the zoo's networks.

    Attributes:
      classes: number of logits; of outputs, for tasks without classes.
      kernel_init: the kernels' initialization, one of `INITIALIZERS`.
      dtype: what is computed in, one of `DTYPES`; parameters and logits are float32.
    """

    classes: int
    kernel_init: str = "glorot_normal"
    dtype: str = "float32"

    def dense(self, features: int, name: str) -> nn.Dense:
        """Returns a linear layer with bias."""
        return nn.Dense(
            features,
            kernel_init=INITIALIZERS[self.kernel_init],
            dtype=DTYPES[self.dtype],
            name=name,
        )

    def conv(
        self,
        features: int,
        width: int,
        name: str,
        *,
        stride: int = 1,
        padding: str | Sequence[tuple[int, int]] = "SAME",
        bias: bool = True,
    ) -> nn.Conv:
        """Returns a convolution with square kernels of `width` pixels."""
        if padding == "SAME":
            # Alike on both sides, as in the papers' code; "SAME" puts more at the end if strided.
            padding = [(width // 2, width // 2)] * 2
        return nn.Conv(
            features,
            (width, width),
            (stride, stride),
            padding=padding,
            use_bias=bias,
            kernel_init=INITIALIZERS[self.kernel_init],
            dtype=DTYPES[self.dtype],
            name=name,
        )

    def norm(self, train: bool, name: str) -> nn.BatchNorm:
        """Returns a batch normalization, with running statistics of momentum 0.9."""
        return nn.BatchNorm(
            use_running_average=not train, momentum=0.9, dtype=DTYPES[self.dtype], name=name
        )

    def dropped(self, rate: float, x: jax.Array, train: bool) -> jax.Array:
        """Returns `x`, in training with a share `rate` of its values dropped."""
        return nn.Dropout(rate, deterministic=not train)(x) if rate else x

    def has(self, layer: str, needed: bool) -> bool:
        """Returns whether a layer that only some shapes need is there.

        The whole network's shapes decide when it is initialized; one whose pruned channels are left
        out has the same layers, whatever shapes these come to.
        """
        return needed if self.is_initializing() else self.has_variable("params", layer)

    def output(self, x: jax.Array) -> jax.Array:
        """Applies the linear layer `output`: gives [..., classes], at least float32."""
        logits = self.dense(self.classes, "output")(x)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def max_pool(x: jax.Array) -> jax.Array:
    """Returns the largest of each window of 2×2 pixels; a row or column left over is dropped.

    It is done by a reshape: the gradient of XLA's window reduction is ten times as slow on a CPU.
    Equal largest pixels share the gradient.
    """
    batch, height, width, channels = x.shape
    rows, columns = height // 2, width // 2
    x = x[:, : 2 * rows, : 2 * columns]
    return x.reshape(batch, rows, 2, columns, 2, channels).max((2, 4))


def stem_pool(x: jax.Array) -> jax.Array:
    """Returns the largest of each 3×3 pixels, stride 2 and border 1, as after ImageNet stems."""
    border: Any = ((1, 1), (1, 1))  # Flax's annotation knows names alone
    return nn.max_pool(x, (3, 3), (2, 2), padding=border)


def flat(x: jax.Array) -> jax.Array:
    """Reshapes [batch, ...] to [batch, features]."""
    return x.reshape(x.shape[0], -1)


def global_mean(x: jax.Array) -> jax.Array:
    """Returns the mean over the pixels: [batch, channels] of [batch, height, width, channels]."""
    return jnp.mean(x, (1, 2))


def scaled(features: int, width: float) -> int:
    """Returns `features` times `width`, rounded, at least one."""
    return max(1, round(features * width))
