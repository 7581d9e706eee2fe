"""Invariants 1 and 2: counts are exact, ties break by the stated rule, masks are nested."""

from fractions import Fraction
from unittest import mock

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given

from lth_jax.pruning import selection
from lth_jax.pruning.masks import kept_counts, ones_mask, prunable
from lth_jax.pruning.selection import prune, prune_to, removal_count, remove_lowest
from lth_jax.pruning.trees import named_leaves

# Few trees and shapes, so that few functions are compiled; what is in them is hypothesis's.
TREES = {
    "a weight": [(1, 1)],
    "a network": {
        "fc1": {"bias": (4,), "kernel": (3, 4)},
        "fc2": {"bias": (4,), "kernel": (3, 4)},
        "output": {"kernel": (3, 4)},
    },
    "a list": [(2, 2, 1, 3), (12, 1), (3,)],
}
DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)
FINITE = st.floats(-100, 100, width=16, allow_subnormal=True)
SCORES = st.one_of(FINITE, st.sampled_from([0.0, -0.0, 1.0, -1.0, 6e-8]))


def shaped(tree, make):
    return jax.tree.map(make, TREES[tree], is_leaf=lambda node: isinstance(node, tuple))


@st.composite
def problems(draw):
    """(scores, mask, fraction in hundredths, tenfold multiple of the first leaf, scope)."""
    tree = draw(st.sampled_from(sorted(TREES)))
    dtype = draw(st.sampled_from(DTYPES)) if tree == "a network" else jnp.float32
    constant = draw(st.booleans())

    def scores(shape):
        size = int(np.prod(shape))
        if constant:
            return np.full(shape, 0.5, dtype)
        values = draw(st.lists(SCORES, min_size=size, max_size=size))
        return np.array(values, np.float64).reshape(shape).astype(dtype)

    def mask(shape):
        if len(shape) < 2 or draw(st.booleans()):
            return np.ones(shape, bool)
        size = int(np.prod(shape))
        alive = draw(st.lists(st.booleans(), min_size=size, max_size=size))
        return np.array(alive).reshape(shape)

    return (
        shaped(tree, scores),
        shaped(tree, mask),
        draw(st.integers(0, 100)),
        draw(st.sampled_from([5, 10, 3])),
        draw(st.sampled_from(["layerwise", "global"])),
    )


def reference(scores, mask, names, count):
    """The group's mask by a sort: by score, then by position. float64 holds every dtype exactly."""
    alive = np.concatenate([np.ravel(named_leaves(mask)[name]) for name in names])
    score = np.concatenate(
        [np.ravel(np.asarray(named_leaves(scores)[name]).astype(np.float64)) for name in names]
    )
    order = np.lexsort((np.arange(len(score)), score + 0.0, ~alive))
    kept = alive.copy()
    kept[order[:count]] = False
    return kept


@given(problems())
def test_pruning_removes_exactly_the_lowest_share_and_brings_nothing_back(problem):
    scores, mask, hundredths, tenths, scope = problem
    first = next(name for name, leaf in named_leaves(mask).items() if leaf.ndim >= 2)
    rates = prunable(mask, ((first, tenths / 10),))
    new = jax.device_get(prune(scores, mask, hundredths / 100, scope=scope, rates=rates))

    multiples = {name: tenths if name == first else 10 for name in rates}
    groups = [(name,) for name in rates]
    if scope == "global":
        members = [[n for n in rates if multiples[n] == value] for value in (tenths, 10)]
        groups = [tuple(names) for names in members[: 1 if tenths == 10 else 2] if names]
    for names in groups:
        surviving = sum(int(named_leaves(mask)[name].sum()) for name in names)
        count = hundredths * multiples[names[0]] * surviving // 1000
        got = np.concatenate([np.ravel(named_leaves(new)[name]) for name in names])
        assert got.sum() == surviving - count
        np.testing.assert_array_equal(got, reference(scores, mask, names, count))

    assert jax.tree.structure(new) == jax.tree.structure(mask)
    for name, leaf in named_leaves(new).items():
        old = named_leaves(mask)[name]
        assert (leaf.dtype, leaf.shape) == (bool, old.shape)
        assert not np.any(leaf & ~old), "a pruned weight came back"
        assert name in rates or leaf.all(), "a bias was pruned"


