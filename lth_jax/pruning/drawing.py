"""Masks that keep exactly as many weights of each leaf as another mask does."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp

from lth_jax.pruning.channels import Channels
from lth_jax.pruning.granularity import WEIGHT, Granularity
from lth_jax.pruning.masks import ones_mask
from lth_jax.pruning.structured import counts_by, prune_by
from lth_jax.pruning.trees import PyTree, map_named


def draw_mask(
    key: jax.Array,
    mask: PyTree,
    rates: Mapping[str, Fraction],
    granularity: Granularity | Channels = WEIGHT,
) -> PyTree:
    """Returns a uniformly random mask that keeps as much of each layer as `mask` does."""
    return keep_as_many(mask, uniform_scores(key, mask, tuple(rates)), rates, granularity)


def keep_as_many(
    mask: PyTree,
    scores: PyTree,
    rates: Mapping[str, Fraction],
    granularity: Granularity | Channels = WEIGHT,
) -> PyTree:
    """Returns the mask of the highest `scores` that keeps exactly `mask`'s count in each layer."""
    counts = counts_by(granularity, mask, rates)
    return prune_by(granularity, scores, ones_mask(mask), counts)


@partial(jax.jit, static_argnums=2)
def uniform_scores(key: jax.Array, mask: PyTree, names: tuple[str, ...]) -> PyTree:
    """Returns uniform scores for the named leaves, zeros for the others."""
    keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))

    def scores(name: str, leaf: jax.Array) -> jax.Array:
        return jax.random.uniform(keys[name], leaf.shape) if name in keys else jnp.zeros(leaf.shape)

    return map_named(scores, mask)
