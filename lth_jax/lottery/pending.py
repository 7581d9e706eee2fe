"""What of an experiment is still to be trained, what each run needs of the others, and its cost."""

from __future__ import annotations

from collections.abc import Container, Hashable, Sequence
from pathlib import Path

from lth_jax.config import TRANSFERS, Spec, duration_steps
from lth_jax.lottery.branches import (
    KINDS,
    OF_COUNTS,
    OF_DENSE,
    OF_PRUNED,
    OF_TRAINED,
    from_scratch,
    waits_for_ticket,
)
from lth_jax.lottery.early_bird import KIND as EARLY_BIRD
from lth_jax.lottery.experiment import Experiment
from lth_jax.lottery.observer import PlannedLevel
from lth_jax.lottery.plan import (
    captures,
    giver,
    is_drawn,
    is_kept,
    origin,
    parting,
    reachable_runs,
    source_level,
)
from lth_jax.pruning.criteria import CRITERIA
from lth_jax.store import RunDirectory, checkpoint_name, drawn_name, level_name
from lth_jax.store.tables import TRUNK, RunId


def pending_runs(
    spec: Spec, store: RunDirectory, steps_per_epoch: int, source: Path | None = None
) -> list[RunId]:
    """Returns the reachable runs that are still to be trained.

    A finished run of the trunk is trained again if its checkpoint is gone or damaged *and* a
    pending run needs it, or if the directory is to be repaired; then, too, where its curve is
    damaged. They are looked for from the last level down, since a run that joins may itself need an
    earlier level. A branch's run is trained again if its network is to be kept, and is not there.
    """
    planned = reachable_runs(spec, store.rows.values(), source)
    pending = {run for run in planned if run not in store.rows or run in store.again}
    pending |= {
        run
        for run in planned
        if (store.repair or run.branch != TRUNK)
        and is_kept(spec, run)
        and not _is_whole(store, run)
    }
    others = {other for run in pending if (other := giver(spec, run))}
    pending |= {run for run in others if run.branch != TRUNK and not _is_whole(store, run)}
    needed = {ticket for run in pending for ticket in needed_tickets(spec, run)}
    for level in range(spec.levels, -1, -1):
        for replicate in range(spec.replicates):
            if (replicate, level) in needed and not store.intact(replicate, level_name(level)):
                run = RunId(TRUNK, level, replicate, 0)
                pending.add(run)
                needed |= needed_tickets(spec, run)
    everything = captures(spec, steps_per_epoch)
    for replicate in range(spec.replicates):
        mine = [run for run in pending if run.replicate == replicate]
        waiting = {origin(spec, run, steps_per_epoch) for run in mine}
        for step, name in everything.items():
            if (store.repair or step in waiting) and not store.intact(replicate, name):
                pending.add(RunId(TRUNK, 0, replicate, 0))
        for run in mine:
            if is_drawn(spec, run) and not store.intact(replicate, drawn_name(run)):
                pending.add(RunId(TRUNK, 0, replicate, 0))
    return [run for run in planned if run in pending]


def needed_tickets(spec: Spec, run: RunId) -> set[tuple[int, int]]:
    """Returns the (replicate, level) of the trunk's runs whose checkpoints a run needs."""
    other, needed = giver(spec, run), {(run.replicate, level) for level in _needed(spec, run)}
    if other and other.branch == TRUNK:
        levels = {0, run.level} if spec.branch_spec(run.branch).is_aligned else {run.level}
        needed |= {(other.replicate, level) for level in levels}
    return needed


def _needed(spec: Spec, run: RunId) -> set[int]:
    """Returns the levels of its own replicate that a run needs."""
    if run.level == 0:
        return set()
    if run.branch == TRUNK:
        return {source_level(spec, run.level)}
    branch, needed = spec.branch_spec(run.branch), {run.level}
    kind = branch.kind
    own = kind not in KINDS  # which may look at all of it
    if own or spec.rewind.kind != "weights" or kind in OF_PRUNED:
        needed.add(source_level(spec, run.level))
    if own or kind in OF_DENSE or branch.is_aligned:
        needed.add(0)
    return needed


