"""Runs, and the groups in which they train: the host's side of the compiled loop.

A group cuts training into chunks of about a second and evaluates between them; where a chunk ends
changes no bit of any run.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from lth_jax.lottery.branches import StartPoint
from lth_jax.lottery.curvature import CurvatureMeter
from lth_jax.lottery.early_bird import EarlyBirds, MaskWatch
from lth_jax.lottery.experiment import Experiment
from lth_jax.lottery.learning import Learning
from lth_jax.lottery.moving import MaskCounts, Moving, MovingMask
from lth_jax.native.packing import Layout
from lth_jax.pruning.masks import kept_counts
from lth_jax.pruning.trees import PyTree, map_named, named_leaves, to_device
from lth_jax.store import CurvePoint
from lth_jax.store.checkpoints import fill
from lth_jax.store.tables import CurvaturePoint, MaskDistance, ResultRow, RunId
from lth_jax.training.devices import ONE_DEVICE, RunDevices
from lth_jax.training.loop import Program
from lth_jax.training.operation_counts import training_operations
from lth_jax.training.parameterization import (
    DENSE,
    ForwardMasked,
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
      moving: how its mask moves while it trains; None if it stays.
      learning: how its mask is learned; None if it is not.
      early_birds: the tickets to be drawn from it on its way; None for none.
    """

    run_id: RunId
    start: StartPoint
    experiment: Experiment
    last_step: int
    data_key: Key[Array, ""]
    moving: Moving | None = None
    learning: Learning | None = None
    early_birds: EarlyBirds | None = None

    @cached_property
    def form(self) -> Parameterization:
        """The form in which its parameters are trained."""
        e, (mask, state, _) = self.experiment, self.start
        if self.moving:
            return self.form_of(mask)
        if self.learning:
            return self.learning.form
        return e.form(self.run_id.level, mask, state)

    def form_of(self, mask: PyTree) -> Parameterization:
        """Returns the form in which it is trained under a mask that moved."""
        e = self.experiment
        if self.moving and self.moving.rule.trained:
            return ForwardMasked(mask)
        # Runs of one `vmap` have one form, and masks by schedule may come to other counts.
        if e.group_size(2) > 1:
            return DENSE
        return e.native.parameterization_of(self.run_id.level, mask)

    def stand_ins(self) -> list[PyTree]:
        """Returns any mask for each form that a schedule will bring the run to.

        Rules that keep as many weights as they had, and runs of one `vmap`, stay in one form.
        """
        e, mask = self.experiment, self.start.mask
        if not self.moving or self.moving.rule.trained or e.group_size(2) > 1:
            return []
        sizes = {name: leaf.size for name, leaf in named_leaves(mask).items()}
        found: dict[Layout, Mapping[str, int]] = {}
        for counts in self.moving.counts_to_come(sizes):
            found.setdefault(e.native.layout_of_counts(self.run_id.level, counts), counts)
        return [map_named(partial(_first, counts), mask) for counts in found.values()]

    @property
    def devices(self) -> RunDevices:
        """What its group is spread over. The host moves masks, of runs that are on one device."""
        return ONE_DEVICE if self.moving else self.experiment.devices

    @cached_property
    def counts(self) -> tuple[int, int]:
        """(kept, prunable) weights in the end, as Python integers."""
        counts = kept_counts(self.start.mask, self.experiment.rates).values()
        kept = self.moving.course.kept.values() if self.moving else [kept for kept, _ in counts]
        total = sum(total for _, total in counts)
        return self.learning.kept if self.learning else sum(kept), total


