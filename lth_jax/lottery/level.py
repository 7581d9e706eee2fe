"""One level: its runs, the ticket's and the branches', train together and are kept safe.

This is the host's side of the compiled loop. It cuts training into chunks of about a second,
evaluates, saves at most every `checkpoint.every_seconds`, and stops between two chunks when it is
asked to. None of that changes a bit of any run.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key

from lth_jax.errors import Interrupted, RunError
from lth_jax.lottery.branches import StartPoint
from lth_jax.lottery.experiment import Experiment
from lth_jax.lottery.observer import Observer
from lth_jax.pruning.masks import kept_counts
from lth_jax.pruning.trees import map_named
from lth_jax.store import CurvePoint, RunDirectory
from lth_jax.store.checkpoints import fill
from lth_jax.store.tables import TRUNK, ResultRow, RunId
from lth_jax.training.loop import Program
from lth_jax.training.parameterization import Parameterization, from_dense, to_dense
from lth_jax.training.states import (
    Evaluation,
    Inputs,
    LoopState,
    TrainState,
    new_loop_state,
    stack_runs,
    unstack_run,
)

# Between two chunks a run may be saved or stopped: Ctrl-C is answered within about a second.
CHUNK_SECONDS = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One network to be trained.

    Attributes:
      run_id: which one.
      start: where it starts.
      experiment: what it is trained with: the trunk's experiment, or a branch's.
      last_step: the step at which it ends.
      data_key: typed key [], of which batch order, augmentation and dropout are functions.
    """

    run_id: RunId
    start: StartPoint
    experiment: Experiment
    last_step: int
    data_key: Key[Array, ""]

    @cached_property
    def form(self) -> Parameterization:
        """The form in which its parameters are trained."""
        e, (mask, state, _) = self.experiment, self.start
        return e.native.parameterization(self.run_id.level, mask, state, e.optimizer)

    @cached_property
    def counts(self) -> tuple[int, int]:
        """(kept, prunable) weights, as Python integers."""
        counts = kept_counts(self.start.mask, self.experiment.rates).values()
        return sum(kept for kept, _ in counts), sum(total for _, total in counts)


class Progress(NamedTuple):
    """How far a run is that was stopped on its way, as a checkpoint keeps it.

    Attributes:
      step: the updates behind it, counted from initialization.
      evaluated: the step of its last evaluation; -1 before the first.
      seconds: of training so far.
      points: its evaluations so far.
      arrays: those of `kept_state`, by name; on the way to a checkpoint, the pytree itself.
    """

    step: int
    evaluated: int
    seconds: float
    points: list[CurvePoint]
    arrays: Any


class FinishedRun(NamedTuple):
    """A trained network: its row, and the state that it ended in, on the host."""

    row: ResultRow
    state: TrainState


def kept_state(state: LoopState) -> dict[str, Any]:
    """Returns what a checkpoint keeps of a run; the permutation comes again from key and epoch."""
    return {"state": state.state, "best": state.best, "loss_sum": state.loss_sum}