def levels_behind(spec: Spec, run: RunId) -> list[int]:
    """Returns the levels of its replicate's trunk whose training a run's network is made of.

    Not what it is started beside: a random mask keeps as many weights as the ticket, whose counts
    are known before anything is trained. The training of a transfer's source is another run's.
    """
    kind = TRUNK if run.branch == TRUNK else spec.branch_spec(run.branch).kind
    if kind == "mask_of" and (other := giver(spec, run)):
        return levels_behind(spec, other)
    if kind in (*TRANSFERS, *OF_COUNTS, EARLY_BIRD) or (kind == "sibling" and not run.level):
        return []
    pruning = spec.pruning
    if kind in OF_DENSE:
        branch = spec.branch_spec(run.branch)
        at_rewind = _scores_at_rewind(
            branch.criterion or pruning.criterion, branch.scored or pruning.at
        )
        return [] if at_rewind else [0]
    before = [run.level] if kind in OF_TRAINED else []
    before += [0] if run.branch != TRUNK and spec.branch_spec(run.branch).is_aligned else []
    made_of = kind in OF_PRUNED or not _scores_at_rewind(pruning.criterion, pruning.at)
    level = run.level
    while made_of and level:
        level = source_level(spec, level)
        before.append(level)
    return sorted(set(before))


def _scores_at_rewind(criterion: str, at: str | None) -> bool:
    """Returns whether masks are made of what is at the rewind point; unknown criteria need more."""
    return at == "rewind" or (not at and criterion in CRITERIA and CRITERIA[criterion].at_rewind)


STAGES = range(3)


def stage(spec: Spec, run: RunId) -> int:
    """Returns when a run trains within its level, 0 first: after the runs that it is made of.

    Some start from what the ticket of their level becomes on its way; some have the mask that
    another branch's network ended with.
    """
    if run.branch == TRUNK:
        return 0
    kind = spec.branch_spec(run.branch).kind
    if kind == "mask_of" and (other := giver(spec, run)):
        return stage(spec, other) + 1
    if kind == "sibling" and not run.level:
        return int(duration_steps(parting(spec, run)[1], steps_per_epoch=1) > 0)
    return int(waits_for_ticket(kind))


def _is_whole(store: RunDirectory, run: RunId) -> bool:
    """Returns whether the checkpoints that a run leaves are whole."""
    names = [checkpoint_name(run)]
    if (run.branch, run.level) == (TRUNK, 0):
        names.append("initial")
    return all(store.intact(run.replicate, name) for name in names)


def planned_levels(
    experiment: Experiment, planned: Sequence[RunId], pending: Container[RunId]
) -> list[PlannedLevel]:
    """Returns what is to be done, level by level, and what it costs.

    Args:
      experiment: the built experiment.
      planned: all runs that can be trained.
      pending: those of them that are still to be.
    """
    programs: set[tuple[int, Hashable]] = set()
    levels: list[PlannedLevel] = []
    for level in sorted({run.level for run in planned}):
        runs = [run for run in planned if run.level == level]
        steps = {run: run_steps(experiment, run) for run in runs}
        layout, cost = experiment.expected(level)
        trained = {run.branch for run in runs if run in pending}
        known = len(programs)
        for branch in trained:
            own = experiment if branch == TRUNK else experiment.for_branch(branch)
            programs.add((id(own.programs), layout))
        done = sum(count for run, count in steps.items() if run not in pending)
        total = sum(steps.values())
        levels.append(PlannedLevel(level, total, done, cost, len(programs) - known))
    return levels


def run_steps(experiment: Experiment, run: RunId) -> int:
    """Returns the updates of a run, those past the step at which it starts, for the time left."""
    first = origin(experiment.spec, run, experiment.steps_per_epoch)
    if run.branch != TRUNK:
        branch = experiment.spec.branch_spec(run.branch)
        experiment = experiment.for_branch(run.branch)
        first = 0 if from_scratch(branch) else first
    return experiment.steps - first
