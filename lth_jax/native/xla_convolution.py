"""Convolutions whose gradients are fast on a CPU, inside a compiled loop too.

Inside `while` and `fori_loop` XLA's CPU backend takes a slow generic path for a convolution whose
operands do not lie in NHWC and HWIO, as those of a gradient do not: fifty times slower
(jax-ml/jax#12868). Here gradients are written as convolutions in that layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lth_jax.native import convolution as native

_LAYOUT = ("NHWC", "HWIO", "NHWC")
Padding = tuple[tuple[int, int], tuple[int, int]]


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options: Any,
) -> jax.Array:
    """`jax.lax.conv_general_dilated`, as `flax.linen.Conv` calls it, with gradients that are fast.

    Takes over two-dimensional convolutions of NHWC images by HWIO kernels, ungrouped and undilated,
    on CPU; all others go to JAX itself. In a program whose kernels are native, so are these.
    """
    if not _is_plain(lhs, rhs, options) or jax.default_backend() != "cpu":
        return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)
    strides = window_strides[0], window_strides[1]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], strides, padding)
    pads = tuple((int(low), int(high)) for low, high in padding)
    if native.takes(lhs, rhs, pads):
        return native.conv(lhs, rhs, strides, pads)
    return _conv(lhs, rhs, strides, pads)


def _is_plain(lhs: jax.Array, rhs: jax.Array, options: dict[str, Any]) -> bool:
    numbers = options.get("dimension_numbers")
    if lhs.ndim != 4 or numbers is None:
        return False
    layout = lax.conv_dimension_numbers(lhs.shape, rhs.shape, _LAYOUT)
    given = lax.conv_dimension_numbers(lhs.shape, rhs.shape, numbers)
    dilations = (options.get("lhs_dilation"), options.get("rhs_dilation"))
    return (
        given == layout
        and all(dilation is None or set(dilation) == {1} for dilation in dilations)
        and options.get("feature_group_count", 1) == 1
        and options.get("batch_group_count", 1) == 1
        and options.get("precision") is None
        and options.get("preferred_element_type") is None
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Padding) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_LAYOUT)


def _forward(x, kernel, strides, padding):
    # Held in memory: else XLA computes the layers before it again wherever the images are read.
    x = lax.optimization_barrier(x)
    # Not by `_conv`: the gradient must itself have directional derivatives, for Hessians.
    out = lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_LAYOUT)
    return out, (x, kernel)


def _backward(strides, padding, saved, gradient):
    x, kernel = saved
    gradient = lax.optimization_barrier(gradient)
    return (
        _input_gradient(x.shape, kernel, gradient, strides, padding),
        _kernel_gradient(x, kernel.shape, gradient, strides, padding),
    )


_conv.defvjp(_forward, _backward)


def _input_gradient(shape, kernel, gradient, strides, padding):
    """A convolution of the output's gradient, spread by the strides, with the mirrored kernel."""
    pads = []
    for side, width, out, stride, (low, _) in zip(
        shape[1:3], kernel.shape, gradient.shape[1:3], strides, padding, strict=False
    ):
        before = width - 1 - low
        pads.append((before, side + width - 2 - (out - 1) * stride - before))
    mirrored = jnp.flip(kernel, (0, 1)).transpose(0, 1, 3, 2)
    return lax.conv_general_dilated(
        gradient, mirrored, (1, 1), pads, lhs_dilation=strides, dimension_numbers=_LAYOUT
    )


def _kernel_gradient(x, shape, gradient, strides, padding):
    """A convolution of the images with the output's gradient, examples in place of channels."""
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
        dimension_numbers=_LAYOUT,
    )
    return found.transpose(1, 2, 0, 3)
