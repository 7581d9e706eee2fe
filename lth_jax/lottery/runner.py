"""The trunk: train, prune, rewind, repeat; and at each level the branches that control it.

Frankle & Carbin 2019, §1: (1) initialize randomly, (2) train, (3) prune, (4) reset the survivors to
their values at the rewind step, and go on from (2).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np

from lth_jax.errors import RunError
from lth_jax.export.tickets import load_ticket, load_trained, mask_of
from lth_jax.lottery.branches import BRANCHES, FROM_SCRATCH, BranchPoint, Ticket, new_heads
from lth_jax.lottery.experiment import Experiment
from lth_jax.lottery.groups import Job, Trained
from lth_jax.lottery.level import LevelTrainer
from lth_jax.lottery.observer import Observer
from lth_jax.lottery.plan import pending_runs, source_level
from lth_jax.pruning.criteria import Scoring
from lth_jax.pruning.masks import apply_mask, kept_counts, ones_mask, with_leaves
from lth_jax.pruning.selection import prune_to
from lth_jax.pruning.trees import PyTree, named_leaves, to_device
from lth_jax.store import RunDirectory, level_name
from lth_jax.store.checkpoints import fill
from lth_jax.store.results import TRUNK, RunId
from lth_jax.training.keys import derive
from lth_jax.training.states import TrainState, rewind


class Trunk:
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
        self._initial: dict[int, TrainState] = {}
        self._points: dict[int, TrainState] = {}
        self._told_heads = False

    def run(self) -> None:
        """Trains every run of the spec that is not done yet, level by level.

        Raises:
          Interrupted: a signal came; the same experiment goes on from there.
          RunError: a run diverged, so that nothing can be ranked; what was done is kept.
        """
        pending = pending_runs(self.spec, self.store, self.experiment.rewind_step)
        if pending and self.experiment.kernels.note:
            self.observer.note(self.experiment.kernels.note)
        for level in range(self.spec.levels + 1):
            ids = [id for id in pending if id.level == level]
            if not ids:
                continue
            start = time.perf_counter()
            tickets = {r: self.find_ticket(r, level) for r in sorted({id.replicate for id in ids})}
            jobs = [self.job(id, tickets[id.replicate]) for id in ids]
            trained = self._trainer(level).train(level, jobs)
            self._keep(level, tickets, trained)
            rows = [done.row for done in trained.values()]
            self.observer.level_finished(level, rows, time.perf_counter() - start)

    def find_ticket(self, replicate: int, level: int) -> Ticket:
        """The ticket of a level: its mask, and what its survivors go on from."""
        mask = self.mask(replicate, level)
        point, step = self.rewind_point(replicate, level)
        if level > 0 and self.spec.rewind.kind != "weights":
            source = source_level(self.spec, level)
            trained = self.trained(replicate, source, point)
            if self.spec.rewind.kind == "finetune":
                point, step = trained, self._end(source)
            else:
                point = TrainState(trained.params, trained.model_state, point.opt_state)
        return Ticket(mask, rewind(point, mask, self.experiment.optimizer), step)

    def job(self, id: RunId, ticket: Ticket) -> Job:
        """A run: the trunk's starts from the ticket, a branch's from what it makes of it."""
        if id.branch == TRUNK:
            return Job(id, ticket, self.experiment, self._last(self.experiment, ticket.step))
        branch = self.spec.branch_spec(id.branch)
        experiment = self.experiment.variant(branch.train_spec(self.spec.train))
        point, step = self.rewind_point(id.replicate, id.level)
        at = BranchPoint(
            ticket=ticket,
            point=point,
            step=step,
            initial=self.initial(id.replicate).params,
            rates=experiment.rates,
            optimizer=self.experiment.optimizer,
            fresh=self.experiment.fresh,
            dense_scores=lambda: self._scores(id.replicate, 0)(ones_mask(point.params)),
            source=lambda: self.source_ticket(id.replicate, id.level),
            options=branch,
            key=derive(self.spec.seed, "branch", id.branch, id.replicate, id.level, id.draw),
        )
        try:
            start = BRANCHES[branch.kind](at)
        except ValueError as error:
            raise RunError(f"{id}: {error}") from error
        if experiment is not self.experiment:
            start = start._replace(state=_for_optimizer(start.state, experiment))
        return Job(id, start, experiment, self._last(experiment, start.step))

    def source_ticket(self, replicate: int, level: int) -> Ticket:
        """The ticket of the source experiment for a transfer."""
        assert self.source is not None, "the command refuses transfers without a source"
        ticket = load_ticket(self.source, level, replicate)
        own = self.initial(replicate).params
        new = sorted(new_heads(ticket.state.params, own))
        if new and not self._told_heads:
            self._told_heads = True
            self.observer.note(
                f"the source has another output layer: {', '.join(new)} of transfers start from "
                "this experiment's own initialization, with a full mask"
            )
        return ticket

    def mask(self, replicate: int, level: int) -> PyTree:
        """The mask of a level: kept from when it was trained, or pruned from its source level."""
        params = self.initial(replicate).params
        if level == 0:
            return ones_mask(params)
        done = self._load(replicate, level)
        if done is not None:
            return mask_of(done, params)
        source = source_level(self.spec, level)
        before = mask_of(self._loaded(replicate, source), params)
        try:
            return prune_to(
                self._scores(replicate, level, source),
                before,
                self.experiment.targets[level],
                rounds=self.spec.pruning.rounds or self.experiment.criterion.rounds,
            )
        except ValueError as error:
            raise RunError(
                f"replicate {replicate} cannot be pruned after level {source}: {error}; "
                "it diverged: lower train.learning_rate"
            ) from error

    def trained(self, replicate: int, level: int, like: TrainState) -> TrainState:
        """The state in which a level of the trunk ended; the optimizer's only for `finetune`."""
        kept = {"params": like.params, "model_state": like.model_state}
        if self.spec.rewind.kind == "finetune":
            kept["opt_state"] = like.opt_state
        return like._replace(**to_device(fill(kept, self._loaded(replicate, level))))

    def rewind_point(self, replicate: int, level: int) -> tuple[TrainState, int]:
        """The dense state at the rewind step, and that step; level 0's is initialization."""
        initial = self.initial(replicate)
        step = self.experiment.rewind_step
        if level == 0 or step == 0:
            return initial, 0
        if replicate not in self._points:
            arrays = self.store.load(replicate, "rewind")
            assert arrays is not None, "pending_runs trains level 0 again if it is gone"
            self._points[replicate] = to_device(fill(initial, arrays))
        return self._points[replicate], step

    def initial(self, replicate: int) -> TrainState:
        """The replicate's stored initialization; drawn, and stored, the first time."""
        if replicate not in self._initial:
            state = self.experiment.initial(replicate)
            if self.spec.pretrain:
                state = self._pretrained(replicate, state)
            kept = {"params": state.params, "model_state": state.model_state}
            arrays = self.store.load(replicate, "initial")
            if arrays is None:
                self.store.save(replicate, "initial", kept)
            else:
                state = state._replace(**to_device(fill(kept, arrays)))
            self._initial[replicate] = state
        return self._initial[replicate]

    def _pretrained(self, replicate: int, fresh: TrainState) -> TrainState:
        """The source's trained dense network, with the fresh output layer if theirs is another."""
        assert self.source is not None, "the command refuses pre-training without a source"
        params, model_state = load_trained(self.source, 0, replicate)
        own = named_leaves(fresh.params)
        heads = new_heads(params, fresh.params)
        params = with_leaves(params, {name: own[name] for name in heads})
        return fresh._replace(params=params, model_state=model_state)

    def _scores(self, replicate: int, level: int, source: int = 0) -> Callable[[PyTree], PyTree]:
        """The criterion as a function of the mask so far, for pruning `source` to `level`."""
        spec, criterion = self.spec.pruning, self.experiment.criterion
        point, _ = self.rewind_point(replicate, max(level, 1))
        at_rewind = spec.at == "rewind" or (not spec.at and criterion.at_rewind)
        scored = point if at_rewind else self.trained(replicate, source, point)
        key = derive(self.spec.seed, "prune", replicate, level)
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

    def _end(self, level: int) -> int:
        """The step at which a level of the fine-tuned trunk ends: it goes on counting."""
        start = self._end(source_level(self.spec, level)) if level else 0
        return self._last(self.experiment, start)

    def _last(self, experiment: Experiment, start: int) -> int:
        """The step at which a run from `start` ends: past the rewind step, as much later."""
        return experiment.steps + max(0, start - self.experiment.rewind_step)

    def _trainer(self, level: int) -> LevelTrainer:
        step = self.experiment.rewind_step

        def capture(replicate: int, state: TrainState) -> None:
            self.store.save(replicate, "rewind", state, {"step": step})

        return LevelTrainer(
            self.store,
            self.observer,
            self.stop_signal,
            save_seconds=self.spec.checkpoint.every_seconds,
            workers=self.experiment.workers(),
            capture_at=step if level == 0 and step else -1,
            capture=capture,
        )

    def _keep(self, level: int, tickets: dict[int, Ticket], trained: dict[RunId, Trained]) -> None:
        """Checkpoints before rows: a row says that what later levels need of its run is there."""
        for id, done in trained.items():
            if id.branch != TRUNK:
                continue
            mask = tickets[id.replicate].mask
            tree = {
                "mask": mask,
                "params": done.state.params,
                "model_state": done.state.model_state,
            }
            if self.spec.rewind.kind == "finetune":
                tree["opt_state"] = done.state.opt_state
            layers = kept_counts(mask, self.experiment.rates)
            self.store.save(id.replicate, level_name(level), tree, {"layers": layers})
        self.store.record(done.row for done in trained.values())
        self.store.clear_progress()

    def _load(self, replicate: int, level: int) -> Mapping[str, np.ndarray] | None:
        if RunId(TRUNK, level, replicate, 0) not in self.store.rows:
            return None
        return self.store.load(replicate, level_name(level))

    def _loaded(self, replicate: int, level: int) -> Mapping[str, np.ndarray]:
        arrays = self._load(replicate, level)
        assert arrays is not None, "pending_runs trains a level whose checkpoint is gone"
        return arrays


def run_steps(experiment: Experiment, id: RunId) -> int:
    """The updates of a run, for the time left: those past the step at which it starts."""
    first = experiment.rewind_step if id.level else 0
    if id.branch != TRUNK:
        branch = experiment.spec.branch_spec(id.branch)
        experiment = experiment.variant(branch.train_spec(experiment.spec.train))
        first = 0 if branch.kind in FROM_SCRATCH else first
    return experiment.steps - first


def _for_optimizer(state: TrainState, experiment: Experiment) -> TrainState:
    """`state` for a branch with another optimizer: begun anew where its own state differs."""
    fresh = jax.eval_shape(experiment.optimizer.init, state.params)
    if jax.tree.structure(fresh) == jax.tree.structure(state.opt_state):
        return state
    return state._replace(opt_state=experiment.optimizer.init(state.params))
