"""Evaluation counts everything once (invariant 6), and the early stop."""

from functools import cache, partial

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings

from lth_jax.models.base import Model
from lth_jax.training.loop import Program
from lth_jax.training.parameterization import dense_apply
from lth_jax.training.pixels import Pixels
from lth_jax.training.states import EarlyStop, in_batches, new_loop_state, new_state, stack_runs

from ..small_networks import CLASSES, SHAPE, arrays, training_set, validation_set
from .small_training import COUNT, EXAMPLE, setting, single

# --- Invariant 6: evaluation counts everything once -----------------------------------------


@settings(max_examples=25)
@given(st.integers(1, 60), st.integers(1, 70))
def test_evaluation_batches_hold_every_example_once(count, batch_size):
    images, labels = arrays(count)
    batches = jax.device_get(in_batches(images, labels, batch_size))
    size = min(count, batch_size)
    assert batches.targets.shape == (-(-count // size), size)
    assert batches.targets.dtype == np.int32
    valid = np.ravel(batches.valid)
    np.testing.assert_array_equal(np.ravel(batches.targets)[valid], labels)
    kept = batches.inputs.reshape(-1, *SHAPE)[valid]
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


@pytest.mark.parametrize("wrong", [0, 1])
@pytest.mark.parametrize(
    ("count", "batch_size", "parts"), [(11, 4, 1), (12, 4, 1), (5, 8, 1), (11, 4, 3), (5, 8, 8)]
)
def test_a_perfect_predictor_scores_exactly_one(count, batch_size, parts, wrong):
    labels = np.random.default_rng(count).integers(0, CLASSES, count)
    images = labels[:, None, None, None] * np.ones((1, *SHAPE), np.float32)
    model, optimizer = oracle(), optax.sgd(0.1)
    program = Program(
        dense_apply(model.apply), optimizer, batch_size=1, pixels=Pixels(1.0), parts=parts
    )
    state = new_state(model.init, optimizer, jax.random.key(0), EXAMPLE)
    state = state._replace(params={"wrong": jnp.float32(wrong)})
    result = jax.jit(program.measure)(state.params, {}, in_batches(images, labels, batch_size))
    assert float(result.accuracy) == 1.0 - wrong
    np.testing.assert_allclose(result.loss, 50.0 * wrong, atol=1e-6)


@cache
def measure():
    case = setting()
    return jax.jit(partial(case.program.measure, case.start.params, case.start.model_state))


@pytest.mark.parametrize("batch_size", [10, 22])
def test_evaluation_does_not_depend_on_its_batches(batch_size):
    whole, cut = measure()(validation_set(23, 23)), measure()(validation_set(23, batch_size))
    assert cut.accuracy == whole.accuracy
    np.testing.assert_allclose(cut.loss, whole.loss, rtol=1e-5)


def test_a_broken_prediction_for_padding_counts_nowhere():
    def apply(variables, x, train, rngs):
        logits = jnp.where(x[:, 0, 0, :1] == 0, jnp.nan, jnp.asarray([[9.0, 0.0, 0.0]]))
        return logits, {}

    program = Program(dense_apply(apply), optax.sgd(0.1), batch_size=1, pixels=Pixels(1.0))
    images, labels = np.ones((5, *SHAPE), np.float32), np.zeros(5, np.int32)
    # Compiled, XLA may turn a product with a mask into a select by itself.
    with jax.disable_jit():
        result = program.measure({}, {}, in_batches(images, labels, 4))
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
    return Program(dense_apply(constant().apply), optax.sgd(0.1), batch_size=1, pixels=Pixels(1.0))


def evaluated(names):
    program = constant_program()
    state = new_state(constant().init, program.optimizer, jax.random.key(0), EXAMPLE)
    validation = in_batches(np.zeros((5, *SHAPE), np.uint8), np.zeros(5, np.int32), 2)
    run = stack_runs([new_loop_state(state, 5)])
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


def test_a_run_whose_evaluation_is_not_due_comes_back_as_it_was():
    case = setting(3)
    run = case.train([0, 6])
    before = jax.device_get(run)
    run, _, mean = case.program.evaluate(run, validation_set(), 6, [6, -1, 2])
    np.testing.assert_allclose(mean[::2], before.loss_sum[::2] / [6, 2], rtol=1e-6)
    assert run.best.step.tolist() == [6, -1, 6]
    assert (run.loss_sum == 0).tolist() == [True, False, True]
    jax.tree.map(
        lambda new, old: np.testing.assert_array_equal(new[1], old[1]),
        jax.device_get(run._replace(state=(), permutation=())),
        before._replace(state=(), permutation=()),
    )


def test_a_new_run_has_no_early_stop_and_no_epoch():
    run = new_loop_state(setting().start, COUNT)
    assert isinstance(run.best, EarlyStop)
    assert (float(run.best.loss), int(run.best.step), int(run.epoch)) == (np.inf, -1, -1)


def test_the_early_stop_is_tested_with_its_own_batch_statistics():
    case = setting()
    run = case.train((0, 5))
    other = jax.tree.map(lambda leaf: leaf + 1.0, run.state.model_state)
    run = run._replace(best=run.best._replace(params=run.state.params, model_state=other))
    best, last = case.program.test(run, validation_set())
    for found, state in ((best, other), (last, run.state.model_state)):
        params, state = single((run.state.params, state))
        expected = jax.jit(case.program.measure)(params, state, validation_set())
        np.testing.assert_allclose(found.loss, expected.loss[None], rtol=1e-6)
    assert float(best.loss[0]) != float(last.loss[0])
