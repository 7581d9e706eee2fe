"""Networks, data and comparisons small enough for properties."""

import inspect
from functools import cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.models.base import Model, from_linen
from lth_jax.models.mlp import MLP
from lth_jax.training.optimizers import OPTIMIZERS
from lth_jax.training.states import Examples, in_batches

CLASSES = 3
SHAPE = (4, 4, 1)
SCALE = 1 / 255
HYPERPARAMETERS = {"learning_rate": 0.01, "weight_decay": 0.05, "momentum": 0.9}


class NormAndDropout(nn.Module):
    """Everything that has a state or a random number of its own."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(8, name="fc1")(x.reshape(x.shape[0], -1))
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
        x = nn.Dropout(0.2, deterministic=not train)(nn.relu(x))
        return nn.Dense(CLASSES, name="output")(x)


def mlp() -> Model:
    return from_linen(MLP(classes=CLASSES, hidden=(8,)))


def norm_and_dropout() -> Model:
    return from_linen(NormAndDropout())


def optimizer(name="adam", **changes):
    make = OPTIMIZERS[name].make
    taken = inspect.signature(make).parameters
    given = {**HYPERPARAMETERS, **changes}
    return make(**{field: value for field, value in given.items() if field in taken})


@cache
def arrays(count, seed=0):
    """(uint8 images [count, 4, 4, 1], int32 labels [count]) with a pattern for each class."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, count).astype(np.int32)
    patterns = np.random.default_rng(99).integers(0, 180, (CLASSES, *SHAPE))
    noise = random.integers(0, 75, (count, *SHAPE))
    return (patterns[labels] + noise).astype(np.uint8), labels


def training_set(count=50):
    images, labels = arrays(count)
    return Examples(jnp.asarray(images), jnp.asarray(labels))


def validation_set(count=23, batch_size=10):
    return in_batches(*arrays(count, seed=1), batch_size)


def random_mask(params, seed=0, keep=0.5):
    """A random mask of the kernels; everything else stays."""
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: (
            jnp.asarray(random.random(leaf.shape) < keep)
            if leaf.ndim >= 2
            else jnp.ones(leaf.shape, bool)
        ),
        params,
    )


def bits(tree):
    """The leaves as bytes: equal only where every bit is."""
    return [
        (leaf.dtype, leaf.shape, leaf.tobytes())
        for leaf in map(_as_numpy, jax.tree.leaves(jax.device_get(tree)))
    ]


def assert_same_bits(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    assert bits(left) == bits(right)


def assert_close(left, right, rtol=1e-4, atol=1e-5):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)


def _as_numpy(leaf):
    leaf = jax.numpy.asarray(leaf) if isinstance(leaf, int | float) else leaf
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)
