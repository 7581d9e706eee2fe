"""The registry of optimizers: each row does what its name says, by the textbook's arithmetic."""

import inspect

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax.lottery.optimizing import HYPERPARAMETERS
from lth_jax.training.optimizers import OPTIMIZERS, cosine, warmed_up

from ..small_networks import optimizer

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
    transform = optimizer(name, learning_rate=RATE, weight_decay=decay, momentum=MOMENTUM)
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
def test_every_optimizer_takes_its_hyperparameters_by_name(name):
    parameters = inspect.signature(OPTIMIZERS[name].make).parameters
    assert {"learning_rate"} < {*parameters} <= {"learning_rate", *HYPERPARAMETERS}
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters.values())


def test_nesterov_looks_ahead():
    """Sutskever et al. (2013): the step is of the velocity that comes next."""
    transform = optimizer(
        "momentum", learning_rate=RATE, weight_decay=0.0, momentum=MOMENTUM, nesterov=True
    )
    weight = jnp.asarray([WEIGHT])
    state = transform.init(weight)
    velocity, expected = 0.0, WEIGHT
    for gradient in GRADIENTS:
        velocity = MOMENTUM * velocity + gradient
        expected -= RATE * (gradient + MOMENTUM * velocity)
        updates, state = transform.update(jnp.asarray([gradient]), state, weight)
        weight = optax.apply_updates(weight, updates)
    np.testing.assert_allclose(weight, [expected], rtol=1e-6)


def rates(counts, rate=0.1, **options):
    schedule = warmed_up(rate, **options)
    return [float(schedule(jnp.int32(count))) for count in counts]


def test_a_constant_rate_is_a_number_and_its_optimizer_keeps_no_count():
    assert warmed_up(0.1) == 0.1


def test_warmup_rises_to_the_rate_which_its_last_update_has():
    np.testing.assert_allclose(rates([0, 4, 9, 10, 50], warmup=10), [0.01, 0.05, 0.1, 0.1, 0.1])


def test_drops_multiply_from_their_step_on():
    found = rates([0, 39, 40, 59, 60, 1000], drops=((40, 0.1), (60, 0.5), (5000, 0.1)))
    np.testing.assert_allclose(found, [0.1, 0.1, 0.01, 0.01, 0.005, 0.005], rtol=1e-6)


def test_cosine_falls_to_zero_at_the_last_step_and_stays_there():
    after = cosine(learning_rate=0.1, steps=90)
    found = rates([0, 10, 55, 100, 200], after, warmup=10)
    np.testing.assert_allclose(found, [0.01, 0.1, 0.05, 0.0, 0.0], atol=1e-8)


@every_optimizer
def test_every_optimizer_takes_a_schedule(name):
    """The first drop at update 1: only the updates from there on are smaller."""
    schedule = warmed_up(RATE, drops=((1, 0.5),))
    steps = []
    for rate in (RATE, schedule):
        transform = optimizer(name, learning_rate=rate, weight_decay=0.0, momentum=0.0)
        state = transform.init(jnp.zeros(1))
        taken = []
        for _ in range(2):
            updates, state = transform.update(jnp.ones(1), state, jnp.zeros(1))
            taken.append(float(updates[0]))
        steps.append(taken)
    np.testing.assert_allclose(steps[1], [steps[0][0], 0.5 * steps[0][1]], rtol=1e-6)
