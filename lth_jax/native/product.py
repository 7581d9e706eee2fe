"""Products of dense layers by native kernels, over the inputs that are not zero."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lth_jax.native.build import target

LEAST_OUTPUTS = 16  # a vector's lanes, at most; as in source/vectors.h


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The product of `x` with the kernel of a dense layer.

    Inputs that are zero in all examples that lie together are left out, and weights of inputs that
    are zero in the whole batch get the gradient zero, also where XLA's would not be finite.

    Args:
      x: float32 [n, in].
      kernel: float32 [in, out], of no fewer than `LEAST_OUTPUTS` outputs.

    Returns:
      float32 [n, out].
    """
    return _call("ProductForward", (x.shape[0], kernel.shape[1]), x, kernel)


def _forward(x, kernel):
    return product(x, kernel), (x, kernel)


def _backward(saved, given):
    x, kernel = saved
    return given @ kernel.T, _call("ProductKernelGradient", kernel.shape, x, given)


product.defvjp(_forward, _backward)


def _call(name: str, shape: tuple[int, ...], *arrays: jax.Array) -> jax.Array:
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.ffi.ffi_call(target(name), result, vmap_method="broadcast_all")(*arrays)
