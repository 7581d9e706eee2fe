"""The compiled loop: when and beside what it runs does not matter; it is compiled once."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from lth_jax.pruning.trees import named_leaves
from lth_jax.training.states import new_loop_state, rewind, stack_runs, unstack_run

from ..small_networks import (
    assert_close,
    assert_same_bits,
    random_mask,
    training_set,
    validation_set,
)
from .small_training import COUNT, setting, single

# --- Invariant 9: when, and beside what, does not matter ------------------------------------


@settings(max_examples=10)
@given(st.lists(st.integers(1, 99), unique=True, max_size=6))
def test_bits_do_not_depend_on_where_chunks_end(cuts):
    assert_same_bits(setting().train([0, 100]), setting().train([0, *sorted(cuts), 100]))


@pytest.mark.parametrize("cuts", [(37, 38), (7, 14), (6, 8), tuple(range(1, 100))], ids=str)
def test_bits_do_not_depend_on_chunks_at_epoch_ends_and_of_one_step(cuts):
    assert_same_bits(setting().train([0, 100]), setting().train([0, *cuts, 100]))


@pytest.mark.slow
@pytest.mark.parametrize("cuts", [(0, 12), (0, 1, 5, 12)], ids=str)
def test_blocks_of_steps_do_what_single_ones_do(cuts):
    """Of epochs of 7 steps no block of 3 fits twice and all: the rest goes one by one."""
    blocks, ones = (single(setting(block=size).train(cuts)) for size in (3, 1))
    assert_close(told(blocks.state), told(ones.state), rtol=1e-3, atol=2e-3)
    np.testing.assert_array_equal(blocks.permutation, ones.permutation)


def test_an_empty_chunk_changes_nothing():
    assert_same_bits(setting().train([0, 30]), setting().train([0, 30, 30]))


def test_a_restart_that_forgot_the_permutation_draws_it_again():
    def forget(run):
        return run._replace(
            permutation=jnp.zeros_like(run.permutation), epoch=jnp.full_like(run.epoch, -1)
        )

    for cuts in ([0, 10, 30], [0, 14, 30]):
        restarted = setting().train(cuts, between=once(forget))
        assert_same_bits(setting().train([0, 30]), restarted)


def once(change):
    """`change` for the first chunk alone, so that what comes last can be compared whole."""
    changes = iter([change])
    return lambda run: next(changes, lambda same: same)(run)


def test_a_run_through_the_host_goes_on_with_the_same_bits():
    through_host = lambda run: jax.tree.map(jnp.asarray, jax.device_get(run))  # noqa: E731
    assert_same_bits(setting().train([0, 30]), setting().train([0, 11, 30], between=through_host))


def test_runs_before_do_not_matter():
    first = setting().train([0, 20])
    setting().train([0, 20], random_mask(setting().start.params), keys=(9,))
    assert_same_bits(first, setting().train([0, 20]))


def told(state):
    """The leaves that tell something: the loss does not depend on a bias before batch norm.

    Its gradient is rounding alone, which Adam makes a step of.
    """
    return {name: leaf for name, leaf in named_leaves(state).items() if "fc1/bias" not in name}


def test_a_group_equals_its_runs_in_sequence():
    together = setting(3).train([0, 12])
    for index in range(3):
        alone = single(setting().train([0, 12], keys=(index,)))
        member = unstack_run(together, index)
        # Rounding differs, and a small gradient's sign decides the direction of Adam's step.
        assert_close(told(member.state), told(alone.state), rtol=1e-3, atol=2e-3)
        np.testing.assert_array_equal(member.permutation, alone.permutation)
        assert member.epoch == alone.epoch == 1


def test_stacked_runs_come_apart_again():
    runs = [
        new_loop_state(setting().start, COUNT)._replace(loss_sum=jnp.float32(n)) for n in range(3)
    ]
    stacked = stack_runs(runs)
    for index, run in enumerate(runs):
        assert_same_bits(unstack_run(stacked, index), run)


# --- Invariant 10: one compilation ----------------------------------------------------------


@pytest.mark.parametrize("group", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_one_compilation_serves_all_masks_starts_keys_and_chunks(compilations, group):
    case = setting(group)
    program, start = case.program, case.start
    mask = random_mask(start.params)
    runs = [case.run(), case.run(rewind(start, mask, program.optimizer))]
    inputs = [case.inputs(), case.inputs(mask, keys=(7, 8, 9))]
    train, validation = training_set(COUNT), validation_set()
    program.compile(runs[0], inputs[0], train, validation, validation)
    compilations.clear()
    for run, constants in zip(runs, inputs, strict=True):
        for begin, end in ((0, 10), (10, 11), (11, 33)):
            run = program.train(run, constants, train, begin, end)
            run, _, _ = program.evaluate(run, validation, end, end - begin)
        program.test(run, validation)
    assert compilations == []
