"""Several runs in one program, and evaluations in parts.

The runs of a group differ in their weights, so that under `vmap` a dense layer becomes a batch of
products, which accelerators like, and a convolution a grouped one, which they do not. Whatever the
network computes can therefore also be computed run by run, inside of the same step (`TOGETHER`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
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


# How the networks of a group are computed; all else of a step, such as batches and the optimizer,
# is `vmap`ped: `vmap`, all in each operation; `sequence`, one after the other in a loop, so that
# one network's activations are in memory; `unrolled`, the same without a loop, in a program as much
# longer, whose operations an accelerator may overlap.
TOGETHER = ("vmap", "sequence", "unrolled")
# The networks that convolve more than this share of their multiplications are computed in sequence
# where nobody chooses. Others have measured ten convolutional networks under `vmap` at a third of
# the speed that they have one after the other; no accelerator has measured ours.
CONVOLVING = 0.5


def together(kernels: Mapping[str, tuple[int, ...]], uses: Mapping[str, float]) -> str:
    """Returns how the networks of a group are best computed, one of `TOGETHER`, by a fixed rule.

    Args:
      kernels: name of a leaf -> its shape; four axes are those of a convolution over images.
      uses: name of a kernel -> how many multiplications of a forward pass each weight is in.
    """
    work = {name: math.prod(shape) * uses.get(name, 0.0) for name, shape in kernels.items()}
    convolved = sum(work[name] for name, shape in kernels.items() if len(shape) == 4)
    return "sequence" if convolved > CONVOLVING * sum(work.values()) else "vmap"


def over_runs(function: Callable[..., PyTree], how: str = "vmap") -> Callable[..., PyTree]:
    """Returns `function`, which is of one run, so that a `vmap` over runs computes it in some way.

    Args:
      function: takes and gives pytrees of arrays, all as arguments: nothing that it closes over may
        differ between runs.
      how: one of `TOGETHER`.
    """
    return _batched(function, partial(_each, function, how))


def gradients_over_runs(loss: Callable[..., Any], how: str = "vmap") -> Callable[..., Any]:
    """Returns `jax.value_and_grad(loss, has_aux=True)`, so that `vmap` computes it in some way.

    Under `vmap` the *sum* of the runs' losses is differentiated, which has the same gradients. A
    `vmap` of gradients would make the kernels' gradients convolutions with windows as large as the
    images, which XLA does not know for what they are.

    Args:
      loss: takes parameters first; as `function` of `over_runs` otherwise.
      how: one of `TOGETHER`.
    """
    alone = jax.value_and_grad(loss, has_aux=True)

    def summed(params: PyTree, *rest: PyTree) -> Any:
        def total(params: PyTree) -> Any:
            losses, aux = jax.vmap(loss)(params, *rest)
            return jnp.sum(losses), (losses, aux)

        grads, found = jax.grad(total, has_aux=True)(params)
        return found, grads

    return _batched(alone, summed if how == "vmap" else partial(_each, alone, how))


def _batched(
    function: Callable[..., PyTree], all_runs: Callable[..., PyTree]
) -> Callable[..., PyTree]:
    """Returns `function`, whose `vmap` is `all_runs`."""
    batched = jax.custom_batching.custom_vmap(function)

    @batched.def_vmap
    def _rule(size: int, has_axis: Any, *args: PyTree) -> Any:
        def axis(leaf: jax.Array, has: bool) -> jax.Array:
            return leaf if has else jnp.broadcast_to(leaf, (size, *leaf.shape))

        found = all_runs(*jax.tree.map(axis, args, tuple(has_axis)))
        return found, jax.tree.map(lambda _: True, found)

    return batched


def _each(function: Callable[..., PyTree], how: str, *args: PyTree) -> PyTree:
    """Returns `function` of arguments with a leading axis of runs."""
    if how == "vmap":
        return jax.vmap(function)(*args)
    if how == "sequence":
        return jax.lax.map(lambda one: function(*one), args)
    size = len(jax.tree.leaves(args)[0])
    found = [function(*jax.tree.map(lambda leaf: leaf[i], args)) for i in range(size)]  # noqa: B023
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)


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
