"""Layers with packed kernels: products with the surviving weights alone, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lth_jax.kernels.build import target

TILE = 64  # examples that a weight meets at once; as in source/sparse_dense.h


class Tables(NamedTuple):
    """Where the surviving weights of a kernel are, and their order. All int32.

    Values lie in the order of the outputs; entries behind the last one are padding.

    Attributes:
      begins: [outputs + 1], the first entry of each output, and the number of entries.
      columns: [capacity], the input of each entry.
      input_begins, input_columns: the same for inputs, and the outputs of their entries.
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
    shape = (x.shape[0], tables.begins.shape[-1] - 1)
    return _call("SparseDenseForward", shape)(values, tables.begins, tables.columns, x)


def _forward(values, tables, x):
    examples, width = x.shape
    tiles = (-(-examples // TILE), width, TILE)
    y, kept = _call("SparseDenseForwardKeeping", (examples, tables.begins.shape[-1] - 1), tiles)(
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
