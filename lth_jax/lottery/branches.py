"""Branches: controls that start from one level's ticket.

A branch is a pure function of a `BranchPoint` that says where its run starts. To add one: the
function, a row in `BRANCHES`, a golden value; the conformance tests cover it by themselves.

Branches that draw or disturb weights do so to the ticket's rewound state, and train from its step;
`reinit` alone draws a whole new network, and trains it from step 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from lth_jax.config import BranchSpec
from lth_jax.pruning.masks import kept_counts, ones_mask, with_leaves
from lth_jax.pruning.selection import prune_to
from lth_jax.pruning.trees import PyTree, map_named, named_leaves
from lth_jax.training.states import TrainState, rewind


class StartPoint(NamedTuple):
    """Where a run starts: a mask, and the state that its survivors start from.

    That of the trunk is the level's ticket, (mask, rewound state).

    Attributes:
      mask: bool, of the parameters' structure.
      state: the training state, pruned weights at zero (save in `freeze_pruned`).
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
      source: gives the source's ticket of the same replicate and level, for transfers.
      options: the branch's own, such as `sigma`.
      key: a key of its own for (seed, branch, replicate, level, draw).
    """

    ticket: StartPoint
    point: TrainState
    step: int
    initial: PyTree
    rates: Mapping[str, Fraction]
    optimizer: optax.GradientTransformation
    fresh: Callable[[jax.Array], TrainState]
    dense_scores: Callable[[], PyTree]
    source: Callable[[], StartPoint]
    options: BranchSpec
    key: Key[Array, ""]


def reinit(at: BranchPoint) -> StartPoint:
    """Keeps the ticket's mask and draws fresh random weights (Frankle & Carbin 2019, §2).

    It trains from step 0 for the whole schedule, whatever the rewind step: a network drawn at
    random has no early training to rewind to.
    """
    mask = at.ticket.mask
    return StartPoint(mask, rewind(at.fresh(at.key), mask, at.optimizer), 0)


def random_mask(at: BranchPoint) -> StartPoint:
    """Puts the rewind point under a random mask that keeps the ticket's count in each layer."""
    mask = draw_mask(at.key, at.ticket.mask, at.rates)
    return StartPoint(mask, rewind(at.point, mask, at.optimizer), at.step)


def one_shot(at: BranchPoint) -> StartPoint:
    """Prunes the dense network once, to the ticket's count in each layer, and rewinds it."""
    mask = keep_as_many(at.ticket.mask, at.dense_scores(), at.rates)
    return StartPoint(mask, rewind(at.point, mask, at.optimizer), at.step)


def dense(at: BranchPoint) -> StartPoint:
    """Trains the dense state at the rewind point, without a mask."""
    return StartPoint(ones_mask(at.ticket.mask), at.point, at.step)


def retrain(at: BranchPoint) -> StartPoint:
    """Trains the ticket itself, with the branch's own training options; without any, once more."""
    return at.ticket


def freeze_pruned(at: BranchPoint) -> StartPoint:
    """Leaves pruned weights at their value at the rewind point, not at zero (Zhou et al. 2019)."""
    rewound = at.ticket.state
    return at.ticket._replace(state=rewound._replace(params=at.point.params))


def reshuffle(at: BranchPoint) -> StartPoint:
    """Permutes the kept weights within their layer (Zhou et al. 2019, §4, "reshuffle")."""
    return _with_weights(at, _shuffled)


def reinit_from_ticket(at: BranchPoint) -> StartPoint:
    """Draws the kept weights anew from those of their layer (Frankle & Carbin 2019, F.3).

    It draws with replacement, from the distribution of the ticket's own initial weights.
    """
    return _with_weights(at, _resampled)


def signed_constant(at: BranchPoint) -> StartPoint:
    """Sets kept weights to their sign × σ of the layer's initialization (Zhou et al. 2019, §4)."""
    return _with_weights(at, lambda _key, w, _mask, initial: jnp.sign(w) * jnp.std(initial))


def constant_random_sign(at: BranchPoint) -> StartPoint:
    """Sets kept weights to ±σ of the layer's initialization, signs drawn (Zhou et al. 2019)."""

    def redraw(key: jax.Array, w: jax.Array, _mask: jax.Array, initial: jax.Array) -> jax.Array:
        return jax.random.rademacher(key, w.shape, w.dtype) * jnp.std(initial)

    return _with_weights(at, redraw)


def noise(at: BranchPoint) -> StartPoint:
    """Adds noise of `sigma` × σ of the layer's initialization (Frankle & Carbin 2019, F.7)."""

    def redraw(key: jax.Array, w: jax.Array, _mask: jax.Array, initial: jax.Array) -> jax.Array:
        return w + at.options.sigma * jnp.std(initial) * jax.random.normal(key, w.shape, w.dtype)

    return _with_weights(at, redraw)


