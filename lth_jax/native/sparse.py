"""Layers with packed kernels: products with the surviving weights alone, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.native.build import target

TILE = 64  # examples that a weight meets at once; as in source/sparse_dense.h


class Tables(NamedTuple):
    """Where the surviving weights of a kernel are, and their order. All int32.

    Values lie in the order of the outputs; entries behind the last one are padding.

    Attributes:
      begins: [outputs + 1, blocks], the first entry of each output's block of inputs, and in the
        last row the number of entries. A convolution has one block.
      columns: [capacity], the input of each entry; of a convolution, its channel · 2¹⁶ + its row
        under the window · 2⁸ + its column there.
      input_begins, input_columns: the same for inputs, and the outputs of their entries; of a
        convolution, for channels, and in each for the rests of rows and columns under division by
        the strides.
      places: [capacity], where the value of each of their entries lies.
    """

    begins: jax.Array
    columns: jax.Array
    input_begins: jax.Array
    input_columns: jax.Array
    places: jax.Array


def _call(name: str, *shapes: tuple[int, ...]) -> Callable[..., Any]:
    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.ffi.ffi_call(
        target(name), results[0] if len(results) == 1 else results, vmap_method="broadcast_all"
    )


@jax.custom_vjp
def sparse_dense(values: jax.Array, tables: Tables, x: jax.Array) -> jax.Array:
    """The product of `x` with a packed kernel [in, out].

    Args:
      values: float32 [capacity], the surviving weights.
      tables: where they are.
      x: float32 [n, in].

    Returns:
      float32 [n, out].
    """
    shape = (x.shape[0], tables.begins.shape[-2] - 1)
    return _call("SparseDenseForward", shape)(values, tables.begins, tables.columns, x)


def _forward(values, tables, x):
    examples, width = x.shape
    tiles = (-(-examples // TILE), width, TILE)
    y, kept = _call("SparseDenseForwardKeeping", (examples, tables.begins.shape[-2] - 1), tiles)(
        values, tables.begins, tables.columns, x
    )
    return y, (values, tables, kept)


def _backward(saved, given):
    values, tables, kept = saved
    gradient = _call("SparseDenseKernelGradient", values.shape)(
        tables.begins, tables.columns, kept, given
    )
    x = _call("SparseDenseInputGradient", (given.shape[0], kept.shape[1]))(
        values, tables.input_begins, tables.input_columns, tables.places, given
    )
    return gradient, None, x


sparse_dense.defvjp(_forward, _backward)


class Window(NamedTuple):
    """How the kernel of a convolution moves over images.

    Attributes:
      sides: its height and width, each less than 256.
      strides: by row and column.
      padding: zeros before and after the rows, and the columns; none negative.
    """

    sides: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[tuple[int, int], ...]

    def out(self, x: tuple[int, ...], features: int) -> tuple[int, ...]:
        """The shape of what images of shape `x` [n, height, width, channels] become."""
        height, width = (
            (side + sum(pads) - under) // stride + 1
            for side, pads, under, stride in zip(
                x[1:3], self.padding, self.sides, self.strides, strict=True
            )
        )
        return x[0], height, width, features


def sparse_conv(values: jax.Array, tables: Tables, x: jax.Array, window: Window) -> jax.Array:
    """The convolution of `x` by a packed kernel [*sides, channels, features].

    Args:
      values: float32 [capacity], the surviving weights.
      tables: where they are.
      x: float32 [n, height, width, channels].
      window: how the kernel moves; no less than one place for it.

    Returns:
      float32 [n, out height, out width, features].
    """
    return _sparse_conv(values, tables, x, window)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _sparse_conv(values, tables, x, window):
    shape = window.out(x.shape, tables.begins.shape[-2] - 1)
    return _conv_call("SparseConvForward", shape, window, values, tables.begins, tables.columns, x)


def _conv_call(name: str, shape: tuple[int, ...], window: Window, *arrays: jax.Array) -> jax.Array:
    return _call(name, shape)(
        *arrays,
        sides=np.array(window.sides, np.int64),
        strides=np.array(window.strides, np.int64),
        pads=np.array([low for low, _ in window.padding], np.int64),
    )


def _conv_forward(values, tables, x, window):
    return _sparse_conv(values, tables, x, window), (values, tables, x)


def _conv_backward(window, saved, given):
    values, tables, x = saved
    gradient = _conv_call(
        "SparseConvKernelGradient", values.shape, window, tables.begins, tables.columns, x, given
    )
    mirrored = tables.input_begins, tables.input_columns, tables.places
    x = _conv_call("SparseConvInputGradient", x.shape, window, values, *mirrored, given)
    return gradient, None, x


_sparse_conv.defvjp(_conv_forward, _conv_backward)