class Progress(NamedTuple):
    """How far a run is that was stopped on its way, as a checkpoint keeps it.

    Attributes:
      step: the updates behind it, counted from initialization.
      evaluated: the step of its last evaluation; -1 before the first.
      seconds: of training so far.
      points: its evaluations so far.
      arrays: those of `kept_state`, by name; on the way to a checkpoint, the pytree itself.
      masks: counts of its mask so far, if that moves.
      curvature: its eigenvalues so far, if they are asked for.
      distances: of its masks so far, if tickets are to be drawn from it; else None.
    """

    step: int
    evaluated: int
    seconds: float
    points: list[CurvePoint]
    arrays: Any
    masks: Sequence[MaskCounts] = ()
    curvature: Sequence[CurvaturePoint] = ()
    distances: Sequence[MaskDistance] | None = None


class FinishedRun(NamedTuple):
    """A trained network: its row, its mask, and the state that it ended in, on the host."""

    row: ResultRow
    mask: PyTree
    state: TrainState


def kept_state(
    state: LoopState, mask: MovingMask | None = None, watch: MaskWatch | None = None
) -> dict[str, Any]:
    """Returns what a checkpoint keeps of a run; the permutation comes again from key and epoch."""
    kept = {"state": state.state, "best": state.best, "loss_sum": state.loss_sum}
    kept |= {"watched": dict(watch.before)} if watch else {}
    return {**kept, "moving": mask.kept(state)} if mask else kept


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
      curvature: their eigenvalues, by run.
      drawn: the checkpoints that their states are to be kept as at this step, by run.
      chunk: the number of steps that take about `CHUNK_SECONDS`; 1 before anything is known.
    """

    def __init__(self, runs: Sequence[Run], size: int, progress: Mapping[RunId, Progress]):
        self.runs, self.experiment = runs, runs[0].experiment
        self.devices = runs[0].devices
        self.first, self.last = runs[0].start.step, runs[0].last_step
        self.step, self.evaluated = place(runs[0], progress)
        made = [progress[run.run_id] for run in runs if run.run_id in progress]
        self.seconds = sum(one.seconds for one in made)
        self.drawn: dict[RunId, list[str]] = {}
        self.points: dict[RunId, list[CurvePoint]] = {
            run.run_id: list(progress[run.run_id].points if run.run_id in progress else ())
            for run in runs
        }
        self.curvature: dict[RunId, list[CurvaturePoint]] = {
            run.run_id: list(progress[run.run_id].curvature if run.run_id in progress else ())
            for run in runs
        }
        # How long a step takes is measured anew by each group: first by a single one.
        self.chunk = 1
        idle = size - len(runs)
        # All groups of an experiment have one length of axis, and so one program. What the copies
        # become is never looked at.
        began = [_beginning(run, progress.get(run.run_id)) for run in runs]
        self.masks = [mask for _, mask, _ in began]
        self.watches = [watch for *_, watch in began]
        self.forms = [
            run.form_of(mask.mask) if mask else run.form
            for run, mask in zip(runs, self.masks, strict=True)
        ]
        optimizer = self.experiment.optimizer
        states = [
            from_dense(state, form, optimizer)
            for (state, *_), form in zip(began, self.forms, strict=True)
        ]
        inputs = [self._inputs(index) for index in range(len(runs))]
        self.state: LoopState = self.devices.stack(states + states[-1:] * idle)
        self.inputs: Inputs = self.devices.stack(inputs + inputs[-1:] * idle)
        self.program: Program = self.experiment.program(size, self.devices)

    def is_compiled(self) -> bool:
        """Returns whether its program is there already."""
        if not all(map(self.program.is_compiled, (self.state, *(s for s, _ in self._to_come)))):
            return False
        dense = self.state._replace(constants=DENSE.constants)
        return not self._needs_gradients(self.runs) or self.program.is_compiled(dense, "gradients")

    def compile(self) -> None:
        """Compiles what is not compiled yet."""
        e = self.experiment
        for state, inputs in ((self.state, self.inputs), *self._to_come):
            self.program.compile(state, inputs, e.train, e.validation, e.test)
        if self._needs_gradients(self.runs):
            run = stack_runs([for_gradients(self.dense_state(0))] * len(self.inputs.key))
            self.program.compile_gradients(run, self.inputs.key, e.train)
        for index, (run, mask) in enumerate(zip(self.runs, self.masks, strict=True)):
            step = run.moving.next_move(self.step + 1) if run.moving else None
            if mask and step is not None:  # its small functions, too, by a move that is thrown away
                dense, rule = self.dense_state(index), mask.moving.rule
                zeros = jax.tree.map(jnp.zeros_like, dense.state.params)
                given = zeros if rule.needs_gradients else None
                dataclasses.replace(mask, history=[]).move(dense, given, step, e.optimizer)

    @cached_property
    def _to_come(self) -> list[tuple[Any, Any]]:
        """The shapes of its state and inputs in each form that a schedule will bring it to.

        They are compiled ahead, since a move in mid-run is not to wait for a compiler.
        """
        run, found = self.runs[0], []
        for mask in run.stand_ins():
            form = run.form_of(mask)
            state = from_dense(self.dense_state(0), form, self.experiment.optimizer)
            inputs = Inputs(map_named(form.mask, mask), run.data_key)
            stacked = stack_runs([state]), stack_runs([inputs])
            unstack_run(stacked[0], 0)
            # Of these small functions the call is what compiles them; the arrays go again.
            found.append(jax.eval_shape(lambda *same: same, *stacked))
        return found

    def _inputs(self, index: int) -> Inputs:
        """Returns what the loop is told of a run."""
        run, mask = self.runs[index], self.masks[index]
        whole = mask.trained if mask else run.start.mask
        return Inputs(map_named(self.forms[index].mask, whole), run.data_key)

    @staticmethod
    def _needs_gradients(runs: Iterable[Run]) -> bool:
        return any(run.moving.rule.needs_gradients for run in runs if run.moving)

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
        stop = self.next_evaluation()
        assert stop is not None, "a finished group does not advance"
        moves = (run.moving.next_move(self.step + 1) for run in self.runs if run.moving)
        meter = self.experiment.curvature
        looks = (run.early_birds.next_look(self.step + 1) for run in self.runs if run.early_birds)
        measured = meter.steps if meter else ()
        seen = [
            at for at in (*pauses, *moves, *looks, *measured) if at is not None and self.step < at
        ]
        began = time.perf_counter()
        steps = self._train(min([stop, self.step + self.chunk, *seen]))
        points = self._evaluate() if self.step == stop else {}
        self.seconds += (time.perf_counter() - began) / beside
        self._measure_curvature(meter)
        self.drawn = self._look_at_masks() if steps else {}
        return steps, points

    def _look_at_masks(self) -> dict[RunId, list[str]]:
        """Looks at the masks of runs at the end of an epoch; returns the checkpoints to be kept."""
        found = {}
        for index, (run, watch) in enumerate(zip(self.runs, self.watches, strict=True)):
            if watch and watch.of.next_look(self.step) == self.step:
                found[run.run_id] = watch.look(self.step, self.dense_state(index).state)
        return found

    def _measure_curvature(self, meter: CurvatureMeter | None) -> None:
        """Measures the runs at this step, if they are to be and are not yet."""
        if not meter or self.step not in meter.steps:
            return
        for index, run in enumerate(self.runs):
            found = self.curvature[run.run_id]
            if found and found[-1].step == self.step:
                continue
            value = meter.measure(*self._network(index, self.dense_state(index).state))
            whose = run.run_id.replicate, run.run_id.draw
            found.append(
                CurvaturePoint(*whose, self.step, *value, meter.examples, meter.iterations)
            )

    def _train(self, stop: int) -> int:
        steps = stop - self.step
        if not steps:
            return 0
        # Here, where updates follow: what is evaluated or saved at this step is not moved yet.
        self._move()
        began = time.perf_counter()
        # JAX returns before the work is done; it is the work that is timed.
        self.state = jax.block_until_ready(
            self.program.train(self.state, self.inputs, self.experiment.train, self.step, stop)
        )
        seconds = time.perf_counter() - began
        self.step = stop
        # Where a chunk ends changes no bit (see `Program`), so the clock may decide it.
        self.chunk = max(1, math.floor(CHUNK_SECONDS * steps / max(seconds, 1e-9)))
        return steps

    def _move(self) -> None:
        """Moves the masks that move at this step."""
        movers = [
            index
            for index, run in enumerate(self.runs)
            if run.moving and run.moving.next_move(self.step) == self.step > run.start.step
        ]
        if not movers:
            return
        e, key = self.experiment, self.inputs.key
        dense = {index: self.dense_state(index) for index in movers}
        gradients = None
        if self._needs_gradients(self.runs[index] for index in movers):
            run = self.state if len(key) > 1 else stack_runs([for_gradients(dense[0])])
            gradients = self.program.gradients(for_gradients(run), key, e.train, self.step)
        for index in movers:
            mask, run = self.masks[index], self.runs[index]
            assert mask is not None, "runs whose masks move have one of their own"
            mine = None if gradients is None else unstack_run(gradients, index)
            state = mask.move(dense[index], mine, self.step, e.optimizer)
            self.forms[index] = run.form_of(mask.mask)
            state = from_dense(state, self.forms[index], e.optimizer)
            self.state = _with_run(self.state, state, index)
            self.inputs = _with_run(self.inputs, self._inputs(index), index)
        if not self.is_compiled():  # a mask with fewer weights may have another form
            began = time.perf_counter()
            self.compile()
            self.seconds -= time.perf_counter() - began

    def _evaluate(self) -> dict[RunId, CurvePoint]:
        updates = self.step - max(self.evaluated, self.first)
        self.state, result, train_loss = self.program.evaluate(
            self.state, self.experiment.validation, self.step, updates
        )
        if not updates:  # there is no mean of none
            train_loss = np.full(train_loss.shape, np.nan)
        # A float32 is a float64 exactly, so that the `repr` in a table reads back to the same bits.
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
        state = self.devices.run(self.state, index)
        dense = to_dense(state, self.forms[index], self.experiment.optimizer)
        mask = self.masks[index]
        return mask.with_best(dense) if mask else dense

    def progress(self) -> dict[RunId, Progress]:
        """Returns how far each run is, with its state."""
        share = self.seconds / len(self.runs)
        return {
            run.run_id: Progress(
                self.step,
                self.evaluated,
                share,
                self.points[run.run_id],
                kept_state(self.dense_state(index), mask, watch),
                mask.history if mask else (),
                self.curvature[run.run_id],
                watch.points if watch else None,
            )
            for index, (run, mask, watch) in enumerate(
                zip(self.runs, self.masks, self.watches, strict=True)
            )
        }

    def finish(self) -> list[FinishedRun]:
        """Measures the early stop and the last network on the test split; returns the results."""
        began = time.perf_counter()
        tests = jax.device_get(self.program.test(self.state, self.experiment.test))
        measured = [unstack_run(tests, index) for index in range(len(self.runs))]
        states = [jax.device_get(self.dense_state(index)) for index in range(len(self.runs))]
        for index, (mask, state) in enumerate(zip(self.masks, states, strict=True)):
            if mask and mask.is_of_best(state) and self.forms[index].form:
                measured[index] = self._test_of_best(index, state, mask), measured[index][1]
        self.seconds += time.perf_counter() - began
        finished = []
        for index, state in enumerate(states):
            trained, last = jax.device_get(self._network(index, state.state))
            row = self._row(index, state, last, *measured[index])
            finished.append(FinishedRun(row, last, trained))
        return finished

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

    def _row(
        self,
        index: int,
        state: LoopState,
        mask: PyTree,
        at_best: Evaluation,
        at_end: Evaluation,
    ) -> ResultRow:
        run = self.runs[index]
        counts = kept_counts(mask, run.experiment.rates).values()
        kept, total = (sum(column) for column in zip(*counts, strict=True))
        points = self.points[run.run_id]
        last, best = points[-1], state.best
        measured = best.loss, best.accuracy, at_best.accuracy
        loss, val_accuracy, test_accuracy = map(
            float, measured if best.step >= 0 else [math.nan] * 3
        )
        return ResultRow(
            *run.run_id,
            density=kept / total,
            kept=kept,
            prunable=total,
            early_stop_step=int(best.step),
            early_stop_val_loss=loss,
            early_stop_val_accuracy=val_accuracy,
            early_stop_test_accuracy=test_accuracy,
            final_val_accuracy=last.val_accuracy,
            final_test_accuracy=float(at_end.accuracy),
            final_train_loss=last.train_loss,
            steps=self.last - self.first,
            train_seconds=self.seconds / len(self.runs),
            kernel=self.experiment.native.column(self.forms[index]),
            diverged=diverged_since(points, state.state.params),
            last_step=self.last,
            operations=self._operations(run),
        )

    def _operations(self, run: Run) -> float:
        """Counts what a run's training takes; 0 (unknown) where the number of weights moves."""
        if run.moving and (run.moving.rule.starts_dense or run.moving.rule.trained):
            return 0.0
        return training_operations(
            run.start.mask,
            self.experiment.uses,
            steps=self.last - self.first,
            batch_size=self.experiment.spec.train.batch_size,
        )