def transfer(at: BranchPoint) -> StartPoint:
    """Trains the source's ticket, mask and rewound weights, here (Morcos et al. 2019, §3).

    An output layer of another shape (another number of classes), or with `new_head` any, begins
    as this experiment's own initialization, with a full mask.
    """
    source = at.source()
    heads = new_heads(source.state.params, at.point.params, at.options.new_head)
    new = {name: leaf for name, leaf in named_leaves(at.initial).items() if name in heads}
    mask = with_leaves(source.mask, ones_mask(new))
    params = with_leaves(source.state.params, new)
    state = source.state._replace(params=params)
    fresh = at.optimizer.init(params)
    other_optimizer = jax.tree.structure(state.opt_state) != jax.tree.structure(fresh)
    if heads or source.step == 0 or other_optimizer:
        state = state._replace(opt_state=fresh)
    return StartPoint(mask, state, source.step)


def transfer_reinit(at: BranchPoint) -> StartPoint:
    """Keeps the source's mask and draws fresh random weights; it trains from step 0."""
    mask = transfer(at).mask
    return StartPoint(mask, rewind(at.fresh(at.key), mask, at.optimizer), 0)


def new_heads(source: PyTree, target: PyTree, always: bool = False) -> set[str]:
    """Returns the names of the leaves of `target`'s output layer that a transfer begins anew.

    Raises:
      ValueError: the networks differ elsewhere; names the leaf and both shapes.
    """
    theirs, own = named_leaves(source), named_leaves(target)
    for name in {**theirs, **own}:
        shapes = [leaves[name].shape if name in leaves else None for leaves in (theirs, own)]
        if None in shapes or (shapes[0] != shapes[1] and not name.startswith("output/")):
            said = ["none" if shape is None else "×".join(map(str, shape)) for shape in shapes]
            raise ValueError(
                f"{name} is {said[0]} in the source and {said[1]} here; "
                "accepted: networks that differ in their output layer alone"
            )
    heads = {name for name in own if name.startswith("output/")}
    differs = any(theirs[name].shape != own[name].shape for name in heads)
    return heads if always or differs else set()


def draw_mask(key: jax.Array, mask: PyTree, rates: Mapping[str, Fraction]) -> PyTree:
    """Returns a uniformly random mask that keeps as many weights of each leaf as `mask` does."""
    return keep_as_many(mask, _uniform(key, mask, tuple(rates)), rates)


def keep_as_many(mask: PyTree, scores: PyTree, rates: Mapping[str, Fraction]) -> PyTree:
    """Returns the mask of the highest `scores` that keeps exactly `mask`'s count in each leaf."""
    counts = kept_counts(mask, rates)
    return prune_to(scores, ones_mask(mask), {(name,): kept for name, (kept, _) in counts.items()})


def _with_weights(at: BranchPoint, redraw: Callable[..., jax.Array]) -> StartPoint:
    """Returns the ticket, its kept weights replaced by `redraw(key, weights, mask, initial)`."""
    keys = dict(zip(at.rates, jax.random.split(at.key, len(at.rates)), strict=True))

    def leaf(name: str, w: jax.Array, mask: jax.Array, initial: jax.Array) -> jax.Array:
        if name not in keys:
            return w
        return jnp.where(mask, redraw(keys[name], w, mask, initial), 0).astype(w.dtype)

    state = at.ticket.state
    params = map_named(leaf, state.params, at.ticket.mask, at.initial)
    return at.ticket._replace(state=state._replace(params=params))


def _shuffled(key: jax.Array, w: jax.Array, mask: jax.Array, _initial: jax.Array) -> jax.Array:
    kept = jnp.flatnonzero(mask)
    values = jax.random.permutation(key, jnp.ravel(w)[kept])
    return jnp.ravel(w).at[kept].set(values).reshape(w.shape)


def _resampled(key: jax.Array, w: jax.Array, mask: jax.Array, _initial: jax.Array) -> jax.Array:
    kept = jnp.ravel(w)[jnp.flatnonzero(mask)]
    if not kept.size:
        return w
    return jax.random.choice(key, kept, w.shape)


@partial(jax.jit, static_argnums=2)
def _uniform(key: jax.Array, mask: PyTree, names: tuple[str, ...]) -> PyTree:
    """Returns uniform scores for the named leaves, zeros for the others."""
    keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))

    def scores(name: str, leaf: jax.Array) -> jax.Array:
        return jax.random.uniform(keys[name], leaf.shape) if name in keys else jnp.zeros(leaf.shape)

    return map_named(scores, mask)


BRANCHES: dict[str, Callable[[BranchPoint], StartPoint]] = {
    "reinit": reinit,
    "random_mask": random_mask,
    "reshuffle": reshuffle,
    "reinit_from_ticket": reinit_from_ticket,
    "signed_constant": signed_constant,
    "constant_random_sign": constant_random_sign,
    "freeze_pruned": freeze_pruned,
    "noise": noise,
    "dense": dense,
    "one_shot": one_shot,
    "retrain": retrain,
    "transfer": transfer,
    "transfer_reinit": transfer_reinit,
}
# Branches that train from step 0, whatever the rewind step: a network that is drawn at random has
# no early training to go back to.
FROM_SCRATCH = ("reinit", "transfer_reinit")
