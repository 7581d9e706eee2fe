"""Dense convolutions by native kernels, as fast inside a compiled loop as outside of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lth_jax.native.build import target

Pair = tuple[int, int]
Padding = tuple[Pair, ...]
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def dense_conv(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> jax.Array:
    """Returns the convolution of images by a kernel.

    Both operands can be differentiated in reverse mode, and the gradients in forward mode. `vmap`
    gives each run the bits that it has alone.

    Args:
      x: float32 [n, height, width, channels].
      kernel: float32 [kernel height, kernel width, channels, features].
      strides: of the window, by row and column.
      padding: zeros before and after the rows, and the columns; none negative.

    Returns:
      float32 [n, out height, out width, features].
    """
    return _conv(x, kernel, strides, padding)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x, kernel, strides, padding):
    return _forward(x, kernel, strides, padding)


def _conv_forward(x, kernel, strides, padding):
    return _forward(x, kernel, strides, padding), (x, kernel)


def _conv_backward(strides, padding, residuals, gradient):
    x, kernel = residuals
    return (
        _input_gradient(kernel, gradient, x.shape, strides, padding),
        _kernel_gradient(x, gradient, kernel.shape, strides, padding),
    )


_conv.defvjp(_conv_forward, _conv_backward)


def _xla(x, kernel, strides, padding):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_LAYOUT)


def _call(name: str, shape: tuple[int, ...], *arrays: jax.Array, strides: Pair, padding: Padding):
    return jax.ffi.ffi_call(
        target(name), jax.ShapeDtypeStruct(shape, jnp.float32), vmap_method="broadcast_all"
    )(
        *arrays,
        strides=np.array(strides, np.int64),
        pads=np.array([low for low, _ in padding], np.int64),
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


@_derivable(_xla, (2, 3))
def _forward(x, kernel, strides, padding):
    shape = jax.eval_shape(partial(_xla, strides=strides, padding=padding), x, kernel).shape
    return _call("DenseConvForward", shape, x, kernel, strides=strides, padding=padding)


def _xla_input_gradient(kernel, gradient, shape, strides, padding):
    x = jnp.zeros(shape, kernel.dtype)
    return jax.vjp(lambda x: _xla(x, kernel, strides, padding), x)[1](gradient)[0]


@_derivable(_xla_input_gradient, (2, 3, 4))
def _input_gradient(kernel, gradient, shape, strides, padding):
    return _call(
        "DenseConvInputGradient", shape, kernel, gradient, strides=strides, padding=padding
    )


def _xla_kernel_gradient(x, gradient, shape, strides, padding):
    kernel = jnp.zeros(shape, x.dtype)
    return jax.vjp(lambda kernel: _xla(x, kernel, strides, padding), kernel)[1](gradient)[0]


@_derivable(_xla_kernel_gradient, (2, 3, 4))
def _kernel_gradient(x, gradient, shape, strides, padding):
    arrays = x, gradient
    return _call("DenseConvKernelGradient", shape, *arrays, strides=strides, padding=padding)
