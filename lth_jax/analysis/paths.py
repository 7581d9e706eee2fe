"""Error barriers on the paths between networks, and what can be said of stability.

Frankle et al. (2020, §2): the barrier of a pair is the highest error on the straight line between
them, less the mean of the errors at its ends. Where the barrier between two copies that were
trained in other data orders is below 2 points, the network is *stable* to that noise.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np

from lth_jax.analysis.intervals import mean_interval, one_sided
from lth_jax.store.tables import PathPoint

STABLE = 0.02  # the barrier below which two networks are called linearly connected
SPLITS = ("test", "train")


class Barrier(NamedTuple):
    """How much worse networks between two trained ones are, over replicates.

    Attributes:
      pair: what the two are to each other.
      level: of the first; density: of its mask, the mean over replicates.
      against: the branch of the second, where it is not the first's.
      parted: the step at which siblings of the dense network parted; -1 of others.
      aligned: by what the second's units were put into the first's order, or `none`.
      replicates: how many there are.
      values: each replicate's barrier (a fraction of errors; pairs of one replicate by their mean).
      mean: of these; low, high: its 95% t-interval, NaN for one replicate.
      l2, angle: how far the two lie apart, means.
    """

    pair: str
    level: int
    density: float
    against: str
    parted: int
    aligned: str
    replicates: int
    values: tuple[float, ...]
    mean: float
    low: float
    high: float
    l2: float
    angle: float


def barrier(errors: Sequence[float]) -> float:
    """Returns the highest error on a path, less the mean of its ends.

    Args:
      errors: from the first network to the second, both included.
    """
    return max(errors) - (errors[0] + errors[-1]) / 2


def against(point: PathPoint) -> str:
    """Returns the branch of the second network, where it is not that of the first; '' where it is.

    Networks are named as `sibling:0:2:1`.
    """
    first, second = (name.split(":")[-4] for name in (point.first, point.second))
    return "" if first == second else second


def barriers(points: Iterable[PathPoint], split: str = "test") -> list[Barrier]:
    """Returns the barriers of a run, by pair, level, what it is against, parting and alignment.

    Args:
      points: its `paths.csv`.
      split: `test` or `train`, whose errors are meant.
    """
    paths: dict[tuple[str, str, str, str], list[PathPoint]] = {}
    for point in points:
        key = point.pair, point.first, point.second, point.aligned
        paths.setdefault(key, []).append(point)
    groups: dict[tuple[str, int, str, int, str], list[tuple[int, float, PathPoint]]] = {}
    for path in paths.values():
        path.sort(key=lambda point: point.alpha)
        one = path[0]
        height = barrier([getattr(point, f"{split}_error") for point in path])
        group = one.pair, one.level, against(one), one.parted, one.aligned
        groups.setdefault(group, []).append((one.replicate, height, one))
    found = []
    for (pair, level, other, parted, aligned), members in sorted(groups.items()):
        by_replicate: dict[int, list[float]] = {}
        for replicate, height, _ in members:
            by_replicate.setdefault(replicate, []).append(height)
        # Two networks of different replicates belong to the first of them.
        values = tuple(fmean(of) for of in by_replicate.values())
        firsts = [point for _, _, point in members]
        found.append(
            Barrier(
                pair, level, fmean(p.density for p in firsts), other, parted, aligned,
                len(values), values, fmean(values), *mean_interval(values),
                fmean(p.l2 for p in firsts), fmean(p.angle for p in firsts),
            )
        )  # fmt: skip
    return found


class Stability(enum.StrEnum):
    """What can be said of a pair's barrier."""

    STABLE = "stable"
    UNSTABLE = "unstable"
    UNDECIDED = "undecided"


def stability(one: Barrier, confidence: float = 0.95, below: float = STABLE) -> Stability:
    """Returns whether the mean barrier is below 2 points, above, or neither can be said.

    Each of the two with `confidence`, by a one-sided t-interval over replicates; one replicate
    says nothing.
    """
    low, high = map(float, one_sided(np.array(one.values), confidence))
    if high < below:
        return Stability.STABLE
    return Stability.UNSTABLE if low > below else Stability.UNDECIDED


def stable_from(siblings: Iterable[Barrier], confidence: float = 0.95) -> int | None:
    """Returns the earliest step from which on the dense network is stable; None if that is open.

    A fixed sequence, from the latest step to the earliest, that stops at the first that is not
    stable: so the error of saying "stable from step k on" stays that of one statement.
    """
    found = None
    for one in sorted(siblings, key=lambda one: one.parted, reverse=True):
        if stability(one, confidence) is not Stability.STABLE:
            break
        found = one.parted
    return found