@given(problems())
def test_accelerators_choose_what_the_host_does(problem):
    scores, mask, hundredths, *_ = problem
    names = tuple(named_leaves(mask))
    surviving = sum(int(leaf.sum()) for leaf in named_leaves(mask).values())
    removals = {names: hundredths * surviving // 100}
    here = remove_lowest(scores, mask, removals)
    with mock.patch.object(selection, "_in_place", jnp.asarray):  # as where arrays lie elsewhere
        there = remove_lowest(scores, mask, removals)
    jax.tree.map(np.testing.assert_array_equal, here, there)


@given(st.integers(0, 10**6), st.integers(0, 1000), st.sampled_from([1, 2, 5, 10, 15, 20, 3]))
@example(100, 290, 10)  # 0.29 * 100 is 28.999999999999996 in floats
@example(1000, 115, 10)
def test_counts_are_those_of_the_decimal_that_was_written(surviving, thousandths, tenths):
    count = removal_count(surviving, thousandths / 1000, Fraction(str(tenths / 10)))
    assert type(count) is int
    assert count == thousandths * tenths * surviving // 10_000


@pytest.mark.parametrize(
    ("fraction", "kept"), [(0.29, 71), (0.57, 43), (0.0, 100), (1, 0), (0.009, 100), (0.99, 1)]
)
def test_a_hundred_equal_weights_lose_the_decimal_share_from_the_front(fraction, kept):
    mask = prune(jnp.ones((10, 10)), jnp.ones((10, 10), bool), fraction)
    np.testing.assert_array_equal(np.ravel(mask), np.arange(100) >= 100 - kept)


@pytest.mark.parametrize("place", ["host", "accelerator"])
def test_scores_that_differ_in_their_last_bit_are_not_equal(place, monkeypatch):
    if place == "accelerator":
        monkeypatch.setattr(selection, "_in_place", jnp.asarray)
    neighbours = np.float32(1) + np.arange(12, dtype=np.float32) * np.float32(2**-23)
    scores = np.random.default_rng(0).permutation(neighbours).reshape(3, 4)
    for count in range(13):
        mask = remove_lowest({"w": scores}, {"w": jnp.ones((3, 4), bool)}, {("w",): count})["w"]
        np.testing.assert_array_equal(mask, scores >= np.float32(1) + count * np.float32(2**-23))


def test_equal_scores_of_several_layers_go_in_leaf_order():
    scores = {"b": jnp.ones((2, 2)), "a": jnp.ones((1, 3)), "c": jnp.zeros((1, 1))}
    mask = prune(scores, ones_mask(scores), 0.5, scope="global")
    assert mask["c"].tolist() == [[False]]
    assert mask["a"].tolist() == [[False, False, False]]
    assert mask["b"].all()


def test_the_last_survivor_stays_until_a_whole_weight_is_due():
    one = jnp.zeros((3, 3), bool).at[1, 2].set(True)
    for _ in range(3):
        one = prune(jnp.ones((3, 3)), one, 0.99)
    assert int(one.sum()) == 1
    assert int(prune(jnp.ones((3, 3)), one, 1).sum()) == 0


def test_nothing_left_to_prune_is_no_error():
    none = jnp.zeros((3, 3), bool)
    assert not prune(jnp.ones((3, 3)), none, 0.5).any()


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
def test_negative_zero_ties_with_zero(dtype):
    scores = jnp.asarray([[0.0, -0.0, 0.0, -0.0]], dtype)
    assert prune(scores, jnp.ones((1, 4), bool), 0.5).tolist() == [[False, False, True, True]]


def test_negative_scores_are_the_lowest():
    scores = jnp.asarray([[1.0, -3.0, 0.0, -2.0, -1e-30]])
    assert prune(scores, jnp.ones((1, 5), bool), 0.6).tolist() == [
        [True, False, True, False, False]
    ]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_subnormal_scores_rank_above_zero(dtype):
    scores = jnp.asarray(np.array([[2e-40, 1e-39, 0.0, 1e-40]], np.float32)).astype(dtype)
    assert prune(scores, jnp.ones((1, 4), bool), 0.5).tolist() == [[True, True, False, False]]


def test_half_and_single_precision_rank_together_by_value():
    scores = {"a": jnp.asarray([[1.0, 3.0]], jnp.bfloat16), "b": jnp.asarray([[2.0, 0.5]])}
    mask = prune(scores, ones_mask(scores), 0.5, scope="global")
    assert (mask["a"].tolist(), mask["b"].tolist()) == ([[False, True]], [[True, False]])


def test_scores_that_differ_only_in_double_precision_rank_under_x64():
    with jax.enable_x64(True):
        values = np.array([[1 + 3e-12, 1 + 1e-12, 1 + 2e-12, -1e-300, 1.0]])
        mask = prune(jnp.asarray(values, jnp.float64), jnp.ones((1, 5), bool), 0.6)
        assert mask.tolist() == [[True, False, True, False, False]]


def test_double_and_single_precision_do_not_mix_in_a_group():
    with jax.enable_x64(True):
        scores = {"a": jnp.ones((1, 2), jnp.float64), "b": jnp.ones((1, 2), jnp.float32)}
        prune(scores, ones_mask(scores), 0.5, scope="layerwise")
        with pytest.raises(ValueError, match="float64"):
            prune(scores, ones_mask(scores), 0.5, scope="global")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scope", ["layerwise", "global"])
def test_a_survivor_without_a_finite_score_is_refused_by_name(bad, scope):
    scores = {"fc": {"kernel": jnp.asarray([[1.0, bad]])}, "out": jnp.ones((1, 2))}
    with pytest.raises(ValueError, match=r"fc/kernel.*not finite"):
        prune(scores, ones_mask(scores), 0.5, scope=scope)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -np.nan])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
