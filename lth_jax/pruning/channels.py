"""Channels: units of dense layers and channels of convolutions, pruned with all that knows of them.

A channel that is pruned is out of its layer's kernel, its bias, its norm, and of every kernel that
reads it. The channels of a residual stream are those of all layers that write to it or read it:
one is pruned from all of them at once. Nothing of it is left that could be trained, so that the
network computes what a narrower one would.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from lth_jax.pruning.masks import with_leaves
from lth_jax.pruning.selection import check_finite, prune_to
from lth_jax.pruning.trees import PyTree, named_leaves
from lth_jax.pruning.units import Axis, Group, along, by_unit

PARAMS = "params/"
# How channels are ranked where it is not by the sum of a criterion's scores.
RANKS = ("l1", "l2", "batch_norm")


class UnitScores(NamedTuple):
    """Scores of channels, where a criterion has no scores of weights.

    Attributes:
      of: group's name -> float [units], higher = keep.
    """

    of: Mapping[str, jax.Array]


class ChannelGroup(NamedTuple):
    """Channels that are pruned as one.

    Attributes:
      units: how many there are.
      axes: of the parameters, by their names such as `fc1/kernel`.
      state: of the model's other collections, such as `batch_stats/norm1/mean`.
      writers: the axes of the kernels whose outputs the channels are.
      rate: the multiple of the pruning fraction.
    """

    units: int
    axes: tuple[Axis, ...]
    state: tuple[Axis, ...]
    writers: tuple[Axis, ...]
    rate: Fraction

    def norm_scales(self) -> tuple[Axis, ...]:
        """Returns the axes of the scales of norms that the channels go through."""
        return tuple(a for a in self.axes if a.leaf.rpartition("/")[2] == "scale")


@dataclasses.dataclass(frozen=True)
class Channels:
    """The channels of a network that may be pruned.

    Attributes:
      groups: name -> its channels; a group is named by the layer whose outputs they are, a residual
        stream by the first of those.
    """

    groups: Mapping[str, ChannelGroup]

    @property
    def units(self) -> dict[str, int]:
        """How many channels each group has."""
        return {name: group.units for name, group in self.groups.items()}

    @property
    def rates(self) -> dict[str, Fraction]:
        """Each group's multiple of the pruning fraction."""
        return {name: group.rate for name, group in self.groups.items()}

    def kernels(self, rates: Mapping[str, Fraction]) -> dict[str, Fraction]:
        """Returns those of the prunable kernels, by name, that lose weights with a channel."""
        known = {axis.leaf for group in self.groups.values() for axis in group.axes}
        return {name: rate for name, rate in rates.items() if name in known}

    def alive(self, mask: PyTree) -> dict[str, Bool[np.ndarray, " units"]]:
        """Returns which channels of each group a mask has anything of."""
        leaves = named_leaves(mask)
        found = {}
        for name, group in self.groups.items():
            parts = [by_unit(np.asarray(leaves[a.leaf]), a).any(1) for a in group.axes]
            found[name] = np.any(parts, 0)
        return found

    def counts(self, mask: PyTree) -> dict[tuple[str, ...], int]:
        """Returns how many channels of each group a mask has, as targets of `prune`."""
        return {(name,): int(alive.sum()) for name, alive in self.alive(mask).items()}

    def mask(self, alive: Mapping[str, Bool[np.ndarray, " units"]], mask: PyTree) -> PyTree:
        """Returns `mask` without all that belongs to channels that are not alive."""
        leaves = named_leaves(mask)
        changed: dict[str, np.ndarray] = {}
        for name, group in self.groups.items():
            if np.all(alive[name]):
                continue
            for axis in group.axes:
                before = changed.get(axis.leaf, np.asarray(leaves[axis.leaf]))
                changed[axis.leaf] = before & along(np.asarray(alive[name]), axis, before.ndim)
        return with_leaves(mask, {name: jnp.asarray(leaf) for name, leaf in changed.items()})

    def weights(
        self, units: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, int]:
        """Returns how many weights each leaf keeps, by name, where groups keep so many channels."""
        kept = {name: Fraction(math.prod(shape)) for name, shape in shapes.items()}
        for name, group in self.groups.items():
            for axis in group.axes:
                if axis.leaf in kept:
                    kept[axis.leaf] *= Fraction(units[name], group.units)
        return {name: int(count) for name, count in kept.items()}

    def densities(
        self, targets: Mapping[tuple[str, ...], int], shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, float]:
        """Returns the share of each leaf that targets keep; of groups ranked together, alike."""
        units = self.units
        kept = {
            name: count * units[name] // sum(units[one] for one in names)
            for names, count in targets.items()
            for name in names
        }
        left = self.weights(kept, shapes)
        return {name: left[name] / math.prod(shape) for name, shape in shapes.items()}

    def ranked(self, rank: str, params: PyTree, mask: PyTree) -> UnitScores:
        """Returns the scores of channels by one of `RANKS`.

        `l1` and `l2` are norms of the weights whose sum a channel is (Li et al. 2017, §3.1; He et
        al. 2018, §3.2), over all layers that write a residual stream. `batch_norm` is the magnitude
        of the channel's scale (Liu et al. 2017, §3), the mean where it goes through several norms.
        """
        leaves, kept = named_leaves(params), named_leaves(mask)

        def scores(group: ChannelGroup) -> np.ndarray:
            if rank == "batch_norm":
                return _over(group.norm_scales(), leaves, kept, np.abs) / len(group.norm_scales())
            sizes = _over(group.writers, leaves, kept, np.abs if rank == "l1" else np.square)
            return sizes if rank == "l1" else np.sqrt(sizes)

        return UnitScores(_single({name: scores(group) for name, group in self.groups.items()}))

    def prune(
        self,
        scores: PyTree | Callable[[PyTree], PyTree],
        mask: PyTree,
        targets: Mapping[tuple[str, ...], int],
        *,
        rounds: int = 1,
        invert: bool = False,
    ) -> PyTree:
        """Returns the mask whose groups keep exactly `targets` of their channels.

        A channel's score is the sum of those of the weights that write it, or what `UnitScores`
        say. Of groups that are ranked together, each keeps its best channel at least: a layer
        without any would cut the network in two.

        Args:
          scores: of the parameters' structure or `UnitScores`, or a function from the mask so far
            to them.
          mask: bool, the mask so far.
          targets: names of groups that are ranked together -> channels that they keep.
          rounds, invert: as `prune_to` takes them.

        Raises:
          ValueError: as `prune_to`.
        """
        alive = self.alive(mask)
        together = any(len(names) > 1 for names in targets)
        if invert and together:
            kept = self.counts(self.prune(scores, mask, targets, rounds=rounds))
            return self.prune(scores, mask, kept, rounds=rounds, invert=True)

        def of_units(now: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
            living = {name: np.asarray(now[name]) | safe[name] for name in alive}
            return self._scores(scores, self.mask(living, mask))

        safe = {name: np.zeros(units, bool) for name, units in self.units.items()}
        if together:
            first = of_units({name: jnp.asarray(living) for name, living in alive.items()})
            for name, living in alive.items():
                check_finite((name,), [first[name]], [jnp.asarray(living)])
            safe = {name: _best(np.asarray(first[name]), alive[name]) for name in alive}
        at_risk = {name: jnp.asarray(alive[name] & ~safe[name]) for name in alive}
        aim = {
            names: kept - sum(int(safe[name].sum()) for name in names)
            for names, kept in targets.items()
        }
        found = prune_to(of_units, at_risk, aim, rounds=rounds, invert=invert)
        return self.mask({name: np.asarray(found[name]) | safe[name] for name in alive}, mask)

    def _scores(
        self, scores: PyTree | Callable[[PyTree], PyTree], mask: PyTree
    ) -> dict[str, jax.Array]:
        given = scores(mask) if callable(scores) else scores
        if isinstance(given, UnitScores):
            return dict(given.of)
        leaves, kept = named_leaves(given), named_leaves(mask)
        return _single({
            name: _over(group.writers, leaves, kept) for name, group in self.groups.items()
        })  # fmt: skip


def channels_of(groups: Sequence[Group], params: PyTree, rates: Mapping[str, Fraction]) -> Channels:
    """Returns which channels may be pruned.

    Those are of groups that a network can do without, and whose layers all may be pruned: a stream
    is pruned at the smallest rate of the layers that write to it.

    Args:
      groups: the network's units, as `training.units.unit_groups` finds them, the names of their
        arrays beginning with the collection, such as `params/`.
      params: the parameters, or their shapes.
      rates: prunable kernel -> multiple of the fraction, as `masks.prunable` gives it.
    """
    shapes = {name: np.shape(leaf) for name, leaf in named_leaves(params).items()}
    found: dict[str, ChannelGroup] = {}
    for group in groups:
        own = tuple(
            axis._replace(leaf=axis.leaf.removeprefix(PARAMS))
            for axis in group.axes
            if axis.leaf.startswith(PARAMS)
        )
        # Kernels are [..., inputs, outputs].
        writers = tuple(
            axis
            for axis in own
            if len(shapes[axis.leaf]) > 1 and axis.axis == len(shapes[axis.leaf]) - 1
        )
        rate = min((rates.get(axis.leaf, Fraction(0)) for axis in writers), default=Fraction(0))
        if not group.removable or not rate:
            continue
        state = tuple(axis for axis in group.axes if not axis.leaf.startswith(PARAMS))
        name = writers[0].leaf.rpartition("/")[0] or writers[0].leaf
        found[name] = ChannelGroup(group.units, own, state, writers, rate)
    return Channels(found)


def _over(
    axes: Sequence[Axis],
    leaves: Mapping[str, Any],
    kept: Mapping[str, Any],
    value: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> Float[np.ndarray, " units"]:
    """Returns the sum over each unit's kept weights of `value` of what `leaves` have for them."""
    parts = []
    for axis in axes:
        # In double precision, so that sums of equal numbers are equal.
        of_weights = value(np.asarray(leaves[axis.leaf]).astype(np.float64))
        parts.append(by_unit(np.where(np.asarray(kept[axis.leaf]), of_weights, 0), axis).sum(1))
    return np.sum(parts, 0)


def _single(scores: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    return {name: jnp.asarray(of.astype(np.float32)) for name, of in scores.items()}


def _best(scores: np.ndarray, alive: np.ndarray) -> Bool[np.ndarray, " units"]:
    """Returns a mask of the highest living score alone, the last of equal ones."""
    found = np.zeros(len(scores), bool)
    order = np.argsort(np.where(alive, scores, -np.inf), kind="stable")
    found[order[-1]] = alive.any()
    return found
