"""The order of the data: invariant 12."""

from functools import cache
from itertools import pairwise

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from lth_jax.models.base import Model
from lth_jax.pruning.masks import ones_mask
from lth_jax.training.loop import Program
from lth_jax.training.order import BatchOrder, epoch_order
from lth_jax.training.parameterization import dense_apply
from lth_jax.training.pixels import Pixels
from lth_jax.training.states import Examples, Inputs, new_loop_state, new_state, stack_runs

from ..small_networks import CLASSES, SCALE, SHAPE, assert_same_bits, optimizer, random_mask
from .small_training import BATCH, COUNT, EXAMPLE

# --- Invariant 12: the data order -----------------------------------------------------------

LOG = 40


def recorder():
    """A model that writes down which examples (by their first pixel) and dropout keys it saw."""

    def init(key, x):
        return {
            "params": {"w": jnp.zeros((2, CLASSES))},
            "log": {
                "step": jnp.zeros((), jnp.int32),
                "examples": jnp.full((LOG, BATCH), -1, jnp.int32),
                "keys": jnp.zeros((LOG, 2), jnp.uint32),
            },
        }

    def apply(variables, x, train, rngs):
        log = variables["log"]
        ids = jnp.round(x[:, 0, 0, 0] / SCALE).astype(jnp.int32)
        logits = x[:, 0, 0, :1] @ variables["params"]["w"][:1]
        if train:
            step = log["step"]
            log = {
                "step": step + 1,
                "examples": log["examples"].at[step].set(ids),
                "keys": log["keys"].at[step].set(jax.random.key_data(rngs["dropout"])),
            }
        return logits, {"log": log}

    return Model(init, apply)


def numbered():
    """Examples whose every pixel is their index."""
    images = np.arange(COUNT, dtype=np.uint8)[:, None, None, None] * np.ones((1, *SHAPE), np.uint8)
    return Examples(jnp.asarray(images), jnp.zeros(COUNT, jnp.int32))


@cache
def recording_program(name, group):
    return Program(
        dense_apply(recorder().apply),
        optimizer(name),
        batch_size=BATCH,
        pixels=Pixels(SCALE),
        group_size=group,
    )


@cache
def recorded(keys=(0,), cuts=(0, LOG), masked=False, name="sgd"):
    program = recording_program(name, len(keys))
    state = new_state(recorder().init, program.optimizer, jax.random.key(0), EXAMPLE)
    mask = random_mask(state.params) if masked else ones_mask(state.params)
    run = stack_runs([new_loop_state(state, COUNT)] * len(keys))
    inputs = stack_runs([Inputs(mask, jax.random.key(key)) for key in keys])
    for begin, end in pairwise(cuts):
        run = program.train(run, inputs, numbered(), begin, end)
    return jax.device_get(run.state.model_state["log"])


def test_an_epoch_visits_each_example_at_most_once_and_leaves_another_tail_out():
    seen = recorded()["examples"][0][:35].reshape(5, 49)
    left_out = [sorted(set(range(COUNT)) - set(epoch.tolist())) for epoch in seen]
    assert all(len(tail) == 1 for tail in left_out)
    assert len({tail[0] for tail in left_out}) > 1
    assert len({tuple(epoch) for epoch in seen.tolist()}) == 5


def test_batches_and_dropout_depend_on_key_and_step_alone():
    first = recorded()
    for other in (
        recorded(masked=True),
        recorded(name="adam"),
        recorded(cuts=(0, 5, 20, LOG)),
    ):
        assert_same_bits(first, other)


def test_training_from_a_later_step_sees_what_the_whole_run_saw_there():
    late = recorded(cuts=(17, LOG))
    for name in ("examples", "keys"):
        np.testing.assert_array_equal(late[name][0, : LOG - 17], recorded()[name][0, 17:])


def test_another_key_has_another_order_and_other_dropout():
    first, other = recorded(), recorded(keys=(1,))
    assert np.mean(first["examples"] == other["examples"]) < 0.2
    assert not np.any(np.all(first["keys"] == other["keys"], axis=-1))


def test_every_step_has_a_dropout_key_of_its_own():
    assert len({tuple(key) for key in recorded()["keys"][0].tolist()}) == LOG


def test_every_run_of_a_group_has_the_order_of_its_own_key():
    group = recorded(keys=(0, 1, 0))
    for index, key in enumerate((0, 1, 0)):
        for name in ("examples", "keys"):
            np.testing.assert_array_equal(group[name][index], recorded(keys=(key,))[name][0])


@settings(max_examples=10)
@given(st.integers(0, 2**31 - 1), st.integers(0, 10**6), st.sampled_from([1, 2, 50]))
def test_an_epochs_order_is_a_permutation(seed, epoch, count):
    order = epoch_order(jax.random.key(seed), epoch, count)
    assert order.dtype == jnp.int32
    assert sorted(order.tolist()) == list(range(count))
    assert_same_bits(order, epoch_order(jax.random.key(seed), epoch, count))


def test_epochs_and_keys_differ_in_order():
    orders = [epoch_order(jax.random.key(k), e, 50).tolist() for k in range(3) for e in range(3)]
    assert len({tuple(order) for order in orders}) == 9


# --- The same on the host ---------------------------------------------------------------------


def test_the_host_has_the_batches_of_the_loop_from_any_step_on():
    seen = recorded(keys=(0, 3))["examples"]
    for index, key in enumerate((0, 3)):
        order = BatchOrder(jax.random.key(key), COUNT, BATCH)
        np.testing.assert_array_equal(order.indices(0, LOG), seen[index])
        for start, stop in ((17, 31), (5, 6), (38, LOG), (3, 3)):
            np.testing.assert_array_equal(order.indices(start, stop), seen[index, start:stop])


def test_processes_share_out_each_batch():
    whole = BatchOrder(jax.random.key(0), COUNT, 6)
    shares = [BatchOrder(jax.random.key(0), COUNT, 6, shard=(n, 3)) for n in range(3)]
    parts = np.concatenate([share.indices(4, 30) for share in shares], 1)
    np.testing.assert_array_equal(parts, whole.indices(4, 30))
    numbers = np.concatenate([share.uniforms(7, 2) for share in shares])
    np.testing.assert_array_equal(numbers, whole.uniforms(7, 2))
    with pytest.raises(ValueError, match="batch_size=6: accepted: a multiple of 4 processes"):
        BatchOrder(jax.random.key(0), COUNT, 6, shard=(0, 4))


def test_numbers_for_crops_depend_on_key_and_step_alone():
    order, other = (BatchOrder(jax.random.key(key), COUNT, BATCH) for key in (0, 1))
    first = order.uniforms(3, 4)
    assert first.shape == (BATCH, 4)
    assert first.dtype == np.float32
    assert (first >= 0).all()
    assert (first < 1).all()
    np.testing.assert_array_equal(first, order.uniforms(3, 4))
    for another in (order.uniforms(4, 4), other.uniforms(3, 4)):
        assert not np.any(first == another)
