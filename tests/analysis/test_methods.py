"""Methods against one another: ranks, pairs with Holm's correction, and what each costs."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from lth_jax.analysis.intervals import holm
from lth_jax.analysis.methods import compare_methods
from lth_jax.analysis.verdicts import Standard
from lth_jax.config import from_config
from lth_jax.store.tables import TRUNK

from .score_rows import score_row, score_rows

SNIP = {"kind": "prune", "criterion": "snip"}
SPEC = from_config({
    "levels": 2, "branches": ("snip", "random_mask", "one_shot"), "branch": {"snip": SNIP},
})  # fmt: skip
NOISE = np.array([0.001, -0.002, 0.0005, 0.0015, -0.001])
SCORES = {
    TRUNK: [(0.98 + NOISE).tolist(), (0.97 + NOISE).tolist()],
    "snip": [(0.95 + NOISE[::-1]).tolist()],
    "random_mask": [(0.90 - 2 * NOISE).tolist()],
    "one_shot": [(0.9702 + 0.7 * NOISE[[1, 0, 3, 2, 4]]).tolist()],
}


def compared(scores=SCORES, spec=SPEC, **changes):
    rows = [dataclasses.replace(row, **changes) for row in score_rows(scores)]
    return compare_methods(rows, spec, Standard(resolution=0.0))


def test_methods_are_ranked_at_each_level_that_has_branches():
    (one,) = compared()
    assert one.level == 1
    assert [method.branch for method in one.methods] == ["one_shot", TRUNK, "snip", "random_mask"]
    assert [method.mean for method in one.methods] == pytest.approx([0.9702, 0.97, 0.95, 0.9])


def test_pairs_are_corrected_over_all_of_a_level():
    """Against SciPy's paired t-test, of each pair, and Holm's correction over all six."""
    (one,) = compared()
    values = {name: levels[-1] for name, levels in SCORES.items()}
    names = [method.branch for method in one.methods]
    pairs = list(itertools.combinations(range(4), 2))
    raw = [ttest_rel(values[names[a]], values[names[b]]).pvalue for a, b in pairs]
    for pair, wanted in zip(pairs, holm(raw), strict=True):
        assert one.pairs[pair].p_value == pytest.approx(wanted, rel=1e-6, abs=1e-12)
        assert one.pairs[pair].differs == (wanted <= 0.05)
    assert not one.pairs[0, 1].differs
    assert one.differing(3) == [0, 1, 2]
    assert one.differing(0) == [2, 3]


def test_less_is_better_where_the_metric_says_so():
    metric = Standard().metric._replace(name="loss", higher_is_better=False)
    rows = score_rows(SCORES)
    (one,) = compare_methods(rows, SPEC, Standard(metric=metric))
    assert one.methods[0].branch == "random_mask"
    assert all(pair.difference.mean >= 0 for pair in one.pairs.values())


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=2, max_size=5))
def test_the_better_rank_is_never_behind(values):
    names = [TRUNK, "a", "b", "c", "d"][: len(values)]
    scores = {name: [own] for name, own in zip(names, values, strict=True)}
    scores[TRUNK] = [scores[TRUNK][0], scores[TRUNK][0]]
    spec = from_config({"branches": tuple(names[1:]),
                        "branch": {name: {"kind": "reinit"} for name in names[1:]}})  # fmt: skip
    (one,) = compare_methods(score_rows(scores), spec, Standard())
    for (first, second), pair in one.pairs.items():
        assert pair.difference.mean >= -1e-12
        assert one.methods[first].mean >= one.methods[second].mean - 1e-12
        assert 0 <= pair.p_value <= 1


def test_one_replicate_ranks_and_says_nothing():
    (one,) = compared({name: [own[:1] for own in levels] for name, levels in SCORES.items()})
    assert not any(pair.differs for pair in one.pairs.values())
    assert math.isnan(one.methods[0].low)


def test_a_method_that_lacks_a_replicate_is_left_out_and_named():
    rows = score_rows(SCORES)
    rows = [row for row in rows if (row.branch, row.replicate) != ("snip", 4)]
    rows = [
        dataclasses.replace(row, diverged=100)
        if (row.branch, row.replicate) == ("random_mask", 0)
        else row
        for row in rows
    ]
    (one,) = compare_methods(rows, SPEC, Standard())
    assert set(one.left_out) == {"snip", "random_mask"}
    assert [method.branch for method in one.methods] == ["one_shot", TRUNK]


def costs(spec, rows, level):
    (one,) = [one for one in compare_methods(rows, spec, Standard()) if one.level == level]
    return {method.branch: method.cost for method in one.methods}


def test_a_method_costs_all_that_its_network_is_made_of():
    """The ticket every level before it, SNIP its own training alone, one-shot the dense network."""
    branches = ("snip", "random_mask", "one_shot", "learning_rate", "signs_of", "late")
    late = {"kind": "prune", "criterion": "snip", "scored": "trained"}
    spec = from_config({"levels": 2, "branches": branches, "branch": {"snip": SNIP, "late": late}})
    rows = [
        score_row(branch, level, replicate, 0.9, steps=10 ** level, last_step=10 ** level,
                  train_seconds=2.0 * 10 ** level, operations=3.0 * 10 ** level)
        for branch in (TRUNK, *branches)
        for level in range(3)
        if branch == TRUNK or level
        for replicate in range(2)
    ]  # fmt: skip
    found = costs(spec, rows, 2)
    wanted = {
        TRUNK: 111, "snip": 100, "random_mask": 100, "one_shot": 101, "learning_rate": 111,
        "signs_of": 211, "late": 101,
    }  # fmt: skip
    assert {name: cost.steps for name, cost in found.items()} == wanted
    for cost in found.values():
        assert cost.train_seconds == pytest.approx(2 * cost.steps)
        assert cost.operations == pytest.approx(3 * cost.steps)
    in_one_shot = dataclasses.replace(
        spec, pruning=dataclasses.replace(spec.pruning, schedule="one_shot")
    )
    assert costs(in_one_shot, rows, 2)[TRUNK].steps == 101


def test_a_late_rewind_point_costs_its_share_of_the_dense_network():
    rows = [
        score_row(branch, level, replicate, 0.9, steps=100 if not level else 75, last_step=100,
                  operations=1000.0)
        for branch in (TRUNK, "snip")
        for level in range(2)
        if branch == TRUNK or level
        for replicate in range(2)
    ]  # fmt: skip
    found = costs(SPEC, rows, 1)
    assert found["snip"].steps == 75 + 25
    assert found["snip"].operations == 1000 + 250
    assert found[TRUNK].steps == 175


def test_what_tables_of_earlier_versions_do_not_say_is_unknown():
    found = costs(SPEC, score_rows(SCORES), 1)
    assert all(math.isnan(cost.operations) for cost in found.values())
    assert found[TRUNK].steps == 2000
