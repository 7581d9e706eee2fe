"""Our training step, inside the real training loop."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
from problem import Problem

from lth_jax.lottery.building import native_code
from lth_jax.native.choice import XLA, NativeCode
from lth_jax.pruning.masks import apply_mask, ones_mask
from lth_jax.pruning.trees import PyTree, map_named
from lth_jax.training.loop import Program
from lth_jax.training.operations import Operations
from lth_jax.training.parameterization import from_dense
from lth_jax.training.states import (
    Examples,
    Inputs,
    LoopState,
    TrainState,
    in_batches,
    new_loop_state,
    stack_runs,
)
from lth_jax.training.tasks import TASKS, objective


def kernels_named(name: str, problem: Problem) -> NativeCode:
    """Returns what computes the network under a `train.kernel`; prints a note if it is another one.

    Two are no kernels of an experiment: `layers` is `auto`, but XLA computes all besides layers;
    `dense` is `auto` that packs nothing.

    Raises:
      SpecError: there is no compiler for `sparse`.
    """
    kernel = "auto" if name in ("layers", "dense") else name
    train = dataclasses.replace(problem.spec.train, kernel=kernel)
    spec = dataclasses.replace(problem.spec, train=train)
    made = native_code(spec, problem.model, problem.splits.train.images.shape[1:])
    if made.note:
        print(made.note)
    if name == "layers":
        return _LayersAlone(**vars(made) | {"chain": None})
    return dataclasses.replace(made, layers={}) if name == "dense" else made


class _LayersAlone(NativeCode):
    """Native code that computes layers one by one, and nothing of the loop."""

    @property
    def operations(self) -> Operations:
        return Operations()


class Ours:
    """Runs `lth_jax.training.loop.Program` as an experiment does: masks, chunks of `eval.every`.

    Times are per run.

    Args:
      problem: the data and the starting point.
      runs: how many are `vmap`ped in one program.
      kernels: what computes the network.
      masks: of each run, with as many weights in each layer; empty for all True, which costs XLA
        what any other mask costs.
      replicates: of each run, which decide its batches; empty for replicate 0.
      twin: one of the same problem, number of runs and kernels, whose program and data it shares.
      evaluated: whether the time of evaluations counts.
    """

    def __init__(
        self,
        problem: Problem,
        runs: int = 1,
        kernels: NativeCode = XLA,
        masks: Sequence[PyTree] = (),
        replicates: Sequence[int] = (),
        twin: Ours | None = None,
        evaluated: bool = False,
    ):
        self.timed_evaluations = evaluated
        spec, splits = problem.spec, problem.splits
        self.problem, self.kernels, self.runs = problem, kernels, runs
        if twin:
            self.program = twin.program
            self.examples, self.validation = twin.examples, twin.validation
        else:
            self.program = self._program()
            train = splits.train
            self.examples = Examples(jnp.asarray(train.images), jnp.asarray(train.labels))
            self.validation = in_batches(*splits.validation, spec.eval.batch_size)
        level = 1 if masks else 0
        masks = masks or [ones_mask(problem.params)] * runs
        pairs = [
            self._run(level, mask, replicate)
            for mask, replicate in zip(masks, replicates or [0] * runs, strict=True)
        ]
        self.run, self.inputs = (stack_runs(list(part)) for part in zip(*pairs, strict=True))
        self.every, self.step, self.evaluated = int(spec.eval.every), 0, 0
        self.loss = float("nan")  # mean training loss between the last two evaluations

    def _program(self) -> Program:
        problem, spec = self.problem, self.problem.spec
        return Program(
            self.kernels.apply(problem.model.apply),
            problem.optimizer,
            batch_size=spec.train.batch_size,
            pixels=problem.pixels,
            objective=objective(TASKS[spec.task], label_smoothing=spec.train.label_smoothing),
            group_size=self.runs,
            operations=self.kernels.operations,
            fused=None if spec.train.label_smoothing else self.kernels.chain,
        )

    def _run(self, level: int, mask: PyTree, replicate: int) -> tuple[LoopState, Inputs]:
        """Returns one run at its start, packed as the kernels need it."""
        problem = self.problem
        params, model_state = jax.tree.map(jnp.asarray, (problem.params, problem.model_state))
        params = apply_mask(params, mask)
        state = TrainState(params, model_state, problem.optimizer.init(params))
        form = self.kernels.parameterization(level, mask, state, problem.optimizer)
        run = new_loop_state(state, len(problem.splits.train.labels))
        inputs = Inputs(map_named(form.mask, mask), problem.run_key(replicate))
        return from_dense(run, form, problem.optimizer), inputs

    def compile(self) -> None:
        """Compiles what is not compiled yet: it calls the program for no steps at all."""
        self.run = self.program.train(self.run, self.inputs, self.examples, self.step, self.step)
        self.evaluate()

    def train(self, steps: int) -> tuple[float, float]:
        """Returns (seconds, mean loss of the last chunk) of training."""
        seconds, stop = 0.0, self.step + steps
        while self.step < stop:
            seconds += self.advance(stop)
        return seconds / self.runs, self.loss

    def advance(self, stop: int) -> float:
        """Trains all runs to the next evaluation, at most to `stop`; returns the seconds.

        The evaluation that follows is untimed unless it counts.
        """
        end = min((self.step // self.every + 1) * self.every, stop)
        start = time.perf_counter()
        self.run = jax.block_until_ready(
            self.program.train(self.run, self.inputs, self.examples, self.step, end)
        )
        seconds = time.perf_counter() - start
        self.step = end
        evaluation, _ = self.evaluate()
        return seconds + (evaluation if self.timed_evaluations else 0.0)

    def evaluate(self) -> tuple[float, float]:
        """Returns (seconds of an evaluation, mean training loss since the one before)."""
        updates, start = self.step - self.evaluated, time.perf_counter()
        self.run, result, loss = jax.block_until_ready(
            self.program.evaluate(self.run, self.validation, self.step, updates)
        )
        del result
        self.evaluated, self.loss = self.step, float(loss[0])
        return time.perf_counter() - start, self.loss


class SideBySide:
    """Trains several runs, one on each core at a time, as `levels.py` trains those of a level.

    Times are per run: those of all together, divided by their number.

    Args:
      problem: the data and the starting point.
      runs: their number.
      workers: groups that train at a time; 0 for as many as runs.
      group: runs that are `vmap`ped in one program; the last group is filled up with idle ones.
      kernels: what computes the network.
      masks, replicates: of each run, as in `Ours`.
      twin: one of the same problem, size of groups and kernels, whose program and data it shares.
      evaluated: whether the time of evaluations counts.
    """

    def __init__(
        self,
        problem: Problem,
        runs: int,
        *,
        workers: int = 0,
        group: int = 1,
        kernels: NativeCode = XLA,
        masks: Sequence[PyTree] = (),
        replicates: Sequence[int] = (),
        twin: SideBySide | None = None,
        evaluated: bool = False,
    ):
        self.runs, self.groups = runs, []
        first = twin.groups[0] if twin else None
        replicates = replicates or [0] * runs
        for start in range(0, runs, group):
            members = slice(start, start + group)
            mine = _filled(masks[members], group), _filled(replicates[members], group)
            self.groups.append(Ours(problem, group, kernels, *mine, first, evaluated))
            first = first or self.groups[0]
        self.workers = min(workers or runs, len(self.groups))
        self.pool = ThreadPoolExecutor(self.workers)
        for ours in self.groups:  # before two of them compile the same at once
            ours.compile()

    def train(self, steps: int) -> tuple[float, float]:
        """Returns (seconds per run, loss of the first run's last chunk); evaluations untimed."""
        waiting = deque((ours, ours.step + steps) for ours in self.groups)
        seconds = sum(self.pool.map(_advance_all, [waiting] * self.workers))
        return seconds / self.workers / self.runs, self.groups[0].loss

    def evaluate(self) -> tuple[float, float]:
        """Returns (seconds of an evaluation per run, mean training loss since the one before)."""
        start = time.perf_counter()
        done = list(self.pool.map(Ours.evaluate, self.groups))
        return (time.perf_counter() - start) / self.runs, done[0][1]


def _filled(members: Sequence[Any], size: int) -> list[Any]:
    """Returns `members` with the last one repeated up to `size`; none stay none."""
    return [*members, *[members[-1]] * (size - len(members))] if len(members) else []


def _advance_all(waiting: deque[tuple[Ours, int]]) -> float:
    """Trains, up to the next evaluation each time, the group that has waited longest.

    Returns the seconds that one worker has trained.
    """
    seconds = 0.0
    while True:
        try:
            ours, stop = waiting.popleft()
        except IndexError:
            return seconds
        seconds += ours.advance(stop)
        if ours.step < stop:
            waiting.append((ours, stop))
