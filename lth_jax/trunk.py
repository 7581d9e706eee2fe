"""The trunk: train, prune, rewind, repeat; and at each level the branches that control it.

Frankle & Carbin 2019, §1: (1) initialize randomly, (2) train, (3) prune, (4) reset the survivors to
their values at the rewind step, and go on from (2).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.branches import BRANCHES, BranchPoint, Ticket
from lth_jax.build import Experiment
from lth_jax.errors import RunError
from lth_jax.events import Observer
from lth_jax.levels import Job, LevelTrainer, Trained
from lth_jax.plan import planned_runs
from lth_jax.pruning.criteria import Scoring
from lth_jax.pruning.masks import kept_counts, ones_mask
from lth_jax.pruning.selection import prune
from lth_jax.results import TRUNK, RunId
from lth_jax.rng import derive
from lth_jax.spec import Spec
from lth_jax.store import RunDirectory, level_name
from lth_jax.store.checkpoints import fill
from lth_jax.training import TrainState, rewind
from lth_jax.trees import PyTree


class Trunk:
    """An experiment at work in its run directory.

    Args:
      experiment: the built experiment.
      store: its open run directory.
      observer: who is told what happens.
      stop_signal: gives the number of a signal that asks for a stop, or 0.
    """

    def __init__(
        self,
        experiment: Experiment,
        store: RunDirectory,
        observer: Observer,
        stop_signal: Callable[[], int] = lambda: 0,
    ):
        self.experiment, self.store, self.observer = experiment, store, observer
        self.stop_signal = stop_signal
        self.spec = experiment.spec
        self._initial: dict[int, TrainState] = {}

    def run(self) -> None:
        """Trains every run of the spec that is not done yet, level by level.

        Raises:
          Interrupted: a signal came; the same experiment goes on from there.
          RunError: a run diverged, so that nothing can be ranked; what was done is kept.
        """
        pending = pending_runs(self.spec, self.store, self.experiment.rewind_step)
        for level in range(self.spec.levels + 1):
            ids = [id for id in pending if id.level == level]
            if not ids:
                continue
            start = time.perf_counter()
            tickets = {r: self.find_ticket(r, level) for r in sorted({id.replicate for id in ids})}
            jobs = [Job(id, self.start_of(id, tickets[id.replicate])) for id in ids]
            trained = self._trainer(level).train(level, jobs)
            self._keep(level, tickets, trained)
            rows = [done.row for done in trained.values()]
            self.observer.level_finished(level, rows, time.perf_counter() - start)

    def find_ticket(self, replicate: int, level: int) -> Ticket:
        """The ticket of a level: the mask pruned after the level before, its survivors rewound."""
        point, step = self.rewind_point(replicate, level)
        mask = self.mask(replicate, level, point.params)
        return Ticket(mask, rewind(point, mask, self.experiment.optimizer), step)

    def start_of(self, id: RunId, ticket: Ticket) -> Ticket:
        """Where a run starts: the trunk's from the ticket, a branch's from what it makes of it."""
        if id.branch == TRUNK:
            return ticket
        point, step = self.rewind_point(id.replicate, id.level)
        key = derive(self.spec.seed, "branch", id.branch, id.replicate, id.level, id.draw)
        e = self.experiment
        at = BranchPoint(ticket.mask, point, step, e.rates, e.optimizer, e.fresh, key)
        return BRANCHES[self.spec.branch_spec(id.branch).kind](at)

    def mask(self, replicate: int, level: int, params: PyTree) -> PyTree:
        """The mask of a level: kept from when it was trained, or pruned from the level before."""
        if level == 0:
            return ones_mask(params)
        masks = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.bool_), params)
        done = self._load(replicate, level)
        if done is not None:
            return _to_device(fill(masks, done, "mask/"))
        before = self._load(replicate, level - 1)
        assert before is not None, "pending_runs trains a level whose checkpoint is gone"
        scoring = Scoring(
            final=_to_device(fill(params, before, "params/")),
            initial=self.initial(replicate).params,
            key=derive(self.spec.seed, "prune", replicate, level),
        )
        try:
            return prune(
                self.experiment.criterion(scoring),
                _to_device(fill(masks, before, "mask/")),
                self.spec.pruning.fraction,
                scope=self.spec.pruning.scope,
                rates=self.experiment.rates,
            )
        except ValueError as error:
            raise RunError(
                f"replicate {replicate} cannot be pruned after level {level - 1}: {error}; "
                "it diverged: lower train.learning_rate"
            ) from error

    def rewind_point(self, replicate: int, level: int) -> tuple[TrainState, int]:
        """The dense state that a level starts from, and its step; level 0's is initialization."""
        initial = self.initial(replicate)
        step = self.experiment.rewind_step
        if level == 0 or step == 0:
            return initial, 0
        arrays = self.store.load(replicate, "rewind")
        assert arrays is not None, "pending_runs trains level 0 again if its rewind point is gone"
        return _to_device(fill(initial, arrays)), step

    def initial(self, replicate: int) -> TrainState:
        """The replicate's stored initialization; drawn, and stored, the first time."""
        if replicate not in self._initial:
            state = self.experiment.initial(replicate)
            kept = {"params": state.params, "model_state": state.model_state}
            arrays = self.store.load(replicate, "initial")
            if arrays is None:
                self.store.save(replicate, "initial", kept)
            else:
                state = state._replace(**_to_device(fill(kept, arrays)))
            self._initial[replicate] = state
        return self._initial[replicate]

    def _trainer(self, level: int) -> LevelTrainer:
        def capture(replicate: int, state: TrainState) -> None:
            step = self.experiment.rewind_step
            self.store.save(replicate, "rewind", state, {"step": step})

        captures = level == 0 and self.experiment.rewind_step > 0
        return LevelTrainer(
            self.experiment,
            self.store,
            self.observer,
            self.stop_signal,
            capture if captures else None,
        )

    def _keep(self, level: int, tickets: dict[int, Ticket], trained: dict[RunId, Trained]) -> None:
        """Checkpoints before rows: a row says that what later levels need of its run is there."""
        for id, done in trained.items():
            if id.branch == TRUNK:
                tree = {
                    "mask": tickets[id.replicate].mask,
                    "params": done.params,
                    "model_state": done.model_state,
                }
                layers = kept_counts(tree["mask"], self.experiment.rates)
                self.store.save(id.replicate, level_name(level), tree, {"layers": layers})
        self.store.record(done.row for done in trained.values())
        self.store.clear_progress()

    def _load(self, replicate: int, level: int) -> Mapping[str, np.ndarray] | None:
        if RunId(TRUNK, level, replicate, 0) not in self.store.rows:
            return None
        return self.store.load(replicate, level_name(level))


