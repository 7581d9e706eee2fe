"""The registry of optimizers: each row does what its name says, by the textbook's arithmetic."""

import inspect

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax.optimizers import OPTIMIZERS

RATE, DECAY, MOMENTUM = 0.1, 0.01, 0.9
WEIGHT, GRADIENTS = 2.0, (0.5, -1.0, 0.25)

every_optimizer = pytest.mark.parametrize("name", sorted(OPTIMIZERS))


def sgd(weight, gradients, decay, momentum=0.0):
    velocity = 0.0
    for gradient in gradients:
        velocity = momentum * velocity + gradient + decay * weight
        weight -= RATE * velocity
    return weight


def adam(weight, gradients, inside, outside):
    m = v = 0.0
    for step, gradient in enumerate(gradients, start=1):
        gradient += inside * weight
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        direction = (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        weight -= RATE * (direction + outside * weight)
    return weight


TEXTBOOK = {
    "adam": lambda decay: adam(WEIGHT, GRADIENTS, decay, 0.0),
    "adamw": lambda decay: adam(WEIGHT, GRADIENTS, 0.0, decay),
    "momentum": lambda decay: sgd(WEIGHT, GRADIENTS, decay, MOMENTUM),
    "sgd": lambda decay: sgd(WEIGHT, GRADIENTS, decay),
}


def run(name, decay):
    transform = OPTIMIZERS[name](learning_rate=RATE, weight_decay=decay, momentum=MOMENTUM)
    assert isinstance(transform, optax.GradientTransformation)
    weight = jnp.asarray([[WEIGHT]])
    state = transform.init(weight)
    for gradient in GRADIENTS:
        updates, state = transform.update(jnp.asarray([[gradient]]), state, weight)
        weight = optax.apply_updates(weight, updates)
    return float(weight[0, 0])


@every_optimizer
@pytest.mark.parametrize("decay", [0.0, DECAY, 0.5])
def test_every_optimizer_is_the_textbooks(name, decay):
    assert name in TEXTBOOK, f"a new row needs its arithmetic here: {name}"
    np.testing.assert_allclose(run(name, decay), TEXTBOOK[name](decay), rtol=1e-5)


@every_optimizer
def test_every_optimizer_takes_all_hyperparameters_by_name(name):
    parameters = inspect.signature(OPTIMIZERS[name]).parameters
    assert set(parameters) == {"learning_rate", "weight_decay", "momentum"}
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters.values())
