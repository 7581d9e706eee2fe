"""What every branch keeps to, and their masks."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.config import TRANSFERS
from lth_jax.lottery.branches import BRANCHES, FROM_SCRATCH, keep_as_many
from lth_jax.lottery.start_points import StartPoint
from lth_jax.pruning.drawing import draw_mask
from lth_jax.pruning.learning import LEARNED_MASKS
from lth_jax.pruning.masks import kept_counts, ones_mask, prunable
from lth_jax.pruning.trees import named_leaves
from lth_jax.training.states import TrainState, rewind

from ..small_networks import assert_same_bits, bits, random_mask
from .branch_points import (
    DRAWN,
    LAST_STEP,
    OPTIMIZER,
    REDRAWS,
    SAME_MASK,
    STEP,
    branch_point,
    every_branch,
    named,
    source_ticket,
)

# --- Conformance ----------------------------------------------------------------------------


@every_branch
def test_each_layer_keeps_exactly_the_tickets_count(name):
    """The source's, in a transfer; all of it, in `dense` and in what is pruned as it trains."""
    at = branch_point()
    ticket = BRANCHES[name](at)
    assert jax.tree.structure(ticket.mask) == jax.tree.structure(at.ticket.mask)
    if name in ("dense", "gmp", "ac_dc", *LEARNED_MASKS):
        wanted = kept_counts(ones_mask(at.ticket.mask), at.rates)
    else:
        wanted = kept_counts((source_ticket() if name in TRANSFERS else at.ticket).mask, at.rates)
    assert kept_counts(ticket.mask, at.rates) == wanted
    for leaf_name, leaf in named_leaves(ticket.mask).items():
        assert leaf.dtype == bool
        assert leaf_name in at.rates or leaf.all()


@every_branch
def test_only_the_controls_of_the_mask_have_another_mask(name):
    at = branch_point()
    mask = BRANCHES[name](at).mask
    assert (bits(mask) == bits(at.ticket.mask)) is (name in SAME_MASK)
    assert (bits(mask) == bits(source_ticket().mask)) is (name in TRANSFERS)


@every_branch
def test_pruned_weights_and_their_moments_start_at_zero(name):
    """Save in `freeze_pruned` and `topkast`: pruned weights are the rewind point's, exactly."""
    at = branch_point()
    ticket = jax.device_get(BRANCHES[name](at))
    adam = ticket.state.opt_state[-1][0]
    trees = (ticket.state.params, adam.mu, adam.nu)
    keeps = name in ("freeze_pruned", "topkast")
    for tree in trees[1:] if keeps else trees:
        for leaf, m in zip(jax.tree.leaves(tree), jax.tree.leaves(ticket.mask), strict=True):
            assert not np.any(leaf[~m])
    if keeps:
        for leaf, m, old in zip(
            *map(jax.tree.leaves, (ticket.state.params, ticket.mask, at.point.params)), strict=True
        ):
            assert leaf[~m].tobytes() == np.asarray(old)[~m].tobytes()
            assert np.all(leaf[~m])


@every_branch
def test_a_branch_is_a_function_of_its_key(name):
    first, again, other = (BRANCHES[name](branch_point(key)) for key in (0, 0, 1))
    assert_same_bits(first, again)
    assert (bits(first) != bits(other)) is (name in DRAWN)


@every_branch
def test_a_branch_changes_nothing_that_it_was_given(name):
    at = branch_point()
    given = (at.ticket, at.point, at.initial, at.key)
    before = bits(given)
    BRANCHES[name](at)
    assert bits(given) == before


@every_branch
def test_a_branch_starts_at_a_step_of_its_schedule(name):
    """A fresh network at 0, what was rewound at the rewind step, what goes on where it ended."""
    step = BRANCHES[name](branch_point()).step
    on = {"finetune": LAST_STEP, "early_bird": STEP + 4}
    assert step == (0 if name in FROM_SCRATCH else on.get(name, STEP))


@every_branch
def test_a_branch_gives_a_whole_training_state(name):
    at = branch_point()
    state = BRANCHES[name](at).state
    assert isinstance(state, TrainState)
    assert jax.tree.structure(state) == jax.tree.structure(at.point)
    for leaf, same in zip(jax.tree.leaves(state), jax.tree.leaves(at.point), strict=True):
        assert (leaf.shape, leaf.dtype) == (same.shape, same.dtype)
        assert np.all(np.isfinite(leaf))


@pytest.mark.parametrize("name", REDRAWS)
def test_a_redraw_changes_kept_prunable_weights_alone(name):
    """Biases, norms, batch statistics, moments and the step stay the ticket's."""
    at = branch_point()
    ticket = BRANCHES[name](at)
    assert_same_bits(ticket.mask, at.ticket.mask)
    assert ticket.step == at.ticket.step
    assert_same_bits(ticket.state.model_state, at.ticket.state.model_state)
    assert_same_bits(ticket.state.opt_state, at.ticket.state.opt_state)
    mine, old = named(ticket.state.params), named(at.ticket.state.params)
    for leaf in mine:
        if leaf in at.rates:
            assert np.any(mine[leaf] != old[leaf])
        else:
            assert mine[leaf].tobytes() == old[leaf].tobytes()


# --- Masks ----------------------------------------------------------------------------------


def test_a_random_mask_is_uniform_over_positions():
    mask = {"w": jnp.asarray([[True] * 3 + [False] * 9])}
    rates = {"w": Fraction(1)}
    draws = [
        np.asarray(draw_mask(jax.random.key(seed), mask, rates)["w"][0]) for seed in range(200)
    ]
    assert {int(draw.sum()) for draw in draws} == {3}
    # A position is kept with probability 1/4: four standard errors of 200 draws.
    np.testing.assert_allclose(np.mean(draws, axis=0), 0.25, atol=4 * np.sqrt(0.1875 / 200))


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


@pytest.mark.parametrize("name", sorted({*REDRAWS, "freeze_pruned", "reinit", "random_mask"}))
def test_a_branch_of_a_layer_with_nothing_left_works(name):
    at = branch_point()
    mask = {**at.ticket.mask, "fc1": {**at.ticket.mask["fc1"], "kernel": jnp.zeros((16, 8), bool)}}
    at = at._replace(ticket=StartPoint(mask, rewind(at.point, mask, OPTIMIZER), STEP))
    ticket = BRANCHES[name](at)
    assert_same_bits(ticket.mask["fc1"]["kernel"], mask["fc1"]["kernel"])
    assert np.any(ticket.state.params["fc1"]["kernel"]) == (name == "freeze_pruned")


def test_keep_as_many_keeps_the_highest_of_each_layer():
    mask = {"a": jnp.asarray([[True, False, False]]), "b": jnp.asarray([[True, True, False]])}
    scores = {"a": jnp.asarray([[1.0, 2.0, 3.0]]), "b": jnp.asarray([[30.0, 10.0, 20.0]])}
    kept = keep_as_many(mask, scores, prunable(mask))
    assert {name: leaf.tolist() for name, leaf in kept.items()} == {
        "a": [[False, False, True]], "b": [[True, False, True]]
    }  # fmt: skip
