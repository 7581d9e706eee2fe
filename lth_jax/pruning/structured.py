"""Pruning at a granularity: channels, blocks, and N of each M, to exact counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.pruning.channels import Channels
from lth_jax.pruning.granularity import WEIGHT, Granularity
from lth_jax.pruning.masks import kept_counts, with_leaves
from lth_jax.pruning.selection import check_finite, ordered, prune_to
from lth_jax.pruning.trees import PyTree, named_leaves, size


def counts_by(
    granularity: Granularity | Channels, mask: PyTree, rates: Mapping[str, Fraction]
) -> dict[tuple[str, ...], int]:
    """Returns how much of each layer a mask keeps, as targets of `prune_by`."""
    if isinstance(granularity, Channels):
        return granularity.counts(mask)
    return {(name,): kept for name, (kept, _) in kept_counts(mask, rates).items()}


def prune_by(
    granularity: Granularity | Channels,
    scores: PyTree | Callable[[PyTree], PyTree],
    mask: PyTree,
    targets: Mapping[tuple[str, ...], int],
    *,
    rounds: int = 1,
    invert: bool = False,
) -> PyTree:
    """Returns the mask whose groups keep `targets` of their survivors, pruned at a granularity.

    A block's score is the sum of its weights'. Of N:M, the highest scores of each M stay; scores
    are taken once, whatever `rounds` says.

    Args:
      granularity: what is pruned together: weights one by one, as `prune_to` does, what a
        granularity names, or a network's channels.
      scores, mask, targets, rounds, invert: as `prune_to` takes them. Targets are of whole blocks,
        or of the same number in each M; of channels, of groups and numbers of these.

    Raises:
      ValueError: as `prune_to`.
    """
    if isinstance(granularity, Channels):
        return granularity.prune(scores, mask, targets, rounds=rounds, invert=invert)
    if granularity == WEIGHT:
        return prune_to(scores, mask, targets, rounds=rounds, invert=invert)
    if granularity.of_each:
        return _of_each(granularity.rows, scores, mask, targets, invert)
    block = granularity.rows * granularity.columns
    names = {name for names in targets for name in names}
    blocks = partial(_blocks, granularity.rows, granularity.columns)

    def reduced(tree: PyTree, function: Callable[..., jax.Array]) -> PyTree:
        leaves = named_leaves(tree)
        return with_leaves(tree, {name: function(blocks(leaves[name])) for name in names})

    def expanded(of_blocks: PyTree) -> PyTree:
        found, leaves = named_leaves(of_blocks), named_leaves(mask)
        whole = {n: _repeated(found[n], granularity.rows, granularity.columns) for n in names}
        return with_leaves(mask, {n: whole[n].reshape(leaves[n].shape) for n in names})

    def sums(of_blocks: PyTree) -> PyTree:
        given = scores(expanded(of_blocks)) if callable(scores) else scores
        return reduced(given, partial(jnp.sum, axis=(-3, -1)))

    aim = {group: kept // block for group, kept in targets.items()}
    alive = reduced(mask, partial(jnp.any, axis=(-3, -1)))
    return expanded(prune_to(sums, alive, aim, rounds=rounds, invert=invert))


def _blocks(rows: int, columns: int, leaf: jax.Array) -> jax.Array:
    """Returns [..., inputs / rows, rows, outputs / columns, columns] of [..., inputs, outputs]."""
    inputs, outputs = leaf.shape[-2:]
    shape = inputs // rows, rows, outputs // columns, columns
    return jnp.reshape(leaf, (*leaf.shape[:-2], *shape))


def _repeated(of_blocks: jax.Array, rows: int, columns: int) -> jax.Array:
    return jnp.repeat(jnp.repeat(of_blocks, rows, -2), columns, -1)


def _of_each(
    of: int,
    scores: PyTree | Callable[[PyTree], PyTree],
    mask: PyTree,
    targets: Mapping[tuple[str, ...], int],
    invert: bool,
) -> PyTree:
    given = named_leaves(scores(mask) if callable(scores) else scores)
    leaves, new = named_leaves(mask), {}
    for names, kept in targets.items():
        total = sum(size(leaves[name]) for name in names)
        count, rest = divmod(kept * of, total)
        if rest:
            raise ValueError(f"{kept} of {total} weights of {', '.join(names)} are not N of {of}")
        for name in names:
            score = -given[name] if invert else jnp.asarray(given[name])
            check_finite((name,), [score], [jnp.asarray(leaves[name])])
            new[name] = _highest_of_each(score, jnp.asarray(leaves[name]), of, np.int32(count))
    return with_leaves(mask, new)


@partial(jax.jit, static_argnums=2)
def _highest_of_each(scores: jax.Array, alive: jax.Array, of: int, count: jax.Array) -> jax.Array:
    """Returns the mask of the `count` highest living scores of each `of` neighbouring inputs."""
    # What lives is above what does not, whatever its score; of equal ones the earlier goes first.
    keys = _blocks(of, 1, ordered(scores))
    living = _blocks(of, 1, alive)
    order = jnp.lexsort((keys, living), axis=-3)
    rank = jnp.argsort(order, axis=-3)
    return ((rank >= of - count) & living).reshape(scores.shape)
