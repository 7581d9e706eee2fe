"""Published results beside ours: which of them come out.

A published number is held against the level whose density is nearest, if that is within a tenth of
its own; what is published of a range, against every level in it. Ours is a mean over replicates
with its 95% t-interval, and there are three answers:

- *no*: the interval and the published value, give or take its own uncertainty, have no point in
  common. Of a range one level is enough, in an interval that is as wide as it must be for a true
  claim to be denied in one of twenty runs, however many levels there are.
- *open*: they have, but what the claim denies lies in the interval, too: no effect where one is
  published, or less than the claim has as its bound.
- *yes*: else. Of a range every level agrees.

So a wide interval contradicts little, and shows little; how wide it is stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from statistics import fmean
from typing import Any, NamedTuple

from lth_jax.analysis.intervals import mean_interval
from lth_jax.analysis.paired import by_replicate
from lth_jax.analysis.summary import summarize
from lth_jax.analysis.verdicts import JUDGED, SPEED
from lth_jax.config.reference import Published, published
from lth_jax.store.table import column_of
from lth_jax.store.tables import RESULTS, TRUNK, ResultRow
from lth_jax.training.metrics import ACCURACY, Metric

TOLERANCE = 0.1  # by how much a level's density may differ from a published one, relatively
OF_RANGE = 0.02  # by how much it may lie outside of a published range: what rounding makes of one
DENSE = "dense"
# What a number of each kind is where a branch is as another one.
NO_EFFECT = {"gain": 0.0, "sooner": 0.0, "times": 1.0, "falls": 0.0}
NOT_RUN, CUT_SHORT, AT_ONCE = "not run", "cut short", "stopped at step 0"


class Within(Enum):
    """Whether a published number comes out, see above; in order of how little it agrees."""

    NO = "no"
    OPEN = "open"
    YES = "yes"


class Compared(NamedTuple):
    """A published number and ours.

    Attributes:
      published: the former.
      density: of the level that is compared; NaN where none is.
      ours: the mean over replicates; low, high: its 95% t-interval, NaN for one replicate. Of a
        density from which a branch falls, 0 is "at no level tried".
      within: whether they agree; None where they cannot be compared.
      note: why not: `not run`; `cut short`: training ended before a network would stop; or `stopped
        at step 0`, which is no factor of anything.
    """

    published: Published
    density: float = math.nan
    ours: float = math.nan
    low: float = math.nan
    high: float = math.nan
    within: Within | None = None
    note: str = ""

    @property
    def difference(self) -> float:
        """Ours minus the published value."""
        return self.ours - self.published.value


class _Results:
    """An experiment's results by branch and level, those that every replicate has."""

    def __init__(self, rows: Iterable[ResultRow], metric: Metric):
        self.rows, self.metric = list(rows), metric
        self.levels = {(s.branch, s.level): s for s in summarize(self.rows) if s.whole}
        self.columns: dict[str, dict[tuple[str, int], dict[int, float]]] = {}

    def of(self, column: str, branch: str, level: int) -> dict[int, float]:
        """Returns a column by replicate, draws by their mean; the dense network is of any level."""
        if column not in self.columns:
            fields = {column_of(name, self.metric.column): name for name in RESULTS.columns}
            self.columns[column] = by_replicate(self.rows, fields.get(column, column))
        return self.columns[column].get(self.key(branch, level), {})

    def key(self, branch: str, level: int) -> tuple[str, int]:
        """Returns which branch and level a name stands for."""
        return (TRUNK, 0) if branch == DENSE else (branch, level)

    def of_branch(self, branch: str) -> list[tuple[float, int]]:
        """Returns (density, level) of a branch's levels, densest first."""
        found = [(s.density, s.level) for (name, _), s in self.levels.items() if name == branch]
        return sorted(((d, level) for d, level in found if d > 0), reverse=True)

    def censored(self, branch: str, level: int) -> bool:
        """Whether training ended before some network of a level would stop."""
        summary = self.levels.get(self.key(branch, level))
        return summary is not None and summary.censored


def compare(
    rows: Iterable[ResultRow], reference: Mapping[str, Any], metric: Metric = ACCURACY
) -> list[Compared]:
    """Returns each published number of `config.reference` with ours.

    Args:
      rows: an experiment's results.
      reference: the spec's.
      metric: what networks are measured by; a gain is positive where it is better.
    """
    results = _Results(rows, metric)
    return [_compared(results, one) for one in published(reference)]


def reproduced(compared: Sequence[Compared]) -> tuple[int, int, int]:
    """Returns (how many agree, how many are open, how many could be compared)."""
    judged = [one.within for one in compared if one.within is not None]
    return judged.count(Within.YES), judged.count(Within.OPEN), len(judged)


