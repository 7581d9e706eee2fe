"""The boundary: a Linen module as a pair of pure functions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.models.base import from_linen

from ..small_networks import assert_same_bits, bits, mlp, norm_and_dropout

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4, 4, 1)).astype(np.float32))


def dropout(seed):
    return {"dropout": jax.random.key(seed)}


def test_training_changes_the_state_and_no_argument():
    model = norm_and_dropout()
    variables = model.init(jax.random.key(0), X)
    before = bits(variables)
    assert set(variables) == {"params", "batch_stats"}
    _, state = model.apply(variables, X, True, dropout(0))
    assert set(state) == {"batch_stats"}
    assert bits(variables) == before
    assert bits(state) != bits({"batch_stats": variables["batch_stats"]})


def test_evaluation_changes_no_state_and_needs_no_random_number():
    model = norm_and_dropout()
    variables = model.init(jax.random.key(0), X)
    first, state = model.apply(variables, X, False, {})
    assert_same_bits(state, {"batch_stats": variables["batch_stats"]})
    assert_same_bits(first, model.apply(variables, X, False, dropout(3))[0])


def test_a_state_that_every_call_would_change_stays_in_evaluation():
    class Counter(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            calls = self.variable("counter", "calls", jnp.zeros, (), jnp.int32)
            if self.is_mutable_collection("counter") and not self.is_initializing():
                calls.value += 1
            return nn.Dense(2)(x)

    model = from_linen(Counter())
    variables = model.init(jax.random.key(0), X)
    counts = [int(model.apply(variables, X, t, {})[1]["counter"]["calls"]) for t in (False, True)]
    assert counts == [0, 1]


def test_dropout_follows_its_key():
    model = norm_and_dropout()
    variables = model.init(jax.random.key(0), X)
    logits = [bits(model.apply(variables, X, True, dropout(seed))[0]) for seed in (0, 0, 1)]
    assert logits[0] == logits[1] != logits[2]


def test_a_model_without_state_returns_none():
    model = mlp()
    variables = model.init(jax.random.key(0), X)
    for train in (True, False):
        assert model.apply(variables, X, train, {})[1] == {}
