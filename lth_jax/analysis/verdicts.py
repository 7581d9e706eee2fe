"""Which levels match the dense network, with the error of saying so under control.

A level is judged by its paired difference to the dense network in test accuracy at early stop (or
what other metric networks are measured by), by which nothing is chosen. Where less is better, its
sign is turned. It *matches* where the difference lies above minus a margin, *below* where it lies
below zero, each with `confidence` of its own one-sided t-interval; else it is *undecided*.

Statements over levels keep that error without a correction, since each level is asked only after
the one before it has answered (a fixed sequence, Maurer et al. 1995): "matches down to" goes from
the densest level on and stops at the first that does not match, "below from … on" from the sparsest
and stops at the first that is not below. Where a level is picked freely, Holm corrects.
"""

from __future__ import annotations

import enum
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from lth_jax.analysis.intervals import holm, one_sided, p_above, t_quantile
from lth_jax.analysis.paired import Paired, dense_differences
from lth_jax.analysis.summary import summarize
from lth_jax.config import Spec
from lth_jax.data import facts
from lth_jax.store.tables import TRUNK, ResultRow
from lth_jax.training.metrics import ACCURACY, Metric

JUDGED = "early_stop_test_accuracy"
SPEED = "early_stop_step"
MOST_REPLICATES = 1000  # beyond which nobody is told to train more


class Verdict(enum.StrEnum):
    """What can be said of a level."""

    MATCHES = "matches"
    BELOW = "below"
    UNDECIDED = "undecided"


class Standard(NamedTuple):
    """By what a level is judged.

    Attributes:
      margin: the loss that still counts as a match, fixed beforehand, in the metric as tables hold
        it: of accuracy a fraction.
      confidence: that of each statement.
      resolution: what one test example is worth, as the margin; 0 where that is unknown, or where
        the metric is no share of examples.
      metric: what is judged.
    """

    margin: float = 0.002
    confidence: float = 0.95
    resolution: float = 0.0
    metric: Metric = ACCURACY

    @classmethod
    def of(cls, spec: Spec, metric: Metric = ACCURACY) -> Standard:
        """Returns that of an experiment whose networks are measured by `metric`."""
        examples = examples_of_test(spec) if metric.counted else None
        margin = spec.analysis.margin
        if margin is None:
            margin = metric.margin or 0.0
        return cls(
            margin / metric.scale,
            spec.analysis.confidence,
            1 / examples if examples else 0.0,
            metric,
        )

    @property
    def coarse(self) -> bool:
        """Whether one test example is more than a quarter of the margin."""
        return 4 * self.resolution > self.margin


# That of a config which says nothing of it, where the test set is unknown.
USUAL = Standard()


def examples_of_test(spec: Spec) -> int | None:
    """Returns about how many test examples an experiment has; None for unknown datasets."""
    known, data = facts(spec.data.name), spec.data
    if known is None:
        return data.test_size or None
    share = len(data.classes) / known.classes if data.classes else 1
    examples = round(known.test * share)
    return min(data.test_size, examples) if data.test_size else examples


class Judgement(NamedTuple):
    """What is said of a branch at a level.

    Attributes:
      pair: its paired difference to the dense network, positive where it is better.
      low: the lower end of the one-sided interval of the mean difference.
      high: the upper end of the other one.
      verdict: what follows.
      missing: how many of the dense network's replicates it lacks, since they diverged: what is
        left is no fair sample, and matches nothing.
      more: about how many further replicates would decide it, where it is undecided; None for more
        than anybody would train.
    """

    pair: Paired
    low: float
    high: float
    verdict: Verdict
    missing: int = 0
    more: int | None = None


def verdict_of(low: float, high: float, standard: Standard) -> Verdict:
    """Returns what two one-sided ends of a difference say; NaN says nothing.

    Nothing matches where one test example is more than the margin: a loss of that size is not seen.
    """
    if low > -standard.margin and standard.resolution <= standard.margin:
        return Verdict.MATCHES
    return Verdict.BELOW if high < 0 else Verdict.UNDECIDED


