"""Products of dense layers by native code, over the inputs that are not zero."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from lth_jax.native.build import target

# Native code computes whole vectors of outputs, of at most so many floats (source/vectors.h).
LEAST_OUTPUTS = 16


@jax.custom_vjp
def dense_product(
    x: Float32[Array, "n inputs"], kernel: Float32[Array, "inputs outputs"]
) -> Float32[Array, "n outputs"]:
    """Returns the product of `x` with the kernel of a dense layer.

    Inputs that are zero in all examples that lie together are left out, and weights of inputs that
    are zero in the whole batch get the gradient zero, also where XLA's would not be finite.

    Both operands can be differentiated in reverse mode, once: the function has no directional
    derivatives. `vmap` gives each run the bits that it has alone.

    Args:
      x: float32 [n, inputs].
      kernel: float32 [inputs, outputs], of no fewer than `LEAST_OUTPUTS` outputs.

    Returns:
      float32 [n, outputs].
    """
    return _call("DenseProductForward", (x.shape[0], kernel.shape[1]), x, kernel)


def _forward(x, kernel):
    return dense_product(x, kernel), (x, kernel)


def _backward(residuals, out_gradient):
    x, kernel = residuals
    # The input's gradient is XLA's: its operands have no inputs that are always zero.
    kernel_gradient = _call("DenseProductKernelGradient", kernel.shape, x, out_gradient)
    return out_gradient @ kernel.T, kernel_gradient


dense_product.defvjp(_forward, _backward)


def _call(name: str, shape: tuple[int, ...], *arrays: Array) -> Array:
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.ffi.ffi_call(target(name), result, vmap_method="broadcast_all")(*arrays)
