"""What each branch promises by its name."""

from fractions import Fraction
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.config import BranchSpec
from lth_jax.lottery.branches import BRANCHES
from lth_jax.lottery.start_points import StartPoint
from lth_jax.models import MODELS
from lth_jax.pruning.masks import apply_mask, kept_counts, prunable
from lth_jax.pruning.schedules import RATIOS
from lth_jax.pruning.trees import named_leaves
from lth_jax.training.optimizers import OPTIMIZERS, warmed_up
from lth_jax.training.states import TrainState, new_state, rewind

from ..small_networks import assert_same_bits, bits, optimizer, random_mask
from .branch_points import LAST_STEP, OPTIMIZER, STEP, branch_point, dense_scores, layers, named


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


@pytest.mark.slow
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


def test_flip_signs_turns_exactly_that_share_of_each_layer():
    at = branch_point(options={"share": 0.29})
    for _, mask, old, mine, _ in layers(at, BRANCHES["flip_signs"](at)):
        np.testing.assert_array_equal(np.abs(mine), np.abs(old))
        assert np.sum(mine[mask] == -old[mask]) == int(mask.sum()) * 29 // 100


def test_late_signs_and_late_magnitudes_share_out_what_training_made():
    """Together they hold both networks: signs of one on magnitudes of the other."""
    at = branch_point()
    late = named(at.pruned_from().params)
    signs, sizes = (layers(at, BRANCHES[name](at)) for name in ("late_signs", "late_magnitudes"))
    for (name, mask, old, mine, _), (*_, other, _) in zip(signs, sizes, strict=True):
        np.testing.assert_array_equal(np.abs(mine), np.abs(old))
        np.testing.assert_array_equal(np.sign(mine[mask]), np.sign(late[name][mask]))
        np.testing.assert_array_equal(np.abs(other[mask]), np.abs(late[name][mask]))
        np.testing.assert_array_equal(np.sign(other[mask]), np.sign(old[mask]))


def test_signs_of_is_a_fresh_network_of_the_trained_signs_and_norms():
    at = branch_point()
    ticket = BRANCHES["signs_of"](at)
    trained, fresh = named(at.trained().params), named(at.fresh(at.key).params)
    mine, mask = named(ticket.state.params), named(ticket.mask)
    norms = 0
    for name, leaf in mine.items():
        if name in at.rates:
            np.testing.assert_array_equal(np.abs(leaf), np.abs(fresh[name] * mask[name]))
            kept = mask[name]
            np.testing.assert_array_equal(np.sign(leaf[kept]), np.sign(trained[name][kept]))
        elif f"{name.rpartition('/')[0]}/scale" in mine:
            norms += 1
            assert leaf.tobytes() == trained[name].tobytes()
        else:
            assert leaf.tobytes() == fresh[name].tobytes()
    assert norms == 2


@pytest.mark.slow
def test_shuffle_filters_permutes_within_each_output():
    at = lenet_point()
    for _, mask, old, mine, _ in layers(at, BRANCHES["shuffle_filters"](at)):
        np.testing.assert_array_equal(mine != 0, mask)
        np.testing.assert_array_equal(np.sort(mine, axis=0), np.sort(old, axis=0))
        moved = np.mean(mine[mask] != old[mask])
        assert moved > 0.9, "hardly anything moved"


def test_learning_rate_rewinding_keeps_the_trained_weights_and_the_point_s_moments():
    at = branch_point()
    ticket = BRANCHES["learning_rate"](at)
    assert ticket.step == at.step
    wanted = rewind(at.point._replace(params=at.pruned_from().params), at.ticket.mask, OPTIMIZER)
    assert_same_bits(ticket.state.params, wanted.params)
    assert_same_bits(ticket.state.opt_state, wanted.opt_state)
    assert_same_bits(ticket.state.model_state, at.pruned_from().model_state)


def test_fine_tuning_goes_on_at_the_rate_at_which_training_ended():
    """Its weights and statistics are the trained ones, its moments new, its schedule at the end."""
    at = branch_point()
    rates = warmed_up(0.1, drops=[(LAST_STEP - 1, 0.01)])
    at = at._replace(optimizer=OPTIMIZERS["momentum"].make(learning_rate=rates, momentum=0.9))
    start = BRANCHES["finetune"](at)
    assert_same_bits(start.state.params, apply_mask(at.pruned_from().params, at.ticket.mask))
    assert_same_bits(start.state.model_state, at.pruned_from().model_state)
    ones = jax.tree.map(jnp.ones_like, start.state.params)
    updates, _ = at.optimizer.update(ones, start.state.opt_state, start.state.params)
    for leaf in jax.tree.leaves(updates):
        np.testing.assert_allclose(leaf, -0.001, rtol=1e-5)


def pruned(**options):
    at = branch_point(options={"kind": "prune", "scope": "global", **options})
    start = BRANCHES["prune"](at)
    return at, start, kept_counts(start.mask, at.rates)


@pytest.mark.parametrize("ablation", ["shuffle", "reinit", "invert"])
def test_an_ablation_of_pruning_keeps_its_counts_in_each_layer(ablation):
    """Frankle et al. 2021, §5: the places, the weights, and the order of the scores are tried."""
    at, plain, counts = pruned()
    _, start, own = pruned(ablation=ablation)
    assert own == counts
    assert counts != kept_counts(at.ticket.mask, at.rates), "the scope is global"
    same_mask = bits(start.mask) == bits(plain.mask)
    assert same_mask is (ablation == "reinit")
    weights = at.fresh(at.key) if ablation == "reinit" else at.point
    assert_same_bits(start.state.params, apply_mask(weights.params, start.mask))
    assert start.step == (0 if ablation == "reinit" else at.step)
    if ablation == "invert":
        scores, mask = named(dense_scores()), named(start.mask)
        for name in at.rates:
            assert scores[name][mask[name]].max() < scores[name][~mask[name]].min()


@pytest.mark.parametrize("scope", ["smart", "uniform", "erdos_renyi"])
def test_prune_takes_layer_ratios_at_the_ticket_s_count(scope):
    at, start, counts = pruned(scope=scope)
    shapes = {name: leaf.shape for name, leaf in named(start.mask).items() if name in at.rates}
    total = sum(kept for kept, _ in kept_counts(at.ticket.mask, at.rates).values())
    wanted = RATIOS[scope](shapes, total)
    assert {name: kept for name, (kept, _) in counts.items()} == wanted


def test_prune_keeps_the_tickets_counts_by_layer_or_over_all():
    for scope in ("layerwise", "global"):
        at = branch_point(options={"scope": scope})
        mask = named(BRANCHES["prune"](at).mask)
        scores = named(dense_scores())
        ticket = named(at.ticket.mask)
        assert sum(m.sum() for m in mask.values()) == sum(m.sum() for m in ticket.values())
        if scope == "global":
            kept = np.concatenate([scores[name][mask[name]] for name in at.rates])
            gone = np.concatenate([scores[name][~mask[name]] for name in at.rates])
            assert kept.min() > gone.max()
