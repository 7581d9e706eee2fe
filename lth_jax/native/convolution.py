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


def conv(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> jax.Array:
    """The convolution of images by a kernel.

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


def _saving(x, kernel, strides, padding):
    return _forward(x, kernel, strides, padding), (x, kernel)


def _gradients(strides, padding, saved, gradient):
    x, kernel = saved
    return (
        _input_gradient(kernel, gradient, x.shape, strides, padding),
        _kernel_gradient(x, gradient, kernel.shape, strides, padding),
    )


_conv.defvjp(_saving, _gradients)


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
    """Gives a native function directional derivatives: those of `xla`, which computes the same.

    So that gradients have derivatives of their own, for Hessians; nothing trains with them.
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
    return _call("ConvForward", shape, x, kernel, strides=strides, padding=padding)


def _xla_input_gradient(kernel, gradient, shape, strides, padding):
    x = jnp.zeros(shape, kernel.dtype)
    return jax.vjp(lambda x: _xla(x, kernel, strides, padding), x)[1](gradient)[0]


@_derivable(_xla_input_gradient, (2, 3, 4))
def _input_gradient(kernel, gradient, shape, strides, padding):
    return _call("ConvInputGradient", shape, kernel, gradient, strides=strides, padding=padding)


def _xla_kernel_gradient(x, gradient, shape, strides, padding):
    kernel = jnp.zeros(shape, x.dtype)
    return jax.vjp(lambda kernel: _xla(x, kernel, strides, padding), kernel)[1](gradient)[0]


@_derivable(_xla_kernel_gradient, (2, 3, 4))
def _kernel_gradient(x, gradient, shape, strides, padding):
    return _call("ConvKernelGradient", shape, x, gradient, strides=strides, padding=padding)
