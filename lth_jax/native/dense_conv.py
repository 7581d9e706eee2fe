"""Dense convolutions by native code, as fast inside a compiled loop as outside of it.

There are two ways: by definition, any kernel and stride, and by Winograd's minimal filtering (Lavin
& Gray, 2016), 3×3 kernels of stride one, with up to a quarter of the multiplications.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32

from lth_jax.native.build import target

Pair = tuple[int, int]
Padding = tuple[Pair, ...]
_LAYOUT = ("NHWC", "HWIO", "NHWC")


# What Winograd's transforms take, in multiply-adds: of an output pixel and a channel, and of a
# position of a transformed kernel. Both are fitted to forward and gradients of 25 shapes (12 to 512
# channels, 1 to 128 images) on one core, beside other work. Of these the rule takes none that is
# slower than by definition; the narrowest, 16 to 16 channels, are 1.2–1.4 times as fast.
TRANSFORM, KERNEL_TRANSFORM = 40, 40
LEAST_CHANNELS = 16  # fewer do not fill a vector


def winograd_cost(images: int, out: Pair, kernel: tuple[int, ...], strides: Sequence[int]) -> float:
    """Returns what a convolution takes by Winograd's way, if that is the best way.

    A fixed rule by shape, so that bits depend on nothing else. By definition an output pixel takes
    9 multiplications for each pair of a channel and a feature; this way 2.25 where tiles of 4 × 4
    outputs cover images exactly, 4 with tiles of 2 × 2, and transforms come on top.

    Args:
      images: how many.
      out: height and width of the outputs.
      kernel: [kernel height, kernel width, channels, features].
      strides: of the window, by row and column.

    Returns:
      Multiply-adds by output pixel; 0 where the convolution is best computed by definition.
    """
    rows, columns, channels, features = kernel
    if (rows, columns, *strides) != (3, 3, 1, 1) or min(channels, features) < LEAST_CHANNELS:
        return 0.0
    height, width = out

    def products(side: int) -> int:
        return (side + 2) ** 2 * -(-height // side) * -(-width // side)

    side = min((4, 2), key=products)  # as source/winograd_conv.h has it
    pairs, pixels = channels * features, height * width
    cost = (
        products(side) / pixels * pairs
        + TRANSFORM * (channels + features)
        + KERNEL_TRANSFORM * (side + 2) ** 2 * pairs / (images * pixels)
    )
    return cost if cost <= 9 * pairs else 0.0


def dense_conv(
    x: Float32[Array, "n height width channels"],
    kernel: Float32[Array, "kernel_height kernel_width channels features"],
    strides: Pair,
    padding: Padding,
    winograd: bool = False,
) -> Float32[Array, "n out_height out_width features"]:
    """Returns the convolution of images by a kernel.

    Both operands can be differentiated in reverse mode, and the gradients in forward mode. `vmap`
    gives each run the bits that it has alone.

    Args:
      x: float32 [n, height, width, channels].
      kernel: float32 [kernel height, kernel width, channels, features].
      strides: of the window, by row and column.
      padding: zeros before and after the rows, and the columns; none negative.
      winograd: whether to compute it by Winograd's way. Kernels must be 3×3, and strides 1.

    Returns:
      float32 [n, out height, out width, features].
    """
    return _conv(x, kernel, _How(strides, padding, winograd))


class _How(NamedTuple):
    strides: Pair
    padding: Padding
    winograd: bool


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x, kernel, how):
    return _forward(x, kernel, how)


def _conv_forward(x, kernel, how):
    return _forward(x, kernel, how), (x, kernel)


def _conv_backward(how, residuals, gradient):
    x, kernel = residuals
    return (
        _input_gradient(kernel, gradient, x.shape, how),
        _kernel_gradient(x, gradient, kernel.shape, how),
    )


_conv.defvjp(_conv_forward, _conv_backward)


def _call(function: str, shape: tuple[int, ...], how: _How, *arrays: Array) -> Array:
    name = target(("WinogradConv" if how.winograd else "DenseConv") + function)
    return jax.ffi.ffi_call(
        name, jax.ShapeDtypeStruct(shape, jnp.float32), vmap_method="broadcast_all"
    )(
        *arrays,
        strides=np.array(how.strides, np.int64),
        pads=np.array([low for low, _ in how.padding], np.int64),
    )


def _derivable(xla: Callable[..., Any], nondiff_argnums: tuple[int, ...]) -> Callable[..., Any]:
    """Returns a decorator that gives a native function the directional derivatives of `xla`.

    `xla` must compute the same. XLA knows no derivative of native code, and Hessian products need
    one of the gradients; nothing trains with them.
    """

    def wrap(native):
        function = jax.custom_jvp(native, nondiff_argnums=nondiff_argnums)

        @function.defjvp
        def _(*args):
            *static, primals, tangents = args
            return jax.jvp(lambda *arrays: xla(*arrays, *static), primals, tangents)

        return function

    return wrap


def _xla(x, kernel, strides, padding):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_LAYOUT)


def _xla_forward(x, kernel, how):
    return _xla(x, kernel, how.strides, how.padding)


@_derivable(_xla_forward, (2,))
def _forward(x, kernel, how):
    shape = jax.eval_shape(partial(_xla_forward, how=how), x, kernel).shape
    return _call("Forward", shape, how, x, kernel)


def _xla_input_gradient(kernel, gradient, shape, how):
    x = jnp.zeros(shape, kernel.dtype)
    return jax.vjp(lambda x: _xla_forward(x, kernel, how), x)[1](gradient)[0]


@_derivable(_xla_input_gradient, (2, 3))
def _input_gradient(kernel, gradient, shape, how):
    return _call("InputGradient", shape, how, kernel, gradient)


def _xla_kernel_gradient(x, gradient, shape, how):
    kernel = jnp.zeros(shape, x.dtype)
    return jax.vjp(lambda kernel: _xla_forward(x, kernel, how), kernel)[1](gradient)[0]


@_derivable(_xla_kernel_gradient, (2, 3))
def _kernel_gradient(x, gradient, shape, how):
    return _call("KernelGradient", shape, how, x, gradient)
