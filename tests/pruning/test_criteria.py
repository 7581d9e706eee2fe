"""The registry of criteria: finite scores, no state changed, and a golden value for each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import assert_same_bits, bits

from lth_jax.pruning.criteria import CRITERIA, Scoring

every_criterion = pytest.mark.parametrize("name", sorted(CRITERIA))

# Scores of `scoring()`, leaf by leaf, in leaf order.
GOLDEN = {
    "magnitude": [[0.25, 0.0], [1.5, 2.0, 0.0, 3.0]],
    "random": [
        [0.8423141241, 0.1823786497],
        [0.0072938204, 0.0208911896, 0.5814265013, 0.3618379831],
    ],
}


def scoring(seed=0):
    final = {
        "bias": jnp.asarray([0.25, 0.0]),
        "kernel": jnp.asarray([[-1.5, 2.0], [-0.0, -3.0]]),
    }
    return Scoring(final, jax.tree.map(jnp.ones_like, final), jax.random.key(seed))


@every_criterion
def test_golden_scores(name):
    scores = jax.tree.leaves(CRITERIA[name](scoring()))
    assert len(scores) == len(GOLDEN[name])
    for leaf, golden in zip(scores, GOLDEN[name], strict=True):
        np.testing.assert_allclose(np.ravel(leaf), golden, rtol=1e-6)


@every_criterion
def test_scores_are_finite_and_have_the_parameters_structure(name):
    given = scoring()
    scores = CRITERIA[name](given)
    assert jax.tree.structure(scores) == jax.tree.structure(given.final)
    for leaf, weights in zip(jax.tree.leaves(scores), jax.tree.leaves(given.final), strict=True):
        assert leaf.shape == weights.shape
        assert jnp.issubdtype(leaf.dtype, jnp.floating)
        assert np.all(np.isfinite(leaf))


@every_criterion
def test_scoring_changes_no_state(name):
    given = scoring()
    before = bits(given)
    first = CRITERIA[name](given)
    assert bits(given) == before
    assert_same_bits(first, CRITERIA[name](given))


@every_criterion
def test_scores_are_the_same_compiled(name):
    assert_same_bits(CRITERIA[name](scoring()), jax.jit(CRITERIA[name])(scoring()))


def test_magnitude_is_blind_to_sign_key_and_initialization():
    given = scoring()
    other = Scoring(
        jax.tree.map(jnp.negative, given.final),
        jax.tree.map(jnp.zeros_like, given.final),
        jax.random.key(9),
    )
    assert_same_bits(CRITERIA["magnitude"](given), CRITERIA["magnitude"](other))


def test_random_depends_on_the_key_alone():
    given = scoring()
    other = given._replace(final=jax.tree.map(lambda w: w * 7 + 1, given.final), initial=None)
    assert_same_bits(CRITERIA["random"](given), CRITERIA["random"](other))
    assert bits(CRITERIA["random"](given)) != bits(CRITERIA["random"](scoring(seed=1)))


def test_random_is_uniform_and_its_own_in_every_leaf():
    final = {"a": jnp.zeros((100, 100)), "b": jnp.zeros((100, 100), jnp.bfloat16)}
    scores = CRITERIA["random"](Scoring(final, final, jax.random.key(0)))
    a, b = np.ravel(scores["a"]), np.ravel(scores["b"])
    assert a.dtype == b.dtype == np.float32
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.05
    for draws in (a, b):
        assert draws.min() >= 0
        assert draws.max() < 1
        np.testing.assert_allclose(
            np.quantile(draws, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.02
        )
        assert len(np.unique(draws)) > 9_900, "coarse draws would tie, and ties go by position"