def judge(
    rows: Iterable[ResultRow], standard: Standard = USUAL
) -> dict[tuple[str, int], Judgement]:
    """Returns the judgement of each (branch, level) from level 1 on, by branch, then by level.

    Levels that are not whole are absent, and all where there is one replicate: that says nothing.
    """
    rows = list(rows)
    whole = {(s.branch, s.level) for s in summarize(rows) if s.whole}
    if (TRUNK, 0) not in whole:
        return {}
    replicates = {row.replicate for row in rows if (row.branch, row.level) == (TRUNK, 0)}
    found = {}
    for pair in dense_differences(rows, JUDGED, standard.metric.sign):
        if (pair.branch, pair.level) not in whole or len(pair.replicates) < 2:
            continue
        values = np.array(pair.differences)
        low, high = map(float, one_sided(values, standard.confidence, standard.resolution))
        verdict = verdict_of(low, high, standard)
        missing = len(replicates) - len(pair.replicates)
        if verdict is Verdict.MATCHES and missing:
            verdict = Verdict.UNDECIDED
        more = _more(pair, standard) if verdict is Verdict.UNDECIDED and not missing else None
        found[pair.branch, pair.level] = Judgement(pair, low, high, verdict, missing, more)
    return found


def matching(levels: Sequence[Judgement]) -> list[Judgement]:
    """Returns the levels down to which a branch matches: from the densest on, all that match."""
    return list(itertools.takewhile(lambda one: one.verdict is Verdict.MATCHES, levels))


def below(levels: Sequence[Judgement]) -> list[Judgement]:
    """Returns the levels from which on a branch is below: from the sparsest on, all that are."""
    found = itertools.takewhile(lambda one: one.verdict is Verdict.BELOW, reversed(levels))
    return list(found)[::-1]


def of_branch(judgements: dict[tuple[str, int], Judgement], branch: str = TRUNK) -> list[Judgement]:
    """Returns the judgements of one branch, densest first."""
    return [one for (name, _), one in judgements.items() if name == branch]


def above(levels: Sequence[Judgement], standard: Standard) -> list[Judgement]:
    """Returns the levels above the dense network, of all that are looked at (Holm's correction)."""
    p_values = holm([p_above(one.pair.differences, 0, standard.resolution) for one in levels])
    accepted = 1 - standard.confidence
    return [one for one, p in zip(levels, p_values, strict=True) if p <= accepted]


def sooner(rows: Iterable[ResultRow], standard: Standard, branch: str = TRUNK) -> list[Paired]:
    """Returns the levels whose early stop comes before the dense network's (Holm's correction).

    An early stop at a network's last evaluation is a lower bound. Where it is the dense network's,
    the difference is larger still; where it is the level's, it is said of none.
    """
    rows = list(rows)
    open_ended = {(s.branch, s.level) for s in summarize(rows) if s.censored or not s.whole}
    pairs = [
        pair
        for pair in dense_differences(rows, SPEED)
        if pair.branch == branch and (branch, pair.level) not in open_ended
    ]
    # Steps are known to an evaluation: a few replicates that agree are no certainty.
    step = math.gcd(*(row.early_stop_step for row in rows if row.diverged < 0))
    p_values = holm([p_above([-d for d in pair.differences], 0, step) for pair in pairs])
    return [p for p, value in zip(pairs, p_values, strict=True) if value <= 1 - standard.confidence]


def lowest_matching_density(
    rows: Iterable[ResultRow], standard: Standard = USUAL, branch: str = TRUNK
) -> float | None:
    """Returns the density down to which `branch` matches, a fraction; None if that is unknown."""
    levels = matching(of_branch(judge(rows, standard), branch))
    return levels[-1].pair.density if levels else None


def _more(pair: Paired, standard: Standard) -> int | None:
    """Returns how many further replicates would decide a level, with this mean and spread."""
    count = len(pair.differences)
    deviation = max(float(np.std(pair.differences, ddof=1)), standard.resolution / math.sqrt(6))
    distance = max(pair.mean + standard.margin, -pair.mean)
    for total in range(count + 1, MOST_REPLICATES + 1):
        if t_quantile(total, standard.confidence) * deviation / math.sqrt(total) < distance:
            return total - count
    return None
