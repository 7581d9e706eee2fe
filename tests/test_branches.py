"""Invariant 8: a control is what its name says; conformance over the registry of branches."""

from fractions import Fraction
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import assert_same_bits, bits, norm_and_dropout, optimizer, random_mask

from lth_jax.branches import (
    BRANCHES,
    BranchPoint,
    Ticket,
    draw_mask,
    keep_as_many,
    new_heads,
)
from lth_jax.models import MODELS
from lth_jax.pruning.masks import kept_counts, ones_mask, prunable
from lth_jax.spec import TRANSFERS, BranchSpec
from lth_jax.states import TrainState, new_state, rewind
from lth_jax.trees import map_named, named_leaves

every_branch = pytest.mark.parametrize("name", sorted(BRANCHES))
# What a branch draws at random, and whose mask it has.
DRAWN = {
    "reinit", "random_mask", "reshuffle", "reinit_from_ticket", "constant_random_sign", "noise",
    "transfer_reinit",
}  # fmt: skip
SAME_MASK = set(BRANCHES) - {"random_mask", "one_shot", "dense", *TRANSFERS}
# Those that give the ticket other weights, by what each does to a kept one.
REDRAWS = (
    "reshuffle", "reinit_from_ticket", "signed_constant", "constant_random_sign", "noise",
)  # fmt: skip
STEP = 6
MODEL, OPTIMIZER = norm_and_dropout(), optimizer("adam")


def fresh_state(key):
    return new_state(MODEL, OPTIMIZER, key, jnp.zeros((1, 4, 4, 1)))


@cache
def trained_looking(seed):
    """A state in which nothing is zero, moments and statistics included."""
    fresh = fresh_state(jax.random.key(77))
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: (
            jnp.asarray(random.normal(size=leaf.shape).astype(np.float32))
            if leaf.dtype == jnp.float32
            else leaf + STEP
        ),
        fresh,
    )


def point():
    return trained_looking(0)


@cache
def initial():
    """Weights at initialization, of another σ in each layer."""
    return map_named(
        lambda name, leaf: leaf * (3 if name.startswith("output") else 0.5),
        trained_looking(1).params,
    )


def source_ticket():
    """Another experiment's, of the same shapes."""
    mask = random_mask(point().params, seed=5, keep=0.7)
    return Ticket(mask, rewind(trained_looking(2), mask, OPTIMIZER), STEP)


def dense_scores():
    random = np.random.default_rng(3)
    return jax.tree.map(lambda w: jnp.asarray(random.normal(size=w.shape)), point().params)


def branch_point(key=0, **changes):
    params = point().params
    mask = random_mask(params, keep=0.4)
    options = changes.pop("options", {})
    at = BranchPoint(
        ticket=Ticket(mask, rewind(point(), mask, OPTIMIZER), STEP),
        point=point(),
        step=STEP,
        initial=initial(),
        rates=prunable(params, (("output", 0.5),)),
        optimizer=OPTIMIZER,
        fresh=fresh_state,
        dense_scores=dense_scores,
        source=source_ticket,
        options=BranchSpec(**options),
        key=jax.random.key(key),
    )
    return at._replace(**changes)


def named(tree):
    return {name: np.asarray(leaf) for name, leaf in named_leaves(jax.device_get(tree)).items()}


def layers(at, ticket):
    """For each prunable leaf: name, the ticket's mask and weights, the branch's, the initial."""
    masks, old = named(at.ticket.mask), named(at.ticket.state.params)
    mine, first = named(ticket.state.params), named(at.initial)
    return [(name, masks[name], old[name], mine[name], first[name]) for name in at.rates]


# --- Conformance ----------------------------------------------------------------------------


@every_branch
def test_each_layer_keeps_exactly_the_tickets_count(name):
    """The source's, in a transfer; all of it, in `dense`."""
    at = branch_point()
    ticket = BRANCHES[name](at)
    assert jax.tree.structure(ticket.mask) == jax.tree.structure(at.ticket.mask)
    if name == "dense":
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
    """Save in `freeze_pruned`, whose pruned weights are those of the rewind point, exactly."""
    at = branch_point()
    ticket = jax.device_get(BRANCHES[name](at))
    adam = ticket.state.opt_state[-1][0]
    trees = (ticket.state.params, adam.mu, adam.nu)
    for tree in trees[1:] if name == "freeze_pruned" else trees:
        for leaf, m in zip(jax.tree.leaves(tree), jax.tree.leaves(ticket.mask), strict=True):
            assert not np.any(leaf[~m])
    if name == "freeze_pruned":
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
    """A fresh network at 0, what was rewound at the rewind step."""
    step = BRANCHES[name](branch_point()).step
    assert step == (0 if name in ("reinit", "transfer_reinit") else STEP)


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


