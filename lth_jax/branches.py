"""Branches: controls that start from one level's ticket.

A branch is a pure function of a `BranchPoint` that says where its run starts. To add one: the
function, a row in `BRANCHES`; the conformance tests cover it by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lth_jax.pruning.masks import kept_counts, ones_mask
from lth_jax.pruning.selection import remove_lowest
from lth_jax.training import TrainState, rewind
from lth_jax.trees import PyTree, map_named


class Ticket(NamedTuple):
    """A mask and the state that its survivors start from.

    Attributes:
      mask: bool, the parameters' structure.
      state: the training state, pruned weights at zero.
      step: the number of updates behind `state`; training goes on from there.
    """

    mask: PyTree
    state: TrainState
    step: int


class BranchPoint(NamedTuple):
    """What a branch may use.

    Attributes:
      mask: the ticket's.
      point: the whole (dense) state at the rewind step.
      step: the rewind step.
      rates: what may be pruned, as `pruning.masks.prunable` gives it.
      optimizer: the experiment's.
      fresh: key -> a training state at initialization.
      key: a key of its own for (seed, branch, replicate, level, draw).
    """

    mask: PyTree
    point: TrainState
    step: int
    rates: Mapping[str, Fraction]
    optimizer: optax.GradientTransformation
    fresh: Callable[[jax.Array], TrainState]
    key: jax.Array


def reinit(at: BranchPoint) -> Ticket:
    """The ticket's mask with fresh random weights (Frankle & Carbin 2019, §2).

    It trains from step 0 for the whole schedule, whatever the rewind step: a network drawn at
    random has no early training to rewind to.
    """
    return Ticket(at.mask, rewind(at.fresh(at.key), at.mask, at.optimizer), 0)


def random_mask(at: BranchPoint) -> Ticket:
    """The ticket's rewound weights under a random mask with exactly its count in each layer."""
    mask = draw_mask(at.key, at.mask, at.rates)
    return Ticket(mask, rewind(at.point, mask, at.optimizer), at.step)


def draw_mask(key: jax.Array, mask: PyTree, rates: Mapping[str, Fraction]) -> PyTree:
    """A uniformly random mask that keeps as many weights of each prunable leaf as `mask` does."""
    scores = _uniform_scores(key, mask, tuple(rates))
    counts = kept_counts(mask, rates)
    removals = {(name,): total - kept for name, (kept, total) in counts.items()}
    return remove_lowest(scores, ones_mask(mask), removals)


@partial(jax.jit, static_argnums=2)
def _uniform_scores(key: jax.Array, mask: PyTree, names: tuple[str, ...]) -> PyTree:
    keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))

    def scores(name: str, leaf: jax.Array) -> jax.Array:
        return jax.random.uniform(keys[name], leaf.shape) if name in keys else jnp.zeros(leaf.shape)

    return map_named(scores, mask)


BRANCHES: dict[str, Callable[[BranchPoint], Ticket]] = {
    "reinit": reinit,
    "random_mask": random_mask,
}
