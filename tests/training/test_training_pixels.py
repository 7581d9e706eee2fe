"""What a training step sees, and what its loss is of."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lth_jax.models.base import Model
from lth_jax.training.loop import Program
from lth_jax.training.parameterization import dense_apply
from lth_jax.training.pixels import Pixels
from lth_jax.training.states import Examples, Inputs, TrainState, in_batches
from lth_jax.training.tasks import TASKS, objective

from ..small_networks import CLASSES, SCALE, SHAPE, arrays


def test_images_are_scaled_as_the_dataset_says():
    def apply(variables, x, train, rngs):
        return jnp.concatenate([x[:, 0, 0], 0 * x[:, 0, 0]], -1), {}

    measure = partial(Program, dense_apply(apply), optax.sgd(0.1), batch_size=1)
    examples = in_batches(np.full((1, *SHAPE), 200, np.uint8), np.zeros(1, np.int32), 1)
    loss = measure(pixels=Pixels(0.01)).measure({}, {}, examples).loss
    np.testing.assert_allclose(loss, np.log1p(np.exp(-2.0)), rtol=1e-5)


def test_a_step_sees_augmented_images_and_an_evaluation_does_not():
    """Paired: the same images in every run of a replicate at a step, whatever its weights."""
    seen = []

    def apply(variables, x, train, rngs):
        jax.debug.callback(lambda x: seen.append((train, np.asarray(x))), x)
        return jnp.tile(variables["params"]["w"], (len(x), 1)), {}

    model = Model(lambda *_: {"params": {"w": jnp.zeros(CLASSES)}}, apply)
    pixels = Pixels(SCALE, crop=1, flip=True)
    program = Program(dense_apply(model.apply), optax.sgd(0.1), batch_size=4, pixels=pixels)
    images, labels = arrays(4)
    examples = Examples(jnp.asarray(images), jnp.asarray(labels))
    key, one_step = jax.random.key(5), jax.jit(program._step)

    def batch(rate, step):
        state = TrainState({"w": jnp.full(CLASSES, rate)}, {}, program.optimizer.init({"w": 0.0}))
        seen.clear()
        inputs = Inputs({"w": jnp.ones(CLASSES, bool)}, key)
        one_step(state, inputs, jnp.int32(step), examples)
        jax.effects_barrier()
        return seen[0][1]

    plain = np.asarray(images * np.float32(SCALE))
    np.testing.assert_array_equal(batch(0.0, 3), batch(1.0, 3))
    assert (batch(0.0, 3) != batch(0.0, 4)).any()
    assert (batch(0.0, 3) != plain).any()
    seen.clear()
    program.measure({"w": jnp.zeros(CLASSES)}, {}, in_batches(images, labels, 4))
    jax.effects_barrier()
    np.testing.assert_allclose(seen[0][1], plain, rtol=1e-6)


def test_smoothed_labels_are_of_the_training_loss_alone():
    model = Model(lambda *_: {}, lambda v, x, train, rngs: (v["params"]["logits"], {}))
    program = Program(
        dense_apply(model.apply),
        optax.sgd(0.1),
        batch_size=1,
        pixels=Pixels(1.0),
        objective=objective(TASKS["classification"], label_smoothing=0.3),
    )
    logits = jnp.asarray([[2.0, 0.0, -1.0]])
    log_p = np.asarray(jax.nn.log_softmax(logits))[0]
    found = program.objective.train_loss(logits, jnp.zeros(1, jnp.int32))
    np.testing.assert_allclose(found, [-(0.8 * log_p[0] + 0.1 * log_p[1:].sum())], rtol=1e-6)
    measured = program.measure(
        {"logits": logits}, {}, in_batches(np.zeros((1, *SHAPE), np.uint8), np.zeros(1, int), 1)
    )
    np.testing.assert_allclose(measured.loss, -log_p[0], rtol=1e-6)
