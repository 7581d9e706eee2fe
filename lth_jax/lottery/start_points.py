"""Where runs start, and what a branch may use to say where."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from lth_jax.config import BranchSpec
from lth_jax.pruning.channels import Channels
from lth_jax.pruning.granularity import WEIGHT, Granularity
from lth_jax.pruning.trees import PyTree, named_leaves
from lth_jax.training.states import TrainState


class StartPoint(NamedTuple):
    """Where a run starts: a mask, and the state that its survivors start from.

    That of the trunk is the level's ticket, (mask, rewound state).

    Attributes:
      mask: bool, of the parameters' structure.
      state: the training state, pruned weights at zero (save in `freeze_pruned` and `topkast`).
      step: the number of updates behind `state`; training goes on from there.
    """

    mask: PyTree
    state: TrainState
    step: int


class BranchPoint(NamedTuple):
    """What a branch may use.

    Attributes:
      ticket: the start point of the level's ticket.
      point: the whole (dense) state at the rewind step.
      step: the rewind step.
      initial: the parameters at initialization.
      rates: what may be pruned, as `pruning.masks.prunable` gives it.
      optimizer: the experiment's.
      fresh: gives a training state at initialization, drawn from a key.
      dense_scores: gives the criterion's scores of the trained dense network (level 0).
      ranking: gives the scores of the criterion that `options` name as a function of the mask, and
        the number of its rounds.
      pruned_from: gives the state in which the network ended that the mask was pruned from.
      steps_behind: gives the number of updates behind that state.
      trained: gives the state in which the ticket of this level ended.
      donated: gives the mask of another run: of another replicate's ticket, its units in the order
        that `align` names, to `permuted_mask`; of the branch `of`, to `mask_of`.
      source: gives the source's ticket of the same replicate and level, for transfers.
      early_bird: gives the level's mask as it was drawn from the dense network on its way, and the
        state of that network then.
      options: the branch's own, such as `sigma`.
      key: a key of its own for (seed, branch, replicate, level, draw).
      granularity: what the trunk prunes together.
    """

    ticket: StartPoint
    point: TrainState
    step: int
    initial: PyTree
    rates: Mapping[str, Fraction]
    optimizer: optax.GradientTransformation
    fresh: Callable[[jax.Array], TrainState]
    dense_scores: Callable[[], PyTree]
    ranking: Callable[[], tuple[Callable[[PyTree], PyTree], int]]
    pruned_from: Callable[[], TrainState]
    steps_behind: Callable[[], int]
    trained: Callable[[], TrainState]
    donated: Callable[[], PyTree]
    source: Callable[[], StartPoint]
    early_bird: Callable[[], StartPoint]
    options: BranchSpec
    key: Key[Array, ""]
    granularity: Granularity | Channels = WEIGHT


def none_drawn() -> StartPoint:
    """Gives no early bird, to a branch of another kind that asks for one.

    Raises:
      ValueError: always.
    """
    raise ValueError("no early bird is drawn for it; accepted: kind early_bird")


def none_donated() -> PyTree:
    """Gives no mask, to a branch of another kind that asks for one of another run.

    Which runs it would wait for, and end with, is known of two kinds alone.

    Raises:
      ValueError: always.
    """
    raise ValueError("no other run's mask is given; accepted: kinds permuted_mask and mask_of")


def difference(given: PyTree, wanted: PyTree, dtypes: bool = True) -> str:
    """Returns which leaf of a pytree has another shape, or dtype, than it should; '' for none."""
    if jax.tree.structure(given) != jax.tree.structure(wanted):
        return "another structure"
    named = named_leaves(wanted)
    for (name, like), leaf in zip(named.items(), jax.tree.leaves(given), strict=True):
        found, right = ((jnp.shape(one), jnp.result_type(one)) for one in (leaf, like))
        if found[0] != right[0] or (dtypes and found[1] != right[1]):
            said = [
                f"{dtype.name}[{', '.join(map(str, shape))}]" for shape, dtype in (found, right)
            ]
            return f"{name} is {said[0]}, not {said[1]}"
    return ""
