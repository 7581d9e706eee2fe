"""Groups of runs that train together: the host's side of the compiled loop.

A group cuts training into chunks of about a second and evaluates between them; where a chunk ends
changes no bit of any run.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.lottery.curvature import CurvatureMeter
from lth_jax.lottery.early_bird import MaskWatch
from lth_jax.lottery.moving import MaskCounts, MovingMask
from lth_jax.lottery.rows import FinishedRun, row_of
from lth_jax.lottery.run import Progress, Run, kept_state, place
from lth_jax.pruning.trees import PyTree, map_named, to_device
from lth_jax.store import CurvePoint
from lth_jax.store.checkpoints import fill
from lth_jax.store.tables import CurvaturePoint, MaskDistance, RunId
from lth_jax.training.devices import Memory
from lth_jax.training.loop import Program
from lth_jax.training.parameterization import (
    DENSE,
    Parameterization,
    from_dense,
    to_dense,
)
from lth_jax.training.states import (
    Evaluation,
    Inputs,
    LoopState,
    TrainState,
    for_gradients,
    stack_runs,
    unstack_run,
)
from lth_jax.training.streamed import Feed

# Between two chunks a run may be saved or stopped: Ctrl-C is answered within about a second.
CHUNK_SECONDS = 1.0
# Runs that start at different steps share a group as long as at most this share of its steps are
# done by copies. Where small networks are bound by launches, a second group would take as long as
# the first; where they are not, copies cost what they compute. No accelerator has measured it.
MOST_IDLE = 0.25


class RunGroup:
    """Runs that train in lockstep, as one call of the compiled program.

    All end at the same step. A run that starts later than others is put in when these have come to
    its start, so that each does its own steps and no others. Before a group begins, and after it is
    finished, it holds nothing on the devices.

    Args:
      runs: they are of one experiment and form.
      size: the length of the program's axis of runs; copies fill it up.
      progress: of the runs that were stopped on their way, by id.

    Attributes:
      step: the updates behind those that have begun, counted from initialization.
      begins: the step at which each run is put in.
      evaluated: the step of each run's last evaluation; -1 before the first.
      seconds: the time in compiled code so far, of all of them.
      points: their evaluations, by run.
      curvature: their eigenvalues, by run.
      drawn: the checkpoints that their states are to be kept as at this step, by run.
      chunk: the number of steps that take about `CHUNK_SECONDS`; 1 before anything is known.
      finished: their results, once there are any.
    """

    def __init__(self, runs: Sequence[Run], size: int, progress: Mapping[RunId, Progress]):
        self.runs, self.size, self.experiment = runs, size, runs[0].experiment
        self.devices, self.last = runs[0].devices, runs[0].last_step
        places = [place(run, progress) for run in runs]
        self.begins = [step for step, _ in places]
        self.evaluated = [evaluated for _, evaluated in places]
        self.step = min(self.begins)
        self._made = {run.run_id: progress[run.run_id] for run in runs if run.run_id in progress}
        self.seconds = sum(one.seconds for one in self._made.values())
        self.points: dict[RunId, list[CurvePoint]] = {run.run_id: [] for run in runs}
        self.curvature: dict[RunId, list[CurvaturePoint]] = {run.run_id: [] for run in runs}
        for run_id, made in self._made.items():
            self.points[run_id] += made.points
            self.curvature[run_id] += made.curvature
        # How long a step takes is measured anew by each group: first by a single one.
        self.chunk = 1
        self.program: Program = self.experiment.program(size, self.devices)
        self._put_in: set[int] = set()  # which runs have begun
        self.masks: list[MovingMask | None] = [None] * len(runs)
        self.watches: list[MaskWatch | None] = [None] * len(runs)
        self.drawn: dict[RunId, list[str]] = {}
        self.forms: list[Parameterization] = [DENSE] * len(runs)
        self._clear()
        self.finished: list[FinishedRun] = []
        # Each place in the group has an order of its own, also while a copy is there.
        keys = [run.data_key for run in runs] + [runs[-1].data_key] * (size - len(runs))
        self.train = self.experiment.training_examples(keys, self.last, self.devices)

    def _clear(self) -> None:
        self.state: Any = None  # a LoopState of all its runs, and their Inputs, while they train
        self.inputs: Any = None

    @property
    def updates(self) -> tuple[int, int]:
        """(all, done) updates of its runs."""
        starts = [run.start.step for run in self.runs]
        at = [max(self.step, begins) for begins in self.begins]
        done = sum(step - start for step, start in zip(at, starts, strict=True))
        return sum(self.last - start for start in starts), done

    def is_compiled(self) -> bool:
        """Returns whether its program is there already."""
        forms = [form for form, _ in (self._form(), *self._to_come)]
        if not all(self.program.is_compiled(form.constants) for form in forms):
            return False
        gradients = self._needs_gradients(self.runs)
        return not gradients or self.program.is_compiled(DENSE.constants, "gradients")

    def compile(self) -> None:
        """Compiles what is not compiled yet, for the shapes of its runs."""
        e, run = self.experiment, self.runs[0]
        # One run says what all look like; its arrays go again.
        dense = (
            self.dense_state(0) if self.state else run.beginning(self._made.get(run.run_id)).state
        )
        for form, mask in (self._form(), *self._to_come):
            state = from_dense(dense, form, e.optimizer)
            inputs = Inputs(map_named(form.mask, mask), run.data_key)
            shapes = self.devices.shapes((state, inputs), self.size)
            self.program.compile(shapes[0], shapes[1], self.train, e.validation, e.test)
            if self._to_come:  # the small functions, too: of these the call is what compiles them
                unstack_run(stack_runs([state]), 0)
                stack_runs([inputs])
        if self._needs_gradients(self.runs):
            shapes = self.devices.shapes((for_gradients(dense), run.data_key), self.size)
            self.program.compile_gradients(shapes[0], shapes[1], self.train)
            stack_runs([for_gradients(dense)])

    def memory(self) -> dict[str, Memory]:
        """Returns what its compiled functions take on each device, by name."""
        return self.program.memory(self._form()[0].constants)

    @cached_property
    def _to_come(self) -> list[tuple[Parameterization, PyTree]]:
        """Each form, with a mask, that a schedule will bring its run to.

        They are compiled ahead, since a move in mid-run is not to wait for a compiler.
        """
        run = self.runs[0]
        return [(run.form_of(mask), mask) for mask in run.stand_ins()]

    def _form(self) -> tuple[Parameterization, PyTree]:
        """Returns the form in which its runs begin or are, and the mask of the first one."""
        run, mask, made = self.runs[0], self.masks[0], self._made.get(self.runs[0].run_id)
        if mask:
            return self.forms[0], mask.trained
        if run.moving and made:
            like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, bool), run.start.mask)
            found = fill(like, made.arrays, "moving/mask/")
            return run.form_of(found), found
        return run.form, run.start.mask

    # On the devices

    def begin(self) -> None:
        """Makes its state on the devices, one run after the other."""
        first = self.begins.index(self.step)
        state, inputs = self._begin(first)
        # All groups of one length have one program: what has not begun, or fills it up, is a copy.
        # What that becomes is never looked at.
        self.state = self.devices.filled(state, self.size)
        self.inputs = self.devices.filled(inputs, self.size)
        self._put_in = {first}
        self._put_in_runs()
        self._try_moves()

    def _begin(self, index: int) -> tuple[LoopState, Inputs]:
        """Returns what the loop carries of a run, and what it is told of it, as the run begins."""
        run = self.runs[index]
        form = run.form
        dense, mask, watch = run.begin(self._made.get(run.run_id))
        self.masks[index], self.watches[index] = mask, watch
        self.forms[index] = run.form_of(mask.mask) if mask else form
        state = from_dense(dense, self.forms[index], self.experiment.optimizer)
        return state, self._inputs(index)

    def _put_in_runs(self) -> None:
        """Puts in the runs whose start the others have come to."""
        for index, begins in enumerate(self.begins):
            if begins == self.step and index not in self._put_in:
                self._replace(index, *self._begin(index))
                self._put_in.add(index)

    def _replace(self, index: int, state: LoopState, inputs: Inputs) -> None:
        if self.size == 1:  # alone in its group, a run may have another form than before
            self.state, self.inputs = stack_runs([state]), stack_runs([inputs])
            return
        self.state = self.devices.with_run(self.state, state, index)
        self.inputs = self.devices.with_run(self.inputs, inputs, index)

    def _try_moves(self) -> None:
        """Compiles the small functions of a rule by a move that is thrown away."""
        e = self.experiment
        for index in self._put_in:
            run, mask = self.runs[index], self.masks[index]
            step = run.moving.next_move(self.step + 1) if run.moving else None
            if mask and step is not None:
                dense, rule = self.dense_state(index), mask.moving.rule
                zeros = jax.tree.map(jnp.zeros_like, dense.state.params)
                given = zeros if rule.needs_gradients else None
                dataclasses.replace(mask, history=[]).move(dense, given, step, e.optimizer)

    def _inputs(self, index: int) -> Inputs:
        """Returns what the loop is told of a run."""
        run, mask = self.runs[index], self.masks[index]
        whole = mask.trained if mask else to_device(run.start.mask)
        return Inputs(map_named(self.forms[index].mask, whole), run.data_key)

    @staticmethod
    def _needs_gradients(runs: Iterable[Run]) -> bool:
        return any(run.moving.rule.needs_gradients for run in runs if run.moving)

    def next_evaluation(self) -> int | None:
        """Returns the step of the next evaluation, or None after the last one.

        Runs are evaluated where they start, at each multiple of `eval.every`, and where they end.
        """
        due = [at for at in map(self._due, range(len(self.runs))) if at is not None]
        return min(due, default=None)

    def _due(self, index: int) -> int | None:
        """Returns the step of a run's next evaluation, or None after its last one."""
        evaluated, every = self.evaluated[index], self.experiment.eval_every
        if evaluated < 0:
            return self.begins[index]
        return None if evaluated == self.last else min((evaluated // every + 1) * every, self.last)

    def advance(self, pauses: Iterable[int], beside: int) -> tuple[int, dict[RunId, CurvePoint]]:
        """Trains for a chunk towards the next evaluation, and evaluates if it is reached.

        Args:
          pauses: steps at which to stop on the way, since the host wants to see the states there.
          beside: the number of groups that train at this time, this one included; they share it.

        Returns:
          The number of updates done by all runs, and the evaluations that there were.
        """
        if not self._put_in:
            self.begin()
        stop = self.next_evaluation()
        assert stop is not None, "a finished group does not advance"
        moves = (run.moving.next_move(self.step + 1) for run in self.runs if run.moving)
        meter = self.experiment.curvature
        looks = (run.early_birds.next_look(self.step + 1) for run in self.runs if run.early_birds)
        measured = meter.steps if meter else ()
        wanted = (*pauses, *moves, *looks, *measured, *self.begins)
        seen = [at for at in wanted if at is not None and self.step < at]
        began = time.perf_counter()
        steps = self._train(min([stop, self.step + self.chunk, *seen]))
        self._put_in_runs()
        points = self._evaluate() if self.step == stop else {}
        self.seconds += (time.perf_counter() - began) / beside
        self._measure_curvature(meter)
        self.drawn = self._look_at_masks() if steps else {}
        return steps, points

    def _look_at_masks(self) -> dict[RunId, list[str]]:
        """Looks at the masks of runs at the end of an epoch; returns the checkpoints to be kept."""
        found = {}
        for index, run in self.begun():
            watch = self.watches[index]
            if watch and watch.of.next_look(self.step) == self.step:
                found[run.run_id] = watch.look(self.step, self.dense_state(index).state)
        return found

    def _measure_curvature(self, meter: CurvatureMeter | None) -> None:
        """Measures the runs at this step, if they are to be and are not yet."""
        if not meter or self.step not in meter.steps:
            return
        for index, run in self.begun():
            found = self.curvature[run.run_id]
            if found and found[-1].step == self.step:
                continue
            value = meter.measure(*self._network(index, self.dense_state(index).state))
            whose = run.run_id.replicate, run.run_id.draw
            found.append(
                CurvaturePoint(*whose, self.step, *value, meter.examples, meter.iterations)
            )

    def _train(self, stop: int) -> int:
        """Trains to a step; returns the number of updates that all runs did."""
        steps = stop - self.step
        if not steps:
            return 0
        # Here, where updates follow: what is evaluated or saved at this step is not moved yet.
        self._move()
        began = time.perf_counter()
        # JAX returns before the work is done; it is the work that is timed.
        self.state = jax.block_until_ready(
            self.program.train(self.state, self.inputs, self.train, self.step, stop)
        )
        seconds = time.perf_counter() - began
        self.step = stop
        # Where a chunk ends changes no bit (see `Program`), so the clock may decide it.
        self.chunk = max(1, math.floor(CHUNK_SECONDS * steps / max(seconds, 1e-9)))
        return steps * len(self._put_in)

    def _move(self) -> None:
        """Moves the masks that move at this step."""
        movers = [
            index
            for index, run in self.begun()
            if run.moving and run.moving.next_move(self.step) == self.step > run.start.step
        ]
        if not movers:
            return
        e, key = self.experiment, self.inputs.key
        dense = {index: self.dense_state(index) for index in movers}
        gradients = None
        if self._needs_gradients(self.runs[index] for index in movers):
            run = self.state if len(key) > 1 else stack_runs([for_gradients(dense[0])])
            gradients = self.program.gradients(for_gradients(run), key, self.train, self.step)
        for index in movers:
            mask, run = self.masks[index], self.runs[index]
            assert mask is not None, "runs whose masks move have one of their own"
            mine = None if gradients is None else unstack_run(gradients, index)
            state = mask.move(dense[index], mine, self.step, e.optimizer)
            self.forms[index] = run.form_of(mask.mask)
            state = from_dense(state, self.forms[index], e.optimizer)
            self._replace(index, state, self._inputs(index))
        if not self.is_compiled():  # a mask with fewer weights may have another form
            began = time.perf_counter()
            self.compile()
            self.seconds -= time.perf_counter() - began

    def _evaluate(self) -> dict[RunId, CurvePoint]:
        """Evaluates the runs of which that is due at this step."""
        due = [index for index, _ in self.begun() if self._due(index) == self.step]
        updates = [-1] * self.size
        for index in due:
            before = max(self.evaluated[index], self.runs[index].start.step)
            updates[index] = self.step - before
        self.state, result, train_loss = self.program.evaluate(
            self.state, self.experiment.validation, self.step, updates
        )
        # A float32 is a float64 exactly, so that the `repr` in a table reads back to the same bits.
        columns = [
            np.asarray(values, np.float64).tolist()
            for values in (result.loss, result.accuracy, train_loss)
        ]
        new = {}
        for index in due:
            loss, accuracy, mean = (column[index] for column in columns)
            whose = self.runs[index].run_id
            mean = mean if updates[index] else math.nan  # there is no mean of none
            new[whose] = CurvePoint(whose.replicate, whose.draw, self.step, loss, accuracy, mean)
            self.points[whose].append(new[whose])
            self.evaluated[index] = self.step
        return new

    def begun(self) -> list[tuple[int, Run]]:
        """Returns the runs that have begun, each with its place in the group."""
        return [(index, self.runs[index]) for index in sorted(self._put_in)]

    def dense_state(self, index: int) -> LoopState:
        """Returns the state of run `index`, its parameters dense, without an axis of runs."""
        state = self.devices.run(self.state, index)
        dense = to_dense(state, self.forms[index], self.experiment.optimizer)
        mask = self.masks[index]
        return mask.with_best(dense) if mask else dense

    def progress(self) -> dict[RunId, Progress]:
        """Returns how far each run is, with its state; nothing of those that never began."""
        if self.state is None:
            return self._made
        begun = {
            run.run_id: self._progress(index, self.dense_state(index))
            for index, run in self.begun()
        }
        return {**self._made, **begun}

    def _progress(self, index: int, dense: LoopState) -> Progress:
        whose, mask, watch = self.runs[index].run_id, self.masks[index], self.watches[index]
        return Progress(
            self.step,
            self.evaluated[index],
            self.seconds / len(self.runs),
            self.points[whose],
            kept_state(dense, mask, watch),
            mask.history if mask else (),
            self.curvature[whose],
            watch.points if watch else None,
        )

    def mask_counts(self, index: int) -> Sequence[MaskCounts]:
        """Returns the counts of a run's mask so far, if that moves."""
        mask, made = self.masks[index], self._made.get(self.runs[index].run_id)
        return mask.history if mask else made.masks if made else ()

    def mask_distances(self, index: int) -> Sequence[MaskDistance]:
        """Returns the distances of a run's masks so far, if tickets are to be drawn from it."""
        watch, made = self.watches[index], self._made.get(self.runs[index].run_id)
        return watch.points if watch else (made and made.distances) or ()

    def close(self) -> None:
        """Ends what reads examples ahead, if they are streamed."""
        if isinstance(self.train, Feed):
            self.train.close()

    def finish(self, beside: int = 1) -> list[FinishedRun]:
        """Measures the early stop and the last network on the test split; returns the results.

        The group gives up its place on the devices, and keeps its runs' states on the host.

        Args:
          beside: the number of groups that work at this time, this one included.
        """
        self.close()
        if not self._put_in:  # it was stopped after its last step
            self.begin()
        began = time.perf_counter()
        tests = jax.device_get(self.program.test(self.state, self.experiment.test))
        measured = [unstack_run(tests, index) for index in range(len(self.runs))]
        states = [jax.device_get(self.dense_state(index)) for index in range(len(self.runs))]
        for index, (mask, state) in enumerate(zip(self.masks, states, strict=True)):
            if mask and mask.is_of_best(state) and self.forms[index].form:
                measured[index] = self._test_of_best(index, state, mask), measured[index][1]
        made = {run.run_id: self._progress(i, states[i]) for i, run in enumerate(self.runs)}
        self.seconds += (time.perf_counter() - began) / beside
        for index, state in enumerate(states):
            trained, last = jax.device_get(self._network(index, state.state))
            row = row_of(
                self.runs[index],
                self.points[self.runs[index].run_id],
                state,
                last,
                measured[index],
                seconds=self.seconds / len(self.runs),
                kernel=self.experiment.native.column(self.forms[index]),
            )
            self.finished.append(FinishedRun(row, last, trained))
        self._made = {
            whose: one._replace(arrays=jax.device_get(one.arrays)) for whose, one in made.items()
        }
        self._clear()
        return self.finished

    def _network(self, index: int, dense: TrainState) -> tuple[TrainState, PyTree]:
        """Returns the state of run `index` with its network's weights alone, and its mask."""
        run, mask = self.runs[index], self.masks[index]
        if mask:
            return mask.network(dense), mask.mask
        return run.learning.network(dense) if run.learning else (dense, run.start.mask)

    def _test_of_best(self, index: int, dense: LoopState, mask: MovingMask) -> Evaluation:
        """Measures an early stop of another mask than the last, in the form of its own."""
        form = self.runs[index].form_of(mask.best_mask)
        run = stack_runs([from_dense(dense, form, self.experiment.optimizer)])
        return unstack_run(self.program.test(run, self.experiment.test)[0], 0)


def in_lockstep(runs: Sequence[Run], begins: Sequence[int], last: int) -> list[list[Run]]:
    """Returns the runs in sets that may share a group, each in the order in which they begin.

    Args:
      runs: all end at the same step.
      begins: the steps at which they begin or go on.
      last: at which they end.
    """
    at: dict[int, list[Run]] = {}
    for begin, run in zip(begins, runs, strict=True):
        at.setdefault(begin, []).append(run)
    sets: list[list[Run]] = []
    first = idle = 0
    for begin, some in sorted(at.items()):
        more = (begin - first) * len(some)
        if sets and idle + more <= MOST_IDLE * (len(sets[-1]) + len(some)) * (last - first):
            sets[-1] += some
            idle += more
        else:
            sets.append(some)
            first, idle = begin, 0
    return sets
