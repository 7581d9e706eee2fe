"""Rules by which masks are learned: what a layer computes with, and what its scores get."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lth_jax.pruning.learning import LEARNED_MASKS, Layer, chances, supermask
from lth_jax.pruning.selection import keep_highest, remove_lowest

SHAPE = (6, 5)
every_rule = pytest.mark.parametrize("rule", LEARNED_MASKS)


def layer(rule, seed=0, kept=7, progress=0.5):
    draws = np.random.default_rng(seed)
    weights = jnp.asarray(draws.normal(size=SHAPE), jnp.float32)
    kept = jnp.int32(kept)
    scores = LEARNED_MASKS[rule].begin(jax.random.key(seed), weights, kept)
    scores += jnp.asarray(draws.normal(size=SHAPE), jnp.float32)
    return Layer(scores, weights, kept, jax.random.key(seed + 1), jnp.float32(progress))


def gradients(rule, of, **fields):
    """Of the sum of a layer's weights times `flow`, in its scores and weights."""
    flow = jnp.asarray(np.random.default_rng(9).normal(size=SHAPE), jnp.float32)
    network = LEARNED_MASKS[rule].network

    def total(scores, weights):
        return jnp.sum(flow * network(of._replace(scores=scores, weights=weights), **fields))

    return flow, *jax.grad(total, argnums=(0, 1))(of.scores, of.weights)


@settings(max_examples=40)
@given(
    scores=arrays.arrays(np.float32, (17,), elements=st.sampled_from([-1.0, -0.0, 0.0, 0.5, 2.0])),
    kept=st.integers(0, 17),
)
def test_the_highest_are_those_that_pruning_leaves(scores, kept):
    """Ties included, inside of a program, whatever the count."""
    found = jax.jit(keep_highest)(jnp.asarray(scores), jnp.int32(kept))
    mask = {"w": jnp.ones(17, bool)}
    wanted = remove_lowest({"w": jnp.asarray(scores)}, mask, {("w",): 17 - kept})["w"]
    assert found.tolist() == wanted.tolist()
    assert int(found.sum()) == kept


@every_rule
def test_a_layer_begins_as_its_key_says(rule):
    begin = LEARNED_MASKS[rule].begin
    weights, kept = jnp.ones(SHAPE), jnp.int32(3)
    one, same, other = (begin(jax.random.key(seed), weights, kept) for seed in (0, 0, 1))
    assert one.tolist() == same.tolist() != other.tolist()
    assert one.shape == SHAPE
    assert len(np.unique(one)) == one.size  # none is tied


def test_edge_popup_computes_with_the_largest_scores_and_passes_the_gradient_to_all():
    """∂L/∂s = ∂L/∂(the weight in the network) · w · sign(s), pruned or not."""
    of = layer("edge_popup")
    seen = np.asarray(LEARNED_MASKS["edge_popup"].network(of, rescale=False))
    order = np.argsort(-np.abs(np.asarray(of.scores)), axis=None)
    mask = np.zeros(seen.size, bool)
    mask[order[:7]] = True
    np.testing.assert_array_equal(seen, np.where(mask.reshape(SHAPE), of.weights, 0))
    measured = keep_highest(LEARNED_MASKS["edge_popup"].rank(of.scores), of.kept)
    np.testing.assert_array_equal(measured, mask.reshape(SHAPE))
    flow, scores, _ = gradients("edge_popup", of, rescale=False)
    np.testing.assert_allclose(scores, flow * of.weights * np.sign(of.scores), rtol=1e-6)
    rescaled = LEARNED_MASKS["edge_popup"].network(of)
    np.testing.assert_allclose(rescaled, seen * np.sqrt(30 / 7), rtol=1e-6)


@settings(max_examples=40)
@given(seed=st.integers(0, 99), kept=st.integers(1, 29), spread=st.sampled_from([0.01, 1.0, 100.0]))
def test_chances_add_up_to_the_count_and_are_in_the_order_of_scores(seed, kept, spread):
    scores = jnp.asarray(np.random.default_rng(seed).normal(0, spread, SHAPE), jnp.float32)
    found = np.asarray(chances(scores, jnp.int32(kept)), np.float64)
    # Far apart, a chance or two lie between 0 and 1, and the sum is off by as much.
    assert found.sum() == pytest.approx(kept, abs=0.6 if spread > 1 else 0.02)
    order = np.argsort(np.asarray(scores), axis=None)
    assert np.all(np.diff(found.reshape(-1)[order]) >= 0)


def test_a_supermask_is_drawn_by_its_chances_and_rescaled():
    of = layer("supermask")
    chance = np.asarray(chances(of.scores, of.kept), np.float64)
    draws = jax.vmap(lambda key: supermask(of._replace(key=key), rescale=False))(
        jax.random.split(jax.random.key(0), 4000)
    )
    np.testing.assert_allclose((np.asarray(draws) != 0).mean(0), chance, atol=0.04)
    rescaled, plain = (np.asarray(supermask(of, rescale=on)) for on in (True, False))
    np.testing.assert_allclose(rescaled, plain * 30 / 7, rtol=1e-6)
    flow, scores, _ = gradients("supermask", of, rescale=False)
    np.testing.assert_allclose(scores, flow * of.weights * chance * (1 - chance), rtol=1e-4)


def test_continuous_sparsification_hardens():
    begun, ended = (layer("continuous_sparsification", progress=at) for at in (0.0, 1.0))
    network = LEARNED_MASKS["continuous_sparsification"].network
    soft = np.asarray(chances(begun.scores, begun.kept), np.float64)
    np.testing.assert_allclose(network(begun), np.asarray(begun.weights) * soft, rtol=1e-5)
    hard = np.asarray(keep_highest(ended.scores, ended.kept))
    gates = np.asarray(network(ended) / ended.weights)
    assert np.abs(gates - hard).mean() < 0.05 < np.abs(soft - hard).mean()
    flow, scores, weights = gradients("continuous_sparsification", begun)
    np.testing.assert_allclose(weights, flow * soft, rtol=1e-5)
    wanted = flow * np.asarray(begun.weights) * soft * (1 - soft)
    np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=1e-6)
