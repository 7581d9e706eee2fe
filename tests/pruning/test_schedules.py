"""Invariant 13: the counts that a schedule foretells are those that pruning leaves."""

import itertools
import math
from fractions import Fraction

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from lth_jax.pruning.masks import kept_counts, ones_mask, prunable
from lth_jax.pruning.schedules import RATIOS, erdos_renyi, fractions_of, smart, targets, uniform
from lth_jax.pruning.selection import prune, prune_to, remove_lowest
from lth_jax.pruning.trees import named_leaves, size

PARAMS = {
    "fc1": {"bias": jnp.zeros(7), "kernel": jnp.zeros((11, 7))},
    "fc2": {"bias": jnp.zeros(5), "kernel": jnp.zeros((7, 5))},
    "output": {"kernel": jnp.zeros((5, 3))},
}
SIZES = {name: size(leaf) for name, leaf in named_leaves(PARAMS).items() if leaf.ndim >= 2}


def totals(sizes, rates, fraction, *, scope, levels):
    """Weights kept over all layers at levels 0 to `levels`."""
    shapes = {name: (size,) for name, size in sizes.items()}
    by_level = targets(shapes, rates, [fraction] * levels, scope=scope)
    return [sum(kept.values()) for kept in by_level]


@settings(max_examples=10)
@given(
    st.integers(1, 99),
    st.sampled_from([0.0, 0.5, 1.0, 0.1]),
    st.sampled_from(["layerwise", "global"]),
    st.integers(0, 2**32 - 1),
)
def test_the_schedule_counts_what_repeated_pruning_leaves(hundredths, multiple, scope, seed):
    rates = prunable(PARAMS, (("output", multiple),))
    sizes = {name: SIZES[name] for name in rates}
    expected = totals(sizes, rates, hundredths / 100, scope=scope, levels=6)
    random, mask = np.random.default_rng(seed), ones_mask(PARAMS)
    measured = []
    for _ in range(7):
        measured.append(sum(kept for kept, _ in kept_counts(mask, rates).values()))
        scores = {
            layer: {
                name: random.normal(size=leaf.shape).astype(np.float32)
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
    kept = totals(sizes, rates, 0.2, scope="layerwise", levels=16)
    assert kept[:4] == [266_200, 213_060, 170_538, 136_512]
    # Frankle & Carbin 2019 name their levels 51.3%, 21.1%, 7.0% and 3.6%.
    percent = [round(100 * n / kept[0], 1) for n in kept]
    assert [percent[level] for level in (3, 7, 12, 15)] == [51.3, 21.1, 7.0, 3.6]


def test_an_unknown_scope_is_refused():
    with pytest.raises(ValueError, match="scope='x'"):
        totals({"w": 4}, {"w": Fraction(1)}, 0.5, scope="x", levels=1)


# --- Targets --------------------------------------------------------------------------------


@st.composite
def networks(draw):
    """Kernel shapes of three layers, one of them a convolution."""
    width = st.integers(1, 9)
    conv = (draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(width), draw(width))
    return {"conv": conv, "fc1": (draw(width), draw(width)), "output": (draw(width), draw(width))}


FRACTIONS = st.lists(st.integers(1, 95).map(lambda n: Fraction(n, 100)), max_size=6)


def plain(shapes, output=Fraction(1)):
    return {name: Fraction(1) for name in shapes} | {"output": output}


def counts(level):
    """Weights kept by each group's names joined, and in all."""
    return {"+".join(names): count for names, count in level.items()}, sum(level.values())


@given(networks(), FRACTIONS, st.sampled_from(["layerwise", "global", *RATIOS]),
       st.sampled_from([1, 2]))  # fmt: skip
def test_targets_are_whole_nested_and_floored_in_every_group(shapes, fractions, scope, divisor):
    """Invariant 13: floor(fraction × multiple × surviving) weights go."""
    multiple = Fraction(1) if scope in RATIOS else Fraction(1, divisor)
    rates = plain(shapes, multiple)
    levels = targets(shapes, rates, fractions, scope=scope)
    assert len(levels) == len(fractions) + 1
    assert sum(levels[0].values()) == sum(math.prod(shape) for shape in shapes.values())
    assert {name for names in levels[0] for name in names} == set(shapes)
    for before, after, fraction in zip(levels, levels[1:], fractions, strict=False):
        assert after.keys() == before.keys()
        for names, kept in after.items():
            assert type(kept) is int
            assert 0 <= kept <= before[names], "a weight comes back"
            if scope not in RATIOS:
                rate = rates[names[0]]
                assert {rates[name] for name in names} == {rate}
                assert kept == before[names] - math.floor(fraction * rate * before[names])
                assert kept >= 1, "a fraction below 1 leaves every group a weight"
        if scope in RATIOS:
            total = sum(before.values())
            assert sum(after.values()) == total - math.floor(fraction * total)


@pytest.mark.parametrize(("scope", "groups"), [("layerwise", 3), ("global", 1), ("erdos_renyi", 3)])
def test_a_scope_says_what_is_ranked_together(scope, groups):
    shapes = {"conv": (3, 3, 1, 4), "fc1": (5, 4), "output": (4, 2)}
    levels = targets(shapes, plain(shapes), [Fraction(1, 2)], scope=scope)
    assert [len(level) for level in levels] == [groups, groups]


# --- Erdős–Rényi-kernel ---------------------------------------------------------------------


@given(networks(), st.floats(0, 1))
def test_erdos_renyi_shares_are_exact_capped_and_proportional(shapes, density):
    """Evci et al. 2020, §3: density proportional to (sum of the dimensions) / (their product)."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    total = round(density * sum(sizes.values()))
    kept = erdos_renyi(shapes, total)
    assert sum(kept.values()) == total
    assert all(type(kept[name]) is int for name in shapes)
    assert all(0 <= kept[name] <= sizes[name] for name in shapes)
    # What is not full keeps the sum of its dimensions times one number, give or take a weight.
    scales = {name: Fraction(kept[name], sum(shapes[name])) for name in shapes}
    rest = [name for name in shapes if kept[name] < sizes[name]]
    for one in rest:
        for other in shapes:
            slack = Fraction(1, sum(shapes[one])) + Fraction(1, sum(shapes[other]))
            assert scales[other] <= scales[one] + slack, "a full layer has more than its share"
            if other in rest:
                assert abs(scales[one] - scales[other]) <= slack


def test_erdos_renyi_of_lenet_by_hand():
    shapes = {"fc1": (784, 300), "fc2": (300, 100), "output": (100, 10)}
    # Of 266,200: 1084 : 400 : 110, which sum to 1594.
    assert erdos_renyi(shapes, 7970) == {"fc1": 5420, "fc2": 2000, "output": 550}
    # At a fifth the output layer is full (1,000 of 3,674), and the rest is shared 1084 : 400:
    # 38,159.1 and 14,080.9.
    assert erdos_renyi(shapes, 53_240) == {"fc1": 38_159, "fc2": 14_081, "output": 1000}
    assert erdos_renyi(shapes, 0) == {"fc1": 0, "fc2": 0, "output": 0}
    assert erdos_renyi(shapes, 266_200) == {"fc1": 235_200, "fc2": 30_000, "output": 1000}


def test_erdos_renyi_kernel_counts_the_kernels_own_dimensions():
    """A 3×3 convolution of 4 to 8 channels weighs 3 + 3 + 4 + 8."""
    shapes = {"conv": (3, 3, 4, 8), "fc": (30, 42)}
    assert erdos_renyi(shapes, 90) == {"conv": 18, "fc": 72}


def test_erdos_renyi_takes_no_rates_but_one():
    shapes = {"fc1": (4, 4), "output": (4, 2)}
    with pytest.raises(ValueError, match=r"layer_rates: output has multiple 0\.5; accepted under"):
        targets(shapes, plain(shapes, Fraction(1, 2)), [Fraction(1, 2)], scope="erdos_renyi")
    (_, level) = targets(shapes, {"fc1": Fraction(1)}, [Fraction(1, 2)], scope="erdos_renyi")
    assert level == {("fc1",): 8}, "a layer that stays dense counts nowhere"


# --- Smart and uniform ratios ---------------------------------------------------------------


@given(networks(), st.floats(0, 1), st.sampled_from(sorted(RATIOS)))
def test_every_ratio_gives_out_all_and_to_no_layer_more_than_it_has(shapes, density, name):
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    total = round(density * sum(sizes.values()))
    kept = RATIOS[name](shapes, total)
    assert list(kept) == list(shapes) or kept.keys() == shapes.keys()
    assert sum(kept.values()) == total
    assert all(type(kept[name]) is int and 0 <= kept[name] <= sizes[name] for name in shapes)


def test_smart_ratios_of_lenet_by_hand():
    """Su et al. 2020, §4.2: (L - l + 1)² + (L - l + 1) of each but the output, which keeps 0.3."""
    shapes = {"fc1": (784, 300), "fc2": (300, 100), "output": (100, 10)}
    # 13,310 - 300 = 13,010 weights, shared 6 × 235,200 to 2 × 30,000.
    assert smart(shapes, 13_310) == {"fc1": 12_479, "fc2": 531, "output": 300}
    # The two are full from 265,500 on, and the output takes the rest.
    assert smart(shapes, 266_000) == {"fc1": 235_200, "fc2": 30_000, "output": 800}
    assert smart(shapes, 100) == {"fc1": 0, "fc2": 0, "output": 100}


def test_layers_are_in_the_order_of_their_numbers():
    shapes = {f"conv{n}": (10, 100) for n in (1, 10, 2)} | {"output": (10, 10)}
    kept = smart(shapes, 530)
    assert kept == {"conv1": 300, "conv2": 150, "conv10": 50, "output": 30}


def test_uniform_ratios_give_all_layers_one_density():
    shapes = {"fc1": (784, 300), "fc2": (300, 100), "output": (100, 10)}
    assert uniform(shapes, 26_620) == {"fc1": 23_520, "fc2": 3_000, "output": 100}


# --- Densities ------------------------------------------------------------------------------


def test_densities_are_reached_from_one_to_the_next():
    densities = (0.5, 0.2, 0.1, 0.01)
    fractions = fractions_of(densities)
    assert fractions == [Fraction(1, 2), Fraction(3, 5), Fraction(1, 2), Fraction(9, 10)]
    levels = targets({"fc": (100, 100)}, {"fc": Fraction(1)}, fractions, scope="layerwise")
    assert [counts(level)[1] for level in levels] == [10_000, 5000, 2000, 1000, 100]


@pytest.mark.parametrize(
    "densities", [(1.0,), (0.0,), (0.5, 0.5), (0.2, 0.5), (1.5,), (-0.1,), (0.5, 0.0)]
)
def test_densities_that_do_not_fall_are_refused(densities):
    with pytest.raises(ValueError, match=r"densities: .* accepted: falling numbers"):
        fractions_of(densities)


# --- Pruning to targets ---------------------------------------------------------------------

MASK = ones_mask(PARAMS)
KERNELS = tuple(SIZES)


def noise_scores(seed):
    random = np.random.default_rng(seed)
    return {
        layer: {
            name: jnp.asarray(random.normal(size=leaf.shape).astype(np.float32))
            for name, leaf in leaves.items()
        }
        for layer, leaves in PARAMS.items()
    }


@settings(max_examples=20)
@given(st.integers(1, 12), st.lists(st.floats(0, 1), min_size=3, max_size=3),
       st.integers(0, 2**16), st.booleans())  # fmt: skip
def test_any_number_of_rounds_ends_at_the_targets(rounds, shares, seed, together):
    """Nested from round to round, with scores taken anew under the mask so far."""
    if together:
        aims = {KERNELS: int(shares[0] * sum(SIZES.values()))}
    else:
        aims = {(n,): int(share * SIZES[n]) for n, share in zip(KERNELS, shares, strict=True)}
    seen = []

    def scores(mask):
        seen.append(mask)
        return noise_scores(seed + len(seen))

    found = prune_to(scores, MASK, aims, rounds=rounds)
    assert len(seen) == rounds
    for names, kept in aims.items():
        assert sum(int(np.asarray(named_leaves(found)[name]).sum()) for name in names) == kept
    assert all(leaf.all() for leaf in leaves_of(seen[0]))
    for before, after in itertools.pairwise([*seen, found]):
        for old, new in zip(leaves_of(before), leaves_of(after), strict=True):
            assert not np.any(new & ~old), "a pruned weight came back"
    assert found["fc1"]["bias"].all()


def leaves_of(mask):
    return [np.asarray(leaf) for leaf in named_leaves(mask).values()]


def test_one_round_is_removing_the_lowest():
    scores, aims = noise_scores(0), {("fc1/kernel",): 30, ("fc2/kernel",): 35}
    once = remove_lowest(scores, MASK, {("fc1/kernel",): 77 - 30, ("fc2/kernel",): 0})
    for given_scores in (scores, lambda mask: scores):
        found = prune_to(given_scores, MASK, aims)
        for old, new in zip(leaves_of(once), leaves_of(found), strict=True):
            np.testing.assert_array_equal(old, new)


def test_rounds_go_the_same_share_of_the_way():
    """The exponential schedule of Tanaka et al. 2020: 4 rounds to a sixteenth halve four times."""
    mask, kept = {"w": jnp.ones((8, 20), bool)}, []

    def scores(mask):
        kept.append(int(mask["w"].sum()))
        return {"w": jnp.arange(160.0).reshape(8, 20)}

    found = prune_to(scores, mask, {("w",): 10}, rounds=4)
    assert [*kept, int(found["w"].sum())] == [160, 80, 40, 20, 10]


def test_rescoring_keeps_a_layer_alive_that_one_round_cuts_off():
    """SynFlow's point: flow through the last weights grows as their neighbours go."""
    mask = {"a": jnp.ones((1, 4), bool), "b": jnp.ones((1, 4), bool)}

    def scores(mask):
        # Each layer's score is the number that the other has left, over its own.
        left = {name: jnp.sum(leaf) for name, leaf in mask.items()}
        return {
            "a": jnp.full((1, 4), left["b"] / jnp.maximum(left["a"], 1) * 0.9),
            "b": jnp.full((1, 4), left["a"] / jnp.maximum(left["b"], 1)),
        }

    once = prune_to(scores, mask, {("a", "b"): 4})
    assert [int(once[name].sum()) for name in "ab"] == [0, 4]
    often = prune_to(scores, mask, {("a", "b"): 4}, rounds=100)
    assert [int(often[name].sum()) for name in "ab"] == [2, 2]


def test_targets_above_what_survives_are_refused():
    with pytest.raises(ValueError, match=r"cannot remove -1 of 2 weights of w"):
        prune_to({"w": jnp.ones((1, 2))}, {"w": jnp.ones((1, 2), bool)}, {("w",): 3})


def test_nothing_left_to_prune_in_rounds_is_no_error():
    empty = {"w": jnp.zeros((2, 2), bool)}
    found = prune_to({"w": jnp.ones((2, 2))}, empty, {("w",): 0}, rounds=5)
    assert not found["w"].any()
