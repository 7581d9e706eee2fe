"""Methods against one another: every branch of a level at the same count, ranked, with its cost.

Each pair of methods is compared replicate by replicate, in what levels are judged by: test accuracy
at early stop, or another metric. Two methods *differ* where the two-sided p-value of their paired
differences, corrected by Holm over all pairs of methods at that level, says so: the chance of any
wrong statement at a level is then at most 1 - confidence. Levels are not corrected for one another.

What a method costs is all that its network takes: its own training, and that of the networks which
its mask or its weights are made of. So a ticket costs every level before it, and a control that
needs its mask as much.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from lth_jax.analysis.intervals import holm, mean_interval, p_above
from lth_jax.analysis.paired import Paired, by_replicate, difference
from lth_jax.analysis.summary import branch_order, summarize
from lth_jax.analysis.verdicts import JUDGED, Standard
from lth_jax.config import Spec
from lth_jax.lottery.pending import levels_behind
from lth_jax.lottery.plan import giver
from lth_jax.store.tables import TRUNK, ResultRow, RunId

COSTS = ("steps", "train_seconds", "operations")


class Cost(NamedTuple):
    """What a method's network takes, the networks before it included; a mean over runs.

    Attributes:
      steps: updates.
      train_seconds: as they were measured, beside whatever ran at the time.
      operations: floating-point operations, counted from masks; NaN where tables do not say.
    """

    steps: float
    train_seconds: float
    operations: float


class Method(NamedTuple):
    """A branch at one level, by its rank there.

    Attributes:
      branch: its name.
      mean: of what is judged, over replicates; low, high: its 95% t-interval, NaN for one.
      final: the same at the end of training, mean.
      cost: what it takes.
    """

    branch: str
    mean: float
    low: float
    high: float
    final: float
    cost: Cost


class PairOfMethods(NamedTuple):
    """Two methods at one level, the one of the better rank first.

    Attributes:
      difference: the first minus the second, positive where the first is better, by replicate.
      p_value: two-sided, corrected by Holm over all pairs of the level; 1 for one replicate.
      differs: whether that is at most 1 - confidence.
    """

    difference: Paired
    p_value: float
    differs: bool


class Comparison(NamedTuple):
    """The methods of one level.

    Attributes:
      level, density: which, and what its ticket keeps.
      methods: the best first.
      pairs: (rank of the first, rank of the second), from 0 -> what is said of the two.
      left_out: branches that are not ranked: a replicate of theirs diverged, or is not done.
    """

    level: int
    density: float
    methods: tuple[Method, ...]
    pairs: dict[tuple[int, int], PairOfMethods]
    left_out: tuple[str, ...]

    def differing(self, rank: int) -> list[int]:
        """Returns the ranks from which a method differs, in order."""
        pairs = [pair for pair, found in self.pairs.items() if rank in pair and found.differs]
        return sorted(one if two == rank else two for one, two in pairs)


def compare_methods(
    rows: Iterable[ResultRow], spec: Spec, standard: Standard | None = None
) -> list[Comparison]:
    """Returns the comparison of each level that has branches, densest first.

    Args:
      rows: an experiment's results.
      spec: the experiment, which says what its branches are made of.
      standard: by what is judged; its own by default.
    """
    rows = list(rows)
    standard = standard or Standard.of(spec)
    summaries = summarize(rows)
    levels = dict.fromkeys(s.level for s in summaries if s.branch != TRUNK and s.level)
    return [
        one
        for level in levels
        if (one := _compared([r for r in rows if r.level <= level], level, spec, standard))
    ]


def _compared(
    rows: Sequence[ResultRow], level: int, spec: Spec, standard: Standard
) -> Comparison | None:
    here = [summary for summary in summarize(rows) if summary.level == level]
    ranked = {s.branch for s in here if s.whole and not s.diverged}
    judged, final = (by_replicate(rows, column) for column in (JUDGED, "final_test_accuracy"))
    sign = standard.metric.sign
    by_id = {row.run_id: row for row in rows}
    methods = [
        _method(
            branch, judged[branch, level], final[branch, level], _cost(branch, level, by_id, spec)
        )
        for branch in branch_order(rows)
        if branch in ranked
    ]
    if len(methods) < 2:
        return None
    methods.sort(key=lambda method: -sign * method.mean)  # stable: equal ones in the spec's order
    density = fmean(row.density for row in rows if (row.branch, row.level) == (TRUNK, level))
    found: dict[tuple[int, int], Paired] = {}
    for one, other in itertools.combinations(range(len(methods)), 2):
        values = [
            {replicate: sign * value for replicate, value in judged[method.branch, level].items()}
            for method in (methods[one], methods[other])
        ]
        pair = difference(methods[one].branch, level, density, *values)
        assert pair, "whole levels have every replicate"
        found[one, other] = pair
    corrected = holm([_two_sided(one.differences, standard.resolution) for one in found.values()])
    pairs = {
        ranks: PairOfMethods(pair, p, p <= 1 - standard.confidence)
        for (ranks, pair), p in zip(found.items(), corrected, strict=True)
    }
    left_out = tuple(summary.branch for summary in here if summary.branch not in ranked)
    return Comparison(level, density, tuple(methods), pairs, left_out)


def _method(
    branch: str, judged: Mapping[int, float], final: Mapping[int, float], cost: Cost
) -> Method:
    values = list(judged.values())
    return Method(branch, fmean(values), *mean_interval(values), fmean(final.values()), cost)


def _two_sided(values: Sequence[float], resolution: float) -> float:
    above, below = (p_above([sign * v for v in values], 0, resolution) for sign in (1, -1))
    return min(1.0, 2 * min(above, below))


def _cost(branch: str, level: int, rows: dict[RunId, ResultRow], spec: Spec) -> Cost:
    """Returns the mean cost of a branch's networks at a level."""
    own = [row for run, row in rows.items() if (run.branch, run.level) == (branch, level)]
    each = [_cost_of(row, rows, spec) for row in own]
    return Cost(*map(fmean, zip(*each, strict=True)))


def _cost_of(row: ResultRow, rows: dict[RunId, ResultRow], spec: Spec) -> Cost:
    levels = levels_behind(spec, row.run_id)
    found = [rows.get(RunId(TRUNK, level, row.replicate, 0)) for level in levels]
    if (other := giver(spec, row.run_id)) and other.branch != TRUNK:
        found.append(rows.get(other))
    shares = [(row, 1.0), *((one, 1.0) for one in found if one)]
    dense = rows.get(RunId(TRUNK, 0, row.replicate, 0))
    began = row.last_step - row.steps  # at a rewind point, which is on the dense network's way
    if dense and dense.steps and 0 not in levels and began > 0:
        shares.append((dense, began / dense.steps))
    cost = Cost(*(sum(getattr(one, name) * share for one, share in shares) for name in COSTS))
    if not all(found):  # a damaged table
        return Cost(math.nan, math.nan, math.nan)
    known = all(one.operations or not one.steps for one, _ in shares)
    return cost if known else cost._replace(operations=math.nan)
