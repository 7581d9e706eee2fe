"""Runs in training: a group that advances in lockstep, chunk by chunk, from its start to its row.

Nothing here touches the disk or the terminal; `levels` decides when to go on, save and stop.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lth_jax.errors import RunError
from lth_jax.lottery.branches import Ticket
from lth_jax.lottery.experiment import Experiment
from lth_jax.native.packing import Layout, Packing
from lth_jax.pruning.masks import kept_counts
from lth_jax.store import CurvePoint
from lth_jax.store.checkpoints import fill
from lth_jax.store.results import ResultRow, RunId
from lth_jax.training.loop import Program
from lth_jax.training.states import (
    Evaluation,
    Inputs,
    Run,
    TrainState,
    new_run,
    pack_run,
    stack_runs,
    unpack_run,
    unstack_run,
    zero_where_pruned,
)

CHUNK_SECONDS = 1.0


class Job(NamedTuple):
    """A run to be trained.

    Attributes:
      id: which one.
      ticket: where it starts.
      experiment: what it is trained with: the trunk's experiment, or a variant of it.
      last: the step at which it ends.
    """

    id: RunId
    ticket: Ticket
    experiment: Experiment
    last: int

    def layout(self) -> Layout:
        """How its kernels are packed in training; empty where none is."""
        e, (mask, state, _) = self.experiment, self.ticket
        return e.kernels.layout(self.id.level, mask, zero_where_pruned(e.optimizer, state, mask))

    def counts(self) -> tuple[int, int]:
        """(kept, prunable) weights, as Python integers."""
        counts = kept_counts(self.ticket.mask, self.experiment.rates).values()
        return sum(kept for kept, _ in counts), sum(total for _, total in counts)


class Saved(NamedTuple):
    """A run that was stopped on its way, as a checkpoint keeps it.

    Attributes:
      step: updates behind it; evaluated: the step of its last evaluation, -1 before the first.
      seconds: of training so far.
      points: its evaluations so far.
      arrays: by name, those of `saved_part`.
    """

    step: int
    evaluated: int
    seconds: float
    points: list[CurvePoint]
    arrays: Mapping[str, np.ndarray]


class Trained(NamedTuple):
    """A finished run: its row, and the state that it ended in, on the host."""

    row: ResultRow
    state: TrainState


class Leg(NamedTuple):
    """A piece of the way.

    Attributes:
      steps: updates done, for each run.
      points: the evaluation at its end, if there was one.
    """

    steps: int
    points: Mapping[RunId, CurvePoint]


@dataclasses.dataclass
class Flight:
    """A group of runs in training, in lockstep.

    Attributes:
      jobs: what they are; all of one experiment, first and last step.
      run, inputs: theirs, with a leading axis of the group's size: idle runs fill it up.
      step: updates behind them; evaluated: the step of the last evaluation, -1 before the first.
      seconds: spent in compiled code, for all of them.
      points: their evaluations.
      packings: how the kernels of each job are packed, meanwhile.
      chunk: steps that take about `CHUNK_SECONDS`; 1 before anything is known.
    """

    jobs: Sequence[Job]
    run: Run
    inputs: Inputs
    step: int
    evaluated: int
    seconds: float
    points: dict[RunId, list[CurvePoint]]
    packings: Sequence[Packing]
    chunk: int = 1

    @classmethod
    def start(cls, jobs: Sequence[Job], size: int, saved: Mapping[RunId, Saved]) -> Flight:
        """A group of `size` from `jobs` that stand at the same step, new or saved."""
        marks = [saved.get(job.id) for job in jobs]
        layout, layers = jobs[0].layout(), jobs[0].experiment.kernels.layers
        packings = [Packing(layout, layers, job.ticket.mask) for job in jobs]
        runs = list(map(_run, jobs, marks, packings))
        inputs = [
            Inputs(packing.mask(job.ticket.mask), job.experiment.run_key(job.id.replicate))
            for job, packing in zip(jobs, packings, strict=True)
        ]
        step, evaluated = standing(jobs[0], marks[0])
        return cls(
            jobs=jobs,
            run=stack_runs(runs + runs[-1:] * (size - len(jobs))),
            inputs=stack_runs(inputs + inputs[-1:] * (size - len(jobs))),
            step=step,
            evaluated=evaluated,
            seconds=sum(mark.seconds for mark in marks if mark),
            points={
                job.id: list(mark.points if mark else ())
                for job, mark in zip(jobs, marks, strict=True)
            },
            packings=packings,
        )

    @property
    def experiment(self) -> Experiment:
        """The experiment of its jobs."""
        return self.jobs[0].experiment

    @property
    def first(self) -> int:
        """The step at which its runs started."""
        return self.jobs[0].ticket.step

    @property
    def last(self) -> int:
        """The step at which its runs end."""
        return self.jobs[0].last

    @property
    def program(self) -> Program:
        """The compiled program for a group of this size."""
        return self.experiment.program(self.inputs.key.shape[0])

    def compile(self) -> None:
        """Compiles what is not compiled yet."""
        e = self.experiment
        self.program.compile(self.run, self.inputs, e.train, e.validation, e.test)

    def next_evaluation(self) -> int | None:
        """The step of the next evaluation: the first, each multiple of `eval.every`, the last."""
        if self.evaluated < 0:
            return self.first
        if self.evaluated == self.last:
            return None
        every = self.experiment.eval_every
        return min((self.evaluated // every + 1) * every, self.last)

    def leg(self, pause_at: int, beside: int) -> Leg:
        """Trains for a chunk towards the next evaluation, and evaluates if that is reached.

        Args:
          pause_at: a step to stop at on the way.
          beside: the flights in the air meanwhile, this one included: its time is shared with them.
        """
        start = time.perf_counter()
        stop = self.next_evaluation()
        assert stop is not None, "a landed flight goes nowhere"
        steps = self._advance(min(stop, pause_at) if self.step < pause_at else stop)
        points = self._evaluate() if self.step == stop else {}
        self.seconds += (time.perf_counter() - start) / beside
        return Leg(steps, points)

    def _advance(self, stop: int) -> int:
        """Trains for a chunk, at most up to step `stop`; gives the number of steps."""
        stop = min(stop, self.step + self.chunk)
        steps = stop - self.step
        if not steps:
            return 0
        start = time.perf_counter()
        self.run = jax.block_until_ready(
            self.program.train(self.run, self.inputs, self.experiment.train, self.step, stop)
        )
        seconds = time.perf_counter() - start
        self.step = stop
        self.chunk = max(1, math.floor(CHUNK_SECONDS * steps / max(seconds, 1e-9)))
        return steps

    def _evaluate(self) -> dict[RunId, CurvePoint]:
        """Evaluates here, which may become the early stop; gives each run's point."""
        updates = self.step - max(self.evaluated, self.first)
        self.run, result, train_loss = self.program.evaluate(
            self.run, self.experiment.validation, self.step, updates
        )
        columns = [
            np.asarray(values, np.float64).tolist()
            for values in (result.loss, result.accuracy, train_loss)
        ]
        self.evaluated = self.step
        new = {
            job.id: CurvePoint(job.id.replicate, job.id.draw, self.step, *values)
            for job, *values in zip(self.jobs, *columns, strict=False)
        }
        for id, point in new.items():
            self.points[id].append(point)
        return new

    def state(self, index: int) -> TrainState:
        """The training state of run `index`."""
        return self._unpacked(index).state

    def _unpacked(self, index: int) -> Run:
        """Run `index`, as everything outside of this module knows it."""
        run = unstack_run(self.run, index)
        return unpack_run(run, self.packings[index], self.experiment.optimizer)

    def save(self) -> Iterable[tuple[RunId, Saved, dict[str, Any]]]:
        """Each run with what to keep of it: its marks, and its arrays as a pytree."""
        share = self.seconds / len(self.jobs)
        for index, job in enumerate(self.jobs):
            mark = Saved(self.step, self.evaluated, share, self.points[job.id], {})
            yield job.id, mark, saved_part(self._unpacked(index))

    def land(self) -> list[Trained]:
        """The finished runs, early stop and last network measured on the test split."""
        start = time.perf_counter()
        tests = jax.device_get(self.program.test(self.run, self.experiment.test))
        self.seconds += time.perf_counter() - start
        runs = [jax.device_get(self._unpacked(index)) for index in range(len(self.jobs))]
        return [
            Trained(self._row(job, run, unstack_run(tests, index)), run.state)
            for index, (job, run) in enumerate(zip(self.jobs, runs, strict=True))
        ]

    def _row(self, job: Job, run: Run, tests: tuple[Evaluation, Evaluation]) -> ResultRow:
        if run.best.step < 0:
            raise RunError(f"{job.id}: no validation loss was finite; lower train.learning_rate")
        kept, total = job.counts()
        last = self.points[job.id][-1]
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
            steps=self.last - self.first,
            train_seconds=self.seconds / len(self.jobs),
            kernel="sparse" if any(self.packings) else self.experiment.kernels.dense,
        )


def standing(job: Job, saved: Saved | None) -> tuple[int, int]:
    """(step, step of the last evaluation) at which a run stands."""
    return (saved.step, saved.evaluated) if saved else (job.ticket.step, -1)


def saved_part(run: Run) -> dict[str, Any]:
    """What a checkpoint keeps of a run; the permutation comes again from key and epoch."""
    return {"state": run.state, "best": run.best, "loss_sum": run.loss_sum}


def _run(job: Job, saved: Saved | None, packing: Packing) -> Run:
    run = new_run(job.ticket.state, len(job.experiment.train.labels))
    run = run._replace(**fill(saved_part(run), saved.arrays)) if saved else run
    return pack_run(run, packing, job.experiment.optimizer)
