"""Which runs an experiment consists of."""

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
