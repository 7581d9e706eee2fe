"""Which runs an experiment consists of, and which levels each of them stands on."""

from __future__ import annotations

from lth_jax.results import TRUNK, RunId
from lth_jax.spec import Spec


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
