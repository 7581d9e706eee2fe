"""The level loop: train, prune, rewind, repeat; and at each level the branches that control it.

Frankle & Carbin 2019, §1: (1) initialize a network at random, (2) train it, (3) prune it, (4) reset
the survivors to their values at the rewind step, and go on from (2). The sequence of levels that
this makes is the *trunk*.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from lth_jax.errors import RunError
from lth_jax.lottery.experiment import Experiment
from lth_jax.lottery.level import LevelTrainer
from lth_jax.lottery.observer import Observer
from lth_jax.lottery.paths import Paths
from lth_jax.lottery.pending import STAGES, pending_runs, run_steps, stage
from lth_jax.lottery.plan import (
    captures,
    ended_tickets,
    is_kept,
    last_level,
)
from lth_jax.lottery.rows import FinishedRun
from lth_jax.lottery.run import Run
from lth_jax.lottery.sharing import Shares, ShareTrainer
from lth_jax.lottery.starts import Starts
from lth_jax.pruning.masks import kept_counts
from lth_jax.store import RunDirectory, checkpoint_name
from lth_jax.store.tables import TRUNK, ResultRow, RunId

# What a run that is trained again may have otherwise; rows of earlier versions lack the last two.
UNCOMPARED = ("train_seconds", "kernel", "last_step", "operations")


class Runner:
    """An experiment at work in its run directory.

    Args:
      experiment: the built experiment.
      store: its open run directory.
      observer: who is told what happens.
      source: the run directory that transfers take their tickets from.
      stop_signal: gives the number of a signal that asks for a stop, or 0.
      shares: where the runs of a level are trained; all here by default.
    """

    def __init__(
        self,
        experiment: Experiment,
        store: RunDirectory,
        observer: Observer,
        source: Path | None = None,
        stop_signal: Callable[[], int] = lambda: 0,
        shares: Shares | None = None,
    ):
        self.experiment, self.store, self.observer = experiment, store, observer
        self.source, self.stop_signal = source, stop_signal
        self.shares = shares or Shares()
        self.spec = experiment.spec
        self.starts = Starts(experiment, store, observer, source)
        self.paths = Paths(experiment, store, observer)

    def run(self) -> None:
        """Trains every run of the spec that is not done yet, level by level.

        A ticket that diverges ends there: its replicate's later levels have nothing to start from.
        The other replicates go on.

        Raises:
          Interrupted: a signal came; the same experiment goes on from there.
          RunError: the weights of a trained network have no ranking, all else is done.
        """
        pending = self.pending()
        failed: dict[int, RunError] = {}
        for note in (*self.experiment.notes, self.experiment.native.note):
            if pending and note:
                self.observer.note(note)
        for level, now in itertools.product(range(self.spec.levels + 1), STAGES):
            todo = [
                run
                for run in pending
                if (run.level, stage(self.spec, run)) == (level, now)
                and run.replicate not in failed
            ]
            if not todo:
                continue
            began = time.perf_counter()
            for replicate in {run.replicate for run in todo}:
                self.starts.trunk(replicate)  # stored before another process may look for it
            self.shares.begin(level, todo, self.stop_signal)
            runs = self._runs(level, todo, failed)
            if not runs:
                continue
            finished = self.train(level, runs)
            self._keep(finished)
            rows = [run.row for run in finished.values()]
            self.observer.level_finished(level, rows, time.perf_counter() - began)
            pending = self._still_reachable(pending, rows)
            self.paths.measure(self.stop_signal)
        self.paths.measure(self.stop_signal)
        for error in failed.values():
            raise error

    def train_share(
        self,
        level: int,
        todo: Sequence[RunId],
        observer: Observer,
        stop_signal: Callable[[], int],
    ) -> None:
        """Trains some runs of a level to their end for another process, which joins them.

        Those that have no start are left out: that process finds, and tells, the same.
        """
        failed: dict[int, RunError] = {}
        own = {run.replicate for run in todo}
        givers = {other for run in todo if (other := self.starts.giver_of(run)) is not None}
        for other in givers - own:
            try:
                self.starts.prune(other, level)
            except RunError as error:
                failed[other] = error
        if runs := self._runs(level, todo, failed):
            trainer = self._trainer(level, self.store, observer, stop_signal, ShareTrainer)
            trainer.train(level, runs)

    def _runs(self, level: int, todo: Sequence[RunId], failed: dict[int, RunError]) -> list[Run]:
        """Returns the runs of a level that have something to start from.

        Args:
          level: which.
          todo: the runs.
          failed: takes the replicates that cannot be pruned, with the reason, which is told.
        """
        tickets = {}
        for replicate in sorted({run.replicate for run in todo}):
            try:
                mask = self.starts.prune(replicate, level)
            except RunError as error:
                failed[replicate] = error
                self.observer.note(str(error))
            else:
                tickets[replicate] = self.starts.rewind(replicate, level, mask)
        return [
            self.starts.run_of(run_id, tickets[run_id.replicate])
            for run_id in todo
            if run_id.replicate in tickets and self.starts.giver_of(run_id) not in failed
        ]

    def pending(self) -> list[RunId]:
        """Returns the runs that are still to be trained."""
        return pending_runs(self.spec, self.store, self.experiment.steps_per_epoch, self.source)

    def _still_reachable(self, pending: list[RunId], rows: Sequence[ResultRow]) -> list[RunId]:
        """Tells which of a level's runs diverged; returns what is reachable yet of `pending`."""
        diverged = [row for row in rows if row.diverged >= 0]
        if not diverged:
            return pending
        ended = ended_tickets(self.spec, diverged)
        for row in diverged:
            ends = row.branch == TRUNK and row.replicate in ended
            end = f"; the ticket of replicate {row.replicate} ends there" if ends else ""
            self.observer.note(
                f"{row.run_id}, diverged: no finite loss from step {row.diverged} on{end}"
            )
        left = [run for run in pending if run.level <= last_level(self.spec, run, ended)]
        lost = set(pending) - set(left)
        if lost:
            self.observer.shortened(sum(run_steps(self.experiment, run) for run in lost))
        return left

    def train(self, level: int, runs: Sequence[Run]) -> dict[RunId, FinishedRun]:
        """Trains runs of one level; the dense run leaves its state at the rewind step behind."""
        return self.shares.train(
            level, runs, partial(self._trainer, level), self.store, self.observer, self.stop_signal
        )

    def _trainer(
        self,
        level: int,
        store: RunDirectory,
        observer: Observer,
        stop_signal: Callable[[], int],
        kind: type[LevelTrainer] | None = None,
    ) -> LevelTrainer:
        captured = captures(self.spec, self.experiment.steps_per_epoch)
        return (kind or LevelTrainer)(
            store,
            observer,
            stop_signal,
            save_seconds=self.spec.checkpoint.every_seconds,
            workers=self.experiment.workers(),
            captures={} if level else captured,
        )

    def _keep(self, finished: dict[RunId, FinishedRun]) -> None:
        """Writes checkpoints, then rows: a row says that what later levels need is there."""
        for run_id, run in finished.items():
            if not is_kept(self.spec, run_id):
                continue
            mask = run.mask
            tree = {
                "mask": mask,
                "params": run.state.params,
                "model_state": run.state.model_state,
            }
            if self.spec.rewind.kind == "finetune" and run_id.branch == TRUNK:
                tree["opt_state"] = run.state.opt_state
            layers = kept_counts(mask, self.experiment.rates)
            name = checkpoint_name(run_id)
            self.store.save(run_id.replicate, name, tree, {"layers": layers})
        rows = [run.row for run in finished.values()]
        self._compare(rows)
        # A kill between the two lines leaves progress of finished runs, which nobody asks for.
        self.store.record(rows)
        self.store.clear_progress()

    def _compare(self, rows: Sequence[ResultRow]) -> None:
        """Tells where a run that was trained again has other results than it had before."""
        for row in rows:
            before = self.store.rows.get(row.run_id)
            if before is None:
                continue
            old, new = dataclasses.asdict(before), dataclasses.asdict(row)
            other = [name for name in new if repr(old[name]) != repr(new[name])]
            if found := [name for name in other if name not in UNCOMPARED]:
                name = found[0]
                self.observer.note(
                    f"{row.run_id} was trained again and is another ({name} was {old[name]}, is "
                    f"{new[name]}): this machine or its versions differ"
                )