def test_what_stands_at_pruned_weights_does_not_matter(bad, dtype):
    scores = jnp.asarray([[bad, 2.0, 1.0, bad, 3.0]], dtype)
    mask = jnp.asarray([[False, True, True, False, True]])
    assert prune(scores, mask, 0.67).tolist() == [[False, False, False, False, True]]


@pytest.mark.parametrize("fraction", [-0.1, 1.1, 2])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match=rf"fraction={fraction}: accepted: 0 to 1"):
        prune(jnp.ones((2, 2)), jnp.ones((2, 2), bool), fraction)


def test_an_unknown_scope_is_refused():
    with pytest.raises(ValueError, match="scope='local': accepted: layerwise or global"):
        prune(jnp.ones((2, 2)), jnp.ones((2, 2), bool), 0.5, scope="local")


@pytest.mark.parametrize("count", [-1, 5])
def test_more_than_survive_cannot_be_removed(count):
    with pytest.raises(ValueError, match=f"cannot remove {count} of 4 weights of w"):
        remove_lowest({"w": jnp.ones((2, 2))}, {"w": jnp.ones((2, 2), bool)}, {("w",): count})


def test_only_named_leaves_are_pruned():
    scores = {"a": jnp.ones((2, 2)), "b": jnp.ones((2, 2))}
    mask = prune(scores, ones_mask(scores), 0.5, rates={"b": Fraction(1)})
    assert kept_counts(mask, {"a": Fraction(1), "b": Fraction(1)}) == {"a": (4, 4), "b": (2, 4)}


def test_another_count_or_mask_compiles_nothing_more(compilations):
    scores, mask = jnp.arange(6.0).reshape(2, 3), jnp.ones((2, 3), bool)
    mask = prune(scores, mask, 0.2)
    compilations.clear()
    for fraction in (0.3, 0.5, 0.9):
        mask = prune(scores, mask, fraction)
    assert compilations == []


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3]))
def test_inverted_the_highest_scores_go_as_many_in_each_layer(seed, rounds):
    random = np.random.default_rng(seed)
    scores = {"a": random.normal(size=(6, 5)), "b": 0.1 * random.normal(size=(4, 3))}
    mask = {
        "a": jnp.asarray(random.random((6, 5)) < 0.8),
        "b": jnp.asarray(random.random((4, 3)) < 0.8),
    }
    alive = {name: int(leaf.sum()) for name, leaf in mask.items()}
    targets = {("a", "b"): sum(alive.values()) // 2}
    plain = prune_to(scores, mask, targets, rounds=rounds)
    inverted = prune_to(scores, mask, targets, rounds=rounds, invert=True)
    for name, before in mask.items():
        assert int(inverted[name].sum()) == int(plain[name].sum())
        assert not np.any(inverted[name] & ~before)
        gone = np.asarray(before & ~inverted[name])
        kept = np.asarray(inverted[name])
        if kept.any() and gone.any():
            assert scores[name][kept].max() < scores[name][gone].min()
