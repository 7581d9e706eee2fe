"""The paired difference of ticket and control: replicate by replicate, with its standard error.

A ticket and its controls of one replicate see the same batches in the same order, so that their
difference has less noise than either. It is taken within each replicate first (a control with
several draws enters by their mean), then over replicates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lth_jax.analysis.summary import branch_order
from lth_jax.store.results import TRUNK, ResultRow


class Paired(NamedTuple):
    """Ticket minus one control at one level, in the metric's unit.

    Attributes:
      branch, level: which control, where.
      density: the mean of the ticket's.
      replicates: those that both have; differences: theirs, in this order.
      mean: of the differences; error: its standard error, NaN for one replicate.
    """

    branch: str
    level: int
    density: float
    replicates: tuple[int, ...]
    differences: tuple[float, ...]
    mean: float
    error: float


def paired_differences(rows: Iterable[ResultRow], metric: str) -> list[Paired]:
    """Ticket minus control for each control and level, by control, then by level.

    Args:
      rows: an experiment's results.
      metric: a column of theirs, such as `early_stop_test_accuracy`.
    """
    rows = list(rows)
    values: dict[tuple[str, int, int], list[float]] = {}
    densities: dict[int, list[float]] = {}
    for row in rows:
        values.setdefault((row.branch, row.level, row.replicate), []).append(getattr(row, metric))
        if row.branch == TRUNK:
            densities.setdefault(row.level, []).append(row.density)
    found = []
    for branch in branch_order(rows):
        for level in sorted({row.level for row in rows if row.branch == branch != TRUNK}):
            shared = sorted(
                replicate
                for name, at, replicate in values
                if (name, at) == (branch, level) and (TRUNK, level, replicate) in values
            )
            differences = [
                _mean(values[TRUNK, level, r]) - _mean(values[branch, level, r]) for r in shared
            ]
            if shared:
                density = _mean(densities[level])
                found.append(_paired(branch, level, density, shared, differences))
    return found


def _paired(
    branch: str, level: int, density: float, replicates: Sequence[int], differences: Sequence[float]
) -> Paired:
    mean = _mean(differences)
    error = math.nan
    if len(differences) > 1:
        squares = math.fsum((difference - mean) ** 2 for difference in differences)
        error = math.sqrt(squares / (len(differences) - 1) / len(differences))
    return Paired(branch, level, density, tuple(replicates), tuple(differences), mean, error)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
