"""Early-Bird tickets: drawn from the dense network as soon as its mask stays (You et al. 2020).

While the dense network trains, each epoch gives a mask: the one that a level would have if it were
pruned from the network as it is. The *mask distance* is the share of it that differs from the
epoch's before (a normalized Hamming distance; of channels, where these are pruned). Where it was
below 0.1 in five epochs in a row, the ticket is drawn (§3.2): the search ends there, long before
the dense network does. Here that one trains on, for it is what tickets are compared with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from lth_jax.config import Spec
from lth_jax.pruning.channels import Channels
from lth_jax.pruning.trees import PyTree, named_leaves
from lth_jax.store import drawn_name
from lth_jax.store.tables import TRUNK, MaskDistance, RunId
from lth_jax.training.states import TrainState

KIND = "early_bird"


def drawn_at(distances: Sequence[float], below: float, window: int) -> int | None:
    """Returns the place of the first distance that is the last of `window` below `below`."""
    row = 0
    for place, distance in enumerate(distances):
        row = row + 1 if distance < below else 0
        if row == window:
            return place
    return None


class Draw(NamedTuple):
    """One ticket that is to be drawn: from which checkpoint its run starts, and by which rule."""

    name: str
    level: int
    below: float
    window: int


@dataclasses.dataclass(frozen=True, eq=False)
class EarlyBirds:
    """What of a dense network is looked at while it trains.

    Attributes:
      replicate: whose.
      draws: the tickets to be drawn.
      epoch: the steps of an epoch.
      last: the step at which training ends.
      kept: (level, state) -> what the level would keep if it were pruned from the state, bool [n].
      size: n.
    """

    replicate: int
    draws: tuple[Draw, ...]
    epoch: int
    last: int
    kept: Callable[[int, TrainState], Bool[np.ndarray, " n"]]
    size: int

    @property
    def levels(self) -> list[int]:
        """The levels of which there are tickets to draw."""
        return sorted({draw.level for draw in self.draws})

    def next_look(self, step: int) -> int | None:
        """Returns the first step from `step` on that ends an epoch before the last; None if none.

        A ticket that is drawn where training ends has nothing left to train.
        """
        at = max(1, -(-step // self.epoch)) * self.epoch
        return at if at < self.last else None


class MaskWatch:
    """The masks of a dense network on its way.

    Attributes:
      of: what is looked at.
      points: the distances so far.
    """

    def __init__(
        self,
        of: EarlyBirds,
        points: Sequence[MaskDistance] = (),
        before: Mapping[str, np.ndarray] | None = None,
    ):
        self.of, self.points = of, list(points)
        unknown = {f"level_{level:02d}": np.ones(of.size, bool) for level in of.levels}
        self.before = dict(before or unknown)

    def look(self, step: int, state: TrainState) -> list[str]:
        """Compares the masks of an epoch's end with those of the epoch before.

        Args:
          step: the updates behind the network, at the end of an epoch.
          state: its, dense.

        Returns:
          The names of the checkpoints that this state is to be kept as: of the tickets that are
          drawn now; at the last look of those that no rule has drawn.
        """
        for level in self.of.levels:
            name = f"level_{level:02d}"
            try:
                now = self.of.kept(level, state)
            except ValueError:  # a network that diverged has no ranking, and no ticket
                return []
            if step > self.of.epoch:
                distance = float(np.mean(now != self.before[name]))
                self.points.append(MaskDistance(self.of.replicate, 0, step, level, distance))
            self.before[name] = now
        return [draw.name for draw in self.of.draws if self._is_drawn(draw, step)]

    def _is_drawn(self, draw: Draw, step: int) -> bool:
        distances = [point.distance for point in self.points if point.level == draw.level]
        at = drawn_at(distances, draw.below, draw.window)
        if at is None:
            return self.of.next_look(step + 1) is None
        return at == len(distances) - 1

    def drawn(self) -> list[str]:
        """Returns the names of the checkpoints that were kept so far, by their rules."""
        found = []
        for draw in self.of.draws:
            distances = [point.distance for point in self.points if point.level == draw.level]
            if drawn_at(distances, draw.below, draw.window) is not None:
                found.append(draw.name)
        return found


def draws_of(spec: Spec, replicate: int, runs: Sequence[RunId]) -> tuple[Draw, ...]:
    """Returns the tickets that planned runs of a replicate are to be drawn from its dense network.

    Args:
      spec: the spec.
      replicate: which one.
      runs: those that are planned.
    """
    found = {}
    for run in runs:
        if run.branch == TRUNK or run.replicate != replicate:
            continue
        branch = spec.branch_spec(run.branch)
        if branch.kind == KIND:
            name = drawn_name(run)
            found[name] = Draw(name, run.level, branch.distance, branch.window)
    return tuple(found.values())


def kept_parts(
    mask: PyTree, channels: Channels | None, names: Sequence[str]
) -> Bool[np.ndarray, " n"]:
    """Returns what a mask keeps, in one row: channels if these are pruned, else weights.

    Args:
      mask: bool, of the parameters' structure.
      channels: the network's, if these are pruned.
      names: of the prunable leaves.
    """
    if channels:
        return np.concatenate(list(channels.alive(mask).values()))
    leaves = named_leaves(mask)
    return np.concatenate([np.ravel(np.asarray(leaves[name])) for name in names])
