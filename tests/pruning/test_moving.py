"""Invariant 13: rules move masks under exact counts, to the weights that their papers say."""

import math
from fractions import Fraction

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from lth_jax.pruning.moving import MASK_RULES, Course, Move, next_move
from lth_jax.pruning.trees import named_leaves

from ..small_networks import assert_same_bits

SHAPES = {"fc1": {"bias": (4,), "kernel": (5, 4)}, "output": {"kernel": (4, 3)}}
LEAVES = ("fc1/kernel", "output/kernel")
SIZES = {"fc1/kernel": 20, "output/kernel": 12}
# Few, so that many are equal, and some that are none.
VALUES = np.float32([0.0, -0.0, 0.5, -0.5, 1.0, 2.0, -3.0, 6e-39, np.nan, np.inf])
every_rule = pytest.mark.parametrize("name", sorted(MASK_RULES))


def tree(make):
    return jax.tree.map(make, SHAPES, is_leaf=lambda node: isinstance(node, tuple))


@st.composite
def moves(draw, *, dense=False):
    """A network under a mask, with ties and numbers that are none, on its course."""
    kept = {name: draw(st.integers(1, SIZES[name])) for name in LEAVES}

    seed = draw(st.integers(0, 999))
    random = np.random.default_rng(seed)
    some = VALUES[draw(st.integers(0, 7)) :]

    def values(shape):
        return jnp.asarray(random.choice(some, shape))

    mask = tree(lambda shape: np.ones(shape, bool))
    for name in () if dense else LEAVES:
        layer, leaf = name.split("/")
        alive = random.permutation(SIZES[name]) < kept[name]
        mask[layer][leaf] = alive.reshape(SHAPES[layer][leaf])
    mask = jax.tree.map(jnp.asarray, mask)
    weights = jax.tree.map(lambda m, w: jnp.where(m, w, 0), mask, tree(values))
    begin, every = draw(st.integers(0, 20)), draw(st.integers(5, 30))
    course = Course(kept, begin, every, begin + draw(st.integers(1, 60)), draw(FRACTIONS))
    steps = [step for step in range(1, course.end + 1) if next_move(course, dense, step) == step]
    step = draw(st.sampled_from(steps)) if steps else course.end
    return Move(mask, weights, tree(values), step, jax.random.key(seed), course)


FRACTIONS = st.sampled_from([0.0, 0.29, 0.3, 0.5, 1.0])


def kept_of(mask):
    return {name: int(named_leaves(mask)[name].sum()) for name in LEAVES}


@every_rule
@settings(max_examples=20)
@given(data=st.data())
def test_each_leaf_keeps_exactly_what_its_course_says(name, data):
    rule = MASK_RULES[name]
    move = data.draw(moves(dense=rule.starts_dense))
    found = rule.move(move)
    assert jax.tree.map(lambda m: (m.shape, m.dtype), found) == tree(lambda s: (s, jnp.bool_))
    assert found["fc1"]["bias"].all()
    counts, course = kept_of(found), move.course
    if rule.counts:
        assert counts == rule.counts(course, SIZES, move.step), "it is not what was known ahead"
    if not rule.starts_dense or move.step >= course.end:
        assert counts == course.kept
    elif name == "ac_dc":
        assert counts in (course.kept, SIZES)
    else:
        assert all(course.kept[leaf] <= counts[leaf] <= SIZES[leaf] for leaf in LEAVES)
    assert_same_bits(rule.move(move), found)  # a function of what it is given alone


@pytest.mark.parametrize("name", ["rigl", "set"])
@settings(max_examples=25)
@given(data=st.data())
def test_the_smallest_go_and_as_many_grow_among_all_that_did_not_stay(name, data):
    move = data.draw(moves())
    found, course = MASK_RULES[name].move(move), move.course
    for leaf in LEAVES:
        old, new, weights, growth = (
            np.ravel(named_leaves(one)[leaf])
            for one in (move.mask, found, move.params, move.gradients)
        )
        magnitudes = np.where(np.isfinite(weights), np.abs(weights), 0)
        share = Fraction(str(course.fraction))
        if name == "rigl":
            share = course.fraction / 2 * (1 + math.cos(math.pi * move.step / course.end))
        count = math.floor(share * old.sum())
        # In the order of pruning: of equal ones, the earlier goes first.
        order = [i for i in np.argsort(magnitudes, kind="stable") if old[i]]
        stayed = set(order[count:])
        assert stayed <= set(np.flatnonzero(new))
        grown = set(np.flatnonzero(new)) - stayed
        assert len(grown) == count
        if name == "rigl":
            gradients = np.where(np.isfinite(growth), np.abs(growth), 0)
            free = [i for i in np.argsort(gradients, kind="stable") if i not in stayed]
            assert grown == set(free[len(free) - count :])


