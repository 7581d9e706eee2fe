"""Linear paths between two networks: what the networks in between are worth.

Frankle et al. (2020, §2): two networks are linearly connected where no network on the straight line
between them, α times the second and 1 - α times the first, is much worse than they are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Shaped

from lth_jax.pruning.trees import PyTree
from lth_jax.training.states import Evaluation, Examples

# (params, model_state, examples) -> their loss and accuracy.
Measure = Callable[[PyTree, PyTree, Examples], Evaluation]
# (params, model_state in between, training examples) -> the model_state to take.
Restate = Callable[[PyTree, PyTree, Examples], PyTree]
# (variables, x, train, rngs) -> (outputs, new_state).
Apply = Callable[..., tuple[jax.Array, PyTree]]


class Ends(NamedTuple):
    """Two networks of equal shapes: their parameters, and their batch statistics."""

    first: tuple[PyTree, PyTree]
    second: tuple[PyTree, PyTree]


def between(ends: Ends, alpha: Float[Array, ""] | float) -> tuple[PyTree, PyTree]:
    """Returns the network at `alpha`: 0 is the first, 1 the second, each exactly."""

    def leaf(first: jax.Array, second: jax.Array) -> jax.Array:
        return ((1 - alpha) * first + alpha * second).astype(first.dtype)

    return jax.tree.map(leaf, ends.first, ends.second)


def recomputed(
    apply: Apply, params: PyTree, model_state: PyTree, batches: Shaped[Array, "batches batch ..."]
) -> PyTree:
    """Returns batch statistics that are those of `params` on these inputs, means over the batches.

    The statistics of two networks say nothing of one in between (Jordan et al. 2023, §3.1).

    A layer keeps a running mean m' = d m + (1 - d) b of what it finds in a batch, b. From m = 0 and
    m = 1 it comes to two values that tell d, and so b, whatever layer it is.

    Args:
      apply: the network.
      params: its parameters.
      model_state: its other collections, all of them running means.
      batches: inputs as `apply` takes them.
    """

    rngs = {"dropout": jax.random.key(0)}  # drawn alike for both, so that it tells them nothing

    def of_batch(inputs: jax.Array) -> PyTree:
        def after(value: float) -> PyTree:
            state = jax.tree.map(lambda leaf: jnp.full_like(leaf, value), model_state)
            _, new = apply({"params": params, **state}, inputs, True, rngs)
            return new

        return jax.tree.map(lambda zero, one: zero / (1 - (one - zero)), after(0.0), after(1.0))

    found = jax.lax.map(of_batch, batches)
    return jax.tree.map(lambda leaf: jnp.mean(leaf, 0), found)


@partial(jax.jit, static_argnums=(0, 1))
def path(
    measure: Measure,
    restate: Restate | None,
    ends: Ends,
    alphas: Float[Array, " points"],
    train: Examples,
    test: Examples,
) -> tuple[Evaluation, Evaluation]:
    """Measures the networks between two others, one after the other, in one program for all pairs.

    Args:
      measure: gives a network's loss and accuracy.
      restate: gives a network's batch statistics from its parameters, those in between, and the
        training examples; None leaves them as they lie in between.
      ends: the two networks.
      alphas: the places between them.
      train: the training examples, in batches.
      test: the test examples, in batches.

    Returns:
      Losses and accuracies on both splits, float32 [points] each.
    """

    def at(alpha: jax.Array) -> tuple[Evaluation, Evaluation]:
        params, model_state = between(ends, alpha)
        if restate:
            model_state = restate(params, model_state, train)
        return measure(params, model_state, train), measure(params, model_state, test)

    return jax.lax.map(at, alphas)


class Distance(NamedTuple):
    """How far two networks lie apart, over all their parameters.

    Attributes:
      l2: the Euclidean distance; angle: between them as vectors from 0, in degrees.
    """

    l2: float
    angle: float


def distance(first: PyTree, second: PyTree) -> Distance:
    """Returns how far two networks' parameters lie apart; NaN degrees if one of them is all 0."""
    # In float32 the angle of a network with itself would not be 0.
    one, other = (np.asarray(ravel_pytree(tree)[0], np.float64) for tree in (first, second))
    lengths = np.linalg.norm(one) * np.linalg.norm(other)
    cosine = np.clip(one @ other / lengths, -1, 1) if lengths else np.nan
    return Distance(float(np.linalg.norm(one - other)), float(np.degrees(np.arccos(cosine))))
