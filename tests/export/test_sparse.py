"""Masked arrays in few bytes: they come back exactly, in the smallest of the forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lth_jax.export import sparse


def masked(size, density, seed=0):
    random = np.random.default_rng(seed)
    mask = random.random(size) < density
    return np.where(mask, random.normal(size=size), 0).astype(np.float32), mask


def assert_comes_back(parts, array, mask):
    found, kept = sparse.decode(parts, array.shape)
    np.testing.assert_array_equal(found, array)
    np.testing.assert_array_equal(kept, mask)
    assert found.dtype == array.dtype


@given(
    st.integers(0, 2000),
    st.sampled_from([0, 0.0005, 0.003, 0.05, 0.5, 0.95, 1]),
    st.integers(0, 9),
    st.booleans(),
)
def test_every_form_comes_back_exactly(size, density, seed, zeros):
    array, mask = masked(size, density, seed)
    if zeros:  # kept weights that happen to be zero are kept all the same
        array[::3] = 0
    assert_comes_back(sparse.encode(array, mask), array, mask)
    for dtype in sparse.GAP_DTYPES:
        parts = {"values": array[mask], "gaps": sparse.gaps(mask, dtype)}
        assert_comes_back(parts, array, mask)


@pytest.mark.parametrize("gap", [0, 254, 255, 256, 509, 510, 65534, 65535, 65536])
def test_gaps_of_every_length_come_back(gap):
    mask = np.zeros(gap + 5, bool)
    mask[[gap, gap + 2]] = True
    for dtype in sparse.GAP_DTYPES:
        parts = {"values": np.ones(2, np.float32), "gaps": sparse.gaps(mask, dtype)}
        assert parts["gaps"].dtype == dtype
        assert_comes_back(parts, mask.astype(np.float32), mask)


@pytest.mark.parametrize(
    ("density", "form"),
    [(0.0005, "gaps"), (0.036, "gaps"), (0.3, "bits"), (0.99, "masked"), (1, "dense")],
)
def test_the_smallest_form_is_chosen(density, form):
    array, mask = masked(100_000, density)
    parts = sparse.encode(array, mask)
    assert form in parts
    bytes_ = sum(part.nbytes for part in parts.values())
    kept = int(mask.sum())
    assert bytes_ <= min(4 * array.size, 4 * kept + -(-array.size // 8), 4 * kept + 2 * kept + 8)


def test_a_bitmap_and_values_have_eight_places_a_byte_the_highest_first():
    mask = np.array([1, 0, 0, 1, 1, 1, 1, 1, 1], bool)
    array = np.where(mask, np.arange(9), 0).astype(np.float64)
    array[0] = 0  # kept, and zero
    parts = sparse.encode(array, mask)
    assert parts["values"].tolist() == [0, 3, 4, 5, 6, 7, 8]
    assert parts["bits"].tolist() == [0b10011111, 0b10000000]


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="2 values at 1 places of 4"):
        sparse.decode({"values": np.ones(2), "bits": np.array([128], np.uint8)}, (4,))
    with pytest.raises(ValueError, match="1 values at 1 places of 4"):
        sparse.decode({"values": np.ones(1), "gaps": np.array([9], np.uint8)}, (4,))
