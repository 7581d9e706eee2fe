"""Networks in training, small enough for properties."""

from functools import cache
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lth_jax.pruning.masks import ones_mask
from lth_jax.training.loop import Program
from lth_jax.training.parameterization import dense_apply
from lth_jax.training.pixels import Pixels
from lth_jax.training.states import (
    Inputs,
    TrainState,
    new_loop_state,
    new_state,
    stack_runs,
    unstack_run,
)

from ..small_networks import SCALE, SHAPE, norm_and_dropout, optimizer, training_set

BATCH = 7
COUNT = 50  # 7 steps an epoch, 1 example left out
EXAMPLE = jnp.zeros((1, *SHAPE))


class Setting(NamedTuple):
    """A program and a starting point, in groups of equal masks."""

    program: Program
    start: TrainState
    group: int

    def run(self, start=None):
        """A fresh group of equal runs: programs donate theirs."""
        state = self.start if start is None else start
        return stack_runs([new_loop_state(state, COUNT)] * self.group)

    def inputs(self, mask=None, keys=(0, 1, 2)):
        mask = ones_mask(self.start.params) if mask is None else mask
        return stack_runs([Inputs(mask, jax.random.key(key)) for key in keys[: self.group]])

    def train(self, cuts, mask=None, keys=(0, 1, 2), start=None, between=lambda run: run):
        run, inputs = self.run(start), self.inputs(mask, keys)
        for begin, end in pairwise(cuts):
            run = between(self.program.train(run, inputs, training_set(COUNT), begin, end))
        return run


@cache
def setting(group=1, block=1):
    model, transform = norm_and_dropout(), optimizer("adam")
    program = Program(
        dense_apply(model.apply),
        transform,
        batch_size=BATCH,
        pixels=Pixels(SCALE),
        group_size=group,
        block=block,
    )
    return Setting(program, new_state(model.init, transform, jax.random.key(5), EXAMPLE), group)


def single(run):
    return unstack_run(run, 0)
