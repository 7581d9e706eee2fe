"""Blocks, and N of each M: exact counts, the right ones, nested."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lth_jax.pruning.granularity import CHANNEL, WEIGHT, Granularity, granularity_of, nm_targets
from lth_jax.pruning.masks import ones_mask
from lth_jax.pruning.selection import prune_to
from lth_jax.pruning.structured import prune_by

SHAPES = {"conv": (3, 3, 4, 6), "dense": (8, 6)}
SIZES = {name: int(np.prod(shape)) for name, shape in SHAPES.items()}
NUMBERS = st.sampled_from([-2.0, -0.0, 0.0, 0.5, 0.5, 1.0, 3.0])


@st.composite
def scored(draw):
    seed = draw(st.integers(0, 2**16))
    random, ties = np.random.default_rng(seed), draw(st.booleans())
    choices = [-2.0, 0.0, 0.5, 1.0]
    return {
        name: jnp.asarray(
            random.choice(choices, shape) if ties else random.normal(size=shape), jnp.float32
        )
        for name, shape in SHAPES.items()
    }


def groups_of(leaf, of):
    """[..., inputs / of, outputs, of]"""
    leaf = np.asarray(leaf)
    shape = (*leaf.shape[:-2], leaf.shape[-2] // of, of, leaf.shape[-1])
    return np.moveaxis(leaf.reshape(shape), -2, -1)


@settings(max_examples=25)
@given(scores=scored(), of=st.sampled_from([2, 4]), data=st.data())
def test_of_each_m_inputs_the_n_highest_stay(scores, of, data):
    mask, targets = ones_mask(scores), nm_targets(Granularity(of, 1, 1), SHAPES, of - 1)
    for kept in range(of - 1, data.draw(st.integers(0, of - 1)), -1):
        before = mask
        mask = prune_by(Granularity(of, 1, 1), scores, mask, targets[of - kept])
        for name in SHAPES:
            now, was = groups_of(mask[name], of), groups_of(before[name], of)
            assert np.all(now.sum(-1) == kept)
            assert not np.any(now & ~was)
            values = groups_of(scores[name], of)
            low = np.where(now, values, np.inf).min(-1)
            gone = np.where(was & ~now, values, -np.inf).max(-1)
            assert np.all(gone <= low)


@settings(max_examples=25)
@given(scores=scored(), data=st.data())
def test_whole_blocks_go_those_of_the_smallest_sums(scores, data):
    rows, columns = data.draw(st.sampled_from([(2, 1), (1, 3), (4, 2)]))
    granularity = Granularity(rows, columns)
    kept = {n: data.draw(st.integers(0, size // (rows * columns))) for n, size in SIZES.items()}
    targets = {(n,): count * rows * columns for n, count in kept.items()}
    mask = prune_by(granularity, scores, ones_mask(scores), targets)
    for name, shape in SHAPES.items():
        assert np.asarray(mask[name]).sum() == targets[name,]
        split = (*shape[:-2], shape[-2] // rows, rows, shape[-1] // columns, columns)
        blocks = np.asarray(mask[name]).reshape(split)
        assert np.all(blocks.any((-3, -1)) == blocks.all((-3, -1)))
        sums = np.asarray(scores[name]).reshape(split).sum((-3, -1))
        stays = blocks.all((-3, -1))
        if 0 < kept[name] < stays.size:
            assert sums[stays].min() >= sums[~stays].max() - 1e-5


@settings(max_examples=10)
@given(scores=scored())
def test_blocks_of_one_weight_are_weights(scores):
    targets = {("conv", "dense"): 100}
    one = prune_by(Granularity(1, 1), scores, ones_mask(scores), targets)
    wanted = prune_to(scores, ones_mask(scores), targets)
    for name in SHAPES:
        np.testing.assert_array_equal(one[name], wanted[name])


def test_scores_are_taken_anew_of_whole_masks_in_each_round():
    seen = []

    def scores(mask):
        seen.append({name: int(leaf.sum()) for name, leaf in mask.items()})
        return {
            name: jnp.arange(size, dtype=jnp.float32).reshape(SHAPES[name])
            for name, size in SIZES.items()
        }

    full = {name: jnp.ones(shape, bool) for name, shape in SHAPES.items()}
    prune_by(Granularity(2, 2), scores, full, {("dense",): 12}, rounds=2)
    assert seen == [{"conv": 216, "dense": 48}, {"conv": 216, "dense": 24}]


def test_what_is_highest_goes_where_it_is_inverted():
    scores = {"dense": jnp.asarray([[1.0], [2.0], [3.0], [4.0]])}
    targets = {("dense",): 2}
    mask = prune_by(Granularity(2, 1, 1), scores, ones_mask(scores), targets, invert=True)
    assert mask["dense"].ravel().tolist() == [True, False, True, False]


def test_scores_that_are_no_numbers_are_not_ranked():
    scores = {"dense": jnp.full((4, 2), jnp.nan)}
    for granularity, kept in ((Granularity(2, 1, 1), 4), (Granularity(2, 2), 4)):
        with pytest.raises(ValueError, match="not finite"):
            prune_by(granularity, scores, ones_mask(scores), {("dense",): kept})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("weight", WEIGHT),
        ("channel", CHANNEL),
        ("block:4x2", Granularity(4, 2)),
        ("2:4", Granularity(4, 1, 2)),
    ],
)
def test_it_is_read_from_its_name(text, found):
    assert granularity_of(text) == found


@pytest.mark.parametrize("text", ["", "block", "block:0x2", "block:1x1", "4:4", "0:4", "2:4:8"])
def test_other_names_are_refused(text):
    with pytest.raises(ValueError, match="accepted: weight, channel, blocks"):
        granularity_of(text)


def test_a_kernel_fits_that_divides_evenly():
    assert Granularity(4, 2).fits((3, 3, 8, 6))
    assert not Granularity(4, 4).fits((3, 3, 8, 6))
    assert Granularity(4, 1, 2).fits((8, 3))
    assert WEIGHT.fits((7,))
    assert [Granularity(4, 2).whole(count) for count in (0, 1, 8, 9)] == [0, 8, 8, 16]
    assert Granularity(4, 1, 2).whole(7) == 7