# --- What each name promises ----------------------------------------------------------------


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
    fresh = lambda key: new_state(model, transform, key, jnp.zeros((1, 28, 28, 1)))  # noqa: E731
    start = fresh(jax.random.key(0))
    mask = random_mask(start.params, keep=0.2)
    return branch_point(
        1,
        ticket=Ticket(mask, rewind(start, mask, transform), 0),
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
    at = at._replace(ticket=Ticket(mask, state, 0), initial=state.params, rates={"w": Fraction(1)})
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


# --- Transfers ------------------------------------------------------------------------------


def test_transfer_is_the_sources_ticket_bit_for_bit():
    source = source_ticket()
    assert_same_bits(BRANCHES["transfer"](branch_point()), source)


def test_a_transfer_from_initialization_begins_with_a_new_optimizer():
    source = source_ticket()._replace(step=0)
    ticket = BRANCHES["transfer"](branch_point(source=lambda: source))
    assert_same_bits(ticket.state.params, source.state.params)
    assert_same_bits(ticket.state.opt_state, OPTIMIZER.init(source.state.params))


def test_a_transfer_to_another_optimizer_begins_it_anew():
    """A late rewound state of SGD holds no moments that Adam could go on with."""
    other = optimizer("sgd")
    source = source_ticket()
    source = source._replace(state=source.state._replace(opt_state=other.init(source.state.params)))
    ticket = BRANCHES["transfer"](branch_point(source=lambda: source))
    assert_same_bits(ticket.state.params, source.state.params)
    assert_same_bits(ticket.state.opt_state, OPTIMIZER.init(source.state.params))
    assert ticket.step == STEP


def with_classes(ticket, classes):
    """The ticket of a network with another number of classes."""
    params = jax.tree.map(jnp.array, ticket.state.params)
    params["output"] = {
        "kernel": jnp.ones((8, classes)).at[0].set(0), "bias": jnp.ones(classes)
    }  # fmt: skip
    mask = {**ticket.mask, "output": jax.tree.map(lambda w: w > 0, params["output"])}
    return Ticket(mask, TrainState(params, ticket.state.model_state, ()), ticket.step)


@pytest.mark.parametrize("case", ["new_head", "five classes"])
def test_a_new_head_is_the_targets_own_initialization_with_a_full_mask(case):
    source = source_ticket()
    if case == "five classes":
        source = with_classes(source, 5)
    at = branch_point(source=lambda: source, options={"new_head": case == "new_head"})
    ticket = BRANCHES["transfer"](at)
    assert all(leaf.all() for leaf in jax.tree.leaves(ticket.mask["output"]))
    assert_same_bits(ticket.state.params["output"], at.initial["output"])
    for layer in set(at.initial) - {"output"}:
        assert_same_bits(ticket.mask[layer], source.mask[layer])
        assert_same_bits(ticket.state.params[layer], source.state.params[layer])
    assert_same_bits(ticket.state.opt_state, OPTIMIZER.init(ticket.state.params))
    assert_same_bits(ticket.state.model_state, source.state.model_state)


@pytest.mark.parametrize("new_head", [False, True])
def test_transfer_reinit_has_the_transfers_mask_and_fresh_weights(new_head):
    at = branch_point(options={"new_head": new_head})
    ticket = BRANCHES["transfer_reinit"](at)
    assert_same_bits(ticket.mask, BRANCHES["transfer"](at).mask)
    assert_same_bits(ticket.state, rewind(at.fresh(at.key), ticket.mask, OPTIMIZER))


@pytest.mark.parametrize("name", sorted(TRANSFERS))
@pytest.mark.parametrize(
    ("leaf", "shape", "said"),
    [
        ("fc1/kernel", (9, 8), "fc1/kernel is 9×8 in the source and 16×8 here"),
        ("fc1/bias", (4,), "fc1/bias is 4 in the source and 8 here"),
        ("fc1/kernel", None, "fc1/kernel is none in the source and 16×8 here"),
        ("fc2/kernel", (3, 4), "fc2/kernel is 3×4 in the source and none here"),
    ],
)
def test_other_shapes_are_refused_by_name(name, leaf, shape, said):
    source = source_ticket()
    layer, kind = leaf.split("/")
    params = {n: dict(leaves) for n, leaves in source.state.params.items()}
    if shape is None:
        del params[layer][kind]
    else:
        params.setdefault(layer, {})[kind] = jnp.zeros(shape)
    source = Ticket(ones_mask(params), TrainState(params, {}, ()), 0)
    with pytest.raises(ValueError, match=f"^{said}; accepted: networks that differ in their out"):
        BRANCHES[name](branch_point(source=lambda: source))


def test_new_heads_are_all_leaves_of_the_output_layer_or_none():
    params = point().params
    assert new_heads(params, params) == set()
    assert new_heads(params, params, always=True) == {"output/kernel", "output/bias"}
    fewer = with_classes(source_ticket(), 2).state.params
    assert new_heads(fewer, params) == {"output/kernel", "output/bias"}


# --- Masks ----------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", sorted({*REDRAWS, "freeze_pruned", "reinit", "random_mask"}))
def test_a_branch_of_a_layer_with_nothing_left_works(name):
    at = branch_point()
    mask = {**at.ticket.mask, "fc1": {**at.ticket.mask["fc1"], "kernel": jnp.zeros((16, 8), bool)}}
    at = at._replace(ticket=Ticket(mask, rewind(at.point, mask, OPTIMIZER), STEP))
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
