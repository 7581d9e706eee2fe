"""Names, patterns and counts of leaves."""

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from lth_jax.pruning.trees import count_true, map_named, name_matches, named_leaves, nbytes, size

NAMES = st.text("abcxyz019_", min_size=1, max_size=4)
TREES = st.recursive(
    st.integers(),
    lambda nodes: st.one_of(
        st.lists(nodes, min_size=1, max_size=3), st.dictionaries(NAMES, nodes, min_size=1)
    ),
    max_leaves=8,
)


@given(TREES)
def test_leaves_are_named_once_each_and_in_leaf_order(tree):
    assert list(named_leaves(tree).values()) == jax.tree.leaves(tree)


@given(TREES)
def test_map_named_gives_every_leaf_its_name(tree):
    named = map_named(lambda name, leaf, other: (name, leaf - other), tree, tree)
    pairs = jax.tree.leaves(named, is_leaf=lambda node: isinstance(node, tuple))
    assert [name for name, _ in pairs] == list(named_leaves(tree))
    assert all(difference == 0 for _, difference in pairs)


def test_names_join_keys_and_indices():
    assert list(named_leaves({"b": [1, {"w": 2}], "a": (3,)})) == ["a/0", "b/0", "b/1/w"]


@pytest.mark.parametrize(
    ("name", "pattern", "matches"),
    [
        ("output/kernel", "output", True),
        ("output/kernel", "out*", True),
        ("output/kernel", "*/kernel", True),
        ("block/conv1/kernel", "block/conv?", True),
        ("block/conv1/kernel", "*/kernel", True),
        ("fc1/kernel", "fc", False),
        ("fc1/kernel", "kernel", False),
        ("fc1/kernel", "FC1", False),
        ("fc10/kernel", "fc1", False),
        ("fc1/kernel", "", False),
    ],
)
def test_a_pattern_names_a_leaf_or_a_module_above_it(name, pattern, matches):
    assert name_matches(name, pattern) is matches


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=0, min_side=0)))
def test_counts_are_exact_python_integers(mask):
    count = count_true(mask)
    assert type(count) is int
    assert count == sum(mask.ravel().tolist())
    assert type(size(mask)) is int
    assert size(mask) == mask.size


def test_sizes_beyond_32_bits_do_not_wrap():
    assert size(jax.ShapeDtypeStruct((2**20, 2**20), jnp.float32)) == 2**40


def test_bytes_follow_the_dtypes():
    tree = {"a": jnp.zeros((3, 2)), "b": jnp.zeros(5, jnp.bfloat16), "c": np.zeros(2, bool)}
    assert nbytes(tree) == 24 + 10 + 2
