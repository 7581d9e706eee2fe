"""Statistics of each branch and level from the rows of `results.csv`, and which levels match.

A control with several draws is summarized over all its runs, draws times replicates, as in
Frankle & Carbin (2019, section 2: fifteen runs of random reinitialization against five tickets).
As long as every replicate has the same draws, that mean is also the mean over replicates.

A branch is *whole* at a level when it has a row of every replicate of the experiment (those that
any row of the trunk knows), each with the same draws. Only whole levels are judged: a level that
is still being trained, or that lacks the replicates by which an experiment grew, would be compared
with a dense network measured on other replicates. Its statistics are still given.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from lth_jax.store import CurvePoint
from lth_jax.store.tables import TRUNK, ResultRow


@dataclasses.dataclass(frozen=True)
class Stat:
    """A metric over runs, in the metric's unit; all NaN if a run's value is not finite.

    `std` is the sample standard deviation, 0 for one run.
    """

    mean: float
    minimum: float
    maximum: float
    std: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Stat:
        """Returns the statistics of at least one value."""
        if not all(map(math.isfinite, values)):
            return cls(math.nan, math.nan, math.nan, math.nan)
        low, high = min(values), max(values)
        # Rounding may put the mean of equal values one bit beside them, and unequal to itself.
        mean = min(max(math.fsum(values) / len(values), low), high)
        squares = math.fsum((value - mean) ** 2 for value in values)
        return cls(mean, low, high, math.sqrt(squares / max(len(values) - 1, 1)))

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of its bar in a figure: the minimum and the maximum."""
        return self.minimum, self.maximum


@dataclasses.dataclass(frozen=True)
class LevelSummary:
    """What the runs of one branch at one level gave. Accuracies and density are in [0, 1].

    `runs` counts rows, `replicates` the replicates they are of; `whole` is explained above.
    """

    branch: str
    level: int
    density: float
    runs: int
    replicates: int
    whole: bool
    early_stop_step: Stat
    early_stop_val_loss: Stat
    early_stop_val_accuracy: Stat
    early_stop_test_accuracy: Stat
    final_val_accuracy: Stat
    final_test_accuracy: Stat


def summarize(rows: Iterable[ResultRow]) -> list[LevelSummary]:
    """Returns a summary of each (branch, level) of `rows`, by level, then in `branch_order`."""
    rows = list(rows)
    replicates = {row.replicate for row in rows if row.branch == TRUNK}
    groups: dict[tuple[str, int], list[ResultRow]] = {}
    for row in rows:
        groups.setdefault((row.branch, row.level), []).append(row)
    order = {branch: index for index, branch in enumerate(branch_order(rows))}
    keys = sorted(groups, key=lambda key: (key[1], order[key[0]]))
    return [_summarize_level(groups[key], replicates) for key in keys]


def _summarize_level(rows: Sequence[ResultRow], replicates: set[int]) -> LevelSummary:
    draws: dict[int, set[int]] = {}
    for row in rows:
        draws.setdefault(row.replicate, set()).add(row.draw)
    even = len(set(map(frozenset, draws.values()))) == 1
    metrics = [field.name for field in dataclasses.fields(LevelSummary) if field.type == "Stat"]
    return LevelSummary(
        branch=rows[0].branch,
        level=rows[0].level,
        density=Stat.of([row.density for row in rows]).mean,
        runs=len(rows),
        replicates=len(draws),
        whole=even and set(draws) == replicates,
        **{metric: Stat.of([getattr(row, metric) for row in rows]) for metric in metrics},
    )


def branch_order(rows: Iterable[ResultRow]) -> list[str]:
    """Returns the branches of `rows`, the trunk first, the others as they first appear.

    Rows sorted by `lth_jax.store.tables.sort_rows` thus give the spec's order.
    """
    names = dict.fromkeys(row.branch for row in rows)
    return sorted(names, key=lambda name: name != TRUNK)  # the sort is stable


def matching_threshold(summaries: Iterable[LevelSummary]) -> float | None:
    """Returns the least mean validation accuracy at early stop that matches the dense network.

    It is the dense mean minus the dense sample standard deviation (0 with one replicate); None
    while the dense network is not trained for every replicate.
    """
    for summary in summaries:
        if summary.branch == TRUNK and summary.level == 0 and summary.whole:
            accuracy = summary.early_stop_val_accuracy
            return accuracy.mean - accuracy.std
    return None


def judge(summaries: Iterable[LevelSummary]) -> dict[tuple[str, int], bool]:
    """Returns whether each (branch, level) matches the dense network.

    A level matches when its mean `early_stop_val_accuracy` reaches `matching_threshold`. The dense
    network matches itself. Levels that are not whole are absent: neither matching nor not.
    """
    summaries = list(summaries)
    threshold = matching_threshold(summaries)
    if threshold is None:
        return {}
    return {
        (summary.branch, summary.level): summary.early_stop_val_accuracy.mean >= threshold
        for summary in summaries
        if summary.whole
    }


def lowest_matching_density(rows: Iterable[ResultRow], branch: str = TRUNK) -> float | None:
    """Returns the lowest density at which `branch` matches; 1.0 if only the dense network does.

    A fraction; None if nothing of the branch matches or could be judged.
    """
    summaries = summarize(rows)
    matches = judge(summaries)
    return min(
        (s.density for s in summaries if s.branch == branch and matches.get((branch, s.level))),
        default=None,
    )


class Curve(NamedTuple):
    """Validation accuracy over runs at each step that any of them has: arrays `[steps]`.

    Attributes:
      steps: int64.
      mean, low, high: fractions, over the runs that have the step.
      runs: how many there are.
    """

    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    runs: int


def mean_curve(points: Iterable[CurvePoint]) -> Curve:
    """Returns the mean and the range of a branch's evaluations at a level."""
    points = list(points)
    by_step: dict[int, list[float]] = {}
    for point in points:
        by_step.setdefault(point.step, []).append(point.val_accuracy)
    steps = sorted(by_step)
    mean, low, high = (
        np.array([reduce(by_step[step]) for step in steps]) for reduce in (np.mean, np.min, np.max)
    )
    runs = len({(point.replicate, point.draw) for point in points})
    return Curve(np.array(steps, np.int64), mean, low, high, runs)


def percent(fraction: float) -> str:
    """Writes a density for people: `100%`, `21.1%`, `3.6%`; two digits below 0.1% (`0.052%`).

    Only what is whole is called 100%.
    """
    value = 100 * fraction
    if value in (0, 100):
        return f"{value:.0f}%"
    if 0 < value < 0.1:
        digits = 1 - math.floor(math.log10(value))
        return f"{value:.{digits}f}%"
    return "99.9%" if 99.9 < value < 100 else f"{value:.1f}%"
