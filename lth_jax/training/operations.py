"""What the training loop does besides the network, each as a function that may be another one.

Plain JAX by default; native code does the same on a CPU (`native.operations`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import optax
from jaxtyping import Array, Int32, Key

from lth_jax.pruning.masks import masked_step
from lth_jax.pruning.trees import PyTree
from lth_jax.training.pixels import Pixels


def gather_rows(rows: jax.Array, chosen: jax.Array) -> jax.Array:
    """Returns the chosen rows of an array, [batch, ...] of [n, ...]; it must have them all."""
    return rows[chosen]


class Operations(NamedTuple):
    """The functions that the loop calls in each step or epoch.

    Attributes:
      permutation: (key, count) -> a permutation of the integers below `count`, the same whatever
        computes it: the order of the examples is part of an experiment.
      gather_rows: the same for each row's bits.
      masked_step: the step of an optimizer under a mask, as `pruning.masks.masked_step` defines it;
        equal to rounding.
    """

    permutation: Callable[[Key[Array, ""], int], Int32[Array, " count"]] = jax.random.permutation
    gather_rows: Callable[[jax.Array, jax.Array], jax.Array] = gather_rows
    masked_step: Callable[
        [optax.GradientTransformation, PyTree, optax.OptState, PyTree, PyTree],
        tuple[PyTree, optax.OptState],
    ] = masked_step


class FusedNetwork(Protocol):
    """A network whose loss and gradients are one call, for runs in some forms."""

    def takes(self, constants: PyTree) -> bool:
        """Returns whether it computes runs of the form that needs these constants."""
        ...

    def loss_and_gradients(
        self,
        constants: PyTree,
        params: PyTree,
        images: jax.Array,
        labels: jax.Array,
        pixels: Pixels,
    ) -> tuple[jax.Array, PyTree]:
        """Returns the mean cross-entropy of stored images, float32 [], and its gradients."""
        ...

    def logits(
        self, constants: PyTree, params: PyTree, images: jax.Array, pixels: Pixels
    ) -> jax.Array:
        """Returns the logits of stored images, float32 [n, classes]."""
        ...
