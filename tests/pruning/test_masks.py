"""Masks over any pytree, and what may be pruned."""

from fractions import Fraction
from typing import NamedTuple

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from lth_jax.pruning.masks import (
    apply_mask,
    density,
    exact,
    kept_counts,
    ones_mask,
    prunable,
    with_leaves,
)

PARAMS = {
    "fc1": {"bias": jnp.zeros(3), "kernel": jnp.zeros((2, 3))},
    "fc10": {"kernel": jnp.zeros((3, 3))},
    "norm": {"scale": jnp.ones(3)},
    "output": {"bias": jnp.zeros(2), "kernel": jnp.zeros((3, 2))},
}


class Pair(NamedTuple):
    left: object
    right: object


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3.0])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_apply_mask_lets_nothing_through(bad, dtype):
    leaf = jnp.asarray([1.0, bad, -2.0], dtype)
    masked = apply_mask({"w": leaf}, {"w": jnp.asarray([True, False, True])})["w"]
    assert masked.dtype == dtype
    assert masked.tolist() == [1.0, 0.0, -2.0]
    assert not np.signbit(np.asarray(masked, np.float32)[1])


def test_apply_mask_keeps_survivors_that_are_not_finite():
    masked = apply_mask(jnp.asarray([np.nan, np.inf]), jnp.ones(2, bool))
    assert np.isnan(masked[0])
    assert np.isinf(masked[1])


@pytest.mark.parametrize(
    "tree",
    [
        {"b": jnp.ones((2, 2)), "a": [jnp.ones(3), (jnp.ones(()),)]},
        Pair(jnp.ones((1, 2)), {"x": jnp.zeros((2, 0))}),
        jnp.ones((4, 4), jnp.bfloat16),
    ],
    ids=["nested", "namedtuple", "leaf"],
)
def test_a_mask_has_the_parameters_structure(tree):
    mask = ones_mask(tree)
    assert jax.tree.structure(mask) == jax.tree.structure(tree)
    for m, leaf in zip(jax.tree.leaves(mask), jax.tree.leaves(tree), strict=True):
        assert (m.shape, m.dtype) == (leaf.shape, bool)
        assert m.all()


def test_kernels_are_prunable_and_nothing_else_is():
    assert prunable(PARAMS) == dict.fromkeys(("fc1/kernel", "fc10/kernel", "output/kernel"), 1)


def test_the_first_pattern_that_matches_sets_a_layers_rate():
    rates = prunable(PARAMS, (("output", 0.5), ("*", 0.3)))
    assert rates == {
        "fc1/kernel": Fraction(3, 10),
        "fc10/kernel": Fraction(3, 10),
        "output/kernel": Fraction(1, 2),
    }
    assert list(rates) == sorted(rates), "the order decides ties: that of the leaves"


def test_a_pattern_names_whole_parts_of_a_path():
    assert prunable(PARAMS, (("fc1", 0.5),))["fc10/kernel"] == 1


def test_a_layer_of_rate_zero_is_not_prunable():
    assert list(prunable(PARAMS, (("fc*", 0),))) == ["output/kernel"]


def test_a_predicate_widens_what_may_be_pruned():
    rates = prunable(PARAMS, predicate=lambda name, _: name.endswith(("scale", "fc1/kernel")))
    assert list(rates) == ["fc1/kernel", "norm/scale"]


@pytest.mark.parametrize("pattern", ["fc3", "norm", "fc", "fc1/bias"])
def test_a_pattern_that_matches_nothing_prunable_is_an_error(pattern):
    with pytest.raises(ValueError, match=f"layer_rates: pattern '{pattern}'.*fc10/kernel"):
        prunable(PARAMS, ((pattern, 0.5),))


@pytest.mark.parametrize("params", [{"bias": jnp.zeros(3)}, {}])
def test_nothing_prunable_is_an_error(params):
    with pytest.raises(ValueError, match="nothing is prunable"):
        prunable(params)


def test_every_layer_at_rate_zero_is_an_error():
    with pytest.raises(ValueError, match="nothing is prunable"):
        prunable(PARAMS, (("*", 0),))


@given(st.decimals(0, 1, places=6))
def test_a_float_is_the_decimal_that_it_prints(decimal):
    assert exact(float(decimal)) == Fraction(decimal)


def test_density_is_kept_over_prunable():
    mask = ones_mask(PARAMS)
    mask["fc1"]["kernel"] = jnp.asarray([[True, False, False], [False, False, False]])
    mask["output"]["kernel"] = jnp.zeros((3, 2), bool)
    assert density(mask) == (1 + 9 + 0) / 21
    assert density(mask, {"fc1/kernel": Fraction(1)}) == 1 / 6
    counts = kept_counts(mask, prunable(mask))
    assert counts == {"fc1/kernel": (1, 6), "fc10/kernel": (9, 9), "output/kernel": (0, 6)}
    assert all(type(number) is int for pair in counts.values() for number in pair)


def test_with_leaves_replaces_only_what_it_names():
    changed = with_leaves({"a": 1, "b": [2, 3]}, {"b/1": 9})
    assert changed == {"a": 1, "b": [2, 9]}
