"""One level: its runs, the ticket's and the branches', train together and are kept safe.

The host's side of the compiled loop: it cuts training into chunks of about a second, evaluates,
saves at most every `checkpoint.every_seconds`, and stops between two chunks when asked to. None of
that changes a bit of any run.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lth_jax.branches import Ticket
from lth_jax.build import Experiment
from lth_jax.errors import Interrupted, RunError
from lth_jax.events import Observer
from lth_jax.pruning.masks import kept_counts
from lth_jax.results import TRUNK, ResultRow, RunId
from lth_jax.store import CurvePoint, RunDirectory
from lth_jax.store.checkpoints import fill
from lth_jax.training import (
    Evaluation,
    Inputs,
    Program,
    Run,
    TrainState,
    new_run,
    stack_runs,
    unstack_run,
)

CHUNK_SECONDS = 1.0


class Job(NamedTuple):
    """A run to be trained: which one, and where it starts."""

    id: RunId
    ticket: Ticket


@dataclasses.dataclass
class Trained:
    """A finished run: its row, and the trained parameters and model state on the host."""

    row: ResultRow
    params: Any
    model_state: Any


@dataclasses.dataclass
class Flight:
    """A group of runs in training, in lockstep.

    `run` and `inputs` have a leading axis that may be longer than `jobs`: idle runs fill it up.
    """

    jobs: Sequence[Job]
    first: int
    step: int
    evaluated: int
    run: Run
    inputs: Inputs
    seconds: float
    points: dict[RunId, list[CurvePoint]]


class LevelTrainer:
    """Trains the runs of one level to their end.

    Args:
      experiment: what is trained on what, for how long.
      store: where progress is kept.
      observer: who is told.
      stop_signal: gives the number of a signal that asks for a stop, or 0.
      capture: for level 0, called with a replicate and its state at the rewind step.
    """

    def __init__(
        self,
        experiment: Experiment,
        store: RunDirectory,
        observer: Observer,
        stop_signal: Callable[[], int],
        capture: Callable[[int, TrainState], None] | None = None,
    ):
        self.experiment, self.store, self.observer = experiment, store, observer
        self.stop_signal, self.capture = stop_signal, capture
        self._saved_at = time.monotonic()
        self._rate = 0.0  # steps per second of the chunk before; 0 before the first

    def train(self, level: int, jobs: Sequence[Job]) -> dict[RunId, Trained]:
        """Trains `jobs`, all of `level`, from the beginning or from where they were stopped.

        Raises:
          Interrupted: a signal came; everything done is saved.
        """
        flights = self._take_off(level, jobs)
        steps = sum((self.experiment.steps - f.step) * len(f.jobs) for f in flights)
        densities = [self._kept(job)[0] / self._kept(job)[1] for job in jobs]
        self.observer.level_started(level, sum(densities) / len(densities), len(jobs), steps)
        while any(self._next_stop(flight) is not None for flight in flights):
            for flight in flights:
                self._to_next_evaluation(level, flight, flights)
        self._write_curves(level, flights)
        return {job.id: done for f in flights for job, done in self._land(f)}

    # Start

    def _take_off(self, level: int, jobs: Sequence[Job]) -> list[Flight]:
        """Groups of runs that stand at the same step, compiled and ready."""
        wanted = {job.id for job in jobs}
        saved = {id: mark for id, mark in self._saved_runs(level).items() if id in wanted}
        alike: dict[tuple[int, int, int], list[Job]] = {}
        for job in jobs:
            mark = saved.get(job.id)
            step, evaluated = (mark["step"], mark["evaluated"]) if mark else (job.ticket.step, -1)
            alike.setdefault((job.ticket.step, step, evaluated), []).append(job)
        size = self.experiment.group_size(max(len(members) for members in alike.values()))
        program = self.experiment.program(size)
        flights = []
        for (first, step, evaluated), members in alike.items():
            for index in range(0, len(members), size):
                group = members[index : index + size]
                flights.append(self._flight(group, size, first, step, evaluated, saved))
        if flights:
            self._compile(program, flights[0])
        if saved:
            self.observer.note(
                f"level {level} goes on from step {min(f.step for f in flights)} "
                f"of {self.experiment.steps}"
            )
        return flights

    def _flight(
        self,
        jobs: Sequence[Job],
        size: int,
        first: int,
        step: int,
        evaluated: int,
        saved: Mapping[RunId, Mapping[str, Any]],
    ) -> Flight:
        runs, inputs = [], []
        for job in jobs:
            run = new_run(job.ticket.state, len(self.experiment.train.labels))
            if job.id in saved:
                run = restore(run, saved[job.id]["arrays"])
            runs.append(run)
            inputs.append(Inputs(job.ticket.mask, self.experiment.run_key(job.id.replicate)))
        idle = size - len(jobs)
        marks = [saved[job.id] for job in jobs if job.id in saved]
        return Flight(
            jobs=jobs,
            first=first,
            step=step,
            evaluated=evaluated,
            run=stack_runs(runs + runs[-1:] * idle),
            inputs=stack_runs(inputs + inputs[-1:] * idle),
            seconds=sum(mark["seconds"] for mark in marks),
            points={job.id: list(saved.get(job.id, {}).get("points", ())) for job in jobs},
        )

    def _compile(self, program: Program, flight: Flight) -> None:
        e = self.experiment
        program.compile(flight.run, flight.inputs, e.train, e.validation, e.test)
        self._saved_at = time.monotonic()

    # The way

    def _next_stop(self, flight: Flight) -> int | None:
        """Where the flight next pauses: an evaluation or the rewind step; None at its end."""
        e = self.experiment
        if flight.evaluated == e.steps:
            return None
        if flight.evaluated < 0 and flight.step == flight.first:
            return flight.first
        stop = min((flight.step // e.eval_every + 1) * e.eval_every, e.steps)
        if self.capture and flight.step < e.rewind_step:
            stop = min(stop, e.rewind_step)
        return stop

    def _is_evaluation(self, flight: Flight, step: int) -> bool:
        return step in (flight.first, self.experiment.steps) or (
            step % self.experiment.eval_every == 0
        )

    def _to_next_evaluation(self, level: int, flight: Flight, flights: Sequence[Flight]) -> None:
        stop = self._next_stop(flight)
        if stop is None:
            return
        while flight.step < stop:
            self._advance(level, flight, min(stop, flight.step + self._chunk()))
            if flight.step < stop:
                self._pause(level, flights)
        if self.capture and flight.step == self.experiment.rewind_step:
            for index, job in enumerate(flight.jobs):
                if job.id.branch == TRUNK:
                    self.capture(job.id.replicate, unstack_run(flight.run.state, index))
        if self._is_evaluation(flight, flight.step):
            self._evaluate(level, flight)
        self._pause(level, flights)

    def _chunk(self) -> int:
        """Steps that take about `CHUNK_SECONDS`; one, before anything is known."""
        return max(1, math.floor(self._rate * CHUNK_SECONDS))

    def _program(self, flight: Flight) -> Program:
        return self.experiment.program(flight.inputs.key.shape[0])

    def _advance(self, level: int, flight: Flight, stop: int) -> None:
        steps, start = stop - flight.step, time.perf_counter()
        flight.run = jax.block_until_ready(
            self._program(flight).train(
                flight.run, flight.inputs, self.experiment.train, flight.step, stop
            )
        )
        seconds = time.perf_counter() - start
        flight.step, flight.seconds = stop, flight.seconds + seconds
        self._rate = steps / max(seconds, 1e-9)
        self.observer.advanced(level, steps * len(flight.jobs), None, None)

    def _evaluate(self, level: int, flight: Flight) -> None:
        start = time.perf_counter()
        updates = flight.step - max(flight.evaluated, flight.first)
        flight.run, result, train_loss = self._program(flight).evaluate(
            flight.run, self.experiment.validation, flight.step, updates
        )
        losses, accuracies, train_losses = (
            np.asarray(values, np.float64).tolist()
            for values in (result.loss, result.accuracy, train_loss)
        )
        flight.seconds += time.perf_counter() - start
        flight.evaluated = flight.step
        values = zip(flight.jobs, losses, accuracies, train_losses, strict=False)
        trunk = []
        for job, loss, accuracy, train in values:
            flight.points[job.id].append(
                CurvePoint(job.id.replicate, job.id.draw, flight.step, loss, accuracy, train)
            )
            if job.id.branch == TRUNK:
                trunk.append((loss, accuracy))
        if trunk:
            loss, accuracy = np.mean(trunk, axis=0).tolist()
            self.observer.advanced(level, 0, loss, accuracy)

    # Safety

    def _pause(self, level: int, flights: Sequence[Flight]) -> None:
        """Between two chunks: saves if it is time, and stops if a signal asks for it."""
        signum = self.stop_signal()
        waited = time.monotonic() - self._saved_at
        if signum or waited >= self.experiment.spec.checkpoint.every_seconds:
            self._save(level, flights)
        if signum:
            step = min(flight.step for flight in flights)
            raise Interrupted(signum, f"level {level}, step {step} of {self.experiment.steps}")

    def _save(self, level: int, flights: Sequence[Flight]) -> None:
        self._write_curves(level, flights)
        arrays, runs = {}, []
        for flight in flights:
            share = flight.seconds / len(flight.jobs)
            for index, job in enumerate(flight.jobs):
                arrays[f"run_{len(runs)}"] = saved_part(unstack_run(flight.run, index))
                runs.append({
                    "id": list(job.id),
                    "step": flight.step,
                    "evaluated": flight.evaluated,
                    "seconds": share,
                    "points": flight.points[job.id],
                })  # fmt: skip
        self.store.save_progress(arrays, {"level": level, "runs": runs})
        self._saved_at = time.monotonic()

    def _saved_runs(self, level: int) -> dict[RunId, dict[str, Any]]:
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
            own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
            points = [CurvePoint(*point) for point in run["points"]]
            saved[RunId(*run["id"])] = {**run, "arrays": own, "points": points}
        return saved

    def _lost_rewind_point(self, id: RunId, step: int) -> bool:
        """Whether a dense run is past the rewind step, and what it captured there is damaged."""
        if self.capture is None or step < self.experiment.rewind_step:
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

    # End

    def _kept(self, job: Job) -> tuple[int, int]:
        counts = kept_counts(job.ticket.mask, self.experiment.rates).values()
        return sum(kept for kept, _ in counts), sum(total for _, total in counts)

    def _land(self, flight: Flight) -> Iterable[tuple[Job, Trained]]:
        start = time.perf_counter()
        tests = jax.device_get(self._program(flight).test(flight.run, self.experiment.test))
        seconds = flight.seconds + time.perf_counter() - start
        for index, job in enumerate(flight.jobs):
            run = jax.device_get(unstack_run(flight.run, index))
            row = self._row(job, flight, run, unstack_run(tests, index), seconds)
            yield job, Trained(row, run.state.params, run.state.model_state)

    def _row(
        self,
        job: Job,
        flight: Flight,
        run: Run,
        tests: tuple[Evaluation, Evaluation],
        seconds: float,
    ) -> ResultRow:
        if run.best.step < 0:
            raise RunError(f"{job.id}: no validation loss was finite; lower train.learning_rate")
        kept, total = self._kept(job)
        last = flight.points[job.id][-1]
        return ResultRow(
            *job.id,
            density=kept / total,
            kept=kept,
            prunable=total,
            early_stop_step=int(run.best.step),
            early_stop_val_loss=float(run.best.loss),
            early_stop_val_accuracy=float(run.best.accuracy),
            early_stop_test_accuracy=float(tests[0].accuracy),
            final_val_accuracy=last.val_accuracy,
            final_test_accuracy=float(tests[1].accuracy),
            final_train_loss=last.train_loss,
            steps=self.experiment.steps - flight.first,
            train_seconds=seconds / len(flight.jobs),
        )


def saved_part(run: Run) -> dict[str, Any]:
    """What a checkpoint keeps of a run; the permutation comes again from key and epoch."""
    return {"state": run.state, "best": run.best, "loss_sum": run.loss_sum}


def restore(run: Run, arrays: Mapping[str, np.ndarray]) -> Run:
    """`run` with the arrays of `saved_part`; shapes and dtypes must be its own."""
    return run._replace(**fill(saved_part(run), arrays))
