"""The order of the data: invariant 12."""

from functools import cache
from itertools import pairwise

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings

from lth_jax.models.base import Model
from lth_jax.pruning.masks import ones_mask
from lth_jax.training.loop import Program
from lth_jax.training.order import epoch_order
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
