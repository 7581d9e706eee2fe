"""A network small enough to be scored by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.pruning.criteria import CRITERIA, Probe, Scoring

from ..small_networks import mlp, norm_and_dropout

every_criterion = pytest.mark.parametrize("name", sorted(CRITERIA))
# A second derivative takes seconds to compile.
GRASP = pytest.param("grasp", marks=pytest.mark.slow)
with_gradients = pytest.mark.parametrize("name", [GRASP, "snip", "synflow"])

IMAGES = np.array([[1.0, 2.0], [-0.5, 1.0], [3.0, 0.0]], np.float32).reshape(3, 1, 2, 1)
LABELS = np.array([0, 1, 0], np.int32)
DEEP, WITH_STATE = mlp(), norm_and_dropout()  # once: what is compiled belongs to a function

# Scores of `scoring()`, leaf by leaf, in leaf order; those without gradients by hand, from
# Zhou et al. 2019: final [0.25, 0], [-1.5, 2, -0, -3], initial [0.5, -1], [1, 2.5, -0.75, -2].
GOLDEN = {
    "magnitude": [[0.25, 0.0], [1.5, 2.0, 0.0, 3.0]],
    "random": [
        [0.8423141241, 0.1823786497],
        [0.0072938204, 0.0208911896, 0.5814265013, 0.3618379831],
    ],
    "small_final": [[-0.25, 0.0], [-1.5, -2.0, 0.0, -3.0]],
    "large_init": [[0.5, 1.0], [1.0, 2.5, 0.75, 2.0]],
    "small_init": [[-0.5, -1.0], [-1.0, -2.5, -0.75, -2.0]],
    "large_init_large_final": [[0.25, 0.0], [1.0, 2.0, 0.0, 2.0]],
    "magnitude_increase": [[-0.25, -1.0], [0.5, -0.5, -0.75, 1.0]],
    "movement": [[0.25, 1.0], [2.5, 0.5, 0.75, 1.0]],
    "large_final_same_sign": [[0.25, 0.0], [-1.5, 2.0, 0.0, 3.0]],
    # An input of ones gives each output |bias| + the sum of its |weights|: R's gradient is one.
    "synflow": [[0.25, 0.0], [1.5, 2.0, 0.0, 3.0]],
}


def linear(variables, images, train, rngs):
    """The network of `scoring()`: two inputs, two classes."""
    params = variables["params"]
    logits = images.reshape(len(images), -1) @ params["kernel"] + params["bias"][None]
    return logits, {}


def scoring(seed=0):
    final = {
        "bias": jnp.asarray([0.25, 0.0]),
        "kernel": jnp.asarray([[-1.5, 2.0], [-0.0, -3.0]]),
    }
    initial = {
        "bias": jnp.asarray([0.5, -1.0]),
        "kernel": jnp.asarray([[1.0, 2.5], [-0.75, -2.0]]),
    }
    probe = Probe(linear, {}, jnp.asarray(IMAGES), jnp.asarray(LABELS))
    return Scoring(final, initial, jax.random.key(seed), probe)


def scores_of(name, given):
    return CRITERIA[name].scores(given)


def without_apply(given):
    """Everything of a `Scoring` that has bits."""
    return given._replace(probe=given.probe[1:-1])


def closed_form(given, temperature):
    """(gradient, Hessian times gradient) of softmax regression's mean loss, in float64."""
    x = np.concatenate([IMAGES.reshape(3, 2), np.ones((3, 1))], axis=1).astype(np.float64)
    w = np.concatenate([given.final["kernel"], given.final["bias"][None]]).astype(np.float64)
    z = x @ w / temperature
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    g = x.T @ (p - np.eye(2)[LABELS]) / (3 * temperature)
    dz = x @ g / temperature
    dp = p * (dz - (p * dz).sum(axis=1, keepdims=True))
    return w, g, x.T @ dp / (3 * temperature)
