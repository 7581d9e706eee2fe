"""Which runs an experiment consists of, and which of them can be trained.

JAX is not imported: whoever only looks at a run need not wait for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from lth_jax.config import TRANSFERS, BranchSpec, Spec, duration_steps
from lth_jax.disk.files import exists
from lth_jax.errors import StoreError
from lth_jax.store import RunDirectory, checkpoint_name
from lth_jax.store.tables import TRUNK, ResultRow, RunId


def planned_runs(spec: Spec) -> list[RunId]:
    """Returns every run that a spec asks for, by level, branch (trunk first), replicate, draw."""
    runs = []
    for level in range(spec.levels + 1):
        runs += [RunId(TRUNK, level, replicate, 0) for replicate in range(spec.replicates)]
        for name in spec.branches:
            branch = spec.branch_spec(name)
            if level in (branch.levels or range(_first_level(branch), spec.levels + 1)):
                runs += [
                    RunId(name, level, replicate, draw)
                    for replicate in range(spec.replicates)
                    for draw in range(branch.draws * (1 if level else len(branch.at)))
                ]
    return runs


def _first_level(branch: BranchSpec) -> int:
    """Returns the level that a branch starts at where its options name none."""
    return 0 if branch.kind == "sibling" else 1


def parting(spec: Spec, run: RunId) -> tuple[int, str]:
    """Returns (which pair, when) of a sibling: of the dense network, when it parts from it.

    The draws of the dense network's siblings go through `branch.NAME.at` in turn, so that more
    draws leave the others what they are. Siblings of tickets part where these start.
    """
    at = spec.branch_spec(run.branch).at
    return (run.draw, "") if run.level else (run.draw // len(at), at[run.draw % len(at)])


def is_kept(spec: Spec, run: RunId) -> bool:
    """Returns whether the trained network of a run is kept: others may take its mask."""
    if run.branch == TRUNK or spec.branch_spec(run.branch).is_kept:
        return True
    takers = (spec.branch_spec(name) for name in spec.branches)
    return any(one.kind == "mask_of" and one.of == run.branch for one in takers)


def is_drawn(spec: Spec, run: RunId) -> bool:
    """Returns whether a run starts from a state of the dense network that is kept for it."""
    return run.branch != TRUNK and spec.branch_spec(run.branch).kind == "early_bird"


def ended_tickets(spec: Spec, rows: Iterable[ResultRow]) -> dict[int, int]:
    """Returns the level at which the ticket of a replicate ended, for those whose ticket diverged.

    A network that diverged has no ranking: nothing is pruned from it. In one-shot schedules that
    is the dense one alone; another level's leaves the others as they are.
    """
    ended: dict[int, int] = {}
    for row in rows:
        last = row.diverged >= 0 and source_level(spec, row.level + 1) == row.level
        if row.branch == TRUNK and last:
            ended[row.replicate] = min(row.level, ended.get(row.replicate, row.level))
    return ended


def giver(spec: Spec, run: RunId) -> RunId | None:
    """Returns the run whose mask a run takes that is not its own ticket's; None for most.

    That of another replicate's ticket, which stays the same when there are more; or that of another
    branch's network, by draw, the first where that has fewer.
    """
    if run.branch == TRUNK:
        return None
    branch = spec.branch_spec(run.branch)
    if branch.takes_mask:
        return RunId(TRUNK, run.level, run.replicate - 1 if run.replicate else 1, 0)
    if branch.kind == "mask_of":
        draw = run.draw if run.draw < spec.branch_spec(branch.of).draws else 0
        return run._replace(branch=branch.of, draw=draw)
    return None


def last_level(spec: Spec, run: RunId, ended: Mapping[int, int]) -> int:
    """Returns the level, up to the run's, at which the first ticket ended that it starts from."""
    other = giver(spec, run)
    of = {run.replicate, other.replicate} if other else {run.replicate}
    return min(ended.get(replicate, run.level) for replicate in of)


def reachable_runs(
    spec: Spec, rows: Iterable[ResultRow], source: Path | None = None
) -> list[RunId]:
    """Returns the planned runs that can be trained: those that start from a ticket that there is.

    Args:
      spec: the spec.
      rows: its results so far.
      source: the run directory that transfers and pre-training start from; tickets that ended
        there are none here. One that cannot be read is passed over.
    """
    planned = planned_runs(spec)
    ended = ended_tickets(spec, rows)
    there: dict[int, int] = {}
    untrained: set[int] = set()
    if source and (spec.pretrain or any(_is_transfer(spec, run) for run in planned)):
        try:
            store = RunDirectory.read(source)
            there = ended_tickets(store.spec(), store.rows.values())
            untrained = {replicate for replicate, level in there.items() if level == 0}
        except StoreError:
            pass

    def reachable(run: RunId) -> bool:
        last = last_level(spec, run, ended)
        if _is_transfer(spec, run):
            last = min(last, there.get(run.replicate, run.level))
        return run.level <= last and not (spec.pretrain and run.replicate in untrained)

    return [run for run in planned if reachable(run)]


def _is_transfer(spec: Spec, run: RunId) -> bool:
    return run.branch != TRUNK and spec.branch_spec(run.branch).kind in TRANSFERS


def source_path(spec: Spec, path: Path) -> Path | None:
    """Returns the run directory of the source of the run in `path`, if one is known."""
    if (path / "source" / "spec.json").exists():
        return path / "source"
    named = spec.source.get("run")
    return Path(named) if named else None


def source_level(spec: Spec, level: int) -> int:
    """Returns the level that `level` is pruned from: the one before, or 0 in one-shot schedules."""
    return 0 if spec.pruning.schedule == "one_shot" else level - 1


def is_done(spec: Spec, store: RunDirectory, planned: Iterable[RunId]) -> bool:
    """Returns whether every run has its row, and those of branches that are kept their network."""
    return all(
        run in store.rows
        and (
            run.branch == TRUNK
            or not is_kept(spec, run)
            or exists(store.checkpoint(run.replicate, checkpoint_name(run)))
        )
        for run in planned
    )


def captures(spec: Spec, steps_per_epoch: int) -> dict[int, str]:
    """Returns the steps at which the dense run's state is kept, each with its checkpoint's name."""
    rewind_step = duration_steps(spec.rewind.step, steps_per_epoch)
    dense = (run for run in planned_runs(spec) if not run.level)
    steps = {rewind_step, *(origin(spec, run, steps_per_epoch) for run in dense)}
    return {s: "rewind" if s == rewind_step else f"step_{s}" for s in sorted(steps) if s}


def origin(spec: Spec, run: RunId, steps_per_epoch: int) -> int:
    """Returns the step of the dense run whose state a run starts from, 0 for its own beginning."""
    if run.level:
        return duration_steps(spec.rewind.step, steps_per_epoch)
    return 0 if run.branch == TRUNK else duration_steps(parting(spec, run)[1], steps_per_epoch)
