"""Our training step, inside the real training loop."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
from problem import Problem

from lth_jax.kernels.choice import XLA, Kernels
from lth_jax.kernels.packing import Packing
from lth_jax.pruning.masks import apply_mask, ones_mask
from lth_jax.states import Examples, Inputs, TrainState, in_batches, new_run, pack_run, stack_runs
from lth_jax.training import Program
from lth_jax.trees import PyTree


class Ours:
    """`lth_jax.training.Program` as `levels.py` drives it: masks, chunks of `eval.every`.

    Times are per run.

    Args:
      problem: the data and the starting point.
      runs: how many are `vmap`ped in one program.
      kernels: what computes the network.
      mask: of all runs; None for all True, which costs XLA what any other mask costs.
    """

    def __init__(
        self,
        problem: Problem,
        runs: int = 1,
        kernels: Kernels = XLA,
        mask: PyTree | None = None,
    ):
        spec, splits = problem.spec, problem.splits
        self.program = Program(
            problem.model,
            problem.optimizer,
            batch_size=spec.train.batch_size,
            pixels=problem.pixels,
            label_smoothing=spec.train.label_smoothing,
            group_size=runs,
            kernels=kernels,
        )
        params, model_state = jax.tree.map(jnp.asarray, (problem.params, problem.model_state))
        level, mask = (0, ones_mask(params)) if mask is None else (1, mask)
        params = apply_mask(params, mask)
        packing = Packing(kernels.layout(level, mask, lambda _: True), kernels.layers, mask)
        state = TrainState(params, model_state, problem.optimizer.init(params))
        self.examples = Examples(jnp.asarray(splits.train.images), jnp.asarray(splits.train.labels))
        self.validation = in_batches(*splits.validation, spec.eval.batch_size)
        run = pack_run(new_run(state, len(splits.train.labels)), packing, problem.optimizer)
        self.run = stack_runs([run] * runs)
        self.inputs = stack_runs([Inputs(packing.mask(mask), problem.key)] * runs)
        self.runs = runs
        self.every, self.step, self.evaluated = int(spec.eval.every), 0, 0
        self.evaluating = 0.0  # seconds, in the last call of `train`

    def train(self, steps: int) -> tuple[float, float]:
        """(seconds, mean loss of the last chunk) of that many steps; evaluations untimed."""
        seconds, loss, stop = 0.0, 0.0, self.step + steps
        self.evaluating = 0.0
        while self.step < stop:
            end = min((self.step // self.every + 1) * self.every, stop)
            start = time.perf_counter()
            self.run = jax.block_until_ready(
                self.program.train(self.run, self.inputs, self.examples, self.step, end)
            )
            seconds += time.perf_counter() - start
            self.step = end
            evaluation, loss = self.evaluate()
            self.evaluating += evaluation
        return seconds / self.runs, loss

    def evaluate(self) -> tuple[float, float]:
        """(seconds of an evaluation, mean training loss since the one before)."""
        updates, start = self.step - self.evaluated, time.perf_counter()
        self.run, result, loss = jax.block_until_ready(
            self.program.evaluate(self.run, self.validation, self.step, updates)
        )
        del result
        self.evaluated = self.step
        return time.perf_counter() - start, float(loss[0])


class SideBySide:
    """Several runs in the air at once, one for each core, as a level's runs are in `levels.py`.

    Times are per run: those of all together, divided by their number.
    """

    def __init__(self, problem: Problem, runs: int):
        self.runs = [Ours(problem) for _ in range(runs)]
        self.pool = ThreadPoolExecutor(runs)

    def train(self, steps: int) -> tuple[float, float]:
        """(seconds per run, mean loss of the first run's last chunk); evaluations untimed."""
        start = time.perf_counter()
        done = list(self.pool.map(lambda run: run.train(steps), self.runs))
        evaluating = sum(run.evaluating for run in self.runs) / len(self.runs)
        seconds = time.perf_counter() - start - evaluating
        return seconds / len(self.runs), done[0][1]

    def evaluate(self) -> tuple[float, float]:
        """(seconds of an evaluation per run, mean training loss since the one before)."""
        start = time.perf_counter()
        done = list(self.pool.map(Ours.evaluate, self.runs))
        return (time.perf_counter() - start) / len(self.runs), done[0][1]
