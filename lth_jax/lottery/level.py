"""One level: its runs, the ticket's and the branches', train together and are kept safe.

Groups of runs advance a chunk each in turn. In between, what is done is saved at most every
`checkpoint.every_seconds`, and training stops when it is asked to. None of that changes a bit of
any run.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import MappingProxyType
from typing import Any

import numpy as np

from lth_jax.errors import Interrupted
from lth_jax.lottery.early_bird import MaskWatch
from lth_jax.lottery.moving import MaskCounts
from lth_jax.lottery.observer import Observer
from lth_jax.lottery.runs import FinishedRun, Progress, Run, RunGroup, place
from lth_jax.store import CurvePoint, RunDirectory
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
    Table,
)
from lth_jax.training.backend import in_32_bits


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
        groups = self._groups(level, runs)
        steps = sum((group.last - group.first) * len(group.runs) for group in groups)
        done = sum((group.step - group.first) * len(group.runs) for group in groups)
        self.observer.level_started(level, _density(runs), len(runs), steps, done)
        for group in groups:
            if not group.is_compiled():
                self.observer.compiling(level)
                group.compile()
        self._saved_at = time.monotonic()
        with ThreadPoolExecutor(self.workers) as pool:
            self._advance_all(level, groups, pool)
            self._write_points(level, groups, finished=True)
            finished = list(pool.map(in_32_bits(RunGroup.finish), groups))
        return {one.row.run_id: one for group in finished for one in group}

    def _groups(self, level: int, runs: Sequence[Run]) -> list[RunGroup]:
        """Returns the runs in groups of one experiment, form and step."""
        progress = self._progress(level, {run.run_id: run for run in runs})
        alike: dict[tuple[Any, ...], list[Run]] = {}
        for run in runs:
            # By identity: experiments hold arrays and functions, which say nothing of equality.
            together = (id(run.experiment), run.form.form, run.start.step, run.last_step)
            together = (run.devices.count, *together)
            alike.setdefault((*together, *place(run, progress)), []).append(run)
        groups = []
        for (count, *_), members in alike.items():
            largest = max(len(runs) for key, runs in alike.items() if key[0] == count)
            size = members[0].experiment.group_size(largest, count)
            for index in range(0, len(members), size):
                groups.append(RunGroup(members[index : index + size], size, progress))
        if progress:
            step = min(group.step for group in groups)
            self.observer.note(f"level {level} goes on from step {step} of {groups[0].last}")
        return groups

    def _advance_all(
        self, level: int, groups: Sequence[RunGroup], pool: ThreadPoolExecutor
    ) -> None:
        """Brings every group to its end, a chunk each in turn, `workers` of them at a time.

        When it is time to save, no group is given another chunk until all have come to a pause:
        what is saved is of one instant, and nothing is written that a worker changes meanwhile.
        """
        waiting = deque(group for group in groups if group.next_evaluation() is not None)
        training: dict[Future, RunGroup] = {}
        while waiting or training:
            while waiting and len(training) < self.workers:
                group = waiting.popleft()
                beside = min(self.workers, len(training) + 1 + len(waiting))
                training[pool.submit(in_32_bits(group.advance), self.captures, beside)] = group
            done, _ = wait(training, return_when=FIRST_COMPLETED)
            if self._is_time():
                done, _ = wait(training)
            for future in done:
                group = training.pop(future)
                self._report(level, group, *future.result())
                if group.next_evaluation() is not None:
                    waiting.append(group)
            if not training:
                self._pause(level, groups)

    def _report(
        self, level: int, group: RunGroup, steps: int, points: Mapping[RunId, CurvePoint]
    ) -> None:
        if steps:
            self.observer.advanced(level, steps * len(group.runs), None, None)
        if steps and group.step in self.captures:
            for index, run in enumerate(group.runs):
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
        saved = self.store.load_progress()
        if saved is None or saved[1]["level"] != level:
            return {}
        arrays, meta = saved
        progress = {}
        for index, facts in enumerate(meta["runs"]):
            run_id = RunId(*facts["id"])
            if run_id not in wanted or self._lost_state(run_id, facts["step"]):
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
            for run, mask, watch in zip(group.runs, group.masks, group.watches, strict=True):
                if run.run_id in self.store.rows and not finished:
                    continue
                whose = run.run_id.replicate, run.run_id.draw
                history = mask.history if mask else ()
                for table, points in (
                    (CURVES, group.points[run.run_id]),
                    (MASKS, [MaskPoint(*whose, *counts) for counts in history]),
                    (CURVATURE, group.curvature[run.run_id]),
                    (DISTANCES, watch.points if watch else ()),
                ):
                    if points or table is CURVES:
                        found.setdefault((table, run.run_id.branch), []).extend(points)
        for (table, branch), points in found.items():
            self.store.update_points(table, branch, level, points)


def _density(runs: Sequence[Run]) -> float:
    """Returns the tickets' mean density; that of the branches where no ticket is trained."""
    tickets = [run for run in runs if run.run_id.branch == TRUNK] or runs
    return float(np.mean([kept / total for kept, total in (run.counts for run in tickets)]))
