"""What each branch promises by its name."""

from fractions import Fraction
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.config import BranchSpec
from lth_jax.lottery.branches import BRANCHES, StartPoint
from lth_jax.models import MODELS
from lth_jax.pruning.masks import prunable
from lth_jax.pruning.trees import named_leaves
from lth_jax.training.states import TrainState, new_state, rewind

from ..small_networks import assert_same_bits, optimizer, random_mask
from .branch_points import STEP, branch_point, dense_scores, layers, named


def test_reinit_keeps_the_mask_and_draws_fresh_weights():
    at = branch_point()
    ticket = BRANCHES["reinit"](at)
    assert_same_bits(ticket.mask, at.ticket.mask)
    assert ticket.step == 0
    fresh = at.fresh(at.key)
    for mine, drawn, old, m in zip(
        *map(jax.tree.leaves, (ticket.state.params, fresh.params, at.point.params, at.ticket.mask)),
        strict=True,
    ):
        np.testing.assert_array_equal(mine[m], drawn[m])
        if mine.ndim >= 2:
            assert np.all(mine[m] != old[m])
    assert_same_bits(ticket.state.model_state, fresh.model_state)


@cache
def lenet_point():
    """LeNet-300-100 at initialization, a fifth of its weights kept: enough to see distributions."""
    model, transform = MODELS["mlp"].make(10), optimizer("adam")
    fresh = lambda key: new_state(model.init, transform, key, jnp.zeros((1, 28, 28, 1)))  # noqa: E731
    start = fresh(jax.random.key(0))
    mask = random_mask(start.params, keep=0.2)
    return branch_point(
        1,
        ticket=StartPoint(mask, rewind(start, mask, transform), 0),
        point=start,
        step=0,
        initial=start.params,
        rates=prunable(mask),
        optimizer=transform,
        fresh=fresh,
    )


def lenet_layers(name, **options):
    at = lenet_point()
    at = at._replace(options=BranchSpec(**options))
    return layers(at, BRANCHES[name](at))


def test_reinit_draws_from_the_initial_distribution():
    (_, m, old, mine, _) = lenet_layers("reinit")[0]
    drawn = mine[m]
    np.testing.assert_allclose(drawn.std(), np.sqrt(2 / 1084), rtol=4 / np.sqrt(2 * drawn.size))
    assert abs(np.corrcoef(drawn, old[m])[0, 1]) < 4 / np.sqrt(drawn.size)


def test_random_mask_keeps_the_rewound_weights_under_another_mask():
    at = branch_point()
    ticket = BRANCHES["random_mask"](at)
    assert ticket.step == STEP
    assert_same_bits(ticket.state.model_state, at.point.model_state)
    for name, m in named_leaves(ticket.mask).items():
        old, mine = (named_leaves(t)[name] for t in (at.point.params, ticket.state.params))
        assert np.asarray(mine[m]).tobytes() == np.asarray(old[m]).tobytes()
        if name in at.rates:
            assert np.any(m != named_leaves(at.ticket.mask)[name])


def test_reshuffle_permutes_the_kept_values_within_each_layer():
    for _, m, old, mine, _ in layers(at := branch_point(), BRANCHES["reshuffle"](at)):
        assert np.sort(mine[m]).tobytes() == np.sort(old[m]).tobytes()
        assert np.any(mine[m] != old[m])


@pytest.mark.slow
def test_a_reshuffle_is_uniform_over_positions():
    mask = {"w": jnp.asarray([[True, False, True, True]])}
    at = branch_point()
    state = TrainState({"w": jnp.asarray([[1.0, 0.0, 2.0, 3.0]])}, {}, ())
    at = at._replace(
        ticket=StartPoint(mask, state, 0), initial=state.params, rates={"w": Fraction(1)}
    )
    found = np.array([
        BRANCHES["reshuffle"](at._replace(key=jax.random.key(seed))).state.params["w"][0]
        for seed in range(300)
    ])  # fmt: skip
    assert not found[:, 1].any()
    for position in (0, 2, 3):
        counts = [np.mean(found[:, position] == value) for value in (1, 2, 3)]
        np.testing.assert_allclose(counts, 1 / 3, atol=4 * np.sqrt(2 / 9 / 300))


