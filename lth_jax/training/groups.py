"""Several runs in one program, and evaluations in parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lth_jax.pruning.trees import PyTree


def map_runs(function: Callable[..., Any], group_size: int, shared: int) -> Callable[..., Any]:
    """Returns `function`, which is of one run, over a leading axis of `group_size` runs.

    A group of one calls `function` itself: under `vmap` XLA would choose other kernels for a batch
    axis of one, and a run's bits would depend on how it was grouped. Larger groups are `vmap`ped.

    Args:
      function: takes arguments of one run, then `shared` arguments that all runs have in common.
      group_size: the length of the leading axis of the runs' arguments and results.
      shared: the number of trailing arguments without that axis.
    """

    def sequential(*args):
        runs, common = args[: len(args) - shared], args[len(args) - shared :]
        single = jax.tree.map(lambda leaf: leaf[0], runs)
        return jax.tree.map(lambda leaf: leaf[None], function(*single, *common))

    def vmapped(*args):
        axes = (0,) * (len(args) - shared) + (None,) * shared
        return jax.vmap(function, in_axes=axes)(*args)

    return sequential if group_size == 1 else vmapped


def in_parts(function: Callable[..., PyTree], parts: int, *batch: jax.Array) -> PyTree:
    """Returns `function(*batch)`, which is of each example alone, computed in parts.

    What is given back is that of the whole batch, example by example: who sums it adds the same
    numbers in the same order. They may differ in their last bits, since XLA can choose another
    kernel for a product of fewer rows.

    Args:
      function: takes and gives arrays with a leading axis of examples.
      parts: how many there are; 1 calls `function` itself. Zeros fill up the last one.
      batch: arrays [examples, …].
    """
    if parts == 1:
        return function(*batch)
    count = len(batch[0])
    size = -(-count // parts)

    def cut(array: jax.Array) -> jax.Array:
        padding = [(0, parts * size - count)] + [(0, 0)] * (array.ndim - 1)
        return jnp.pad(array, padding).reshape(parts, size, *array.shape[1:])

    found = jax.lax.map(lambda part: function(*part), tuple(map(cut, batch)))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count], found)
