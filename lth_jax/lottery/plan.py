"""Which runs an experiment consists of, which levels each needs, and what is still to be done."""

from __future__ import annotations

from lth_jax.config import Spec
from lth_jax.store import RunDirectory, level_name
from lth_jax.store.tables import TRUNK, RunId


def planned_runs(spec: Spec) -> list[RunId]:
    """Returns every run that a spec asks for, by level, branch (trunk first), replicate, draw."""
    runs = []
    for level in range(spec.levels + 1):
        runs += [RunId(TRUNK, level, replicate, 0) for replicate in range(spec.replicates)]
        for name in spec.branches:
            branch = spec.branch_spec(name)
            if level in (branch.levels or range(1, spec.levels + 1)):
                runs += [
                    RunId(name, level, replicate, draw)
                    for replicate in range(spec.replicates)
                    for draw in range(branch.draws)
                ]
    return runs


def source_level(spec: Spec, level: int) -> int:
    """Returns the level that `level` is pruned from: the one before, or 0 in one-shot schedules."""
    return 0 if spec.pruning.schedule == "one_shot" else level - 1


def needed_levels(spec: Spec, run: RunId) -> set[int]:
    """Returns the levels of its replicate's trunk whose checkpoints a run needs."""
    if run.level == 0:
        return set()
    if run.branch == TRUNK:
        return {source_level(spec, run.level)}
    needed = {run.level}
    if spec.rewind.kind != "weights":
        needed.add(source_level(spec, run.level))
    if spec.branch_spec(run.branch).kind == "one_shot":
        needed.add(0)
    return needed


def pending_runs(spec: Spec, store: RunDirectory, rewind_step: int) -> list[RunId]:
    """Returns the planned runs that are still to be trained.

    A finished run of the trunk is trained again if its checkpoint is gone or damaged *and* a
    pending run needs it. They are looked for from the last level down, since a run that joins may
    itself need an earlier level.
    """
    planned = planned_runs(spec)
    pending = {run for run in planned if run not in store.rows}
    for level in range(spec.levels, -1, -1):
        for replicate in range(spec.replicates):
            waiting = [run for run in pending if run.replicate == replicate]
            needed = any(level in needed_levels(spec, run) for run in waiting)
            if needed and not store.intact(replicate, level_name(level)):
                pending.add(RunId(TRUNK, level, replicate, 0))
    if rewind_step:
        for replicate in {run.replicate for run in pending if run.level > 0}:
            if not store.intact(replicate, "rewind"):
                pending.add(RunId(TRUNK, 0, replicate, 0))
    return [run for run in planned if run in pending]