class RunGroup:
    """Runs that train in lockstep, as one call of the compiled program.

    Args:
      runs: they are of one experiment and form, and stand at the same step.
      size: the length of the program's axis of runs; copies of the last run fill it up.
      progress: of the runs that were stopped on their way, by id.

    Attributes:
      step: the updates behind them, counted from initialization.
      evaluated: the step of their last evaluation; -1 before the first.
      seconds: the time in compiled code so far, of all of them.
      points: their evaluations, by run.
      chunk: the number of steps that take about `CHUNK_SECONDS`; 1 before anything is known.
    """

    def __init__(self, runs: Sequence[Run], size: int, progress: Mapping[RunId, Progress]):
        self.runs, self.experiment = runs, runs[0].experiment
        self.first, self.last = runs[0].start.step, runs[0].last_step
        self.step, self.evaluated = place(runs[0], progress)
        made = [progress[run.run_id] for run in runs if run.run_id in progress]
        self.seconds = sum(one.seconds for one in made)
        self.points: dict[RunId, list[CurvePoint]] = {
            run.run_id: list(progress[run.run_id].points if run.run_id in progress else ())
            for run in runs
        }
        self.chunk = 1
        idle = size - len(runs)
        states = [_loop_state(run, progress.get(run.run_id)) for run in runs]
        inputs = [Inputs(map_named(run.form.mask, run.start.mask), run.data_key) for run in runs]
        self.state: LoopState = stack_runs(states + states[-1:] * idle)
        self.inputs: Inputs = stack_runs(inputs + inputs[-1:] * idle)
        self.program: Program = self.experiment.program(size)

    def compile(self) -> None:
        """Compiles what is not compiled yet."""
        e = self.experiment
        self.program.compile(self.state, self.inputs, e.train, e.validation, e.test)

    def next_evaluation(self) -> int | None:
        """Returns the step of the next evaluation, or None after the last one.

        Runs are evaluated where they start, at each multiple of `eval.every`, and where they end.
        """
        if self.evaluated < 0:
            return self.first
        if self.evaluated == self.last:
            return None
        every = self.experiment.eval_every
        return min((self.evaluated // every + 1) * every, self.last)

    def advance(self, pauses: Iterable[int], beside: int) -> tuple[int, dict[RunId, CurvePoint]]:
        """Trains for a chunk towards the next evaluation, and evaluates if it is reached.

        Args:
          pauses: steps at which to stop on the way, since the host wants to see the states there.
          beside: the number of groups that train at this time, this one included; they share it.

        Returns:
          The number of updates done by each run, and each run's evaluation if there was one.
        """
        began = time.perf_counter()
        stop = self.next_evaluation()
        assert stop is not None, "a finished group does not advance"
        goal = min([stop, *(pause for pause in pauses if self.step < pause)])
        steps = self._train(min(goal, self.step + self.chunk))
        points = self._evaluate() if self.step == stop else {}
        self.seconds += (time.perf_counter() - began) / beside
        return steps, points

    def _train(self, stop: int) -> int:
        steps = stop - self.step
        if not steps:
            return 0
        began = time.perf_counter()
        self.state = jax.block_until_ready(
            self.program.train(self.state, self.inputs, self.experiment.train, self.step, stop)
        )
        seconds = time.perf_counter() - began
        self.step = stop
        self.chunk = max(1, math.floor(CHUNK_SECONDS * steps / max(seconds, 1e-9)))
        return steps

    def _evaluate(self) -> dict[RunId, CurvePoint]:
        updates = self.step - max(self.evaluated, self.first)
        self.state, result, train_loss = self.program.evaluate(
            self.state, self.experiment.validation, self.step, updates
        )
        columns = [
            np.asarray(values, np.float64).tolist()
            for values in (result.loss, result.accuracy, train_loss)
        ]
        self.evaluated = self.step
        new = {
            run.run_id: CurvePoint(run.run_id.replicate, run.run_id.draw, self.step, *values)
            for run, *values in zip(self.runs, *columns, strict=False)  # idle runs come last
        }
        for run_id, point in new.items():
            self.points[run_id].append(point)
        return new

    def dense_state(self, index: int) -> LoopState:
        """Returns the state of run `index`, its parameters dense, without an axis of runs."""
        state = unstack_run(self.state, index)
        return to_dense(state, self.runs[index].form, self.experiment.optimizer)

    def progress(self) -> dict[RunId, Progress]:
        """Returns how far each run is, with its state."""
        share = self.seconds / len(self.runs)
        return {
            run.run_id: Progress(
                self.step,
                self.evaluated,
                share,
                self.points[run.run_id],
                kept_state(self.dense_state(index)),
            )
            for index, run in enumerate(self.runs)
        }

    def finish(self) -> list[FinishedRun]:
        """Measures the early stop and the last network on the test split; returns the results."""
        began = time.perf_counter()
        tests = jax.device_get(self.program.test(self.state, self.experiment.test))
        self.seconds += time.perf_counter() - began
        states = [jax.device_get(self.dense_state(index)) for index in range(len(self.runs))]
        return [
            FinishedRun(self._row(run, state, *unstack_run(tests, index)), state.state)
            for index, (run, state) in enumerate(zip(self.runs, states, strict=True))
        ]

    def _row(
        self, run: Run, state: LoopState, at_best: Evaluation, at_end: Evaluation
    ) -> ResultRow:
        if state.best.step < 0:
            raise RunError(
                f"{run.run_id}: no validation loss was finite; lower train.learning_rate"
            )
        kept, total = run.counts
        last = self.points[run.run_id][-1]
        return ResultRow(
            *run.run_id,
            density=kept / total,
            kept=kept,
            prunable=total,
            early_stop_step=int(state.best.step),
            early_stop_val_loss=float(state.best.loss),
            early_stop_val_accuracy=float(state.best.accuracy),
            early_stop_test_accuracy=float(at_best.accuracy),
            final_val_accuracy=last.val_accuracy,
            final_test_accuracy=float(at_end.accuracy),
            final_train_loss=last.train_loss,
            steps=self.last - self.first,
            train_seconds=self.seconds / len(self.runs),
            kernel=self.experiment.native.column(run.form),
        )


def place(run: Run, progress: Mapping[RunId, Progress]) -> tuple[int, int]:
    """Returns (step, step of the last evaluation) where a run begins or goes on."""
    made = progress.get(run.run_id)
    return (made.step, made.evaluated) if made else (run.start.step, -1)


def _loop_state(run: Run, progress: Progress | None) -> LoopState:
    """Returns the state from which a run begins or goes on, in its form."""
    state = new_loop_state(run.start.state, len(run.experiment.train.labels))
    if progress:
        state = state._replace(**fill(kept_state(state), progress.arrays))
    return from_dense(state, run.form, run.experiment.optimizer)


class LevelTrainer:
    """Trains the runs of one level to their end.

    Args:
      store: where progress is kept.
      observer: who is told.
      stop_signal: gives the number of a signal that asks for a stop, or 0.
      save_seconds: how often to save, at most.
      workers: how many groups train side by side. A small network's operations do not keep two
        cores busy; two networks side by side do, and each has the bits that it has alone.
      capture_at: the steps at which `capture` sees the trunk's states.
      capture: called with a replicate, a step and the state there.
    """

    def __init__(
        self,
        store: RunDirectory,
        observer: Observer,
        stop_signal: Callable[[], int],
        *,
        save_seconds: float,
        workers: int = 1,
        capture_at: Sequence[int] = (),
        capture: Callable[[int, int, TrainState], None] = lambda *_: None,
    ):
        self.store, self.observer, self.stop_signal = store, observer, stop_signal
        self.save_seconds, self.workers = save_seconds, workers
        self.capture_at, self.capture = capture_at, capture
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
        with ThreadPoolExecutor(self.workers) as pool:
            self._advance_all(level, groups, pool)
            self._write_curves(level, groups)
            finished = list(pool.map(RunGroup.finish, groups))
        return {one.row.run_id: one for group in finished for one in group}

    def _groups(self, level: int, runs: Sequence[Run]) -> list[RunGroup]:
        """Returns the runs in groups of one experiment, form and step, compiled and ready."""
        progress = self._progress(level, {run.run_id for run in runs})
        alike: dict[tuple[Any, ...], list[Run]] = {}
        for run in runs:
            together = (id(run.experiment), run.form.form, run.start.step, run.last_step)
            alike.setdefault((*place(run, progress), *together), []).append(run)
        largest = max(map(len, alike.values()))
        groups = []
        for members in alike.values():
            size = members[0].experiment.group_size(largest)
            for index in range(0, len(members), size):
                groups.append(RunGroup(members[index : index + size], size, progress))
        for group in groups:
            group.compile()
        if progress:
            step = min(group.step for group in groups)
            self.observer.note(f"level {level} goes on from step {step} of {groups[0].last}")
        self._saved_at = time.monotonic()
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
                training[pool.submit(group.advance, self.capture_at, beside)] = group
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
        if steps and group.step in self.capture_at:
            for index, run in enumerate(group.runs):
                if run.run_id.branch == TRUNK:
                    state = group.dense_state(index).state
                    self.capture(run.run_id.replicate, group.step, state)
        trunk = [point for run_id, point in points.items() if run_id.branch == TRUNK]
        if trunk:
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
        self._write_curves(level, groups)
        arrays: dict[str, Any] = {}
        runs: list[dict[str, Any]] = []
        for group in groups:
            for run_id, progress in group.progress().items():
                facts = progress._asdict()
                arrays[f"run_{len(runs)}"] = facts.pop("arrays")
                runs.append({"id": list(run_id), **facts})
        self.store.save_progress(arrays, {"level": level, "runs": runs})
        self._saved_at = time.monotonic()

    def _progress(self, level: int, wanted: set[RunId]) -> dict[RunId, Progress]:
        """Returns the progress of the wanted runs of this level that were stopped on their way."""
        saved = self.store.load_progress()
        if saved is None or saved[1]["level"] != level:
            return {}
        arrays, meta = saved
        progress = {}
        for index, facts in enumerate(meta["runs"]):
            run_id = RunId(*facts["id"])
            if run_id not in wanted or self._lost_rewind_point(run_id, facts["step"]):
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
            )
        return progress

    def _lost_rewind_point(self, run_id: RunId, step: int) -> bool:
        """Returns whether a run is past a step where its state was captured, which is damaged."""
        past = any(capture <= step for capture in self.capture_at)
        return past and not self.store.intact(run_id.replicate, "rewind")

    def _write_curves(self, level: int, groups: Sequence[RunGroup]) -> None:
        points = {run: points for group in groups for run, points in group.points.items()}
        for branch in {run.branch for run in points}:
            mine = {
                (run.replicate, run.draw): p for run, p in points.items() if run.branch == branch
            }
            others = [
                point
                for point in self.store.curve(branch, level)
                if (point.replicate, point.draw) not in mine
            ]
            new = [point for curve in mine.values() for point in curve]
            self.store.write_curve(branch, level, [*others, *new])


def _density(runs: Sequence[Run]) -> float:
    """Returns the tickets' mean density; that of the branches where no ticket is trained."""
    tickets = [run for run in runs if run.run_id.branch == TRUNK] or runs
    return float(np.mean([kept / total for kept, total in (run.counts for run in tickets)]))
