"""How far masks agree: between replicates and between levels, and what chance would give.

Two masks of a layer are compared by their Jaccard index, the weights that both keep over those that
either keeps. Two random masks that keep `p` and `q` of `n` weights share `pq / n` on average; their
index is given as that expectation over the expected union. Layers are compared one by one and
summed, so that chance knows how dense each layer is.

Hidden units of different replicates have no common order: what two replicates share beyond chance
is what the data and the layers' ends (pixels and classes) fix.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from lth_jax.pruning.trees import count_true

# (replicate, level) -> layer name -> its mask.
LevelMasks = Mapping[tuple[int, int], Mapping[str, "PackedMask"]]


class PackedMask(NamedTuple):
    """A mask in an eighth of its bytes: every level of every replicate is held at once.

    Attributes:
      bits: uint8 `[ceil(size / 8)]`, padded with zeros.
      shape: of the mask.
      kept: how many weights it keeps.
    """

    bits: np.ndarray
    shape: tuple[int, ...]
    kept: int

    @classmethod
    def of(cls, mask: Any) -> PackedMask:
        """Packs a bool array of any shape."""
        mask = np.asarray(mask, bool)
        return cls(np.packbits(mask), mask.shape, count_true(mask))

    @property
    def size(self) -> int:
        """How many weights the layer has."""
        return math.prod(self.shape)

    def unpacked(self) -> np.ndarray:
        """Returns the mask, bool of its shape."""
        return np.unpackbits(self.bits, count=self.size).astype(bool).reshape(self.shape)


class Overlap(NamedTuple):
    """Two masks, counted: the weights that both and that either keep, found and by chance."""

    both: int
    either: int
    chance_both: float
    chance_either: float

    @property
    def jaccard(self) -> float:
        """The Jaccard index; NaN where neither keeps anything."""
        return self.both / self.either if self.either else math.nan

    @property
    def chance(self) -> float:
        """The index that random masks of the same counts would have."""
        return self.chance_both / self.chance_either if self.chance_either else math.nan


def overlap(one: PackedMask, other: PackedMask) -> Overlap:
    """Returns the overlap of two masks of one layer.

    Raises:
      ValueError: their shapes differ.
    """
    if one.shape != other.shape:
        raise ValueError(f"masks of shapes {one.shape} and {other.shape} cannot be compared")
    both = int(np.bitwise_count(one.bits & other.bits).sum(dtype=np.int64))
    chance = one.kept * other.kept / one.size if one.size else 0.0
    kept = one.kept + other.kept
    return Overlap(both, kept - both, chance, kept - chance)


def total(overlaps: Iterable[Overlap]) -> Overlap:
    """Returns the overlaps of several layers as one."""
    return Overlap(*map(sum, zip(Overlap(0, 0, 0.0, 0.0), *overlaps, strict=True)))


def compare(one: Mapping[str, PackedMask], other: Mapping[str, PackedMask]) -> dict[str, Overlap]:
    """Returns the overlap of each layer that two networks of one architecture have."""
    return {name: overlap(mask, other[name]) for name, mask in one.items()}


def between_replicates(masks: LevelMasks) -> dict[int, list[dict[str, Overlap]]]:
    """Returns for each level that two replicates have: each pair's overlaps by layer."""
    found: dict[int, list[dict[str, Overlap]]] = {}
    for (one, level), (other, at) in itertools.combinations(sorted(masks), 2):
        if level == at:
            pair = compare(masks[one, level], masks[other, level])
            found.setdefault(level, []).append(pair)
    return dict(sorted(found.items()))


class LevelOverlaps(NamedTuple):
    """Mean Jaccard indices of levels with levels, float64 `[levels, levels]` each.

    Attributes:
      levels: those of the axes.
      same: of one replicate's masks.
      different: of two replicates' masks.
      chance: of random masks. Each is NaN where nothing could be compared.
    """

    levels: tuple[int, ...]
    same: np.ndarray
    different: np.ndarray
    chance: np.ndarray


def between_levels(masks: LevelMasks) -> LevelOverlaps:
    """Compares every level's masks with every other's, all layers summed."""
    levels = tuple(sorted({level for _, level in masks}))
    shape = len(levels), len(levels)
    same, different, chance = (np.full(shape, math.nan) for _ in range(3))
    for (i, one), (j, other) in itertools.combinations_with_replacement(enumerate(levels), 2):
        found = list(_between(masks, one, other))
        for grid, values in (
            (same, [pair.jaccard for is_same, pair in found if is_same]),
            (different, [pair.jaccard for is_same, pair in found if not is_same]),
            (chance, [pair.chance for _, pair in found]),
        ):
            finite = [value for value in values if math.isfinite(value)]
            if finite:
                grid[i, j] = grid[j, i] = math.fsum(finite) / len(finite)
    return LevelOverlaps(levels, same, different, chance)


def _between(masks: LevelMasks, one: int, other: int) -> Iterable[tuple[bool, Overlap]]:
    """Gives (whether it is one replicate's, overlap) of every pair of masks of two levels."""
    replicates = sorted({replicate for replicate, _ in masks})
    for a, b in itertools.product(replicates, repeat=2):
        if (a, one) in masks and (b, other) in masks and (one != other or a <= b):
            yield a == b, total(compare(masks[a, one], masks[b, other]).values())
