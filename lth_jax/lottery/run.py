"""A run: one network to be trained, where it starts, and how far it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Key

from lth_jax.lottery.early_bird import EarlyBirds, MaskWatch
from lth_jax.lottery.experiment import Experiment
from lth_jax.lottery.learning import Learning
from lth_jax.lottery.moving import MaskCounts, Moving, MovingMask
from lth_jax.lottery.start_points import StartPoint
from lth_jax.native.packing import Layout
from lth_jax.pruning.masks import kept_counts
from lth_jax.pruning.trees import PyTree, map_named, named_leaves, to_device
from lth_jax.store import CurvePoint
from lth_jax.store.checkpoints import fill
from lth_jax.store.tables import CurvaturePoint, MaskDistance, RunId
from lth_jax.training.devices import ONE_DEVICE, RunDevices
from lth_jax.training.parameterization import DENSE, ForwardMasked, Parameterization
from lth_jax.training.states import LoopState, new_loop_state


@dataclasses.dataclass(eq=False)
class Run:
    """One network to be trained.

    Attributes:
      run_id: which one.
      start: where it starts, on the host; once it has begun, its state is no longer there.
      experiment: what it is trained with: the trunk's experiment, or a branch's.
      last_step: the step at which it ends.
      data_key: typed key [], of which batch order, augmentation and dropout are functions.
      moving: how its mask moves while it trains; None if it stays.
      learning: how its mask is learned; None if it is not.
      early_birds: the tickets to be drawn from it on its way; None for none.
    """

    run_id: RunId
    start: StartPoint
    experiment: Experiment
    last_step: int
    data_key: Key[Array, ""]
    moving: Moving | None = None
    learning: Learning | None = None
    early_birds: EarlyBirds | None = None

    @cached_property
    def form(self) -> Parameterization:
        """The form in which its parameters are trained."""
        e, (mask, state, _) = self.experiment, self.start
        if self.moving:
            return self.form_of(mask)
        if self.learning:
            return self.learning.form
        return e.form(self.run_id.level, mask, state)

    def form_of(self, mask: PyTree) -> Parameterization:
        """Returns the form in which it is trained under a mask that moved."""
        e = self.experiment
        if self.moving and self.moving.rule.trained:
            return ForwardMasked(mask)
        # Runs of one `vmap` have one form, and masks by schedule may come to other counts.
        if e.group_size(2) > 1:
            return DENSE
        return e.native.parameterization_of(self.run_id.level, mask)

    def stand_ins(self) -> list[PyTree]:
        """Returns any mask for each form that a schedule will bring the run to.

        Rules that keep as many weights as they had, and runs of one `vmap`, stay in one form.
        """
        e, mask = self.experiment, self.start.mask
        if not self.moving or self.moving.rule.trained or e.group_size(2) > 1:
            return []
        sizes = {name: leaf.size for name, leaf in named_leaves(mask).items()}
        found: dict[Layout, Mapping[str, int]] = {}
        for counts in self.moving.counts_to_come(sizes).values():
            found.setdefault(e.native.layout_of_counts(self.run_id.level, counts), counts)
        return [map_named(partial(_first, counts), mask) for counts in found.values()]

    def begin(self, progress: Progress | None) -> Beginning:
        """Returns how it begins or goes on.

        They lie on the device. What lay on the host is given up: there is one copy of a state.
        """
        began = self.beginning(progress)
        self.start = self.start._replace(state=None)
        return began

    def beginning(self, progress: Progress | None) -> Beginning:
        """Returns the same, and gives nothing up."""
        e, (mask, first, step) = self.experiment, self.start
        mask, first = to_device((mask, first))
        if self.learning:
            first = self.learning.start(first, e.optimizer)
        # What is streamed comes in its order, and keeps none; an empty array could not be spread.
        state = new_loop_state(first, 1 if e.streaming else len(e.train.targets))
        moves = self.moving and MovingMask.at_start(self.moving, StartPoint(mask, first, step))
        watch = MaskWatch(self.early_birds) if self.early_birds else None
        if not progress:
            return Beginning(state, moves, watch)
        found = fill(kept_state(state, moves, watch), progress.arrays)
        if self.early_birds:
            before = found.pop("watched", None)
            watch = MaskWatch(self.early_birds, progress.distances or (), before)
        found = to_device(found)
        moving = found.pop("moving", None)
        state = state._replace(**found)
        mask = moves and moves.resumed(moving, state.best, progress.masks)
        return Beginning(state, mask, watch)

    @property
    def devices(self) -> RunDevices:
        """What its group is spread over. The host moves masks, of runs that are on one device."""
        return ONE_DEVICE if self.moving else self.experiment.devices

    @cached_property
    def counts(self) -> tuple[int, int]:
        """(kept, prunable) weights in the end, as Python integers."""
        counts = kept_counts(self.start.mask, self.experiment.rates).values()
        kept = self.moving.course.kept.values() if self.moving else [kept for kept, _ in counts]
        total = sum(total for _, total in counts)
        return self.learning.kept if self.learning else sum(kept), total


class Beginning(NamedTuple):
    """How a run begins or goes on.

    Attributes:
      state: its dense state.
      mask: its mask, if that moves.
      watch: what watches its masks, if tickets are to be drawn from it.
    """

    state: LoopState
    mask: MovingMask | None
    watch: MaskWatch | None


class Progress(NamedTuple):
    """How far a run is that was stopped on its way, as a checkpoint keeps it.

    Attributes:
      step: the updates behind it, counted from initialization.
      evaluated: the step of its last evaluation; -1 before the first.
      seconds: of training so far.
      points: its evaluations so far.
      arrays: those of `kept_state`, by name; on the way to a checkpoint, the pytree itself.
      masks: counts of its mask so far, if that moves.
      curvature: its eigenvalues so far, if they are asked for.
      distances: of its masks so far, if tickets are to be drawn from it; else None.
    """

    step: int
    evaluated: int
    seconds: float
    points: list[CurvePoint]
    arrays: Any
    masks: Sequence[MaskCounts] = ()
    curvature: Sequence[CurvaturePoint] = ()
    distances: Sequence[MaskDistance] | None = None


def kept_state(
    state: LoopState, mask: MovingMask | None = None, watch: MaskWatch | None = None
) -> dict[str, Any]:
    """Returns what a checkpoint keeps of a run; the permutation comes again from key and epoch."""
    kept = {"state": state.state, "best": state.best, "loss_sum": state.loss_sum}
    kept |= {"watched": dict(watch.before)} if watch else {}
    return {**kept, "moving": mask.kept(state)} if mask else kept


def place(run: Run, progress: Mapping[RunId, Progress]) -> tuple[int, int]:
    """Returns (step, step of the last evaluation) where a run begins or goes on."""
    made = progress.get(run.run_id)
    return (made.step, made.evaluated) if made else (run.start.step, -1)


def _first(counts: Mapping[str, int], name: str, leaf: Any) -> np.ndarray:
    """Returns a leaf's mask that keeps as many of the first weights as `counts` says, or all."""
    return (np.arange(leaf.size) < counts.get(name, leaf.size)).reshape(leaf.shape)
