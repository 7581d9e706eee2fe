"""Statistics of each branch and level from the rows of `results.csv`.

A control with several draws is summarized over all its runs, draws times replicates, as in
Frankle & Carbin (2019, section 2: fifteen runs of random reinitialization against five tickets).
As long as every replicate has the same draws, that mean is also the mean over replicates. Intervals
are over replicates, since the draws of one replicate see the same batches.

A branch is *whole* at a level when it has a row of every replicate of the experiment (those that
any row of the trunk knows, and whose ticket has not ended before), each with the same draws. Only
whole levels are judged: a level that is still being trained, or that lacks the replicates by which
an experiment grew, would be compared with a dense network measured on other replicates. Its
statistics are still given.

A run that diverged is counted, and enters no mean.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from lth_jax.analysis.intervals import mean_interval
from lth_jax.store import CurvePoint
from lth_jax.store.tables import TRUNK, ResultRow

INTERVAL, RANGE = "interval", "range"  # what a bar shows


@dataclasses.dataclass(frozen=True)
class Stat:
    """A metric over runs, in the metric's unit; all NaN if a run's value is not finite.

    Attributes:
      mean, minimum, maximum: over runs.
      std: the sample standard deviation over runs, 0 for one.
      low, high: the 95% t-interval of the mean over replicates, NaN for one.
    """

    mean: float
    minimum: float
    maximum: float
    std: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float], replicates: Sequence[int] | None = None) -> Stat:
        """Returns the statistics of values, each of the replicate beside it (its own by default).

        Without any value, or with one that is not finite, all of them are NaN.
        """
        if not values or not all(map(math.isfinite, values)):
            return cls(*6 * [math.nan])
        by_replicate: dict[int, list[float]] = {}
        for replicate, value in zip(replicates or range(len(values)), values, strict=True):
            by_replicate.setdefault(replicate, []).append(value)
        smallest, largest = min(values), max(values)
        # Rounding may put the mean of equal values one bit beside them, and unequal to itself.
        mean = min(max(math.fsum(values) / len(values), smallest), largest)
        squares = math.fsum((value - mean) ** 2 for value in values)
        std = math.sqrt(squares / max(len(values) - 1, 1))
        low, high = mean_interval([sum(own) / len(own) for own in by_replicate.values()])
        return cls(mean, smallest, largest, std, low, high)

    def bar(self, kind: str = INTERVAL) -> tuple[float, float]:
        """Returns the ends of its bar: the 95% interval of the mean, or minimum and maximum."""
        return (self.minimum, self.maximum) if kind == RANGE else (self.low, self.high)


@dataclasses.dataclass(frozen=True)
class LevelSummary:
    """What the runs of one branch at one level gave. Accuracies and density are in [0, 1].

    Attributes:
      branch, level, density: which.
      runs: rows; replicates: how many replicates they are of; diverged: rows that enter no mean.
      whole: see above.
      censored: whether a run's early stop is its last evaluation, so that training ended before
        it would have stopped, and its step is a lower bound.
    """

    branch: str
    level: int
    density: float
    runs: int
    replicates: int
    diverged: int
    whole: bool
    censored: bool
    early_stop_step: Stat
    early_stop_val_loss: Stat
    early_stop_val_accuracy: Stat
    early_stop_test_accuracy: Stat
    final_val_accuracy: Stat
    final_test_accuracy: Stat


def summarize(rows: Iterable[ResultRow]) -> list[LevelSummary]:
    """Returns a summary of each (branch, level) of `rows`, by level, then in `branch_order`."""
    rows = list(rows)
    ends = _ends(rows)
    groups: dict[tuple[str, int], list[ResultRow]] = {}
    for row in rows:
        groups.setdefault((row.branch, row.level), []).append(row)
    order = {branch: index for index, branch in enumerate(branch_order(rows))}
    keys = sorted(groups, key=lambda key: (key[1], order[key[0]]))
    return [_summarize_level(groups[key], ends) for key in keys]


def _ends(rows: Iterable[ResultRow]) -> dict[int, float]:
    """Returns the replicates of the trunk, each with the level at which its ticket ended."""
    ends: dict[int, float] = {}
    reached: dict[int, int] = {}
    for row in rows:
        if row.branch == TRUNK:
            ends.setdefault(row.replicate, math.inf)
            reached[row.replicate] = max(row.level, reached.get(row.replicate, 0))
            if row.diverged >= 0:
                ends[row.replicate] = min(row.level, ends[row.replicate])
    # Where levels are pruned from the dense network, a ticket that diverged ends nothing.
    return {r: max(end, reached[r]) if end < math.inf else end for r, end in ends.items()}


def _summarize_level(rows: Sequence[ResultRow], ends: dict[int, float]) -> LevelSummary:
    draws: dict[int, set[int]] = {}
    for row in rows:
        draws.setdefault(row.replicate, set()).add(row.draw)
    even = len(set(map(frozenset, draws.values()))) == 1
    expected = {replicate for replicate, end in ends.items() if end >= rows[0].level}
    counted = [row for row in rows if row.diverged < 0]
    of = [row.replicate for row in counted]
    metrics = [field.name for field in dataclasses.fields(LevelSummary) if field.type == "Stat"]
    return LevelSummary(
        branch=rows[0].branch,
        level=rows[0].level,
        density=Stat.of([row.density for row in rows]).mean,
        runs=len(rows),
        replicates=len(draws),
        diverged=len(rows) - len(counted),
        whole=even and set(draws) == expected,
        censored=any(row.censored for row in counted),
        **{metric: Stat.of([getattr(row, metric) for row in counted], of) for metric in metrics},
    )


def branch_order(rows: Iterable[ResultRow]) -> list[str]:
    """Returns the branches of `rows`, the trunk first, the others as they first appear.

    Rows sorted by `lth_jax.store.tables.sort_rows` thus give the spec's order.
    """
    names = dict.fromkeys(row.branch for row in rows)
    return sorted(names, key=lambda name: name != TRUNK)  # the sort is stable


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


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Returns the mean of the `width` values (an odd number) around each, in the same shape.

    Near the ends it is that of as many on either side as there are, so that the first value and the
    last stay, and a straight line is left as it is.
    """
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    place = np.arange(len(values))
    reach = np.minimum(width // 2, np.minimum(place, len(values) - 1 - place))
    return (sums[place + reach + 1] - sums[place - reach]) / (2 * reach + 1)


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
