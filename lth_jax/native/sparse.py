"""Products and convolutions by the surviving weights of a kernel alone, in native code."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32

from lth_jax.native.build import target

TILE = 64  # the examples that a weight meets at once; as in source/sparse_product.h


class Tables(NamedTuple):
    """Where the surviving weights of a kernel are: two matrices in CSR format, all int32.

    The values lie in the order of the first matrix, which has a row for each output. The transposed
    one has a row for each input, and finds the same values through `value_indices`. Entries behind
    the last one are padding.

    Attributes:
      row_pointers: [outputs + 1, blocks], the first entry of each output's block of inputs, and in
        the last row the number of entries. A convolution has one block.
      column_indices: [capacity], the input of each entry; of a convolution, its channel · 2¹⁶ + its
        row under the window · 2⁸ + its column there.
      transposed_row_pointers, transposed_column_indices: the same for inputs, and the outputs of
        their entries. A convolution has a row for each channel and each residue of the kernel's row
        and column modulo the strides.
      value_indices: [capacity], where the value of each entry of the transposed matrix lies.
    """

    row_pointers: Int32[Array, "outputs_and_one blocks"]
    column_indices: Int32[Array, " capacity"]
    transposed_row_pointers: Int32[Array, "inputs_and_one transposed_blocks"]
    transposed_column_indices: Int32[Array, " capacity"]
    value_indices: Int32[Array, " capacity"]

    @property
    def forward(self) -> tuple[Array, Array]:
        """The matrix with a row for each output, as native code takes it."""
        return self.row_pointers, self.column_indices

    @property
    def transposed(self) -> tuple[Array, Array, Array]:
        """The matrix with a row for each input, as native code takes it."""
        return self.transposed_row_pointers, self.transposed_column_indices, self.value_indices

    @property
    def outputs(self) -> int:
        """The number of outputs, or of a convolution's features."""
        return self.row_pointers.shape[-2] - 1


def _call(name: str, *shapes: tuple[int, ...]) -> Callable[..., Any]:
    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.ffi.ffi_call(
        target(name), results[0] if len(results) == 1 else results, vmap_method="broadcast_all"
    )


@jax.custom_vjp
def sparse_product(
    values: Float32[Array, " capacity"], tables: Tables, x: Float32[Array, "n inputs"]
) -> Float32[Array, "n outputs"]:
    """Returns the product of `x` with a packed kernel [in, out].

    `values` and `x` can be differentiated in reverse mode, once; `tables` cannot. `vmap` gives each
    run the bits that it has alone.

    Args:
      values: float32 [capacity], the surviving weights.
      tables: where they are.
      x: float32 [n, inputs].

    Returns:
      float32 [n, outputs].
    """
    shape = (x.shape[0], tables.outputs)
    return _call("SparseProductForward", shape)(values, *tables.forward, x)


def _forward(values, tables, x):
    examples, width = x.shape
    tiles_shape = (-(-examples // TILE), width, TILE)
    # The transposed examples are kept: the kernel's gradient would have to transpose them again.
    y, tiles = _call("SparseProductForwardWithTiles", (examples, tables.outputs), tiles_shape)(
        values, *tables.forward, x
    )
    return y, (values, tables, tiles)


def _backward(residuals, out_gradient):
    values, tables, tiles = residuals
    values_gradient = _call("SparseProductKernelGradient", values.shape)(
        *tables.forward, tiles, out_gradient
    )
    x_gradient = _call("SparseProductInputGradient", (out_gradient.shape[0], tiles.shape[1]))(
        values, *tables.transposed, out_gradient
    )
    return values_gradient, None, x_gradient


sparse_product.defvjp(_forward, _backward)


class Window(NamedTuple):
    """The window of a convolution, and how it moves over images.

    Attributes:
      sides: its height and width, each less than 256.
      strides: by row and column.
      padding: zeros before and after the rows, and the columns; none negative.
    """

    sides: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[tuple[int, int], ...]

    def out(self, x: tuple[int, ...], features: int) -> tuple[int, ...]:
        """Returns the shape of the outputs of images of shape `x` [n, height, width, channels]."""
        height, width = (
            (side + sum(pads) - under) // stride + 1
            for side, pads, under, stride in zip(
                x[1:3], self.padding, self.sides, self.strides, strict=True
            )
        )
        return x[0], height, width, features


def sparse_conv(
    values: Float32[Array, " capacity"],
    tables: Tables,
    x: Float32[Array, "n height width channels"],
    window: Window,
) -> Float32[Array, "n out_height out_width features"]:
    """Returns the convolution of `x` by a packed kernel [*sides, channels, features].

    `values` and `x` can be differentiated in reverse mode, once; `tables` cannot. `vmap` gives each
    run the bits that it has alone.

    Args:
      values: float32 [capacity], the surviving weights.
      tables: where they are.
      x: float32 [n, height, width, channels].
      window: how the kernel moves; there must be at least one position for it.

    Returns:
      float32 [n, out height, out width, features].
    """
    return _sparse_conv(values, tables, x, window)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _sparse_conv(values, tables, x, window):
    shape = window.out(x.shape, tables.outputs)
    return _conv_call("SparseConvForward", shape, window, values, *tables.forward, x)


def _conv_call(name: str, shape: tuple[int, ...], window: Window, *arrays: Array) -> Array:
    return _call(name, shape)(
        *arrays,
        sides=np.array(window.sides, np.int64),
        strides=np.array(window.strides, np.int64),
        pads=np.array([low for low, _ in window.padding], np.int64),
    )


def _conv_forward(values, tables, x, window):
    return _sparse_conv(values, tables, x, window), (values, tables, x)


def _conv_backward(window, residuals, out_gradient):
    values, tables, x = residuals
    values_gradient = _conv_call(
        "SparseConvKernelGradient", values.shape, window, *tables.forward, x, out_gradient
    )
    x_gradient = _conv_call(
        "SparseConvInputGradient", x.shape, window, values, *tables.transposed, out_gradient
    )
    return values_gradient, None, x_gradient


_sparse_conv.defvjp(_conv_forward, _conv_backward)
