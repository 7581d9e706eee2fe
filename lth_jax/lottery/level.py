"""One level: its runs, the ticket's and the branches', train together and are kept safe.

The host's side of the compiled loop: it cuts training into chunks of about a second, evaluates,
saves at most every `checkpoint.every_seconds`, and stops between two chunks when asked to. None of
that changes a bit of any run.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from lth_jax.errors import Interrupted
from lth_jax.lottery.groups import Flight, Job, Leg, Saved, Trained, standing
from lth_jax.lottery.observer import Observer
from lth_jax.store import CurvePoint, RunDirectory
from lth_jax.store.results import TRUNK, RunId
from lth_jax.training.states import TrainState


class LevelTrainer:
    """Trains the runs of one level to their end.

    Args:
      store: where progress is kept.
      observer: who is told.
      stop_signal: gives the number of a signal that asks for a stop, or 0.
      save_seconds: how often to save, at most.
      workers: flights in the air at once.
      capture_at: the step at which `capture` wants to see the trunk's states; -1 for never.
      capture: called with a replicate and its state there.
    """

    def __init__(
        self,
        store: RunDirectory,
        observer: Observer,
        stop_signal: Callable[[], int],
        *,
        save_seconds: float,
        workers: int = 1,
        capture_at: int = -1,
        capture: Callable[[int, TrainState], None] | None = None,
    ):
        self.store, self.observer, self.stop_signal = store, observer, stop_signal
        self.save_seconds, self.workers = save_seconds, workers
        self.capture_at, self.capture = capture_at, capture
        self._saved_at = time.monotonic()
        self._signum = 0

    def train(self, level: int, jobs: Sequence[Job]) -> dict[RunId, Trained]:
        """Trains `jobs`, all of `level`, from the beginning or from where they were stopped.

        Raises:
          Interrupted: a signal came; everything done is saved.
        """
        flights = self._take_off(level, jobs)
        steps = sum((f.last - f.first) * len(f.jobs) for f in flights)
        done = sum((f.step - f.first) * len(f.jobs) for f in flights)
        self.observer.level_started(level, _density(jobs), len(jobs), steps, done)
        with ThreadPoolExecutor(self.workers) as pool:
            self._fly(level, flights, pool)
            self._write_curves(level, flights)
            landed = list(pool.map(Flight.land, flights))
        return {done.row.run_id: done for trained in landed for done in trained}

    def _take_off(self, level: int, jobs: Sequence[Job]) -> list[Flight]:
        """Groups of runs of one experiment that stand at the same step, compiled and ready."""
        wanted = {job.id for job in jobs}
        saved = {id: mark for id, mark in self._saved_runs(level).items() if id in wanted}
        alike: dict[tuple[Any, ...], list[Job]] = {}
        for job in jobs:
            place = (*standing(job, saved.get(job.id)), job.ticket.step, job.last)
            alike.setdefault((id(job.experiment), *place, job.layout()), []).append(job)
        flights = []
        largest = max(map(len, alike.values()))
        for members in alike.values():
            size = members[0].experiment.group_size(largest)
            for index in range(0, len(members), size):
                flights.append(Flight.start(members[index : index + size], size, saved))
        for flight in flights:
            flight.compile()
        if saved:
            step = min(flight.step for flight in flights)
            self.observer.note(f"level {level} goes on from step {step} of {flights[0].last}")
        self._saved_at = time.monotonic()
        return flights

    # The way

    def _fly(self, level: int, flights: Sequence[Flight], pool: ThreadPoolExecutor) -> None:
        """Brings every flight to its end, in turn, `workers` of them in the air at once.

        A small network's operations do not keep two cores busy; two networks side by side do. The
        program is the same, so are the bits.
        """
        waiting = deque(flight for flight in flights if flight.next_evaluation() is not None)
        flying: dict[Future[Leg], Flight] = {}
        while waiting or flying:
            while waiting and len(flying) < self.workers:
                flight = waiting.popleft()
                beside = min(self.workers, len(flying) + 1 + len(waiting))
                flying[pool.submit(flight.leg, self.capture_at, beside)] = flight
            done, _ = wait(flying, return_when=FIRST_COMPLETED)
            if self._is_time():
                done, _ = wait(flying)
            for future in done:
                flight = flying.pop(future)
                self._report(level, flight, future.result())
                if flight.next_evaluation() is not None:
                    waiting.append(flight)
            if not flying:
                self._pause(level, flights)

    def _report(self, level: int, flight: Flight, leg: Leg) -> None:
        if leg.steps:
            self.observer.advanced(level, leg.steps * len(flight.jobs), None, None)
        if leg.steps and flight.step == self.capture_at:
            self._capture(flight)
        trunk = [point for id, point in leg.points.items() if id.branch == TRUNK]
        if trunk:
            loss = float(np.mean([point.val_loss for point in trunk]))
            accuracy = float(np.mean([point.val_accuracy for point in trunk]))
            self.observer.advanced(level, 0, loss, accuracy)

    def _capture(self, flight: Flight) -> None:
        if self.capture is None:
            return
        for index, job in enumerate(flight.jobs):
            if job.id.branch == TRUNK:
                self.capture(job.id.replicate, flight.state(index))

    # Safety

    def _is_time(self) -> bool:
        """Whether to save, since it is due or since a signal came."""
        self._signum = self._signum or self.stop_signal()
        return bool(self._signum) or time.monotonic() - self._saved_at >= self.save_seconds

    def _pause(self, level: int, flights: Sequence[Flight]) -> None:
        """With nobody in the air: saves if it is time, and stops if a signal came."""
        if self._is_time():
            self._save(level, flights)
        if self._signum:
            behind = min(flights, key=lambda flight: flight.step)
            raise Interrupted(self._signum, f"level {level}, step {behind.step} of {behind.last}")

    def _save(self, level: int, flights: Sequence[Flight]) -> None:
        self._write_curves(level, flights)
        arrays: dict[str, Any] = {}
        runs: list[dict[str, Any]] = []
        for flight in flights:
            for id, mark, tree in flight.save():
                arrays[f"run_{len(runs)}"] = tree
                marks = mark._asdict()
                del marks["arrays"]
                runs.append({"id": list(id), **marks})
        self.store.save_progress(arrays, {"level": level, "runs": runs})
        self._saved_at = time.monotonic()

    def _saved_runs(self, level: int) -> dict[RunId, Saved]:
        """The runs of this level that were stopped on their way, by id."""
        progress = self.store.load_progress()
        if progress is None or progress[1]["level"] != level:
            return {}
        arrays, meta = progress
        saved = {}
        for index, run in enumerate(meta["runs"]):
            if self._lost_rewind_point(RunId(*run["id"]), run["step"]):
                continue
            prefix = f"run_{index}/"
            saved[RunId(*run["id"])] = Saved(
                step=run["step"],
                evaluated=run["evaluated"],
                seconds=run["seconds"],
                points=[CurvePoint(*point) for point in run["points"]],
                arrays={
                    name.removeprefix(prefix): array
                    for name, array in arrays.items()
                    if name.startswith(prefix)
                },
            )
        return saved

    def _lost_rewind_point(self, id: RunId, step: int) -> bool:
        """Whether a dense run is past the rewind step, and what it captured there is damaged."""
        if self.capture_at < 0 or step < self.capture_at:
            return False
        return not self.store.intact(id.replicate, "rewind")

    def _write_curves(self, level: int, flights: Sequence[Flight]) -> None:
        points = {id: points for flight in flights for id, points in flight.points.items()}
        for branch in {id.branch for id in points}:
            mine = {(id.replicate, id.draw): p for id, p in points.items() if id.branch == branch}
            others = [
                point
                for point in self.store.curve(branch, level)
                if (point.replicate, point.draw) not in mine
            ]
            new = [point for curve in mine.values() for point in curve]
            self.store.write_curve(branch, level, [*others, *new])


def _density(jobs: Sequence[Job]) -> float:
    """The tickets' mean density; that of the branches where no ticket is trained."""
    tickets = [job for job in jobs if job.id.branch == TRUNK] or jobs
    return float(np.mean([kept / total for kept, total in (job.counts() for job in tickets)]))
