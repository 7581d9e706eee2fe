"""One level: its runs, the ticket's and the branches', train together and are kept safe.

Groups of runs advance a chunk each in turn. In between, what is done is saved at most every
`checkpoint.every_seconds`, and training stops when it is asked to. None of that changes a bit of
any run.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import MappingProxyType
from typing import Any

import numpy as np

from lth_jax.errors import Interrupted
from lth_jax.lottery.early_bird import MaskWatch
from lth_jax.lottery.memory import AtOnce, at_once, need_of
from lth_jax.lottery.moving import MaskCounts
from lth_jax.lottery.observer import Observer
from lth_jax.lottery.rows import FinishedRun
from lth_jax.lottery.run import Progress, Run, place
from lth_jax.lottery.runs import RunGroup, in_lockstep
from lth_jax.pruning.trees import nbytes
from lth_jax.store import CurvePoint, RunDirectory
from lth_jax.store.table import Table
from lth_jax.store.tables import (
    CURVATURE,
    CURVES,
    DISTANCES,
    MASKS,
    TRUNK,
    CurvaturePoint,
    MaskDistance,
    MaskPoint,
    RunId,
)
from lth_jax.system.machine import GIB
from lth_jax.training.backend import in_32_bits, platform


class LevelTrainer:
    """Trains the runs of one level to their end.

    Args:
      store: where progress is kept.
      observer: who is told.
      stop_signal: gives the number of a signal that asks for a stop, or 0.
      save_seconds: how often to save, at most.
      workers: how many groups train side by side. A small network's operations do not keep two
        cores busy; two networks side by side do, and each has the bits that it has alone.
      captures: the steps at which the trunk's states are kept, each with its checkpoint's name.
    """

    def __init__(
        self,
        store: RunDirectory,
        observer: Observer,
        stop_signal: Callable[[], int],
        *,
        save_seconds: float,
        workers: int = 1,
        captures: Mapping[int, str] = MappingProxyType({}),
    ):
        self.store, self.observer, self.stop_signal = store, observer, stop_signal
        self.save_seconds, self.workers = save_seconds, workers
        self.captures = captures
        self._saved_at = time.monotonic()
        self._signum = 0

    def train(self, level: int, runs: Sequence[Run]) -> dict[RunId, FinishedRun]:
        """Trains `runs`, all of `level`, from their beginning or from where they were stopped.

        Raises:
          Interrupted: a signal came; everything that was done is saved.
        """
        groups = self._trained(level, runs)
        self._write_points(level, groups, finished=True)
        return {one.row.run_id: one for group in groups for one in group.finished}

    def _trained(self, level: int, runs: Sequence[Run]) -> list[RunGroup]:
        """Returns the groups of `runs`, each at its end and measured, on the host."""
        progress = self._progress(level, {run.run_id: run for run in runs})
        groups = self._groups(runs, progress)
        steps, done = (sum(counts) for counts in zip(*(g.updates for g in groups), strict=True))
        self.observer.level_started(level, mean_density(runs), len(runs), steps, done)
        if progress:
            behind = min(groups, key=lambda group: group.step)
            self.observer.note(f"level {level} goes on from step {behind.step} of {behind.last}")
        groups, at_once = self._fitted(level, runs, progress)
        self._saved_at = time.monotonic()
        try:
            with ThreadPoolExecutor(at_once.training) as pool:
                self._advance_all(level, groups, at_once, pool)
        finally:
            for group in groups:
                group.close()
        return groups

    def _groups(self, runs: Sequence[Run], progress: Mapping[RunId, Progress]) -> list[RunGroup]:
        """Returns the runs in groups, each of one experiment, form and end."""
        alike: dict[tuple[Any, ...], list[Run]] = {}
        for run in runs:
            # By identity: experiments hold arrays and functions, which say nothing of equality.
            together = (id(run.experiment), run.form.form, run.last_step, run.devices.count)
            alike.setdefault(together, []).append(run)
        groups = []
        for (_, _, last, count), members in alike.items():
            e = members[0].experiment
            for some in in_lockstep(members, [place(run, progress)[0] for run in members], last):
                size = e.group_size(len(some), count)
                for index in range(0, len(some), size):
                    groups.append(RunGroup(some[index : index + size], size, progress))
        return groups

    def _fitted(
        self, level: int, runs: Sequence[Run], progress: Mapping[RunId, Progress]
    ) -> tuple[list[RunGroup], AtOnce]:
        """Returns the runs in groups whose programs are compiled, and how many memory holds."""
        e, wanted = runs[0].experiment, ""
        there_is, on_host = e.devices.memory(), platform() == "cpu"
        # What is streamed comes to the devices in blocks, which are among what programs are given.
        train = 0 if e.streaming else nbytes(e.train)
        splits = 0 if e.streaming else train + nbytes((e.validation, e.test))
        while True:
            groups = self._groups(runs, progress)
            for group in groups:
                if not group.is_compiled():
                    self.observer.compiling(level)
                    group.compile()
            needs = [need_of(group.memory(), train) for group in groups]
            found = at_once(needs, splits, there_is, self.workers, on_host=on_host)
            largest = max(group.size // group.devices.count for group in groups)
            least = max(need.held + max(need.training, need.evaluation) for need in needs)
            wanted = wanted or f"{(splits + least) / GIB:,.1f} GiB for {largest:,} runs at once"
            if found or not e.portions.halve(largest, e.spec.eval.batch_size, needs):
                break
        done = found or AtOnce(1, 1)
        less = [f"groups of {largest:,}"] if e.portions.runs else []
        if e.portions.parts > 1:
            less.append(f"batches of evaluations in {e.portions.parts:,} parts")
        if done.training < min(self.workers, len(groups)):
            less.append(f"{done.training} of {len(groups)} groups side by side")
        if not found:
            less.append("it may run out")
        if less and e.portions.told != (told := "; ".join(less)):
            e.portions.told = told
            has = f"each device has {there_is / GIB:,.1f} GiB of memory"
            self.observer.note(f"level {level} asks for {wanted}, and {has}: {told}")
        return groups, done

    def _advance_all(
        self, level: int, groups: Sequence[RunGroup], at_once: AtOnce, pool: ThreadPoolExecutor
    ) -> None:
        """Brings every group to its end, a chunk each in turn, some of them at a time.

        Each begins when it is its turn, and no more are begun than memory holds.

        When it is time to save, no group is given another chunk until all have come to a pause:
        what is saved is of one instant, and nothing is written that a worker changes meanwhile.
        """
        to_begin, begun = deque(groups), deque()
        training: dict[Future, RunGroup] = {}
        while to_begin or begun or training:
            while len(training) < at_once.training:
                if to_begin and len(begun) + len(training) < at_once.begun:
                    group = to_begin.popleft()
                elif begun:
                    group = begun.popleft()
                else:
                    break
                left = len(to_begin) + len(begun)
                beside = min(at_once.training, len(training) + 1 + left)
                training[pool.submit(in_32_bits(_work), group, self.captures, beside)] = group
            done, _ = wait(training, return_when=FIRST_COMPLETED)
            if self._is_time():
                done, _ = wait(training)
            ahead = False
            for future in done:
                group = training.pop(future)
                self._report(level, group, *future.result())
                if not group.finished:
                    begun.append(group)
                    ahead = True
            # Whoever starts again measures anew what was finished: to stop there is no step ahead.
            if ahead and not training:
                self._pause(level, groups)

    def _report(
        self, level: int, group: RunGroup, steps: int, points: Mapping[RunId, CurvePoint]
    ) -> None:
        if steps:
            self.observer.advanced(level, steps, None, None)
        if steps and group.step in self.captures:
            for index, run in group.begun():
                if run.run_id.branch == TRUNK:
                    self.store.save(
                        run.run_id.replicate,
                        self.captures[group.step],
                        group.dense_state(index).state,
                        {"step": group.step},
                    )
        for index, run in enumerate(group.runs):
            for name in group.drawn.get(run.run_id, ()):
                state = group.dense_state(index).state
                self.store.save(run.run_id.replicate, name, state, {"step": group.step})
        trunk = [point for run_id, point in points.items() if run_id.branch == TRUNK]
        if trunk:
            # Of those that have not diverged, as long as there are any.
            trunk = [point for point in trunk if math.isfinite(point.val_loss)] or trunk
            loss = float(np.mean([point.val_loss for point in trunk]))
            accuracy = float(np.mean([point.val_accuracy for point in trunk]))
            self.observer.advanced(level, 0, loss, accuracy)

    # Safety

    def _is_time(self) -> bool:
        """Returns whether to save, since it is due or since a signal came."""
        self._signum = self._signum or self.stop_signal()
        return bool(self._signum) or time.monotonic() - self._saved_at >= self.save_seconds

    def _pause(self, level: int, groups: Sequence[RunGroup]) -> None:
        """While nothing trains: saves if it is time, and stops if a signal came."""
        if self._is_time():
            self._save(level, groups)
        if self._signum:
            behind = min(groups, key=lambda group: group.step)
            raise Interrupted(self._signum, f"level {level}, step {behind.step} of {behind.last}")

    def _save(self, level: int, groups: Sequence[RunGroup]) -> None:
        self._write_points(level, groups)
        arrays: dict[str, Any] = {}
        runs: list[dict[str, Any]] = []
        for group in groups:
            for run_id, progress in group.progress().items():
                facts = progress._asdict()
                arrays[f"run_{len(runs)}"] = facts.pop("arrays")
                runs.append({"id": list(run_id), **facts})
        self.store.save_progress(arrays, {"level": level, "runs": runs})
        self._saved_at = time.monotonic()

    def _progress(self, level: int, wanted: Mapping[RunId, Run]) -> dict[RunId, Progress]:
        """Returns the progress of the wanted runs of this level that were stopped on their way."""
        progress: dict[RunId, Progress] = {}
        for arrays, meta in self.store.progress_of(level, wanted):
            for index, facts in enumerate(meta["runs"]):
                run_id = RunId(*facts["id"])
                known = progress.get(run_id)
                behind = known is not None and facts["step"] <= known.step
                if run_id not in wanted or behind or self._lost_state(run_id, facts["step"]):
                    continue
                distances = facts.get("distances")
                distances = distances and [MaskDistance(*point) for point in distances]
                if self._lost_draw(wanted[run_id], distances):
                    continue
                prefix = f"run_{index}/"
                progress[run_id] = Progress(
                    step=facts["step"],
                    evaluated=facts["evaluated"],
                    seconds=facts["seconds"],
                    points=[CurvePoint(*point) for point in facts["points"]],
                    arrays={
                        name.removeprefix(prefix): array
                        for name, array in arrays.items()
                        if name.startswith(prefix)
                    },
                    masks=[MaskCounts(*counts) for counts in facts.get("masks", ())],
                    curvature=[CurvaturePoint(*point) for point in facts.get("curvature", ())],
                    distances=distances,
                )
        return progress

    def _lost_draw(self, run: Run, distances: Sequence[MaskDistance] | None) -> bool:
        """Returns whether a run's masks were not watched so far, or a ticket drawn is damaged."""
        if not run.early_birds:
            return False
        drawn = MaskWatch(run.early_birds, distances or ()).drawn()
        whole = all(self.store.intact(run.run_id.replicate, name) for name in drawn)
        return distances is None or not whole

    def _lost_state(self, run_id: RunId, step: int) -> bool:
        """Returns whether a run is past a step where its state was kept, which is damaged."""
        past = [name for kept_at, name in self.captures.items() if kept_at <= step]
        return run_id.branch == TRUNK and not all(
            self.store.intact(run_id.replicate, name) for name in past
        )

    def _write_points(
        self, level: int, groups: Sequence[RunGroup], *, finished: bool = False
    ) -> None:
        """Writes what there is so far of evaluations, of masks that move, and all that is measured.

        That of runs that are trained again is written once they are finished.
        """
        found: dict[tuple[Table[Any], str], list[Any]] = {}
        for group in groups:
            for index, run in enumerate(group.runs):
                if run.run_id in self.store.rows and not finished:
                    continue
                whose = run.run_id.replicate, run.run_id.draw
                history = group.mask_counts(index)
                for table, points in (
                    (CURVES, group.points[run.run_id]),
                    (MASKS, [MaskPoint(*whose, *counts) for counts in history]),
                    (CURVATURE, group.curvature[run.run_id]),
                    (DISTANCES, group.mask_distances(index)),
                ):
                    if points or table is CURVES:
                        found.setdefault((table, run.run_id.branch), []).extend(points)
        for (table, branch), points in found.items():
            self.store.update_points(table, branch, level, points)


def _work(
    group: RunGroup, pauses: Iterable[int], beside: int
) -> tuple[int, dict[RunId, CurvePoint]]:
    """Brings a group a chunk further, or finishes it; returns what `RunGroup.advance` does."""
    if group.next_evaluation() is not None:
        return group.advance(pauses, beside)
    group.finish(beside)
    return 0, {}


def mean_density(runs: Sequence[Run]) -> float:
    """Returns the tickets' mean density; that of the branches where no ticket is trained."""
    tickets = [run for run in runs if run.run_id.branch == TRUNK] or runs
    return float(np.mean([kept / total for kept, total in (run.counts for run in tickets)]))