def pending_runs(spec: Spec, store: RunDirectory, rewind_step: int) -> list[RunId]:
    """The planned runs that are still to be trained.

    A finished run of the trunk is trained again if its checkpoint is gone or damaged *and* a
    pending run needs it. Looked for from the last level up, since each needs the one above it.
    """
    planned = planned_runs(spec)
    pending = {id for id in planned if id not in store.rows}

    for level in range(spec.levels, -1, -1):
        for replicate in range(spec.replicates):
            id = RunId(TRUNK, level, replicate, 0)
            below = RunId(TRUNK, level + 1, replicate, 0) in pending
            beside = any(p.level == level > 0 and p.replicate == replicate for p in pending)
            if (
                id not in pending
                and (below or beside)
                and not store.intact(replicate, level_name(level))
            ):
                pending.add(id)
        if level == 0 and rewind_step:
            for replicate in {id.replicate for id in pending if id.level > 0}:
                if not store.intact(replicate, "rewind"):
                    pending.add(RunId(TRUNK, 0, replicate, 0))
    return [id for id in planned if id in pending]


def _to_device(tree: Any) -> Any:
    return jax.tree.map(jnp.asarray, tree)


def run_steps(experiment: Experiment, id: RunId) -> int:
    """The updates of a run, for the time left: those past the rewind step, or all at level 0."""
    return experiment.steps - (experiment.rewind_step if id.level else 0)
