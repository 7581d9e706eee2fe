"""Our training step, inside the real training loop."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
from problem import Problem

from lth_jax.optimizers import OPTIMIZERS
from lth_jax.pruning.masks import ones_mask
from lth_jax.training import (
    Examples,
    Inputs,
    Program,
    TrainState,
    in_batches,
    new_run,
    stack_runs,
)


class Ours:
    """`lth_jax.training.Program` as `levels.py` drives it: one run, a mask, chunks of `eval.every`.

    A level-0 mask is all True, and costs what any other costs: masks are arguments of the program.
    """

    label = "lth_jax: the real loop, with its mask"

    def __init__(self, problem: Problem):
        spec, splits = problem.spec, problem.splits
        optimizer = OPTIMIZERS[spec.train.optimizer](
            learning_rate=spec.train.learning_rate,
            weight_decay=spec.train.weight_decay,
            momentum=spec.train.momentum,
        )
        self.program = Program(
            problem.model, optimizer, batch_size=spec.train.batch_size, scale=problem.scale
        )
        params = jax.tree.map(jnp.asarray, problem.params)
        state = TrainState(params, {}, optimizer.init(params))
        self.examples = Examples(jnp.asarray(splits.train.images), jnp.asarray(splits.train.labels))
        self.validation = in_batches(*splits.validation, spec.eval.batch_size)
        self.run = stack_runs([new_run(state, len(splits.train.labels))])
        self.inputs = stack_runs([Inputs(ones_mask(params), problem.key)])
        self.every, self.step, self.evaluated = int(spec.eval.every), 0, 0

    def train(self, steps: int) -> tuple[float, float]:
        """(seconds, mean loss of the last chunk) of that many steps; evaluations untimed."""
        seconds, loss, stop = 0.0, 0.0, self.step + steps
        while self.step < stop:
            end = min((self.step // self.every + 1) * self.every, stop)
            start = time.perf_counter()
            self.run = jax.block_until_ready(
                self.program.train(self.run, self.inputs, self.examples, self.step, end)
            )
            seconds += time.perf_counter() - start
            self.step = end
            loss = self.evaluate()[1]
        return seconds, loss

    def evaluate(self) -> tuple[float, float]:
        """(seconds of an evaluation, mean training loss since the one before)."""
        updates, start = self.step - self.evaluated, time.perf_counter()
        self.run, result, loss = jax.block_until_ready(
            self.program.evaluate(self.run, self.validation, self.step, updates)
        )
        del result
        self.evaluated = self.step
        return time.perf_counter() - start, float(loss[0])
