"""The level loop: train, prune, rewind, repeat; and at each level the branches that control it.

Frankle & Carbin 2019, §1: (1) initialize a network at random, (2) train it, (3) prune it, (4) reset
the survivors to their values at the rewind step, and go on from (2). The sequence of levels that
this makes is the *trunk*.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from lth_jax.errors import RunError
from lth_jax.lottery.branches import BRANCHES, FROM_SCRATCH, BranchPoint, StartPoint, new_heads
from lth_jax.lottery.experiment import Experiment, optimizer_of
from lth_jax.lottery.level import FinishedRun, LevelTrainer, Run
from lth_jax.lottery.observer import Observer
from lth_jax.lottery.plan import pending_runs, source_level
from lth_jax.lottery.rewinding import StoredTrunk
from lth_jax.pruning.criteria import Scoring
from lth_jax.pruning.masks import apply_mask, kept_counts, ones_mask, with_leaves
from lth_jax.pruning.selection import prune_to
from lth_jax.pruning.trees import PyTree, named_leaves, to_device
from lth_jax.store import RunDirectory, level_name
from lth_jax.store.checkpoints import fill
from lth_jax.store.tables import TRUNK, RunId
from lth_jax.training import keys
from lth_jax.training.states import TrainState


class Runner:
    """An experiment at work in its run directory.

    Args:
      experiment: the built experiment.
      store: its open run directory.
      observer: who is told what happens.
      source: the run directory that transfers take their tickets from.
      stop_signal: gives the number of a signal that asks for a stop, or 0.
    """

    def __init__(
        self,
        experiment: Experiment,
        store: RunDirectory,
        observer: Observer,
        source: Path | None = None,
        stop_signal: Callable[[], int] = lambda: 0,
    ):
        self.experiment, self.store, self.observer = experiment, store, observer
        self.source, self.stop_signal = source, stop_signal
        self.spec = experiment.spec
        self._trunks: dict[int, StoredTrunk] = {}
        self._sources: dict[int, StoredTrunk] = {}
        self._told_heads = False

    def run(self) -> None:
        """Trains every run of the spec that is not done yet, level by level.

        Raises:
          Interrupted: a signal came; the same experiment goes on from there.
          RunError: a run diverged, so that nothing can be ranked; what was done is kept.
        """
        pending = pending_runs(self.spec, self.store, self.experiment.rewind_step)
        if pending and self.experiment.native.note:
            self.observer.note(self.experiment.native.note)
        for level in range(self.spec.levels + 1):
            todo = [run for run in pending if run.level == level]
            if not todo:
                continue
            began = time.perf_counter()
            tickets = {}
            for replicate in sorted({run.replicate for run in todo}):
                mask = self.prune(replicate, level)
                tickets[replicate] = self.rewind(replicate, level, mask)
            runs = [self.run_of(run_id, tickets[run_id.replicate]) for run_id in todo]
            finished = self.train(level, runs)
            self._keep(level, tickets, finished)
            rows = [run.row for run in finished.values()]
            self.observer.level_finished(level, rows, time.perf_counter() - began)

    def prune(self, replicate: int, level: int) -> PyTree:
        """Returns the mask of a level: kept from when it was trained, or pruned from its source."""
        trunk = self.trunk(replicate)
        if level == 0:
            return ones_mask(trunk.initial.params)
        finished = RunId(TRUNK, level, replicate, 0) in self.store.rows
        if finished and self.store.intact(replicate, level_name(level)):
            return trunk.mask(level)
        source = source_level(self.spec, level)
        scores, before = self._scores(replicate, level, source), trunk.mask(source)
        rounds = self.spec.pruning.rounds or self.experiment.criterion.rounds
        try:
            return prune_to(scores, before, self.experiment.targets[level], rounds=rounds)
        except ValueError as error:
            raise RunError(
                f"replicate {replicate} cannot be pruned after level {source}: {error}; "
                "it diverged: lower train.learning_rate"
            ) from error

    def rewind(self, replicate: int, level: int, mask: PyTree) -> StartPoint:
        """Returns the ticket of a level: its mask, and the state that its survivors go back to."""
        return self.trunk(replicate).start(level, mask)

    def run_of(self, run_id: RunId, ticket: StartPoint) -> Run:
        """Returns a run: the trunk's starts from the ticket, a branch's where its function says."""
        data_key = keys.data_key(self.spec.seed, run_id.replicate)
        if run_id.branch == TRUNK:
            last = self.experiment.last_step(ticket.step)
            return Run(run_id, ticket, self.experiment, last, data_key)
        branch = self.spec.branch_spec(run_id.branch)
        experiment = self.experiment.for_branch(run_id.branch)
        trunk = self.trunk(run_id.replicate)
        point, step = trunk.rewind_point(run_id.level)
        at = BranchPoint(
            ticket=ticket,
            point=point,
            step=step,
            initial=trunk.initial.params,
            rates=experiment.rates,
            optimizer=self.experiment.optimizer,
            fresh=self.experiment.fresh,
            dense_scores=lambda: self._scores(run_id.replicate, 0)(ones_mask(point.params)),
            source=lambda: self._source_ticket(run_id.replicate, run_id.level),
            options=branch,
            key=keys.branch_key(
                self.spec.seed, run_id.branch, run_id.replicate, run_id.level, run_id.draw
            ),
        )
        try:
            start = BRANCHES[branch.kind](at)
        except ValueError as error:
            raise RunError(f"{run_id}: {error}") from error
        if experiment is not self.experiment:
            start = start._replace(state=_for_optimizer(start.state, experiment))
        return Run(run_id, start, experiment, experiment.last_step(start.step), data_key)

    def trunk(self, replicate: int) -> StoredTrunk:
        """Returns a replicate's trunk; its initialization is drawn, and stored, the first time."""
        if replicate not in self._trunks:
            self._trunks[replicate] = StoredTrunk(
                self.store,
                self.spec,
                replicate,
                self.experiment.optimizer,
                self._initial(replicate),
            )
        return self._trunks[replicate]

    def _initial(self, replicate: int) -> TrainState:
        state = self.experiment.initial(replicate)
        if self.spec.pretrain:
            state = self._pretrained(replicate, state)
        kept = {"params": state.params, "model_state": state.model_state}
        arrays = self.store.load(replicate, "initial")
        if arrays is None:
            self.store.save(replicate, "initial", kept)
            return state
        # What is on disk counts: another version of jax may draw other numbers.
        return state._replace(**to_device(fill(kept, arrays)))

    def _source_trunk(self, replicate: int) -> StoredTrunk:
        """Returns a replicate's trunk of the experiment that transfers start from."""
        if replicate not in self._sources:
            assert self.source is not None, "the command refuses transfers without a source"
            store = RunDirectory.read(self.source)
            spec = store.spec()
            # The structure of its state does not depend on when a schedule drops.
            optimizer = optimizer_of(spec, steps_per_epoch=1)
            self._sources[replicate] = StoredTrunk(store, spec, replicate, optimizer)
        return self._sources[replicate]

    def _source_ticket(self, replicate: int, level: int) -> StartPoint:
        """Returns the ticket of the source experiment for a transfer."""
        trunk = self._source_trunk(replicate)
        ticket = trunk.start(level, trunk.mask(level))
        own = self.trunk(replicate).initial.params
        new = sorted(new_heads(ticket.state.params, own))
        if new and not self._told_heads:
            self._told_heads = True
            self.observer.note(
                f"the source has another output layer: {', '.join(new)} of transfers start from "
                "this experiment's own initialization, with a full mask"
            )
        return ticket

    def _pretrained(self, replicate: int, fresh: TrainState) -> TrainState:
        """Returns the source's trained dense network; another output layer begins fresh."""
        trained = self._source_trunk(replicate).trained(0)
        own = named_leaves(fresh.params)
        heads = new_heads(trained.params, fresh.params)
        params = with_leaves(trained.params, {name: own[name] for name in heads})
        return fresh._replace(params=params, model_state=trained.model_state)

    def _scores(self, replicate: int, level: int, source: int = 0) -> Callable[[PyTree], PyTree]:
        """Returns the criterion as a function of the mask, for pruning `source` to `level`."""
        spec, criterion, trunk = self.spec.pruning, self.experiment.criterion, self.trunk(replicate)
        point, _ = trunk.rewind_point(max(level, 1))
        at_rewind = spec.at == "rewind" or (not spec.at and criterion.at_rewind)
        scored = point if at_rewind else trunk.trained(source)
        key = keys.pruning_key(self.spec.seed, replicate, level)
        probe = None
        if criterion.needs_probe:
            probe = self.experiment.probe(jax.random.fold_in(key, 1), scored.model_state)

        def scores(mask: PyTree) -> PyTree:
            return criterion.scores(
                Scoring(
                    final=apply_mask(scored.params, mask),
                    initial=apply_mask(point.params, mask),
                    key=key,
                    probe=probe,
                    alpha=spec.alpha,
                    temperature=spec.temperature,
                )
            )

        return scores

    def train(self, level: int, runs: Sequence[Run]) -> dict[RunId, FinishedRun]:
        """Trains runs of one level; the dense run leaves its state at the rewind step behind."""
        step = self.experiment.rewind_step

        def capture(replicate: int, step: int, state: TrainState) -> None:
            self.store.save(replicate, "rewind", state, {"step": step})

        trainer = LevelTrainer(
            self.store,
            self.observer,
            self.stop_signal,
            save_seconds=self.spec.checkpoint.every_seconds,
            workers=self.experiment.workers(),
            capture_at=(step,) if level == 0 and step else (),
            capture=capture,
        )
        return trainer.train(level, runs)

    def _keep(
        self, level: int, tickets: dict[int, StartPoint], finished: dict[RunId, FinishedRun]
    ) -> None:
        """Writes checkpoints, then rows: a row says that what later levels need is there."""
        for run_id, run in finished.items():
            if run_id.branch != TRUNK:
                continue
            mask = tickets[run_id.replicate].mask
            tree = {
                "mask": mask,
                "params": run.state.params,
                "model_state": run.state.model_state,
            }
            if self.spec.rewind.kind == "finetune":
                tree["opt_state"] = run.state.opt_state
            layers = kept_counts(mask, self.experiment.rates)
            self.store.save(run_id.replicate, level_name(level), tree, {"layers": layers})
        self.store.record(run.row for run in finished.values())
        self.store.clear_progress()


def run_steps(experiment: Experiment, run: RunId) -> int:
    """Returns the updates of a run, those past the step at which it starts, for the time left."""
    first = experiment.rewind_step if run.level else 0
    if run.branch != TRUNK:
        branch = experiment.spec.branch_spec(run.branch)
        experiment = experiment.for_branch(run.branch)
        first = 0 if branch.kind in FROM_SCRATCH else first
    return experiment.steps - first


def _for_optimizer(state: TrainState, experiment: Experiment) -> TrainState:
    """Returns `state` for a branch with another optimizer: begun anew where its state differs."""
    fresh = jax.eval_shape(experiment.optimizer.init, state.params)
    if jax.tree.structure(fresh) == jax.tree.structure(state.opt_state):
        return state
    return state._replace(opt_state=experiment.optimizer.init(state.params))
