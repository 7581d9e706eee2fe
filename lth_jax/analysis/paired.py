"""The paired difference of ticket and control, replicate by replicate, with its standard error.

A ticket and its controls of one replicate see the same batches in the same order, so that their
difference has less noise than either. It is taken within each replicate first (a control with
several draws enters by their mean), then over replicates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import fmean
from typing import NamedTuple

from lth_jax.analysis.summary import branch_order
from lth_jax.store.tables import TRUNK, ResultRow


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

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of its bar in a figure: one standard error below and above the mean."""
        error = 0.0 if math.isnan(self.error) else self.error
        return self.mean - error, self.mean + error


def paired_differences(rows: Iterable[ResultRow], metric: str) -> list[Paired]:
    """Returns ticket minus control for each control and level, by control, then by level.

    Args:
      rows: an experiment's results.
      metric: a column of theirs, such as `early_stop_test_accuracy`.
    """
    rows = list(rows)
    values: dict[tuple[str, int], dict[int, list[float]]] = {}
    densities: dict[int, list[float]] = {}
    for row in rows:
        replicates = values.setdefault((row.branch, row.level), {})
        replicates.setdefault(row.replicate, []).append(getattr(row, metric))
        if row.branch == TRUNK:
            densities.setdefault(row.level, []).append(row.density)
    order = branch_order(rows)
    found = []
    for branch, level in sorted(values, key=lambda key: (order.index(key[0]), key[1])):
        ticket, control = values.get((TRUNK, level), {}), values[branch, level]
        shared = tuple(sorted(ticket.keys() & control.keys()))
        if branch == TRUNK or not shared:
            continue
        differences = tuple(fmean(ticket[r]) - fmean(control[r]) for r in shared)
        mean, error = fmean(differences), math.nan
        if len(shared) > 1:
            squares = math.fsum((difference - mean) ** 2 for difference in differences)
            error = math.sqrt(squares / (len(shared) - 1) / len(shared))
        density = fmean(densities[level])
        found.append(Paired(branch, level, density, shared, differences, mean, error))
    return found
