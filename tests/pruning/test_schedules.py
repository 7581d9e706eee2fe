"""Invariant 13: the counts that a schedule foretells are those that pruning leaves."""

from fractions import Fraction

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from lth_jax.pruning.masks import kept_counts, ones_mask, prunable
from lth_jax.pruning.schedules import iterative
from lth_jax.pruning.selection import prune
from lth_jax.trees import named_leaves, size

PARAMS = {
    "fc1": {"bias": jnp.zeros(7), "kernel": jnp.zeros((11, 7))},
    "fc2": {"bias": jnp.zeros(5), "kernel": jnp.zeros((7, 5))},
    "output": {"kernel": jnp.zeros((5, 3))},
}
SIZES = {name: size(leaf) for name, leaf in named_leaves(PARAMS).items() if leaf.ndim >= 2}


@settings(max_examples=15)
@given(
    st.integers(1, 99),
    st.sampled_from([0.0, 0.5, 1.0, 0.1]),
    st.sampled_from(["layerwise", "global"]),
    st.integers(0, 2**32 - 1),
)
def test_the_schedule_counts_what_repeated_pruning_leaves(hundredths, multiple, scope, seed):
    rates = prunable(PARAMS, (("output", multiple),))
    sizes = {name: SIZES[name] for name in rates}
    expected = iterative(sizes, rates, hundredths / 100, scope=scope, levels=6)
    random, mask = np.random.default_rng(seed), ones_mask(PARAMS)
    measured = []
    for _ in range(7):
        measured.append(sum(kept for kept, _ in kept_counts(mask, rates).values()))
        scores = {
            layer: {
                name: jnp.asarray(random.normal(size=leaf.shape).astype(np.float32))
                for name, leaf in leaves.items()
            }
            for layer, leaves in PARAMS.items()
        }
        mask = prune(scores, mask, hundredths / 100, scope=scope, rates=rates)
    assert measured == expected
    assert all(type(count) is int for count in expected)


def test_lenet_300_100_has_the_papers_weights_left():
    sizes = {"fc1/kernel": 235_200, "fc2/kernel": 30_000, "output/kernel": 1_000}
    rates = {name: Fraction(1) for name in sizes} | {"output/kernel": Fraction(1, 2)}
    kept = iterative(sizes, rates, 0.2, scope="layerwise", levels=16)
    assert kept[:4] == [266_200, 213_060, 170_538, 136_512]
    # Frankle & Carbin 2019 name their levels 51.3%, 21.1%, 7.0% and 3.6%.
    percent = [round(100 * n / kept[0], 1) for n in kept]
    assert [percent[level] for level in (3, 7, 12, 15)] == [51.3, 21.1, 7.0, 3.6]


def test_an_unknown_scope_is_refused():
    with pytest.raises(ValueError, match="scope='x'"):
        iterative({"w": 4}, {"w": Fraction(1)}, 0.5, scope="x", levels=1)
