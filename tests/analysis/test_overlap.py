"""How far masks agree, against chance."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lth_jax.analysis.overlap import PackedMask, between_levels, between_replicates, overlap, total

bits = st.integers(1, 40).flatmap(lambda n: st.lists(st.booleans(), min_size=n, max_size=n))


def packed(*values):
    return PackedMask.of(np.array(values, bool))


@given(bits)
def test_a_packed_mask_is_the_mask_again(values):
    mask = np.array(values).reshape(1, -1)
    one = PackedMask.of(mask)
    np.testing.assert_array_equal(one.unpacked(), mask)
    assert (one.kept, one.size) == (sum(values), len(values))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_an_overlap_counts_what_both_and_what_either_keeps(pairs):
    found = overlap(packed(*(a for a, _ in pairs)), packed(*(b for _, b in pairs)))
    assert found.both == sum(a and b for a, b in pairs)
    assert found.either == sum(a or b for a, b in pairs)


@pytest.mark.parametrize(("kept", "other"), [(2, 3), (1, 1), (4, 2), (5, 5)])
def test_chance_is_the_mean_over_all_masks_of_the_same_counts(kept, other):
    size = 5
    one = packed(*(i < kept for i in range(size)))
    every = [
        overlap(one, packed(*(i in chosen for i in range(size))))
        for chosen in itertools.combinations(range(size), other)
    ]
    assert every[0].chance_both == pytest.approx(np.mean([o.both for o in every]))
    assert every[0].chance_either == pytest.approx(np.mean([o.either for o in every]))


def test_equal_masks_agree_wholly_and_empty_ones_not_at_all():
    mask = packed(1, 0, 1, 0)
    assert overlap(mask, mask).jaccard == 1
    assert math.isnan(overlap(packed(0, 0), packed(0, 0)).jaccard)


def test_layers_are_summed_with_their_own_chance():
    dense, sparse = packed(*[1] * 10), packed(*[1] * 10, *[0] * 90)
    whole = total([overlap(dense, dense), overlap(sparse, sparse)])
    assert (whole.both, whole.either) == (20, 20)
    assert whole.chance == pytest.approx((10 + 1) / (10 + 19))


def test_masks_of_other_shapes_are_not_compared():
    with pytest.raises(ValueError, match="cannot be compared"):
        overlap(packed(1, 0), packed(1, 0, 1))


MASKS = {
    (0, 0): {"a": packed(1, 1, 1, 1)},
    (1, 0): {"a": packed(1, 1, 1, 1)},
    (0, 1): {"a": packed(1, 1, 0, 0)},
    (1, 1): {"a": packed(0, 1, 1, 0)},
    (0, 2): {"a": packed(1, 0, 0, 0)},
}


def test_replicates_are_compared_where_two_have_the_level():
    found = between_replicates(MASKS)
    assert list(found) == [0, 1]
    assert [pair["a"].jaccard for pair in found[1]] == [pytest.approx(1 / 3)]


def test_levels_are_compared_within_and_between_replicates():
    found = between_levels(MASKS)
    assert found.levels == (0, 1, 2)
    np.testing.assert_allclose(found.same, [[1, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 1]])
    np.testing.assert_allclose(
        found.different, [[1, 0.5, 0.25], [0.5, 1 / 3, 0], [0.25, 0, math.nan]]
    )
    assert found.chance[1, 1] == pytest.approx(1 / 3)
