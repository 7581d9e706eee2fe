"""Invariant 8: a control is what its name says; conformance over the registry of branches."""

from fractions import Fraction
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import assert_same_bits, bits, norm_and_dropout, optimizer, random_mask

from lth_jax.branches import BRANCHES, BranchPoint, draw_mask
from lth_jax.models import MODELS
from lth_jax.pruning.masks import kept_counts, ones_mask, prunable
from lth_jax.training import new_state
from lth_jax.trees import named_leaves

every_branch = pytest.mark.parametrize("name", sorted(BRANCHES))
STEP = 6
MODEL, OPTIMIZER = norm_and_dropout(), optimizer("adam")


def fresh_state(key):
    return new_state(MODEL, OPTIMIZER, key, jnp.zeros((1, 4, 4, 1)))


@cache
def point():
    """A trained-looking state: nothing in it is zero, moments and statistics included."""
    fresh = fresh_state(jax.random.key(77))
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: (
            jnp.asarray(random.normal(size=leaf.shape).astype(np.float32))
            if leaf.dtype == jnp.float32
            else leaf + STEP
        ),
        fresh,
    )


def branch_point(key=0):
    params = point().params
    return BranchPoint(
        mask=random_mask(params, keep=0.4),
        point=point(),
        step=STEP,
        rates=prunable(params, (("output", 0.5),)),
        optimizer=OPTIMIZER,
        fresh=fresh_state,
        key=jax.random.key(key),
    )


@every_branch
def test_each_layer_keeps_exactly_the_tickets_count(name):
    at = branch_point()
    ticket = BRANCHES[name](at)
    assert jax.tree.structure(ticket.mask) == jax.tree.structure(at.mask)
    assert kept_counts(ticket.mask, at.rates) == kept_counts(at.mask, at.rates)
    for leaf_name, leaf in named_leaves(ticket.mask).items():
        assert leaf.dtype == bool
        assert leaf_name in at.rates or leaf.all()


@every_branch
def test_pruned_weights_and_their_moments_start_at_zero(name):
    ticket = jax.device_get(BRANCHES[name](branch_point()))
    adam = ticket.state.opt_state[-1][0]
    for tree in (ticket.state.params, adam.mu, adam.nu):
        for leaf, m in zip(jax.tree.leaves(tree), jax.tree.leaves(ticket.mask), strict=True):
            assert not np.any(leaf[~m])


@every_branch
def test_a_branch_is_a_function_of_its_key(name):
    first, again, other = (BRANCHES[name](branch_point(key)) for key in (0, 0, 1))
    assert_same_bits(first, again)
    assert bits(first) != bits(other)


@every_branch
def test_a_branch_changes_nothing_that_it_was_given(name):
    at = branch_point()
    given = (at.mask, at.point, at.key)
    before = bits(given)
    BRANCHES[name](at)
    assert bits(given) == before


@every_branch
def test_a_branch_starts_at_a_step_of_its_schedule(name):
    assert BRANCHES[name](branch_point()).step in (0, STEP)


def test_reinit_keeps_the_mask_and_draws_fresh_weights():
    at = branch_point()
    ticket = BRANCHES["reinit"](at)
    assert_same_bits(ticket.mask, at.mask)
    assert ticket.step == 0
    fresh = at.fresh(at.key)
    for mine, drawn, old, m in zip(
        *map(jax.tree.leaves, (ticket.state.params, fresh.params, at.point.params, at.mask)),
        strict=True,
    ):
        np.testing.assert_array_equal(mine[m], drawn[m])
        if mine.ndim >= 2:
            assert np.all(mine[m] != old[m])
    assert_same_bits(ticket.state.model_state, fresh.model_state)


def test_reinit_draws_from_the_initial_distribution():
    model, transform = MODELS["mlp"](10), optimizer("adam")
    fresh = lambda key: new_state(model, transform, key, jnp.zeros((1, 28, 28, 1)))  # noqa: E731
    start = fresh(jax.random.key(0))
    mask = random_mask(start.params, keep=0.2)
    at = BranchPoint(mask, start, 0, prunable(mask), transform, fresh, jax.random.key(1))
    ticket = BRANCHES["reinit"](at)
    kernel, m = np.asarray(ticket.state.params["fc1"]["kernel"]), mask["fc1"]["kernel"]
    drawn = kernel[np.asarray(m)]
    np.testing.assert_allclose(drawn.std(), np.sqrt(2 / 1084), rtol=4 / np.sqrt(2 * drawn.size))
    old = np.asarray(start.params["fc1"]["kernel"])[np.asarray(m)]
    assert abs(np.corrcoef(drawn, old)[0, 1]) < 4 / np.sqrt(drawn.size)


def test_random_mask_keeps_the_rewound_weights_under_another_mask():
    at = branch_point()
    ticket = BRANCHES["random_mask"](at)
    assert ticket.step == STEP
    assert_same_bits(ticket.state.model_state, at.point.model_state)
    for name, m in named_leaves(ticket.mask).items():
        old, mine = (named_leaves(t)[name] for t in (at.point.params, ticket.state.params))
        assert np.asarray(mine[m]).tobytes() == np.asarray(old[m]).tobytes()
        if name in at.rates:
            assert np.any(m != named_leaves(at.mask)[name])


def test_a_random_mask_is_uniform_over_positions():
    mask = {"w": jnp.asarray([[True] * 3 + [False] * 9])}
    rates = {"w": Fraction(1)}
    draws = [
        np.asarray(draw_mask(jax.random.key(seed), mask, rates)["w"][0]) for seed in range(400)
    ]
    assert {int(draw.sum()) for draw in draws} == {3}
    # A position is kept with probability 1/4: four standard errors of 400 draws.
    np.testing.assert_allclose(np.mean(draws, axis=0), 0.25, atol=4 * np.sqrt(0.1875 / 400))


def test_layers_of_one_shape_draw_different_masks():
    mask = {name: random_mask({"w": jnp.zeros((20, 20))})["w"] for name in "ab"}
    drawn = draw_mask(jax.random.key(0), mask, prunable(mask))
    assert np.any(drawn["a"] != drawn["b"])


def test_layers_that_are_not_prunable_stay_whole():
    mask = ones_mask({"a": jnp.zeros((4, 4)), "b": jnp.zeros((4, 4))})
    mask["a"] = mask["a"].at[0].set(False)
    drawn = draw_mask(jax.random.key(0), mask, {"a": Fraction(1)})
    assert drawn["b"].all()
    assert int(drawn["a"].sum()) == 12


@pytest.mark.parametrize("value", [True, False])
def test_a_full_or_empty_layer_stays_so(value):
    mask = {"w": jnp.full((3, 3), value)}
    assert np.all(draw_mask(jax.random.key(0), mask, {"w": Fraction(1)})["w"] == value)