def diverged_since(points: Sequence[CurvePoint], params: PyTree) -> int:
    """Returns the step of the evaluation since which a trained run's loss is not finite, or -1.

    A loss that was finite again is one that the run came back from: it did not diverge. Parameters
    that are not finite never come back, though a network may hide them; its last step counts then.

    Args:
      points: its evaluations, in order.
      params: with which it ended, on the host.
    """
    step = -1
    for point in reversed(points):
        if math.isfinite(point.val_loss):
            break
        step = point.step
    broken = not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    return points[-1].step if broken and step < 0 else step


def place(run: Run, progress: Mapping[RunId, Progress]) -> tuple[int, int]:
    """Returns (step, step of the last evaluation) where a run begins or goes on."""
    made = progress.get(run.run_id)
    return (made.step, made.evaluated) if made else (run.start.step, -1)


def _beginning(
    run: Run, progress: Progress | None
) -> tuple[LoopState, MovingMask | None, MaskWatch | None]:
    """Returns the dense state from which a run begins or goes on, its mask if that moves, and what
    watches its masks if tickets are to be drawn from it.
    """
    first, e = run.start.state, run.experiment
    if run.learning:
        first = run.learning.start(first, e.optimizer)
    state = new_loop_state(first, len(e.train.targets))
    mask = MovingMask.at_start(run.moving, run.start) if run.moving else None
    watch = MaskWatch(run.early_birds) if run.early_birds else None
    if not progress:
        return state, mask, watch
    found = fill(kept_state(state, mask, watch), progress.arrays)
    moving, before = found.pop("moving", None), found.pop("watched", None)
    if run.early_birds:
        watch = MaskWatch(run.early_birds, progress.distances or (), before)
    state = state._replace(**found)
    return state, mask and mask.resumed(to_device(moving), state.best, progress.masks), watch


def _first(counts: Mapping[str, int], name: str, leaf: Any) -> np.ndarray:
    """Returns a leaf's mask that keeps as many of the first weights as `counts` says, or all."""
    return (np.arange(leaf.size) < counts.get(name, leaf.size)).reshape(leaf.shape)


def _with_run(runs: PyTree, run: PyTree, index: int) -> PyTree:
    """Returns a group with run `index` replaced; alone in it, it may have another form."""
    if len(jax.tree.leaves(runs)[0]) == 1:
        return stack_runs([run])
    return jax.tree.map(lambda leaf, new: leaf.at[index].set(new), runs, run)
