"""Channels: exact counts, the right ones, gone from everything that knows of them."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lth_jax.pruning.channels import PARAMS, Channels, UnitScores, channels_of
from lth_jax.pruning.masks import ones_mask, prunable
from lth_jax.pruning.structured import counts_by, prune_by
from lth_jax.pruning.trees import named_leaves
from lth_jax.pruning.units import Axis, Group, by_unit, put_back, taken

# A stream that `stem` and `back` write and `inner` and `output` read, its channels flattened from
# 2 × 2 pixels where `output` reads them; and the units between `inner` and `back`.
SHAPES = {
    "stem": {"kernel": (3, 3, 2, 6), "bias": (6,)},
    "norm": {"scale": (6,), "bias": (6,)},
    "inner": {"kernel": (1, 1, 6, 5)},
    "back": {"kernel": (1, 1, 5, 6)},
    "output": {"kernel": (24, 3), "bias": (3,)},
}
STREAM = (
    Axis("params/stem/kernel", 3),
    Axis("params/stem/bias", 0),
    Axis("params/norm/scale", 0),
    Axis("params/norm/bias", 0),
    Axis("batch_stats/norm/mean", 0),
    Axis("params/inner/kernel", 2),
    Axis("params/back/kernel", 3),
    Axis("params/output/kernel", 0, before=4),
)
INNER = (Axis("params/inner/kernel", 3), Axis("params/back/kernel", 2))
GROUPS = [Group(6, STREAM), Group(5, INNER)]


def drawn(seed, ties=False):
    random = np.random.default_rng(seed)

    def leaf(shape):
        values = random.choice([-1.0, 0.0, 2.0], shape) if ties else random.normal(size=shape)
        return jnp.asarray(values, jnp.float32)

    return jax.tree.map(leaf, SHAPES, is_leaf=lambda node: isinstance(node, tuple))


PARAMETERS = drawn(0)
RATES = prunable(PARAMETERS)
CHANNELS = channels_of(GROUPS, PARAMETERS, RATES)


def written(params, mask, name, value=np.asarray):
    """What is summed over the weights that write each channel, in the plainest way."""
    leaves, kept = named_leaves(params), named_leaves(mask)
    total = 0
    for layer in {"stem": ("stem", "back"), "inner": ("inner",)}[name]:
        of = np.where(kept[f"{layer}/kernel"], value(np.asarray(leaves[f"{layer}/kernel"])), 0)
        total = total + of.astype(np.float64).reshape(-1, of.shape[-1]).sum(0)
    return total


def test_a_group_is_named_by_the_layer_that_writes_it():
    assert CHANNELS.units == {"stem": 6, "inner": 5}
    assert [axis.leaf for axis in CHANNELS.groups["stem"].writers] == ["stem/kernel", "back/kernel"]
    assert [axis.leaf for axis in CHANNELS.groups["stem"].state] == ["batch_stats/norm/mean"]
    assert CHANNELS.kernels(RATES).keys() == RATES.keys()


def test_a_stream_is_pruned_at_the_smallest_rate_of_its_writers():
    half = channels_of(GROUPS, PARAMETERS, prunable(PARAMETERS, [("back", 0.5)]))
    assert half.rates == {"stem": Fraction(1, 2), "inner": 1}
    none = channels_of(GROUPS, PARAMETERS, prunable(PARAMETERS, [("back", 0)]))
    assert none.units == {"inner": 5}
    assert set(none.kernels(RATES)) == {"inner/kernel", "back/kernel"}
    whole = [GROUPS[0]._replace(removable=False), GROUPS[1]]
    assert channels_of(whole, PARAMETERS, RATES).units == {"inner": 5}


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), ties=st.booleans(), data=st.data())
def test_the_lowest_channels_go_from_all_that_knows_of_them(seed, ties, data):
    scores, mask = drawn(seed, ties), ones_mask(PARAMETERS)
    for _ in range(2):
        alive = CHANNELS.alive(mask)
        kept = {name: data.draw(st.integers(1, int(own.sum()))) for name, own in alive.items()}
        before, mask = mask, prune_by(CHANNELS, scores, mask, {(n,): k for n, k in kept.items()})
        now = CHANNELS.alive(mask)
        for name, own in now.items():
            assert own.sum() == kept[name]
            assert not np.any(own & ~alive[name])
            of = written(scores, before, name)
            if np.any(alive[name] & ~own):
                assert of[own].min() >= of[alive[name] & ~own].max() - 1e-6
        leaves = named_leaves(mask)
        for name, group in CHANNELS.groups.items():
            for axis in group.axes:
                of_units = by_unit(np.asarray(leaves[axis.leaf]), axis)
                assert np.all(of_units[~now[name]] == 0)
                assert np.all(of_units[now[name]].any(1))
        assert np.asarray(leaves["output/bias"]).all()
        planned = CHANNELS.weights(kept, {n: leaf.shape for n, leaf in leaves.items()})
        assert planned == {n: int(np.asarray(leaf).sum()) for n, leaf in leaves.items()}
        assert counts_by(CHANNELS, mask, RATES) == {(n,): k for n, k in kept.items()}


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), invert=st.booleans(), data=st.data())
def test_ranked_together_each_group_keeps_its_best_channel(seed, invert, data):
    scores = drawn(seed)
    scores["inner"]["kernel"] *= data.draw(st.sampled_from([0.001, 1.0]))
    kept = data.draw(st.integers(2, 11))
    full = ones_mask(PARAMETERS)
    mask = prune_by(CHANNELS, scores, full, {("stem", "inner"): kept}, invert=invert)
    alive = CHANNELS.alive(mask)
    assert sum(own.sum() for own in alive.values()) == kept
    assert all(own.any() for own in alive.values())
    if not invert:
        assert all(own[written(scores, full, name).argmax()] for name, own in alive.items())


def test_equal_scores_go_from_the_first_channel_on():
    scores = jax.tree.map(jnp.ones_like, PARAMETERS)
    mask = prune_by(CHANNELS, scores, ones_mask(scores), {("stem",): 2, ("inner",): 5})
    assert CHANNELS.alive(mask)["stem"].tolist() == [False] * 4 + [True] * 2


def test_channels_are_ranked_by_norms_of_what_writes_them_or_by_their_scale():
    params, mask = drawn(3), prune_by(CHANNELS, drawn(4), ones_mask(PARAMETERS), {("inner",): 3})
    ranked = {rank: CHANNELS.ranked(rank, params, mask).of for rank in ("l1", "l2")}
    for name in CHANNELS.groups:
        np.testing.assert_allclose(ranked["l1"][name], written(params, mask, name, np.abs), 1e-6)
        np.testing.assert_allclose(
            ranked["l2"][name], np.sqrt(written(params, mask, name, np.square)), 1e-6
        )
    stream = Channels({"stem": CHANNELS.groups["stem"]})
    found = stream.ranked("batch_norm", params, ones_mask(params)).of["stem"]
    np.testing.assert_array_equal(found, np.abs(params["norm"]["scale"]))


def test_scores_of_channels_are_taken_as_they_are_anew_in_each_round():
    seen = []

    def scores(mask):
        seen.append({name: int(own.sum()) for name, own in CHANNELS.alive(mask).items()})
        return UnitScores({"stem": jnp.arange(6.0), "inner": -jnp.arange(5.0)})

    mask = prune_by(CHANNELS, scores, ones_mask(PARAMETERS), {("stem",): 2}, rounds=2)
    assert seen == [{"stem": 6, "inner": 5}, {"stem": 3, "inner": 5}]
    assert CHANNELS.alive(mask)["stem"].tolist() == [False] * 4 + [True] * 2


@pytest.mark.parametrize("targets", [{("stem",): 2}, {("stem", "inner"): 4}])
def test_scores_that_are_no_numbers_are_not_ranked(targets):
    scores = drawn(0)
    scores["stem"]["kernel"] = scores["stem"]["kernel"].at[0, 0, 0, 1].set(jnp.nan)
    with pytest.raises(ValueError, match="not finite"):
        prune_by(CHANNELS, scores, ones_mask(PARAMETERS), targets)


@settings(max_examples=20, deadline=None)
@given(before=st.integers(1, 3), after=st.integers(1, 3), data=st.data())
def test_units_that_are_picked_come_back_to_their_places(before, after, data):
    units = data.draw(st.integers(1, 5))
    chosen = np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=units, max_size=units)))
    axis = Axis(f"{PARAMS}w", 1, before, after)
    array = np.random.default_rng(0).normal(size=(2, before * units * after, 3))
    small = taken(array, axis, units, chosen)
    assert small.shape == (2, before * len(chosen) * after, 3)
    whole = put_back(small, axis, units, chosen)
    alive = np.isin(np.arange(units), chosen)
    np.testing.assert_array_equal(by_unit(whole, axis)[alive], by_unit(array, axis)[alive])
    assert not by_unit(whole, axis)[~alive].any()
