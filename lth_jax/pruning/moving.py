"""Rules that move a mask while a network trains: dynamic sparse training, and gradual pruning.

A rule is a pure function of a `Move` to the next mask. Whoever trains calls it every few steps,
between two updates, and then sets all to zero that not both masks keep, the optimizer's moments
included (`masks.apply_mask`, `masks.mask_optimizer_state`): so survivors stay as they are bit for
bit, and what was grown begins at zero. To add one: the function, a row in `MASK_RULES`, a golden
value in the tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from lth_jax.pruning.masks import exact
from lth_jax.pruning.selection import remove_lowest
from lth_jax.pruning.trees import PyTree, count_true, named_leaves, size


class Course(NamedTuple):
    """When a mask moves, how far, and where it ends.

    Attributes:
      kept: how many weights each prunable leaf keeps in the end, by its name.
      begin: the step from which on steps are counted to the first move.
      every: the number of steps between two moves.
      end: from this step on the mask stays.
      fraction: the share of a leaf's kept weights that the first move exchanges.
    """

    kept: Mapping[str, int]
    begin: int
    every: int
    end: int
    fraction: float


class Move(NamedTuple):
    """What a rule may look at.

    Attributes:
      mask: the mask so far, bool, of the parameters' structure.
      params: the parameters, zeros where `mask` is False (save in `topkast`).
      gradients: of the loss of the batch that is next, for all weights, pruned ones included; None
        for rules that do not need them.
      step: the number of updates behind the parameters.
      key: a typed key [] of its own for the run and this step.
      course: when the mask moves, and how many weights are kept.
    """

    mask: PyTree
    params: PyTree
    gradients: PyTree | None
    step: int
    key: Key[Array, ""]
    course: Course


class MaskRule(NamedTuple):
    """A row of the registry. Numbers are what a branch has that does not say otherwise.

    Attributes:
      move: from a `Move` to the next mask; each leaf keeps as many weights as before, or as its
        schedule says.
      needs_gradients: whether it needs `Move.gradients`.
      starts_dense: whether the course begins with every weight, and comes down to `Course.kept`.
      counts: how many weights each leaf keeps from a move at a step on, of (course, sizes of the
        leaves, step); None where they stay as they are. So it is known before anything is trained.
      trained: from a `Move` to the weights that are updated, where they are more than the mask's:
        those outside of the mask keep their values. None where a weight is its mask's.
      every: `Course.every`: steps, or a share of the training.
      begin, end: shares of the training.
      fraction: `Course.fraction`.
    """

    move: Callable[[Move], PyTree]
    needs_gradients: bool = False
    starts_dense: bool = False
    counts: Callable[[Course, Mapping[str, int], int], dict[str, int]] | None = None
    trained: Callable[[Move], PyTree] | None = None
    every: int | Fraction = 100
    begin: float = 0.0
    end: float = 0.75
    fraction: float = 0.3


def next_move(course: Course, starts_dense: bool, step: int) -> int | None:
    """Returns the first step from `step` on at which a mask moves, None for none.

    It moves at `begin` + n × `every`, n from 1 on, before `end`; one that starts dense moves at
    `begin`, too, and at `end` for the last time, where it comes to the counts of its course.
    """
    first = course.begin if starts_dense else course.begin + course.every
    behind = max(0, -(-(step - first) // course.every))
    found = first + behind * course.every
    if found < course.end:
        return found
    return course.end if starts_dense and step <= course.end else None


def static(move: Move) -> PyTree:
    """Leaves the mask as it is."""
    return move.mask


def rigl(move: Move) -> PyTree:
    """Exchanges a cosine-decayed share of each leaf: small weights for large gradients.

    Of each leaf, floor(α/2 · (1 + cos(π t / T_end)) · kept) weights of the smallest magnitude are
    dropped. As many are grown where the gradient's magnitude is largest, among all weights but
    those that stayed (Evci et al. 2020, §3): a dropped weight that is grown again stays as it is.
    """
    assert move.gradients is not None, "the row says that it needs them"
    c = move.course
    share = c.fraction / 2 * (1 + math.cos(math.pi * move.step / c.end))
    return _exchanged(move, share, _magnitudes(move.gradients))


def set_(move: Move) -> PyTree:
    """Exchanges a constant share of each leaf: small weights for weights drawn at random.

    Sparse evolutionary training (Mocanu et al. 2018): of each leaf, floor(ζ · kept) weights of the
    smallest magnitude are dropped, and as many are grown, drawn among all but those that stayed.
    """
    return _exchanged(move, exact(move.course.fraction), _uniform(move.key, move.params))


def gmp(move: Move) -> PyTree:
    """Prunes by magnitude, gradually: gradual magnitude pruning.

    The share of weights that are pruned follows s_f - s_f (1 - (t - t_0) / (t_end - t_0))³
    (Zhu & Gupta 2017, eq. 1; Gale et al. 2019), in each leaf, to exact counts.
    """
    return _pruned(move, move.mask, gmp_counts(move.course, _sizes(move), move.step))


def gmp_counts(course: Course, sizes: Mapping[str, int], step: int) -> dict[str, int]:
    """Returns how many weights each leaf keeps by the cubic schedule, rounded up."""
    left = 1 - Fraction(min(step, course.end) - course.begin, course.end - course.begin)
    return {n: kept + math.ceil((sizes[n] - kept) * left**3) for n, kept in course.kept.items()}


def ac_dc(move: Move) -> PyTree:
    """Takes turns: the largest weights alone, then all of them again, sparse in the end.

    Alternating compressed and decompressed training (Peste et al. 2021): weights that come back
    begin at zero.
    """
    return _pruned(move, _full(move.mask), ac_dc_counts(move.course, _sizes(move), move.step))


def ac_dc_counts(course: Course, sizes: Mapping[str, int], step: int) -> dict[str, int]:
    """Returns how many weights each leaf keeps: those of the end, or all, in turns."""
    sparse = step >= course.end or (step - course.begin) // course.every % 2 == 0
    return {name: kept if sparse else sizes[name] for name, kept in course.kept.items()}


def topkast(move: Move) -> PyTree:
    """Keeps the largest weights of each leaf, of all that there are (Jayakumar et al. 2020, §2.1).

    A weight that leaves the mask keeps its value, and is updated as long as it is among twice as
    many of the largest (`topkast_trained`; the paper goes with 80% by 50%, with 90% by 80%).
    """
    return _pruned(move, _full(move.mask), move.course.kept)


def topkast_trained(move: Move) -> PyTree:
    """Returns the weights that are updated: the largest of each leaf, twice as many as are kept."""
    sizes = _sizes(move)
    aim = {name: min(sizes[name], 2 * kept) for name, kept in move.course.kept.items()}
    return _pruned(move, _full(move.mask), aim)


def _exchanged(move: Move, share: float | Fraction, growth: PyTree) -> PyTree:
    """Returns the mask after `share` of each leaf's kept weights went where `growth` is largest."""
    sizes, kept = _sizes(move), _kept(move.mask, move.course.kept)
    count = {name: math.floor(share * kept[name]) for name in kept}
    stayed = _pruned(move, move.mask, {name: kept[name] - count[name] for name in kept})
    free = _inverted(stayed)  # in leaves that stay whole there is nothing to grow
    # Of those that may grow all go but `count`: as many as are pruned now.
    grown = remove_lowest(growth, free, {(n,): sizes[n] - kept[n] for n in kept})
    return _either(stayed, grown)