@settings(max_examples=20)
@given(moves(dense=True))
def test_gradual_pruning_is_cubic_nested_and_by_magnitude(move):
    course, mask, last = move.course, move.mask, dict(SIZES)
    for step in range(1, course.end + 1):
        if next_move(course, True, step) != step:
            continue
        found = MASK_RULES["gmp"].move(move._replace(mask=mask, step=step))
        left = (1 - (step - course.begin) / (course.end - course.begin)) ** 3
        for leaf, count in kept_of(found).items():
            wanted = course.kept[leaf] + (SIZES[leaf] - course.kept[leaf]) * left
            assert wanted - 1e-6 <= count < wanted + 1 + 1e-6
            assert count <= last[leaf]
            old, new = (np.ravel(named_leaves(m)[leaf]) for m in (mask, found))
            assert not np.any(new & ~old)
        mask, last = found, kept_of(found)
    assert last == course.kept


@settings(max_examples=20)
@given(moves(dense=True))
def test_ac_dc_takes_turns_and_is_sparse_in_the_end(move):
    course, sparse = move.course, True
    for step in range(1, course.end + 1):
        if next_move(course, True, step) != step:
            continue
        if step < course.end:
            sparse = (step - course.begin) // course.every % 2 == 0
        found = MASK_RULES["ac_dc"].move(move._replace(step=step))
        assert kept_of(found) == (course.kept if sparse or step == course.end else SIZES)


@given(
    begin=st.integers(0, 50),
    every=st.integers(1, 20),
    end=st.integers(1, 100),
    dense=st.booleans(),
    step=st.integers(0, 120),
)
def test_masks_move_at_multiples_from_the_beginning_and_dense_ones_at_both_ends(
    begin, every, end, dense, step
):
    course = Course({}, begin, every, end, 0.3)
    moves = set(range(begin if dense else begin + every, end, every)) | ({end} if dense else set())
    later = [at for at in moves if at >= step]
    assert next_move(course, dense, step) == (min(later) if later else None)


# What each rule keeps of a network that is written down, as bits of one number for each leaf.
GOLDEN = {
    "ac_dc": {"fc1/kernel": "24a140", "output/kernel": "b200"},
    "gmp": {"fc1/kernel": "34b140", "output/kernel": "b240"},
    "rigl": {"fc1/kernel": "528120", "output/kernel": "9240"},
    "set": {"fc1/kernel": "101b20", "output/kernel": "1640"},
    "static": {"fc1/kernel": "124920", "output/kernel": "9240"},
    "topkast": {"fc1/kernel": "24a140", "output/kernel": "b200"},
}


def test_each_rule_gives_its_golden_mask():
    found = {}
    random = np.random.default_rng(0)
    values = tree(lambda shape: jnp.asarray(random.normal(size=shape).astype(np.float32)))
    for name, rule in MASK_RULES.items():
        kept = {"fc1/kernel": 6, "output/kernel": 4}
        mask = tree(lambda shape: jnp.arange(math.prod(shape)).reshape(shape) % 3 == 0)
        mask["fc1"]["bias"] = jnp.ones(4, bool)
        mask["fc1"]["kernel"] = mask["fc1"]["kernel"].at[0, 0].set(False)
        if rule.starts_dense:
            mask = jax.tree.map(jnp.ones_like, mask)
        weights = values
        if not rule.trained:
            weights = jax.tree.map(lambda m, w: jnp.where(m, w, 0), mask, values)
        gradients = jax.tree.map(lambda w: w[::-1] ** 2, values)
        course = Course(kept, 0, 100, 400, 0.5)
        step = 200 if rule.starts_dense else 100
        new = rule.move(Move(mask, weights, gradients, step, jax.random.key(1), course))
        found[name] = {
            leaf: np.packbits(np.ravel(named_leaves(new)[leaf])).tobytes().hex() for leaf in LEAVES
        }
    assert found == GOLDEN
