"""Masked training and rewinding: invariants 4 and 5."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax.pruning.masks import ones_mask
from lth_jax.training.loop import Program
from lth_jax.training.optimizers import OPTIMIZERS
from lth_jax.training.order import epoch_order
from lth_jax.training.parameterization import dense_apply
from lth_jax.training.pixels import Pixels
from lth_jax.training.states import TrainState, new_state, rewind, unstack_run

from ..small_networks import (
    SCALE,
    arrays,
    assert_close,
    assert_same_bits,
    bits,
    mlp,
    norm_and_dropout,
    optimizer,
    random_mask,
    validation_set,
)
from .small_training import BATCH, COUNT, EXAMPLE, Setting, setting, single

# --- Invariant 4: masked training is plain training -----------------------------------------


def test_a_dense_run_equals_a_plain_optax_loop():
    model, transform = mlp(), optimizer("adamw")
    program = Program(dense_apply(model.apply), transform, batch_size=BATCH, pixels=Pixels(SCALE))
    start = new_state(model.init, transform, jax.random.key(5), EXAMPLE)
    case = Setting(program, start, 1)
    ours = single(case.train([0, 25]))

    images, labels = arrays(COUNT)
    order_key = jax.random.fold_in(jax.random.key(0), 0)
    params, state, losses = start.params, start.opt_state, []

    @jax.jit
    def gradient(params, x, y):
        def loss(params):
            logits, _ = model.apply({"params": params}, x, True, {})
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        return jax.value_and_grad(loss)(params)

    for step in range(25):
        epoch, batch = divmod(step, COUNT // BATCH)
        chosen = np.asarray(epoch_order(order_key, epoch, COUNT))[batch * BATCH :][:BATCH]
        loss, grads = gradient(params, images[chosen].astype(np.float32) * SCALE, labels[chosen])
        updates, state = transform.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        losses.append(float(loss))

    assert_close(ours.state, TrainState(params, {}, state), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(ours.loss_sum, sum(losses), rtol=1e-4)
    moved = np.asarray(params["fc1"]["kernel"] != start.params["fc1"]["kernel"])
    assert moved[np.asarray(start.params["fc1"]["kernel"]) > 0].all()
    assert moved[np.asarray(start.params["fc1"]["kernel"]) < 0].all()


@pytest.mark.parametrize("group", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_pruned_weights_stay_zero_through_training(group):
    case = setting(group)
    mask = random_mask(case.start.params, keep=0.3)
    start = rewind(case.start, mask, case.program.optimizer)
    run = case.train([0, 20], mask, start=start)
    start, mask = jax.device_get((start, mask))
    for index in range(group):
        params = jax.device_get(unstack_run(run, index).state.params)
        for after, before, m in zip(
            *map(jax.tree.leaves, (params, start.params, mask)), strict=True
        ):
            assert not np.any(after[~m])
            assert np.any(after[m] != before[m])


# --- Invariant 5: rewinding, batch statistics -----------------------------------------------


def test_training_updates_batch_statistics_and_evaluation_leaves_them():
    case = setting()
    run = case.train([0, 5])
    assert bits(single(run).state.model_state) != bits(case.start.model_state)
    before = jax.device_get(run.state)
    run, _, _ = case.program.evaluate(run, validation_set(), 5, 5)
    case.program.test(run, validation_set())
    assert_same_bits(run.state, before)
    assert_same_bits(run.best.model_state, before.model_state)


def test_evaluation_uses_the_running_statistics_and_no_dropout():
    case = setting()
    run = case.train([0, 5])
    state = jax.device_get(single(run).state)
    images, labels = arrays(23, seed=1)
    variables = {"params": state.params, **state.model_state}
    logits, _ = norm_and_dropout().apply(
        variables, jnp.asarray(images, jnp.float32) * SCALE, False, {}
    )
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(labels))
    _, result, _ = case.program.evaluate(run, validation_set(), 5, 5)
    np.testing.assert_allclose(result.loss[0], losses.mean(), rtol=1e-5)
    assert result.accuracy[0] == np.float32((logits.argmax(-1) == labels).mean())


@pytest.mark.parametrize(
    "name",
    [n if n == "adam" else pytest.param(n, marks=pytest.mark.slow) for n in sorted(OPTIMIZERS)],
)
def test_after_any_number_of_rewinds_survivors_are_the_points_own(name):
    transform = optimizer(name)
    fresh = new_state(norm_and_dropout().init, transform, jax.random.key(5), EXAMPLE)
    random = np.random.default_rng(0)
    point = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(leaf.dtype), fresh)
    mask = ones_mask(point.params)
    for level in range(3):
        start = jax.device_get(rewind(point, mask, transform))
        assert_same_bits(start.model_state, point.model_state)
        masked = lambda leaf, m: np.where(m, leaf, np.float32(0))  # noqa: E731
        assert_same_bits(start.params, jax.tree.map(masked, point.params, mask))
        expected = optax.tree_map_params(transform, masked, point.opt_state, mask)
        assert_same_bits(start.opt_state, expected)
        if level == 0:
            assert_same_bits(start, point)
        fewer = random_mask(point.params, seed=level, keep=0.7)
        mask = jax.device_get(jax.tree.map(jnp.logical_and, mask, fewer))


def test_training_from_a_rewind_point_leaves_it_for_the_next_level():
    case = setting()
    point = single(case.train([0, 8])).state
    before = bits(point)
    dense = case.train([8, 12], start=point)
    mask = random_mask(point.params)
    case.train([8, 12], mask, start=rewind(point, mask, case.program.optimizer))
    assert bits(point) == before
    # The schedule and the data go on from there: the dense level is the uninterrupted run.
    assert_same_bits(single(dense).state, single(case.train([0, 12])).state)


def test_rewinding_keeps_the_optimizers_count():
    point = jax.device_get(single(setting().train([0, 8])).state)
    mask = random_mask(point.params)
    start = rewind(point, mask, setting().program.optimizer)
    assert optax.tree.get(start.opt_state, "count") == 8
