"""Which runs an experiment consists of, which levels each stands on, and what is still to do."""

from __future__ import annotations

from lth_jax.config import Spec
from lth_jax.store import RunDirectory, level_name
from lth_jax.store.results import TRUNK, RunId


def planned_runs(spec: Spec) -> list[RunId]:
    """Every run that a spec asks for, by level, branch, replicate and draw; the trunk first."""
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
    """The level that `level` is pruned from: the one before, or 0 in a one-shot schedule."""
    return 0 if spec.pruning.schedule == "one_shot" else level - 1


def needed_levels(spec: Spec, id: RunId) -> set[int]:
    """The levels of the trunk whose checkpoints a run stands on, those of its own replicate."""
    if id.level == 0:
        return set()
    if id.branch == TRUNK:
        return {source_level(spec, id.level)}
    needed = {id.level}
    if spec.rewind.kind != "weights":
        needed.add(source_level(spec, id.level))
    if spec.branch_spec(id.branch).kind == "one_shot":
        needed.add(0)
    return needed


def pending_runs(spec: Spec, store: RunDirectory, rewind_step: int) -> list[RunId]:
    """The planned runs that are still to be trained.

    A finished run of the trunk is trained again if its checkpoint is gone or damaged *and* a
    pending run needs it. Looked for from the last level down, since needs point to earlier ones.
    """
    planned = planned_runs(spec)
    pending = {id for id in planned if id not in store.rows}
    for level in range(spec.levels, -1, -1):
        for replicate in range(spec.replicates):
            waiting = [id for id in pending if id.replicate == replicate]
            needed = any(level in needed_levels(spec, id) for id in waiting)
            if needed and not store.intact(replicate, level_name(level)):
                pending.add(RunId(TRUNK, level, replicate, 0))
    if rewind_step:
        for replicate in {id.replicate for id in pending if id.level > 0}:
            if not store.intact(replicate, "rewind"):
                pending.add(RunId(TRUNK, 0, replicate, 0))
    return [id for id in planned if id in pending]
