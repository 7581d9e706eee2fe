"""The compiled loop: invariants 4, 5, 6, 9, 10 and 12, and the early stop."""

from functools import cache, partial
from itertools import pairwise
from typing import NamedTuple

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from small_networks import (
    CLASSES,
    SCALE,
    SHAPE,
    arrays,
    assert_close,
    assert_same_bits,
    bits,
    mlp,
    norm_and_dropout,
    optimizer,
    random_mask,
    training_set,
    validation_set,
)

from lth_jax.data.pixels import Pixels
from lth_jax.models.base import Model
from lth_jax.optimizers import OPTIMIZERS
from lth_jax.pruning.masks import ones_mask
from lth_jax.states import (
    Best,
    Examples,
    Inputs,
    TrainState,
    in_batches,
    new_run,
    new_state,
    rewind,
    stack_runs,
    unstack_run,
)
from lth_jax.training import Program, epoch_order
from lth_jax.trees import named_leaves

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
        return stack_runs([new_run(state, COUNT)] * self.group)

    def inputs(self, mask=None, keys=(0, 1, 2)):
        mask = ones_mask(self.start.params) if mask is None else mask
        return stack_runs([Inputs(mask, jax.random.key(key)) for key in keys[: self.group]])

    def train(self, cuts, mask=None, keys=(0, 1, 2), start=None, between=lambda run: run):
        run, inputs = self.run(start), self.inputs(mask, keys)
        for begin, end in pairwise(cuts):
            run = between(self.program.train(run, inputs, training_set(COUNT), begin, end))
        return run


@cache
def setting(group=1):
    model, transform = norm_and_dropout(), optimizer("adam")
    program = Program(model, transform, batch_size=BATCH, pixels=Pixels(SCALE), group_size=group)
    return Setting(program, new_state(model, transform, jax.random.key(5), EXAMPLE), group)


def single(run):
    return unstack_run(run, 0)


# --- Invariant 9: when, and beside what, does not matter ------------------------------------


@settings(max_examples=10)
@given(st.lists(st.integers(1, 99), unique=True, max_size=6))
def test_bits_do_not_depend_on_where_chunks_end(cuts):
    assert_same_bits(setting().train([0, 100]), setting().train([0, *sorted(cuts), 100]))


@pytest.mark.parametrize("cuts", [(37, 38), (7, 14), (6, 8), tuple(range(1, 100))], ids=str)
def test_bits_do_not_depend_on_chunks_at_epoch_ends_and_of_one_step(cuts):
    assert_same_bits(setting().train([0, 100]), setting().train([0, *cuts, 100]))


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


@pytest.mark.slow
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
        assert_close(told(member.state), told(alone.state), rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(member.permutation, alone.permutation)
        assert member.epoch == alone.epoch == 1


def test_stacked_runs_come_apart_again():
    runs = [new_run(setting().start, COUNT)._replace(loss_sum=jnp.float32(n)) for n in range(3)]
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
        recorder(), optimizer(name), batch_size=BATCH, pixels=Pixels(SCALE), group_size=group
    )


@cache
def recorded(keys=(0,), cuts=(0, LOG), masked=False, name="sgd"):
    program = recording_program(name, len(keys))
    state = new_state(program.model, program.optimizer, jax.random.key(0), EXAMPLE)
    mask = random_mask(state.params) if masked else ones_mask(state.params)
    run = stack_runs([new_run(state, COUNT)] * len(keys))
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


# --- Invariant 4: masked training is plain training -----------------------------------------


def test_a_dense_run_equals_a_plain_optax_loop():
    model, transform = mlp(), optimizer("adamw")
    program = Program(model, transform, batch_size=BATCH, pixels=Pixels(SCALE))
    start = new_state(model, transform, jax.random.key(5), EXAMPLE)
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


@pytest.mark.parametrize("group", [1, 3])
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
    logits, _ = case.program.model.apply(
        variables, jnp.asarray(images, jnp.float32) * SCALE, False, {}
    )
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(labels))
    _, result, _ = case.program.evaluate(run, validation_set(), 5, 5)
    np.testing.assert_allclose(result.loss[0], losses.mean(), rtol=1e-5)
    assert result.accuracy[0] == np.float32((logits.argmax(-1) == labels).mean())


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_after_any_number_of_rewinds_survivors_are_the_points_own(name):
    transform = optimizer(name)
    fresh = new_state(norm_and_dropout(), transform, jax.random.key(5), EXAMPLE)
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


# --- Invariant 6: evaluation counts everything once -----------------------------------------