@pytest.mark.slow
def test_reinit_from_ticket_draws_from_its_layers_kept_values_with_replacement():
    for _, m, old, mine, _ in lenet_layers("reinit_from_ticket"):
        kept, drawn = old[m], mine[m]
        assert np.isin(drawn, kept).all()
        assert abs(np.corrcoef(kept, drawn)[0, 1]) < 5 / np.sqrt(kept.size)
        # Of n draws from n values, 1 - 1/e are met.
        met = len(np.unique(drawn)) / len(np.unique(kept))
        assert met == pytest.approx(1 - 1 / np.e, abs=3 / np.sqrt(kept.size))


def test_signed_constant_is_the_sign_times_the_layers_initial_deviation():
    for _, m, old, mine, first in layers(at := branch_point(), BRANCHES["signed_constant"](at)):
        np.testing.assert_allclose(mine[m], np.sign(old[m]) * first.std(), rtol=1e-5)
        assert {-1, 1} == set(np.sign(mine[m]))


@pytest.mark.slow
def test_constant_random_sign_has_the_same_magnitudes_and_signs_of_its_own():
    for _, m, old, mine, first in lenet_layers("constant_random_sign"):
        np.testing.assert_allclose(np.abs(mine[m]), first.std(), rtol=1e-5)
        bound = 4 / np.sqrt(m.sum())
        assert abs(np.mean(np.sign(mine[m]))) < bound
        assert abs(np.mean(np.sign(mine[m]) * np.sign(old[m]))) < bound


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.5, 3.0])
def test_noise_has_its_share_of_the_layers_initial_deviation(sigma):
    for _, m, old, mine, first in lenet_layers("noise", sigma=sigma):
        noise = (mine - old)[m] / (sigma * first.std())
        assert noise.std() == pytest.approx(1, abs=4 / np.sqrt(2 * noise.size))
        assert abs(noise.mean()) < 4 / np.sqrt(noise.size)
        assert abs(np.corrcoef(noise, old[m])[0, 1]) < 4 / np.sqrt(noise.size)


def test_no_noise_is_the_ticket():
    at = branch_point(options={"sigma": 0.0})
    assert_same_bits(BRANCHES["noise"](at), at.ticket)


def test_deviations_are_those_of_initialization_not_of_the_rewind_point():
    at = branch_point()
    shrunk = at._replace(initial=jax.tree.map(lambda w: w / 8, at.initial))
    for name in ("signed_constant", "constant_random_sign"):
        for large, small in zip(
            layers(at, BRANCHES[name](at)), layers(shrunk, BRANCHES[name](shrunk)), strict=True
        ):
            np.testing.assert_allclose(large[3], 8 * small[3], rtol=1e-5)


def test_freeze_pruned_is_the_rewind_point_under_the_tickets_mask():
    at = branch_point()
    ticket = BRANCHES["freeze_pruned"](at)
    assert_same_bits(ticket.state.params, at.point.params)
    assert_same_bits(ticket._replace(state=None), at.ticket._replace(state=None))
    assert_same_bits(ticket.state._replace(params=None), at.ticket.state._replace(params=None))


def test_dense_is_the_whole_rewind_point_without_a_mask():
    at = branch_point()
    ticket = BRANCHES["dense"](at)
    assert all(leaf.all() for leaf in jax.tree.leaves(ticket.mask))
    assert_same_bits(ticket.state, at.point)


def test_retrain_is_the_ticket_bit_for_bit():
    at = branch_point()
    assert_same_bits(BRANCHES["retrain"](at), at.ticket)


def test_one_shot_keeps_the_top_of_the_dense_networks_scores():
    at = branch_point()
    ticket = BRANCHES["one_shot"](at)
    scores, mask = named(dense_scores()), named(ticket.mask)
    for name in at.rates:
        assert scores[name][mask[name]].min() > scores[name][~mask[name]].max()
    for name, m in mask.items():
        mine, old = named(ticket.state.params)[name], named(at.point.params)[name]
        assert mine[m].tobytes() == old[m].tobytes()