def _pruned(move: Move, mask: PyTree, aim: Mapping[str, int]) -> PyTree:
    """Returns `mask` without the weights of the smallest magnitude, down to `aim` of each leaf."""
    kept = _kept(mask, aim)
    removals = {(name,): max(0, kept[name] - aim[name]) for name in aim}
    return remove_lowest(_magnitudes(move.params), mask, removals)


# Jitted, since eagerly each operation on each shape would be a program of its own.


@jax.jit
def _magnitudes(tree: PyTree) -> PyTree:
    """Returns |w|, 0 where that is no number: a network that diverged trains on to its row."""
    return jax.tree.map(lambda w: jnp.where(jnp.isfinite(w), jnp.abs(w), 0), tree)


@jax.jit
def _uniform(key: Key[Array, ""], tree: PyTree) -> PyTree:
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    draws = [jax.random.uniform(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, draws)


@jax.jit
def _full(mask: PyTree) -> PyTree:
    return jax.tree.map(jnp.ones_like, mask)


@jax.jit
def _inverted(mask: PyTree) -> PyTree:
    return jax.tree.map(jnp.logical_not, mask)


@jax.jit
def _either(mask: PyTree, other: PyTree) -> PyTree:
    return jax.tree.map(jnp.logical_or, mask, other)


def _sizes(move: Move) -> dict[str, int]:
    return {name: size(leaf) for name, leaf in named_leaves(move.mask).items()}


def _kept(mask: PyTree, names: Mapping[str, int]) -> dict[str, int]:
    leaves = named_leaves(mask)
    return {name: count_true(leaves[name]) for name in names}


MASK_RULES: dict[str, MaskRule] = {
    "static": MaskRule(static, end=0.0),
    "set": MaskRule(set_, end=1.0),
    "rigl": MaskRule(rigl, needs_gradients=True),
    "gmp": MaskRule(gmp, starts_dense=True, counts=gmp_counts),
    "ac_dc": MaskRule(
        ac_dc,
        starts_dense=True,
        counts=ac_dc_counts,
        every=Fraction(1, 20),
        begin=0.1,
        end=0.85,
    ),
    "topkast": MaskRule(topkast, trained=topkast_trained, end=1.0),
}
