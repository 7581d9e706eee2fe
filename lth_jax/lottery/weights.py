"""Branches that keep the ticket's mask and change its weights: their signs, sizes and places."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.lottery.start_points import BranchPoint, StartPoint
from lth_jax.pruning.drawing import uniform_scores
from lth_jax.pruning.masks import exact, kept_counts
from lth_jax.pruning.selection import prune_to
from lth_jax.pruning.trees import map_named, named_leaves
from lth_jax.training.states import rewind


def freeze_pruned(at: BranchPoint) -> StartPoint:
    """Leaves pruned weights at their value at the rewind point, not at zero (Zhou et al. 2019)."""
    rewound = at.ticket.state
    return at.ticket._replace(state=rewound._replace(params=at.point.params))


def reshuffle(at: BranchPoint) -> StartPoint:
    """Permutes the kept weights within their layer (Zhou et al. 2019, §4, "reshuffle")."""
    return _with_weights(at, _shuffled)


def shuffle_filters(at: BranchPoint) -> StartPoint:
    """Permutes the kept weights within each filter (Frankle et al. 2020b).

    A filter is what one output sees: a unit of a dense layer has one as a channel has.
    """
    return _with_weights(at, _shuffled_by_filter)


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


def flip_signs(at: BranchPoint) -> StartPoint:
    """Turns the signs of a share of each layer's kept weights: floor(share × kept), drawn."""
    counts = kept_counts(at.ticket.mask, at.rates)
    flipped = {(n,): math.floor(exact(at.options.share) * kept) for n, (kept, _) in counts.items()}
    drawn = uniform_scores(at.key, at.ticket.mask, tuple(at.rates))
    chosen = named_leaves(prune_to(drawn, at.ticket.mask, flipped))
    return _with_named(at, lambda name, w: jnp.where(chosen[name], -w, w))


def late_signs(at: BranchPoint) -> StartPoint:
    """Gives the ticket's weights the signs that training gave them before they were pruned.

    Magnitudes stay those of the rewind point (Gadhikar & Burkholz 2024).
    """
    late = named_leaves(at.pruned_from().params)
    return _with_named(at, lambda name, w: jnp.copysign(w, late[name]))


def late_magnitudes(at: BranchPoint) -> StartPoint:
    """Gives the ticket's weights the magnitudes that training gave them; their signs stay."""
    late = named_leaves(at.pruned_from().params)
    return _with_named(at, lambda name, w: jnp.copysign(late[name], w))


def signs_of(at: BranchPoint) -> StartPoint:
    """Draws fresh magnitudes for the signs and norm parameters of the level's trained network.

    A sparse solution's signs and norms carry its basin to other magnitudes (Oh et al. 2025). It
    trains from step 0, as `reinit` does.
    """
    fresh, trained = at.fresh(at.key), named_leaves(at.trained().params)
    norms = {name.rpartition("/")[0] for name in trained if name.endswith("scale")}

    def leaf(name: str, w: jax.Array) -> jax.Array:
        if name in at.rates:
            return jnp.copysign(w, trained[name])
        return trained[name] if name.rpartition("/")[0] in norms else w

    mask = at.ticket.mask
    state = fresh._replace(params=map_named(leaf, fresh.params))
    return StartPoint(mask, rewind(state, mask, at.optimizer), 0)


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


def _with_named(at: BranchPoint, change: Callable[[str, jax.Array], jax.Array]) -> StartPoint:
    """Returns the ticket, its kept weights replaced by `change(name, weights)`."""

    def leaf(name: str, w: jax.Array, mask: jax.Array) -> jax.Array:
        return jnp.where(mask, change(name, w), 0).astype(w.dtype) if name in at.rates else w

    state = at.ticket.state
    params = map_named(leaf, state.params, at.ticket.mask)
    return at.ticket._replace(state=state._replace(params=params))


def _shuffled(key: jax.Array, w: jax.Array, mask: jax.Array, _initial: jax.Array) -> jax.Array:
    kept = np.flatnonzero(mask)
    # Found and moved on the host: of each layer at each level another number is kept, and JAX would
    # compile a dozen operations for each number.
    weights = np.array(w).reshape(-1)
    weights[kept] = jax.random.permutation(key, weights[kept])
    return jnp.asarray(weights.reshape(w.shape))


def _shuffled_by_filter(
    key: jax.Array, w: jax.Array, mask: jax.Array, _initial: jax.Array
) -> jax.Array:
    """Permutes the kept weights of each column of [inputs, outputs]."""
    weights, kept = w.reshape(-1, w.shape[-1]), mask.reshape(-1, w.shape[-1])
    # In each column the kept ones come first, once in a drawn order and once in their own: the
    # n-th drawn moves to the n-th place. What is pruned follows, and is masked afterwards.
    drawn = jnp.argsort(jnp.where(kept, jax.random.uniform(key, weights.shape), 2.0), axis=0)
    places = jnp.argsort(~kept, axis=0, stable=True)
    moved = jnp.take_along_axis(weights, drawn, axis=0)
    return jnp.put_along_axis(weights, places, moved, axis=0, inplace=False).reshape(w.shape)


def _resampled(key: jax.Array, w: jax.Array, mask: jax.Array, _initial: jax.Array) -> jax.Array:
    kept = np.ravel(np.asarray(w))[np.flatnonzero(mask)]
    if not kept.size:
        return w
    return jax.random.choice(key, jnp.asarray(kept), w.shape)
