"""How long an experiment will take yet, from what its levels cost and how long others took.

Levels differ: sparse ones are cheaper where native code trains the surviving weights alone, a new
form of the network is compiled first, and between levels a network is pruned and saved. Each is
reckoned apart. Time that this process did not train (an earlier session, a night in the
background) says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lth_jax.lottery.observer import PlannedLevel

# How much less the pace of a level says of the next ones than that of the level after it.
FADING = 0.25
# A pause that is longer than this, and than so many usual ones, was none of training.
LEAST_IDLE_SECONDS, IDLE_PAUSES = 60.0, 20
# The first time that one level follows on another, the figures are drawn for the first time, and
# what draws them is imported. Later ones take little time, and no more than this of a level's.
MOST_BETWEEN = 0.15
LEAST_NEWS = 2  # the first news of a session may be of a single step


class Trained(NamedTuple):
    """What of a level was trained in this session: a share of its cost, and its seconds."""

    share: float
    seconds: float


def seconds_left(
    left: Mapping[int, float],
    costs: Mapping[int, float],
    trained: Mapping[int, Trained],
    *,
    compilations: float = 0,
    compiling: Sequence[float] = (),
    breaks: int = 0,
    between: Sequence[float] = (),
) -> float | None:
    """Returns the seconds that an experiment will take yet, or None where nothing is known.

    A unit of cost takes as long as in the latest levels. Of these, each counts by the share of it
    that was trained, and `FADING` times as much as the level after it.

    Args:
      left: what is left of each level, in units of cost.
      costs: what each level costs, in the same unit.
      trained: what was trained of it in this session.
      compilations: how many are to come; compiling: the seconds of those that were.
      breaks: how often one level will follow on another; between: the seconds that this took.
    """
    known = {level: one for level, one in trained.items() if one.share > 0}
    if not known:
        return None
    last = max(known)
    weights = {level: FADING ** (last - level) for level in known}
    seconds = sum(weights[level] * one.seconds / costs[level] for level, one in known.items())
    shares = sum(weights[level] * one.share for level, one in known.items())
    total = sum(left.values()) * seconds / shares
    for count, took in ((compilations, compiling), (breaks, between)):
        total += count * sum(took) / len(took) if took else 0.0
    return total


class TimeLeft:
    """Reckons the time left while an experiment tells what it does; all times are in seconds.

    Args:
      levels: what is planned, as the experiment's header says.
      now: the time.
    """

    def __init__(self, levels: Sequence[PlannedLevel], now: float):
        self._plan = {one.level: one for one in levels}
        self._costs = {one.level: max(one.steps, 1) * one.cost for one in levels}
        self._left = {one.level: float(one.steps - one.done) for one in levels}
        self._coming = {one.level for one in levels if one.steps > one.done}
        self._trained: dict[int, Trained] = {}
        self._compiling: list[float] = []
        self._between: list[float] = []
        self._compiled = self._programs = 0
        self._compiles_since: float | None = None
        self._ended: float | None = None
        self._before, self._level, self._news, self._usual = now, -1, 0, 0.0

    def level_started(self, level: int, done: int, now: float) -> None:
        """A level begins, or its rest, `done` steps of which an earlier session did."""
        self._plan.setdefault(level, PlannedLevel(level, 0, 0, 1.0, 0))
        self._costs.setdefault(level, 1.0)
        self._left |= {earlier: 0.0 for earlier in self._left if earlier < level}
        self._left[level] = max(0.0, self._left.get(level, 0.0) - done)
        self._coming.discard(level)
        if self._ended is not None and level != self._level:
            self._between.append(now - self._ended)
        self._level, self._before, self._compiled = level, now, 0

    def compiling(self, now: float) -> None:
        """A program is compiled until the next news."""
        if self._compiles_since is None:
            self._compiles_since, self._programs = now, 0
        self._programs += 1
        self._compiled += 1

    def advanced(self, steps: float, now: float) -> None:
        """`steps` more of the level are done."""
        took = now - self._before
        self._before = now
        level, news = self._level, self._news
        self._left[level] = max(0.0, self._left[level] - steps)
        if self._compiles_since is not None:
            took = (now - self._compiles_since) / self._programs
            self._compiling += [took] * self._programs
            self._compiles_since = None
            return
        if news and took > max(LEAST_IDLE_SECONDS, IDLE_PAUSES * self._usual):
            took = self._usual
        self._news += 1
        self._usual += (took - self._usual) / self._news
        before = self._trained.get(level, Trained(0.0, 0.0))
        share = steps * self._plan[level].cost / self._costs[level]
        self._trained[level] = Trained(before.share + share, before.seconds + took)

    def level_ended(self) -> None:
        """The level ends, if none of its runs waited for others of it."""
        self._ended = self._before

    def shortened(self, steps: int) -> None:
        """`steps` of the levels to come will not be done."""
        coming = sum(self._left[level] for level in self._coming)
        kept = max(0.0, 1 - steps / coming) if coming else 1.0
        for level in self._coming:
            self._left[level] *= kept

    def seconds(self) -> float | None:
        """Returns the time left, or None until there is some news."""
        if self._news < LEAST_NEWS:
            return None
        costs = {level: self._left[level] * self._plan[level].cost for level in self._left}
        here = self._plan.get(self._level)
        yet = max(0, here.programs - self._compiled) if here and self._left[self._level] else 0
        return seconds_left(
            costs,
            self._costs,
            self._trained,
            compilations=yet + sum(self._plan[level].programs for level in self._coming),
            compiling=self._compiling,
            breaks=len(self._coming),
            between=self._between[1:] or self._first_between(),
        )

    def _first_between(self) -> list[float]:
        """Returns what the first break says of the next ones, while there are no others."""
        level = max(
            (one.seconds / one.share for one in self._trained.values() if one.share), default=0.0
        )
        return [min(took, MOST_BETWEEN * level) for took in self._between]

    def share_done(self) -> float:
        """Returns the share of the whole experiment that is done, by cost, in whatever session."""
        left = sum(self._left[level] * self._plan[level].cost for level in self._left)
        return min(1.0, max(0.0, 1 - left / max(sum(self._costs.values()), 1e-9)))