@settings(max_examples=25)
@given(st.integers(1, 60), st.integers(1, 70))
def test_evaluation_batches_hold_every_example_once(count, batch_size):
    images, labels = arrays(count)
    batches = in_batches(images, labels, batch_size)
    size = min(count, batch_size)
    assert batches.labels.shape == (-(-count // size), size)
    assert batches.labels.dtype == jnp.int32
    flat = np.ravel(batches.labels)
    np.testing.assert_array_equal(flat[flat >= 0], labels)
    kept = np.asarray(batches.images).reshape(-1, *SHAPE)[flat >= 0]
    assert kept.dtype == np.uint8
    np.testing.assert_array_equal(kept, images)


def oracle():
    """A model that reads the class off the first pixel; `wrong` moves the answer by one."""

    def init(key, x):
        return {"params": {"wrong": jnp.zeros(())}}

    def apply(variables, x, train, rngs):
        answer = jnp.round(x[:, 0, 0, 0]).astype(jnp.int32)
        answer = (answer + variables["params"]["wrong"].astype(jnp.int32)) % CLASSES
        return 50.0 * jax.nn.one_hot(answer, CLASSES), {}

    return Model(init, apply)


@settings(max_examples=6)
@given(st.integers(1, 40), st.integers(1, 45), st.integers(0, 1))
def test_a_perfect_predictor_scores_exactly_one(count, batch_size, wrong):
    labels = np.random.default_rng(count).integers(0, CLASSES, count)
    images = labels[:, None, None, None] * np.ones((1, *SHAPE), np.float32)
    program = Program(oracle(), optax.sgd(0.1), batch_size=1, pixels=Pixels(1.0))
    state = new_state(program.model, program.optimizer, jax.random.key(0), EXAMPLE)
    state = state._replace(params={"wrong": jnp.float32(wrong)})
    result = jax.jit(program._measure)(state.params, {}, in_batches(images, labels, batch_size))
    assert float(result.accuracy) == 1.0 - wrong
    np.testing.assert_allclose(result.loss, 50.0 * wrong, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 10, 22, 1000])
def test_evaluation_does_not_depend_on_its_batches(batch_size):
    case = setting()
    measure = jax.jit(partial(case.program._measure, case.start.params, case.start.model_state))
    whole, cut = measure(validation_set(23, 23)), measure(validation_set(23, batch_size))
    assert cut.accuracy == whole.accuracy
    np.testing.assert_allclose(cut.loss, whole.loss, rtol=1e-5)


def test_a_broken_prediction_for_padding_counts_nowhere():
    def apply(variables, x, train, rngs):
        logits = jnp.where(x[:, 0, 0, :1] == 0, jnp.nan, jnp.asarray([[9.0, 0.0, 0.0]]))
        return logits, {}

    program = Program(Model(lambda *_: {}, apply), optax.sgd(0.1), batch_size=1, pixels=Pixels(1.0))
    images, labels = np.ones((5, *SHAPE), np.float32), np.zeros(5, np.int32)
    # Compiled, XLA may turn a product with a mask into a select by itself.
    with jax.disable_jit():
        result = program._measure({}, {}, in_batches(images, labels, 4))
    assert float(result.accuracy) == 1.0
    assert np.isfinite(result.loss)


# --- Early stop -----------------------------------------------------------------------------


def constant():
    """A model whose logits are its parameters: any loss can be had."""

    def init(key, x):
        return {"params": {"logits": jnp.zeros(CLASSES)}}

    def apply(variables, x, train, rngs):
        logits = variables["params"]["logits"]
        return jnp.broadcast_to(logits[None], (x.shape[0], CLASSES)), {}

    return Model(init, apply)


LOGITS = {
    "good": [3.0, 0.0, 0.0],
    "better": [5.0, 0.0, 0.0],
    "better too": [5.0, -0.0, 0.0],
    "bad": [0.0, 3.0, 0.0],
    "nan": [np.nan, 0.0, 0.0],
    "infinite": [-np.inf, 0.0, 0.0],
}


@cache
def constant_program():
    return Program(constant(), optax.sgd(0.1), batch_size=1, pixels=Pixels(1.0))


def evaluated(names):
    program = constant_program()
    state = new_state(program.model, program.optimizer, jax.random.key(0), EXAMPLE)
    validation = in_batches(np.zeros((5, *SHAPE), np.uint8), np.zeros(5, np.int32), 2)
    run = stack_runs([new_run(state, 5)])
    for step, name in enumerate(names):
        params = {"logits": jnp.asarray([LOGITS[name]])}
        run = run._replace(state=run.state._replace(params=params))
        run, _, _ = program.evaluate(run, validation, 100 * step, 100)
    return run, program.test(run, validation)


@pytest.mark.parametrize(
    ("names", "best"),
    [
        (["bad", "good", "better", "good"], 2),
        (["bad", "better", "better too", "better"], 1),
        (["better", "better", "good"], 0),
        (["nan", "infinite", "bad", "nan"], 2),
        (["good", "nan", "infinite", "better", "nan"], 3),
        (["bad"], 0),
    ],
    ids=str,
)
def test_the_early_stop_is_the_earliest_smallest_finite_loss(names, best):
    run, (early, last) = evaluated(names)
    assert int(run.best.step[0]) == 100 * best
    expected = np.float32(LOGITS[names[best]])
    assert np.asarray(run.best.params["logits"][0]).tobytes() == expected.tobytes()
    np.testing.assert_array_equal(early.loss, run.best.loss)
    np.testing.assert_array_equal(early.accuracy, run.best.accuracy)
    final = np.float32(LOGITS[names[-1]])
    np.testing.assert_allclose(last.loss[0], -jax.nn.log_softmax(final)[0], rtol=1e-5)


@pytest.mark.parametrize("names", [["nan"], ["infinite", "nan", "infinite"]], ids=str)
def test_a_run_that_was_never_finite_has_no_early_stop(names):
    run, _ = evaluated(names)
    assert int(run.best.step[0]) == -1
    assert np.isinf(run.best.loss[0])


def test_training_loss_is_the_mean_since_the_last_evaluation():
    case = setting()
    run = case.train([0, 6])
    total = float(run.loss_sum[0])
    run, _, mean = case.program.evaluate(run, validation_set(), 6, 6)
    np.testing.assert_allclose(mean, [total / 6], rtol=1e-6)
    assert float(run.loss_sum[0]) == 0.0
    run = case.program.train(run, case.inputs(), training_set(COUNT), 6, 8)
    later = float(run.loss_sum[0])
    _, _, mean = case.program.evaluate(run, validation_set(), 8, 2)
    np.testing.assert_allclose(mean, [later / 2], rtol=1e-6)


def test_a_new_run_has_no_early_stop_and_no_epoch():
    run = new_run(setting().start, COUNT)
    assert isinstance(run.best, Best)
    assert (float(run.best.loss), int(run.best.step), int(run.epoch)) == (np.inf, -1, -1)


def test_images_are_scaled_as_the_dataset_says():
    def apply(variables, x, train, rngs):
        return jnp.concatenate([x[:, 0, 0], 0 * x[:, 0, 0]], -1), {}

    measure = partial(Program, Model(lambda *_: {}, apply), optax.sgd(0.1), batch_size=1)
    examples = in_batches(np.full((1, *SHAPE), 200, np.uint8), np.zeros(1, np.int32), 1)
    loss = measure(pixels=Pixels(0.01))._measure({}, {}, examples).loss
    np.testing.assert_allclose(loss, np.log1p(np.exp(-2.0)), rtol=1e-5)


def test_a_step_sees_augmented_images_and_an_evaluation_does_not():
    """Paired: the same images in every run of a replicate at a step, whatever its weights."""
    seen = []

    def apply(variables, x, train, rngs):
        jax.debug.callback(lambda x: seen.append((train, np.asarray(x))), x)
        return jnp.tile(variables["params"]["w"], (len(x), 1)), {}

    model = Model(lambda *_: {"params": {"w": jnp.zeros(CLASSES)}}, apply)
    pixels = Pixels(SCALE, crop=1, flip=True)
    program = Program(model, optax.sgd(0.1), batch_size=4, pixels=pixels)
    images, labels = arrays(4)
    examples = Examples(jnp.asarray(images), jnp.asarray(labels))
    key = jax.random.key(5)

    def batch(rate, step):
        state = TrainState({"w": jnp.full(CLASSES, rate)}, {}, program.optimizer.init({"w": 0.0}))
        seen.clear()
        inputs = Inputs({"w": jnp.ones(CLASSES, bool)}, key)
        program._step(state, inputs, jnp.int32(step), examples)
        jax.effects_barrier()
        return seen[0][1]

    plain = np.asarray(images * np.float32(SCALE))
    np.testing.assert_array_equal(batch(0.0, 3), batch(1.0, 3))
    assert (batch(0.0, 3) != batch(0.0, 4)).any()
    assert (batch(0.0, 3) != plain).any()
    seen.clear()
    program._measure({"w": jnp.zeros(CLASSES)}, {}, in_batches(images, labels, 4))
    jax.effects_barrier()
    np.testing.assert_allclose(seen[0][1], plain, rtol=1e-6)


def test_smoothed_labels_are_of_the_training_loss_alone():
    model = Model(lambda *_: {}, lambda v, x, train, rngs: (v["params"]["logits"], {}))
    program = Program(model, optax.sgd(0.1), batch_size=1, pixels=Pixels(1.0), label_smoothing=0.3)
    logits = jnp.asarray([[2.0, 0.0, -1.0]])
    log_p = np.asarray(jax.nn.log_softmax(logits))[0]
    found = program._losses(logits, jnp.zeros(1, jnp.int32))
    np.testing.assert_allclose(found, [-(0.8 * log_p[0] + 0.1 * log_p[1:].sum())], rtol=1e-6)
    measured = program._measure(
        {"logits": logits}, {}, in_batches(np.zeros((1, *SHAPE), np.uint8), np.zeros(1, int), 1)
    )
    np.testing.assert_allclose(measured.loss, -log_p[0], rtol=1e-6)
