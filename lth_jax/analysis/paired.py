"""Paired differences, replicate by replicate: branch against dense network, ticket against control.

All networks of one replicate see the same batches in the same order, so that a difference has less
noise than either. It is taken within each replicate first (a branch with several draws enters by
their mean), then over replicates. Runs that diverged are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import NamedTuple

from lth_jax.analysis.intervals import mean_interval
from lth_jax.analysis.summary import branch_order
from lth_jax.store.tables import TRUNK, ResultRow

# (branch, level) -> replicate -> the mean over its draws.
ByReplicate = dict[tuple[str, int], dict[int, float]]


class Paired(NamedTuple):
    """A difference between two branches at one level, in the metric's unit.

    Attributes:
      branch, level: whose, where.
      density: the mean of the ticket's at that level.
      replicates: those that both have; differences: theirs, in this order.
      mean: of the differences; low, high: its 95% t-interval, NaN for one replicate.
    """

    branch: str
    level: int
    density: float
    replicates: tuple[int, ...]
    differences: tuple[float, ...]
    mean: float
    low: float
    high: float


def by_replicate(rows: Iterable[ResultRow], metric: str) -> ByReplicate:
    """Returns a column of the rows by branch, level and replicate, draws by their mean."""
    values: dict[tuple[str, int], dict[int, list[float]]] = {}
    for row in rows:
        if row.diverged < 0:
            of = values.setdefault((row.branch, row.level), {})
            of.setdefault(row.replicate, []).append(getattr(row, metric))
    return {key: {r: fmean(v) for r, v in of.items()} for key, of in values.items()}


def difference(
    branch: str, level: int, density: float, one: Mapping[int, float], other: Mapping[int, float]
) -> Paired | None:
    """Returns `one` minus `other` over the replicates that both have; None if there are none."""
    shared = tuple(sorted(one.keys() & other.keys()))
    if not shared:
        return None
    differences = tuple(one[r] - other[r] for r in shared)
    ends = mean_interval(differences)
    return Paired(branch, level, density, shared, differences, fmean(differences), *ends)


def paired_differences(rows: Iterable[ResultRow], metric: str) -> list[Paired]:
    """Returns ticket minus control for each control and level, by control, then by level.

    Args:
      rows: an experiment's results.
      metric: a column of theirs, such as `early_stop_test_accuracy`.
    """
    rows = list(rows)
    values, densities, order = by_replicate(rows, metric), _densities(rows), branch_order(rows)
    found = []
    for branch, level in sorted(values, key=lambda key: (order.index(key[0]), key[1])):
        ticket = values.get((TRUNK, level), {})
        if branch != TRUNK and ticket:
            found.append(difference(branch, level, densities[level], ticket, values[branch, level]))
    return [pair for pair in found if pair]


def dense_differences(rows: Iterable[ResultRow], metric: str, sign: int = 1) -> list[Paired]:
    """Returns branch minus dense network for each branch and level from 1 on, in the same order.

    Args:
      rows: an experiment's results.
      metric: a column of theirs.
      sign: -1 turns differences around: those of a metric of which less is better are gains then.
    """
    rows = list(rows)
    values, order = by_replicate(rows, metric), branch_order(rows)
    values = {key: {r: sign * v for r, v in of.items()} for key, of in values.items()}
    densities = {(row.branch, row.level): row.density for row in rows}
    found = [
        difference(branch, level, densities[branch, level], of, values.get((TRUNK, 0), {}))
        for (branch, level), of in values.items()
        if level > 0
    ]
    return sorted(
        (pair for pair in found if pair), key=lambda pair: (order.index(pair.branch), pair.level)
    )


def _densities(rows: Iterable[ResultRow]) -> dict[int, float]:
    found: dict[int, list[float]] = {}
    for row in rows:
        if row.branch == TRUNK:
            found.setdefault(row.level, []).append(row.density)
    return {level: fmean(each) for level, each in found.items()}
