"""What each run of an experiment starts from: a level's mask, its ticket, or what a branch makes.

It is read from the trunk as the run directory keeps it, level by level: a level is pruned from the
network before it, and its survivors are rewound.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.config import BranchSpec, PruningSpec
from lth_jax.errors import RunError
from lth_jax.lottery.aligning import Aligner, moved
from lth_jax.lottery.branches import new_heads, start_of
from lth_jax.lottery.building import source_optimizer
from lth_jax.lottery.early_bird import KIND, EarlyBirds, draws_of, kept_parts
from lth_jax.lottery.experiment import Experiment
from lth_jax.lottery.learning import learning_of
from lth_jax.lottery.moving import moving_of
from lth_jax.lottery.observer import Observer
from lth_jax.lottery.plan import (
    giver,
    origin,
    parting,
    planned_runs,
    source_level,
)
from lth_jax.lottery.rewinding import StoredTrunk
from lth_jax.lottery.run import Run
from lth_jax.lottery.start_points import BranchPoint, StartPoint, none_donated, none_drawn
from lth_jax.pruning.criteria import CRITERIA
from lth_jax.pruning.granularity import granularity_of
from lth_jax.pruning.masks import ones_mask, with_leaves
from lth_jax.pruning.structured import prune_by
from lth_jax.pruning.trees import PyTree, named_leaves, to_device
from lth_jax.store import RunDirectory, drawn_name
from lth_jax.store.checkpoints import fill
from lth_jax.store.tables import TRUNK, RunId
from lth_jax.training import keys
from lth_jax.training.alignment import Order
from lth_jax.training.states import TrainState, rewind


class Starts:
    """Where the runs of an experiment start.

    Args:
      experiment: the built experiment.
      store: its open run directory.
      observer: who is told of what is odd.
      source: the run directory that transfers take their tickets from.
    """

    def __init__(
        self,
        experiment: Experiment,
        store: RunDirectory,
        observer: Observer,
        source: Path | None = None,
    ):
        self.experiment, self.store, self.observer = experiment, store, observer
        self.spec, self.source = experiment.spec, source
        self.granularity = experiment.channels or granularity_of(self.spec.pruning.granularity)
        self._trunks: dict[int, StoredTrunk] = {}
        self._sources: dict[int, StoredTrunk] = {}
        self._told_heads = False
        self._aligners: dict[str, Aligner] = {}
        self._orders: dict[tuple[str, int], list[Order]] = {}
        for name in self.spec.branches:
            branch = self.spec.branch_spec(name)
            if branch.is_aligned:
                self._aligners[name] = Aligner(
                    experiment, branch.align, field=f"branch.{name}.align"
                )
                self._aligners[name].check()

    def prune(self, replicate: int, level: int) -> PyTree:
        """Returns the mask of a level: kept from when it was trained, or pruned from its source."""
        trunk = self.trunk(replicate)
        if level == 0:
            return ones_mask(trunk.initial.params)
        finished = RunId(TRUNK, level, replicate, 0) in self.store.rows
        kept = trunk.kept_mask(level) if finished else None
        if kept is not None:
            return kept
        source = source_level(self.spec, level)
        scores, before = self._scores(replicate, level, source), trunk.mask(source)
        rounds = self.spec.pruning.rounds or self.experiment.criterion.rounds
        try:
            targets, invert = self.experiment.targets[level], self.spec.pruning.invert
            return prune_by(self.granularity, scores, before, targets, rounds=rounds, invert=invert)
        except ValueError as error:
            raise RunError(
                f"replicate {replicate} cannot be pruned after level {source}: {error}"
            ) from error

    def rewind(self, replicate: int, level: int, mask: PyTree) -> StartPoint:
        """Returns the ticket of a level: its mask, and the state that its survivors go back to."""
        return self.trunk(replicate).start(level, mask)

    def run_of(self, run_id: RunId, ticket: StartPoint) -> Run:
        """Returns a run: the trunk's starts from the ticket, a branch's where its function says."""
        # Of no branch, level or draw: a ticket and its controls see the same batches in the same
        # order, so that their differences are paired.
        data_key = keys.data_key(self.spec.seed, run_id.replicate)
        if run_id.branch == TRUNK:
            last = self.experiment.last_step(ticket.step)
            birds = self._early_birds(run_id)
            on_host = jax.device_get(ticket)
            return Run(run_id, on_host, self.experiment, last, data_key, early_birds=birds)
        branch = self.spec.branch_spec(run_id.branch)
        experiment = self.experiment.for_branch(run_id.branch)
        if branch.kind == "sibling":
            number, _ = parting(self.spec, run_id)
            data_key = keys.sibling_key(self.spec.seed, run_id.replicate, number)
            parted = origin(self.spec, run_id, self.experiment.steps_per_epoch)
            if parted and not run_id.level:
                state = self.trunk(run_id.replicate).kept_state(f"step_{parted}")
                ticket = ticket._replace(state=state, step=parted)
        which = run_id.branch, run_id.replicate, run_id.level, run_id.draw
        at = self._branch_point(run_id, ticket, branch)
        custom = self.spec.under(run_id.branch).custom
        try:
            start = start_of(branch.kind, at, custom)
            if experiment is not self.experiment:
                start = start._replace(state=_for_optimizer(start.state, experiment))
            goes_on = run_id.level == 0 or branch.kind == KIND
            last = experiment.steps if goes_on else experiment.last_step(start.step)
            moving = moving_of(
                at,
                start,
                keys.moving_key(self.spec.seed, *which),
                last=last,
                steps_per_epoch=self.experiment.steps_per_epoch,
                custom=custom,
            )
        except ValueError as error:
            raise RunError(f"{run_id}: {error}") from error
        learning_key = keys.learning_key(self.spec.seed, *which)
        learning = learning_of(at, start, learning_key, last=last, custom=custom)
        # All runs of a level are made before the first one trains: on the host, which has room.
        start = jax.device_get(start)
        return Run(run_id, start, experiment, last, data_key, moving, learning)

    def _branch_point(self, run_id: RunId, ticket: StartPoint, branch: BranchSpec) -> BranchPoint:
        """Returns what a branch's function may make a start of."""
        trunk, level = self.trunk(run_id.replicate), run_id.level
        point, step = trunk.rewind_point(level)
        which = run_id.branch, run_id.replicate, level, run_id.draw
        return BranchPoint(
            ticket=ticket,
            point=point,
            step=step,
            initial=trunk.initial.params,
            rates=self.experiment.for_branch(run_id.branch).rates,
            optimizer=self.experiment.optimizer,
            fresh=self.experiment.fresh,
            # Functions, since few branches ask for these, and they take time.
            dense_scores=lambda: self._dense_scores(run_id.replicate, point),
            ranking=lambda: self._ranking(run_id.replicate, level, branch),
            pruned_from=lambda: trunk.trained(source_level(self.spec, level)),
            steps_behind=lambda: trunk.steps_behind(source_level(self.spec, level)),
            trained=lambda: trunk.trained(level),
            donated=lambda: self._donated(run_id),
            source=lambda: self._source_ticket(run_id.replicate, level),
            options=branch,
            granularity=self.granularity,
            early_bird=lambda: self._early_bird(run_id, branch),
            key=keys.branch_key(self.spec.seed, *which),
        )

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

    def giver_of(self, run_id: RunId) -> int | None:
        """Returns the replicate whose mask a run takes, None where it is its own ticket's."""
        other = giver(self.spec, run_id)
        return other.replicate if other else None

    def _donated(self, run_id: RunId) -> PyTree:
        """Returns the mask that a run takes of another: a ticket's in the order of its own units.

        That of another branch's network is of the same units already.
        """
        other = giver(self.spec, run_id)
        if other is None:
            return none_donated()
        if other.branch != TRUNK:
            return self.trunk(other.replicate).mask_of(other)
        mask, aligner = self.prune(other.replicate, run_id.level), self._aligners.get(run_id.branch)
        if not aligner:
            return mask
        # Of all levels one order: it is found between the dense networks.
        which = run_id.branch, run_id.replicate
        if which not in self._orders:
            dense = (self.trunk(one).trained(0) for one in (run_id.replicate, other.replicate))
            self._orders[which] = aligner.orders(*((s.params, s.model_state) for s in dense))
        return moved((mask, {}), aligner.groups, self._orders[which])[0]

    # Early birds

    def _early_birds(self, run_id: RunId) -> EarlyBirds | None:
        """Returns the tickets that are to be drawn from the dense network on its way."""
        e, replicate = self.experiment, run_id.replicate
        draws = () if run_id.level else draws_of(self.spec, replicate, planned_runs(self.spec))
        if not draws:
            return None

        def kept(level: int, state: TrainState) -> np.ndarray:
            mask = self._mask_from(replicate, level, state)
            return kept_parts(mask, e.channels, list(e.rates))

        full = ones_mask(self.trunk(replicate).initial.params)
        size = len(kept_parts(full, e.channels, list(e.rates)))
        return EarlyBirds(replicate, draws, e.steps_per_epoch, e.steps, kept, size)

    def _early_bird(self, run_id: RunId, branch: BranchSpec) -> StartPoint:
        """Returns where a run starts whose ticket was drawn from the dense network on its way."""
        if branch.kind != KIND:
            return none_drawn()
        trunk = self.trunk(run_id.replicate)
        state, step = trunk.kept(drawn_name(run_id))
        mask = self._mask_from(run_id.replicate, run_id.level, state)
        return StartPoint(mask, rewind(state, mask, self.experiment.optimizer), step)

    def _mask_from(self, replicate: int, level: int, state: TrainState) -> PyTree:
        """Returns the mask of a level as if it were pruned at once from a dense network."""
        spec, point = self.spec.pruning, self.trunk(replicate).rewind_point(level)[0]
        key = keys.pruning_key(self.spec.seed, replicate, level)
        scores = self.experiment.scores(state, point.params, key, spec)
        return prune_by(
            self.granularity,
            scores,
            ones_mask(state.params),
            self.experiment.targets[level],
            rounds=spec.rounds or self.experiment.criterion.rounds,
            invert=spec.invert,
        )

    def _source_trunk(self, replicate: int) -> StoredTrunk:
        """Returns a replicate's trunk of the experiment that transfers start from."""
        if replicate not in self._sources:
            assert self.source is not None, "the command refuses transfers without a source"
            store = RunDirectory.read(self.source)
            spec = store.spec()
            self._sources[replicate] = StoredTrunk(store, spec, replicate, source_optimizer(spec))
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

    def _ranking(
        self, replicate: int, level: int, branch: BranchSpec
    ) -> tuple[Callable[[PyTree], PyTree], int]:
        """Returns the scores of the dense network by a branch's criterion, and its rounds."""
        spec = self.spec.pruning
        if branch.criterion:  # with what that criterion does by itself
            spec = PruningSpec(criterion=branch.criterion, examples=spec.examples)
        spec = dataclasses.replace(spec, at=branch.scored or spec.at)
        rounds = spec.rounds or CRITERIA[spec.criterion].rounds
        return self._scores(replicate, level, 0, spec, branch.custom), rounds

    def _dense_scores(self, replicate: int, point: TrainState) -> PyTree:
        """Returns the scores of the trained dense network by which levels are pruned."""
        scores = self._scores(replicate, 0)(ones_mask(point.params))
        return jax.tree.map(jnp.negative, scores) if self.spec.pruning.invert else scores

    def _scores(
        self,
        replicate: int,
        level: int,
        source: int = 0,
        spec: PruningSpec | None = None,
        custom: Mapping[str, Any] = MappingProxyType({}),
    ) -> Callable[[PyTree], PyTree]:
        """Returns a criterion, the spec's by default, as a function of the mask.

        It is for pruning the network of level `source` to `level`; `custom` are own fields beside
        the spec's.
        """
        spec, trunk = spec or self.spec.pruning, self.trunk(replicate)
        point, _ = trunk.rewind_point(max(level, 1))
        at_rewind = spec.at == "rewind" or (not spec.at and CRITERIA[spec.criterion].at_rewind)
        scored = point if at_rewind else trunk.trained(source)
        key = keys.pruning_key(self.spec.seed, replicate, level)
        return self.experiment.scores(scored, point.params, key, spec, custom)


def _for_optimizer(state: TrainState, experiment: Experiment) -> TrainState:
    """Returns `state` for a branch with another optimizer: begun anew where its state differs."""
    # The trunk's moments go on where the branch's optimizer knows them: a controlled difference is
    # the learning rate alone, say, and not the moments too.
    fresh = jax.eval_shape(experiment.optimizer.init, state.params)
    if jax.tree.structure(fresh) == jax.tree.structure(state.opt_state):
        return state
    return state._replace(opt_state=experiment.optimizer.init(state.params))