def _compared(results: _Results, one: Published) -> Compared:
    if one.kind == "falls":
        return _falls(results, one)
    levels = [x for x in results.of_branch(one.branch) if x[1] > 0 or not one.against]
    if one.relation == "over":
        first, last = one.densities[0], one.densities[-1]
        inside = [x for x in levels if last / (1 + OF_RANGE) <= x[0] <= first * (1 + OF_RANGE)]
    else:
        near = [x for x in levels if abs(x[0] / one.densities[0] - 1) <= TOLERANCE]
        inside = sorted(near, key=lambda x: abs(math.log(x[0] / one.densities[0])))[:1]
    measured = [_measured(results, one, *at, levels=len(inside)) for at in inside]
    measured = [each for each in measured if each.note != NOT_RUN]
    order = [None, *Within]
    # Of a range the level that could not be compared, or agrees least.
    return min(
        measured,
        key=lambda each: (order.index(each.within), each.ours),
        default=Compared(one, note=NOT_RUN),
    )


def _measured(
    results: _Results, one: Published, density: float, level: int, levels: int
) -> Compared:
    steps = one.kind in (SPEED, "sooner", "times")
    judged = column_of(JUDGED, results.metric.column)
    column = judged if one.kind == "gain" else SPEED if steps else one.kind
    mine = results.of(column, one.branch, level)
    if one.against:
        other = results.of(column, one.against, level)
        shared = sorted(mine.keys() & other.keys())
        pairs = [(mine[r], other[r]) for r in shared]
    else:
        pairs = [(value, math.nan) for value in mine.values()]
    if not pairs or (one.against and results.key(one.against, level) not in results.levels):
        return Compared(one, note=NOT_RUN)
    branches = [one.branch, *filter(None, [one.against])]
    if steps and any(results.censored(branch, level) for branch in branches):
        return Compared(one, density, note=CUT_SHORT)
    back: Callable[[float], float] = float
    if steps and one.against:
        if not all(a > 0 and b > 0 for a, b in pairs):
            return Compared(one, density, note=AT_ONCE)
        # Factors are averaged as factors: twice and half as fast are as fast.
        values = [math.log(b / a) for a, b in pairs]
        back = math.exp if one.kind == "times" else lambda value: 1 - math.exp(-value)
    else:
        values = [results.metric.sign * (a - b) if one.against else a for a, b in pairs]
    ours, low, high = map(back, (fmean(values), *mean_interval(values)))
    highest = back(mean_interval(values, 1 - 0.05 / levels)[1])
    return _judged(Compared(one, density, ours, low, high), highest)


def _judged(one: Compared, highest: float) -> Compared:
    """Returns `one` with whether it agrees; a mean without an interval is a point.

    Args:
      one: without an answer.
      highest: what the mean must lie below for a bound to be denied; NaN for one replicate.
    """
    if not math.isfinite(one.ours):
        return one._replace(note=NOT_RUN)
    claim = one.published
    low, high = (one.low, one.high) if math.isfinite(one.low) else (one.ours, one.ours)
    least, most = claim.value - claim.uncertainty, claim.value + claim.uncertainty
    if claim.relation == "over":
        denied = (highest if math.isfinite(highest) else one.ours) < least
        shown = low >= least
    else:
        denied = high < least or low > most
        nothing = NO_EFFECT.get(claim.kind, math.nan) if claim.against else math.nan
        shown = not low <= nothing <= high or least <= nothing <= most
    return one._replace(within=Within.NO if denied else Within.YES if shown else Within.OPEN)


def _falls(results: _Results, one: Published) -> Compared:
    """Returns from which density on a branch is below another, at all sparser levels too.

    The mean says where; between the ends of the interval lie the levels of which it is open.
    """
    judged, sign = column_of(JUDGED, results.metric.column), results.metric.sign
    levels = []
    for density, level in results.of_branch(one.branch):
        mine = results.of(judged, one.branch, level)
        other = results.of(judged, one.against, level)
        shared = mine.keys() & other.keys()
        if level > 0 and shared:
            gains = [sign * (mine[r] - other[r]) for r in shared]
            levels.append((density, fmean(gains), *mean_interval(gains)))
    # Where the published level was not reached, nothing is known of it.
    if not levels or levels[-1][0] > one.value * (1 + TOLERANCE):
        return Compared(one, note=NOT_RUN)

    def since(at_least_equal: Sequence[bool]) -> float:
        """Returns the density of the first level after the last True; 0 for none."""
        after = max((i + 1 for i, holds in enumerate(at_least_equal) if holds), default=0)
        return levels[after][0] if after < len(levels) else 0.0

    ours = since([mean >= 0 for _, mean, _, _ in levels])
    low, high = math.nan, math.nan
    if math.isfinite(levels[0][2]):
        low = since([upper >= 0 for *_, upper in levels])
        high = since([lower > 0 for _, _, lower, _ in levels])
    return _judged(Compared(one, ours, ours, low, high), high)
