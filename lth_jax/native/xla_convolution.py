"""Convolutions whose gradients are fast on a CPU, inside a compiled loop too.

Inside `while` and `fori_loop` XLA's CPU backend takes a slow generic path for a convolution whose
operands do not lie in NHWC and HWIO, as those of a gradient do not: fifty times slower
(jax-ml/jax#12868). Here gradients are written as convolutions in that layout.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

LAYOUT = ("NHWC", "HWIO", "NHWC")
Padding = tuple[tuple[int, int], ...]


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def xla_conv(
    x: Float[Array, "n height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels features"],
    strides: tuple[int, int],
    padding: Padding,
) -> Float[Array, "n out_height out_width features"]:
    """Computes a plain convolution by XLA, with gradients that are fast inside a compiled loop.

    Args:
      x: [n, height, width, channels], of any float type.
      kernel: [kernel height, kernel width, channels, features].
      strides: of the window, by row and column.
      padding: (before, after) pairs of zeros for the rows and the columns; negative ones crop.

    Returns:
      [n, out height, out width, features].
    """
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT)


def _forward(x, kernel, strides, padding):
    # Held in memory: else XLA computes the layers before it again wherever the images are read.
    x = lax.optimization_barrier(x)
    # Not by `xla_conv`: the gradient must itself have directional derivatives, for Hessians.
    out = lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT)
    return out, (x, kernel)


def _backward(strides, padding, saved, gradient):
    x, kernel = saved
    gradient = lax.optimization_barrier(gradient)
    return (
        _input_gradient(x.shape, kernel, gradient, strides, padding),
        _kernel_gradient(x, kernel.shape, gradient, strides, padding),
    )


xla_conv.defvjp(_forward, _backward)


def _input_gradient(shape, kernel, gradient, strides, padding):
    """Convolves the output's gradient, spread by the strides, with the mirrored kernel."""
    pads = []
    for side, width, out, stride, (low, _) in zip(
        shape[1:3], kernel.shape, gradient.shape[1:3], strides, padding, strict=False
    ):
        before = width - 1 - low
        pads.append((before, side + width - 2 - (out - 1) * stride - before))
    mirrored = jnp.flip(kernel, (0, 1)).transpose(0, 1, 3, 2)
    return lax.conv_general_dilated(
        gradient, mirrored, (1, 1), pads, lhs_dilation=strides, dimension_numbers=LAYOUT
    )


def _kernel_gradient(x, shape, gradient, strides, padding):
    """Convolves the images with the output's gradient, examples in place of channels."""
    pads = [
        (low, (out - 1) * stride + width - side - low)
        for side, width, out, stride, (low, _) in zip(
            x.shape[1:3], shape, gradient.shape[1:3], strides, padding, strict=False
        )
    ]
    found = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        gradient.transpose(1, 2, 0, 3),
        (1, 1),
        pads,
        rhs_dilation=strides,
        dimension_numbers=LAYOUT,
    )
    return found.transpose(1, 2, 0, 3)
